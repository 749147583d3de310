"""A method on a base: attach it, switch it off, build its optimizer, take it off again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer

from rlvr_lite.config import AdapterConfig, scale_of
from rlvr_lite.errors import UserError
from rlvr_lite.methods._attachment import Attachment, attachment, carries_method, remember, tensors
from rlvr_lite.methods._hash import base_hash, tensors_hash
from rlvr_lite.methods._hosting import check_hosting
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._optimizers import adamw
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._resolve import check_fits, check_precision, resolve
from rlvr_lite.methods._spec import Build, Method
from rlvr_lite.methods._structure import differences

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "after_backward",
    "attach",
    "attach_blank",
    "detach",
    "disabled",
    "merge",
    "optimizer",
    "penalty",
    "precision_of",
]


logger = logging.getLogger(__name__)


def precision_of(model: nn.Module) -> str:
    """The precision a base is loaded in: fp32, bf16, fp16 or nf4."""
    if any(type(module).__name__ == "Linear4bit" for module in model.modules()):
        return "nf4"
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32")


def attach(model: nn.Module, name: str, adapter: AdapterConfig, *, total_steps: int, seed: int) -> nn.Module:
    """Put a method on a frozen base.

    Args:
        model: the base; its weights are frozen and, but by methods that say so (``writes_base``), never written to.
        name: of the method.
        adapter: its size and place; missing values take the defaults for the base's scale.
        total_steps: optimizer steps of the whole run, for methods with a schedule.
        seed: of the random part of the start; the global random state is left alone.

    Returns:
        A ``PeftModel`` in evaluation mode with fp32 adapter weights; or, of a method that trains the base, the model itself.

    Raises:
        UserError: the method does not exist, does not use a setting, cannot sit on this base, or does not fit it.
    """
    return _attach(model, name, adapter, total_steps=total_steps, seed=seed, blank=False)


def attach_blank(model: nn.Module, name: str, adapter: AdapterConfig, *, total_steps: int, seed: int) -> nn.Module:
    """As :func:`attach`, but costly starts are left out because saved weights will be loaded over them."""
    return _attach(model, name, adapter, total_steps=total_steps, seed=seed, blank=True)


def _attach(
    model: nn.Module, name: str, adapter: AdapterConfig, *, total_steps: int, seed: int, blank: bool
) -> nn.Module:
    method = get(name)
    if carries_method(model):
        raise UserError("the model already carries a method: detach it, or load the base again")
    if total_steps < 1:
        raise UserError(f"total_steps must be at least 1, got {total_steps}")
    check_precision(name, precision_of(model))
    layout = Layout.of_model(model)
    adapter = resolve(name, adapter, scale_of(layout.parameters), layout)
    check_fits(name, adapter, layout)
    host = getattr(model, "_rlvr_lite_host", None)  # of a base that another library's kernels run
    hosting = None if host is None else check_hosting(name, precision_of(model), adapter)
    if host is not None:
        host.clear(model)
    base_names = frozenset(n for n, _ in tensors(model))
    digest = base_hash(model)
    frozen = "" if method.trains_base else tensors_hash(dict(tensors(model)))
    _keep_weights_in_place(model)
    build = Build(adapter=adapter, layout=layout, total_steps=total_steps, seed=seed, blank=blank)
    with _seeded(model, seed):
        try:
            attached = method.build(model, build)
        except (ValueError, NotImplementedError, TypeError) as error:  # PEFT knows layers that it cannot adapt
            raise UserError(f"{name} cannot sit on this base ({error}): name other targets") from error
    remember(attached, Attachment(name, build, base_names, digest, frozen))
    attached.eval()
    _check_structure(attached, method, build)
    if host is not None and hosting is not None:
        host.settle(attached, fuse=hosting.plain_lora)
    return attached


def _check_structure(attached: nn.Module, method: Method, build: Build) -> None:
    """Refuse at once what the proof would find after the run, and say which matrices of the base carry no adapter."""
    wrong = differences(attached, method, build.layout, build.adapter)
    if wrong:
        if not method.writes_base:
            detach(attached)
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise UserError(
            f"{method.name} does not train on this base what its name says: {wrong[0]}{more}; name other targets"
        )
    bare = build.layout.without_adapter(build.adapter.targets) if build.adapter.targets else {}
    if bare:
        logger.warning(
            "%s leaves matrices of the blocks without an adapter: %s",
            method.name,
            ", ".join(f"{n} x {name}" for name, n in bare.items()),
        )


def detach(model: nn.Module) -> nn.Module:
    """The base without its method, bit for bit as it was before :func:`attach`.

    Raises:
        UserError: the method trains the base, and leaves none.
    """
    found = attachment(model)
    if get(found.method).trains_base:
        raise UserError(f"{found.method} changed the base itself: load the base again")
    base: Any = model.get_base_model()  # type: ignore[operator]
    model.base_model.disable_adapter_layers()  # type: ignore[operator, union-attr]
    for name, module in [*base.named_modules()]:
        if isinstance(module, BaseTunerLayer):
            parent, _, child = name.rpartition(".")
            setattr(base.get_submodule(parent), child, module.get_base_layer())
    _forget_adapter(base)
    return base


def merge(model: nn.Module) -> nn.Module:
    """Fold the update into the base's weights and return the plain model, in fp32; the attached model is used up.

    Raises:
        UserError: the base is held in 4 bits, or the method has nothing that could be folded.
    """
    found = attachment(model)
    if not get(found.method).mergeable:
        raise UserError(f"{found.method} has no separate update to fold into the base: save the model as it is")
    if precision_of(model) == "nf4":
        raise UserError(
            "merging into 4-bit weights rounds small updates away (0.8 to 1.0 of the effect of a short run):"
            " load the adapter on a bf16 or fp32 base and merge there"
        )
    # transformers leaves this mark on a model it has dequantised, and PEFT goes by it.
    model.get_base_model().is_loaded_in_4bit = False  # type: ignore[operator]
    merged: nn.Module = model.float().merge_and_unload()  # type: ignore[operator]
    _forget_adapter(merged)
    return merged


@contextlib.contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Within this context the model is the frozen base policy.

    PEFT makes adapter tensors trainable when it switches them back on; which were trainable before is put back here.

    Raises:
        UserError: the method trains the base, and keeps none.
    """
    name = attachment(model).method
    if get(name).trains_base:
        raise UserError(f"{name} trains the base and keeps none beside it: load the base anew, or use an adapter")
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with model.disable_adapter():  # type: ignore[operator]
            yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def optimizer(
    model: nn.Module, name: str, learning_rate: float, weight_decay: float = 0.0, *, eight_bit: bool = False
) -> torch.optim.Optimizer:
    """The method's optimizer over the model's trainable tensors; every parameter group has a ``name``.

    Args:
        model: that the method is attached to.
        name: of the method.
        learning_rate: of every group, but where the method says otherwise.
        weight_decay: on matrices.
        eight_bit: hold Adam's moments in 8 bits, paged out under pressure (bitsandbytes), instead of in fp32.

    Raises:
        UserError: the model carries another method, or 8 bits are asked for on a CPU.
    """
    carried = attachment(model).method
    if carried != name:
        raise UserError(f"the model carries {carried}, not {name}: ask for the optimizer of {carried}")
    return (get(name).optimizer or adamw)(model, learning_rate, weight_decay, eight_bit)


def penalty(model: nn.Module, name: str) -> Tensor | None:
    """What method ``name`` adds to the loss of ``model``: a scalar, or ``None`` if it adds nothing."""
    return get(name).penalty(model)


def after_backward(model: nn.Module, name: str, step: int) -> None:
    """What method ``name`` does to ``model`` between ``optimizer.step()`` and ``zero_grad()`` of ``step`` (from 1)."""
    get(name).after_backward(model, step)


def _forget_adapter(base: nn.Module) -> None:
    for name in ("peft_config", "_hf_peft_config_loaded"):
        with contextlib.suppress(AttributeError):
            delattr(base, name)


@contextlib.contextmanager
def _seeded(model: nn.Module, seed: int) -> Iterator[None]:
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _keep_weights_in_place(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights on CPUs with AVX512_BF16, after which gradients are wrong."""
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            if getattr(module.weight.quant_state, "packing_format_for_cpu", False):
                raise UserError(f"{name} was repacked for inference and cannot be trained: load the base again")
            module.support_avx512bf16_for_cpu = False
