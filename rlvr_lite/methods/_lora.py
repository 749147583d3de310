"""The LoRA family: one builder and one written expectation that its members share."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import TYPE_CHECKING, Any

from rlvr_lite.config import AdapterConfig, Option
from rlvr_lite.errors import UserError
from rlvr_lite.methods._layout import Layout, Linear
from rlvr_lite.methods._spec import Build, Shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch import nn

__all__ = [
    "ADAPTER",
    "DROPOUT",
    "DROPOUT_ALLOWED",
    "PREFIX",
    "as_own",
    "attach_config",
    "block_size",
    "build_lora",
    "expected_anchored",
    "expected_lora",
    "lora_layers",
    "lora_scale",
    "moved_by_peft",
    "per_target",
    "rslora_scale",
    "swapped",
]

#: Name of the one adapter a model carries, and what PEFT puts before the names of the base.
ADAPTER = "default"
PREFIX = "base_model.model."
#: Option of the methods whose published runs had it: share of the adapter's inputs that is dropped while scoring.
DROPOUT: dict[str, Option] = {"dropout": 0.0}
DROPOUT_ALLOWED: dict[str, tuple[float, float]] = {"dropout": (0.0, 0.9)}


def lora_scale(alpha: float, r: int) -> float:
    """``alpha / r`` (LoRA, arXiv 2106.09685, §4.1).

    >>> lora_scale(64, 32)
    2.0
    """
    return alpha / r


def rslora_scale(alpha: float, r: int) -> float:
    """``alpha / sqrt(r)`` (rsLoRA, arXiv 2312.03732, Theorem 3.2).

    >>> rslora_scale(8, 16)
    2.0
    """
    return alpha / math.sqrt(r)


def attach_config(model: nn.Module, config: Any) -> nn.Module:
    """Put a PEFT adapter with fp32 weights on the base."""
    from peft import get_peft_model
    from peft.utils import transformers_weight_conversion as conversion

    # PEFT would move targets called gate_proj, up_proj or down_proj in a mixture of experts to its fused experts.
    with warnings.catch_warnings(), swapped(conversion, "_convert_peft_config_moe", lambda *_: None):
        # PEFT 0.21 asks transformers 5.23 for an attribute by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(model, config, adapter_name=ADAPTER, autocast_adapter_dtype=True)


@contextlib.contextmanager
def swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another ``owner.name`` for the time of a call into PEFT."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def as_own(model: nn.Module, theirs: type[nn.Module], ours: type[nn.Module]) -> None:
    """Give every layer of PEFT's class our own forward."""
    for module in model.modules():
        if isinstance(module, theirs):
            module.__class__ = ours


def moved_by_peft(model: nn.Module, targets: Iterable[str]) -> list[str]:
    """Targets that PEFT takes for the fused experts of a mixture when it loads an adapter, whatever was adapted.

    Args:
        model: a base without an adapter.
        targets: of the adapter.
    """
    from peft import LoraConfig
    from peft.utils import transformers_weight_conversion as conversion

    config = LoraConfig(target_modules=list(targets))
    try:
        conversion.convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # it wants all of the experts' projections
        return sorted(targets)
    return sorted(set(targets) - set(config.target_modules or ()))


def build_lora(model: nn.Module, build: Build, **options: Any) -> nn.Module:
    """A PEFT LoRA of the asked rank on the asked layers; ``options`` go to ``LoraConfig``.

    Dropout acts on what goes into A in training mode only, so never while sampling.
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=build.rank,
        # A whole number stays one on disk, where other loaders insist on it.
        lora_alpha=int(build.alpha) if build.alpha == int(build.alpha) else build.alpha,
        target_modules=build.targets,
        lora_dropout=float(build.adapter.options.get("dropout", 0.0)),
        bias="none",
        fan_in_fan_out=any(linear.transposed for linear in build.layout.targets(build.targets).values()),
        task_type="CAUSAL_LM",
        **options,
    )
    return attach_config(model, config)


def per_target(layout: Layout, adapter: AdapterConfig, shapes: Callable[[int, int], Shapes]) -> Shapes:
    """Names and shapes of trainable tensors from what one layer of ``(out, inp)`` gets."""
    assert adapter.targets is not None
    return {
        f"{PREFIX}{full}.{name}": shape
        for full, layer in layout.targets(adapter.targets).items()
        for name, shape in shapes(layer.out, layer.inp).items()
    }


def expected_lora(layout: Layout, adapter: AdapterConfig) -> Shapes:
    """``A [r, inp]`` and ``B [out, r]`` on every target."""
    r = adapter.rank
    assert r is not None
    return per_target(
        layout,
        adapter,
        lambda out, inp: {f"lora_A.{ADAPTER}.weight": (r, inp), f"lora_B.{ADAPTER}.weight": (out, r)},
    )


def expected_anchored(layout: Layout, adapter: AdapterConfig) -> Shapes:
    """``A [r, inp]`` and ``B [out, r]`` under the names they have inside the anchored pair."""
    r = adapter.rank
    assert r is not None
    return per_target(
        layout,
        adapter,
        lambda out, inp: {f"lora_A.{ADAPTER}.live": (r, inp), f"lora_B.{ADAPTER}.live": (out, r)},
    )


def block_size(
    name: str, layout: Layout, adapter: AdapterConfig, sides: Callable[[Linear], tuple[int, ...]], most: int
) -> int:
    """The option ``block_size``, or if it is 0 the largest power of two up to ``most`` that divides every side.

    Raises:
        UserError: the size asked for does not divide a side of some target, or none but 1 would.
    """
    assert adapter.targets is not None
    asked = int(adapter.options["block_size"])
    layers = layout.targets(adapter.targets)
    size = asked or math.gcd(most, *(side for layer in layers.values() for side in sides(layer)))
    for full, layer in layers.items():
        if size < 2 or any(side % size for side in sides(layer)):
            raise UserError(
                f"block_size {size} of {name} must divide {full} ({layer.out} x {layer.inp}): choose another"
            )
    return size


def lora_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every layer that carries a LoRA, with its name in the base."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name.removeprefix(PREFIX), module
