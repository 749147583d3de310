"""What a block holds beside its weights, counted on fake tensors: eager scores, states, experts and gates as they are."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from rlvr_lite.analysis import meter
from rlvr_lite.bases._examine import blank, config_object

if TYPE_CHECKING:
    from rlvr_lite.analysis.memory import Shape

__all__ = ["block_list", "with_activations"]

_LENGTHS = (256, 1024)  # as far as the base has positions
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def block_list(backbone: nn.Module) -> tuple[str, list[nn.Module]]:
    """Name and blocks of a decoder: the list of modules that holds most numbers."""
    lists = [(name, m) for name, m in backbone.named_modules() if isinstance(m, nn.ModuleList)]
    name, blocks = max(lists, key=lambda x: sum(p.numel() for p in x[1].parameters()), default=("", nn.ModuleList()))
    return name, list(blocks)


def with_activations(shape: Shape, size: int) -> Shape:
    """A shape with the bytes of a block's activations for T tokens of a row: ``a T + b T^2`` without gradients and
    ``c T + d T^2`` in the backward pass, recomputed. Inputs of blocks and adapters are not counted.

    Args:
        shape: of a base.
        size: bytes of an activation, 2 or 4.

    Returns:
        The shape with (a, b, c, d) of that size beside what it had; as it is where a group shares its prompt, whose blocks are
        those of a Llama, and where the architecture does not run on fake tensors.
    """
    name = "fp32" if size == 4 else "bf16"
    known = dict(shape.activations or {})
    if shape.packs or name in known:
        return shape
    found = _counted(json.dumps(dict(shape.config), sort_keys=True, default=str), name)
    return shape if found is None else replace(shape, activations=known | {name: found})


@lru_cache(maxsize=64)
def _counted(config: str, name: str) -> tuple[float, float, float, float] | None:
    try:
        with _quiet():
            return _fit(_peaks(config_object("base", json.loads(config)), _DTYPES[name]))
    except Exception:  # whatever an architecture does with numbers that are not there
        return None


def _fit(peaks: dict[int, tuple[int, int]]) -> tuple[float, float, float, float]:
    """Lines through bytes a token at two lengths; where these fall, the longer one holds from there on."""
    (short, first), (long, last) = peaks.items()
    found: list[float] = []
    for less, more in zip(first, last, strict=True):
        slope = max(0.0, (more / long - less / short) / (long - short))
        found += [round(more / long - slope * long, 3), round(slope, 3)]
    return found[0], found[1], found[2], found[3]


def _peaks(config: Any, dtype: torch.dtype) -> dict[int, tuple[int, int]]:
    from rlvr_lite.grpo import feed, output_head, position_limit, remove_dropout

    limit = position_limit(config)[0] or _LENGTHS[1]
    model = blank(config, dtype=dtype)
    remove_dropout(model)
    backbone = output_head(model).backbone
    blocks = _shorten(backbone)
    found = {}
    half = torch.autocast("cpu", dtype=dtype) if dtype != torch.float32 else nullcontext()
    with FakeTensorMode(allow_non_fake_inputs=True), half:
        meter.materialise(model)
        model.requires_grad_(False)
        for length in _LENGTHS if limit >= _LENGTHS[1] else (limit // 4, limit):
            count = meter.Meter()
            with count.phase("load"):
                for tensor in [*backbone.parameters(), *backbone.buffers()]:
                    count.add(tensor)
                held = sum(count.now.values())
            with unset_fake_temporarily():
                ids = torch.ones(1, length, dtype=torch.long)
                mask, place = torch.ones_like(ids), torch.arange(length)[None]
                mask[0, 0] = 0  # as prompts are padded
            with count.phase("plain"), torch.no_grad():
                model.eval()
                kept = feed(backbone, ids, mask, place).untyped_storage().nbytes()
            with count.phase("forward"), _recomputed(model, count, blocks):
                hidden = feed(backbone, ids, mask, place)
            with count.phase("backward"), _recomputed(model, count, blocks):
                hidden.sum().backward()
            del hidden
            inside = [
                count.peaks[str(n)]["total"] - (n + 1) * kept for n in range(len(blocks)) if str(n) in count.peaks
            ]
            found[length] = count.peaks["plain"]["total"] - held - 2 * kept, max(inside) - held
    return found


def _shorten(backbone: nn.Module) -> list[nn.Module]:
    """Leave as many blocks as it takes to have one of each kind."""
    name, blocks = block_list(backbone)
    kinds: list[Any] = [
        (
            getattr(b, "attention_type", None),
            *((n, type(m), *(p.shape for p in m.parameters(False))) for n, m in b.named_modules()),
        )
        for b in blocks
    ]
    last = max(kinds.index(kind) for kind in kinds)
    parent, _, child = name.rpartition(".")
    setattr(backbone.get_submodule(parent), child, nn.ModuleList(blocks[: last + 1]))
    return blocks[: last + 1]


@contextmanager
def _recomputed(model: Any, count: meter.Meter, blocks: list[nn.Module]) -> Iterator[None]:
    """Activations of blocks are recomputed in the backward pass, in which each is a phase of its own."""
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def start(number: int) -> Any:
        def enter(*_: Any) -> None:
            count.enter(str(number))

        return enter

    def learn(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return output.requires_grad_()

    hooks: list[Any] = [model.get_input_embeddings().register_forward_hook(learn)]
    for number, block in enumerate(blocks):
        hooks += [m.register_forward_pre_hook(start(number)) for m in block.modules() if m is not block]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of kernels that are missing, nor of what does not run on fake tensors: nothing is computed."""
    said = {"transformers": logging.ERROR, "torch._subclasses.fake_tensor": logging.CRITICAL}
    before = {name: logging.getLogger(name).level for name in said}
    for name, level in said.items():
        logging.getLogger(name).setLevel(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
