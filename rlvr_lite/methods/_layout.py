"""Shapes of a causal language model, without its weights: what an adapter can sit on and how large it becomes."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from rlvr_lite.config import ALL_LINEAR, LINEAR_LAYERS
from rlvr_lite.errors import UserError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DEEPSEEK_R1_DISTILL_QWEN_1_5B", "Layout", "Linear", "matches"]


@dataclass(frozen=True)
class Linear:
    """Shape of a linear layer: ``y [.., out] = W [out, inp] x + bias``; ``transposed`` if W is held as ``[inp, out]``."""

    out: int
    inp: int
    bias: bool = False
    transposed: bool = False

    @property
    def sides(self) -> tuple[int, int]:
        """Both."""
        return self.out, self.inp


@dataclass(frozen=True)
class Layout:
    """Shapes of a base model.

    Attributes:
        linears: every linear layer of the transformer blocks that an adapter can act in, by its full name; not routers
            with a forward pass of their own, nor layers whose weight the block reads itself, past an adapter.
        norms: width of every normalisation layer, by its full name.
        tensors: shape of every parameter, by its full name.
    """

    linears: Mapping[str, Linear]
    norms: Mapping[str, int]
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        """Number of parameters of the base; tied ones count once."""
        return sum(_product(shape) for shape in self.tensors.values())

    def targets(self, names: Sequence[str]) -> dict[str, Linear]:
        """The linear layers whose name ends in one of ``names``, in model order; ``all-linear`` is those of the blocks.

        Of these, layers of fewer than 8 outputs, or of less than a 32nd of their inputs, are left out: gates that give a
        number a head or an expert, in which a low rank has no room.

        Raises:
            UserError: a name matches no linear layer of this base.
        """
        if not self.linears:
            raise UserError("this base has no linear layers an adapter could sit on: choose another base, or full")
        for name in names:
            if name != ALL_LINEAR and not any(matches(full, name) for full in self.linears):
                known = ", ".join(dict.fromkeys(full.rpartition(".")[2] for full in self.linears))
                held = any(matches(tensor, f"{name}.weight") for tensor in self.tensors)
                what = "is no layer an adapter can act in" if held else "matches no linear layer"
                raise UserError(f"target {name!r} {what} on this base: choose among {known}")
        everywhere = self._blocks() if ALL_LINEAR in names else set()
        return {f: s for f, s in self.linears.items() if f in everywhere or any(matches(f, name) for name in names)}

    def _blocks(self) -> set[str]:
        inside = {full for full in self.linears if any(part.isdigit() for part in full.split("."))} or set(self.linears)
        wide = {f for f in inside if min(s := self.linears[f].sides) >= max(8, max(s) / 32)}
        return wide or inside

    def names(self, names: Sequence[str]) -> tuple[str, ...]:
        """``names`` with what this base calls them in place of ``all-linear``: the last parts, or more where these are not enough.

        Raises:
            UserError: a name matches no linear layer of this base.
        """
        if ALL_LINEAR not in names:
            return tuple(names)
        return self.shortest(self.targets(names))

    def shortest(self, wanted: Iterable[str]) -> tuple[str, ...]:
        """The shortest names that match the linear layers ``wanted``, by their full names, and no other module."""
        wanted = dict.fromkeys(wanted)
        parts = [tensor.split(".") for tensor in self.tensors]
        modules = {".".join(found[:n]) for found in parts for n in range(1, len(found))}  # blocks end in numbers too
        taken = {end for other in (modules | set(self.linears)) - set(wanted) for end in _ends(other)}

        return tuple(dict.fromkeys(next((end for end in _ends(full) if end not in taken), full) for full in wanted))

    def without_adapter(self, names: Sequence[str]) -> dict[str, int]:
        """Matrices of the blocks that carry no adapter on targets ``names``: how many, by name within the block."""
        carried = {f"{full}.weight" for full in self.targets(names)}
        norms = {f"{full}.weight" for full in self.norms}
        left: Counter[str] = Counter()
        for tensor, shape in self.tensors.items():
            parts = tensor.split(".")
            places = [i for i, part in enumerate(parts) if part.isdigit()]
            if len(shape) > 1 and places and tensor not in carried | norms and not tensor.endswith("bias"):
                left[".".join(parts[places[0] + 1 :]).removesuffix(".weight")] += 1
        return dict(left)

    def in_4_bits(self) -> Layout:
        """The same once loaded in nf4, where no weight is held transposed."""
        return replace(self, linears={n: replace(linear, transposed=False) for n, linear in self.linears.items()})

    @classmethod
    def of_config(cls, config: Any) -> Layout:
        """The layout of a transformers configuration; no weight is made."""
        import torch
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            # In its own type transformers would change torch's default one meanwhile, under the feet of other threads.
            return cls.of_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32))

    @classmethod
    def of_model(cls, model: nn.Module) -> Layout:
        """The layout of a model without an adapter; 4-bit weights count with the shape they stand for."""
        from torch import nn
        from transformers.pytorch_utils import Conv1D

        head = getattr(model, "get_output_embeddings", lambda: None)()
        linears, norms = {}, {}
        modules = dict(model.named_modules())
        for name, module in modules.items():
            parent, _, child = name.rpartition(".")
            if isinstance(module, nn.Linear):
                if module is head or not _called(module, modules[parent], child):
                    continue
                linears[name] = Linear(module.out_features, module.in_features, module.bias is not None)
            elif isinstance(module, Conv1D):
                linears[name] = Linear(module.nf, module.nx, True, transposed=True)
            elif "norm" in type(module).__name__.lower() and getattr(module, "weight", None) is not None:
                kind: type = type(modules[parent])
                if child not in _read_by(kind):  # as Mamba's mixers do with the norm of their gate
                    norms[name] = module.weight.numel()
        tensors = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        held = {n: (s.inp, s.out) if s.transposed else (s.out, s.inp) for n, s in linears.items()}
        tensors |= {f"{n}.weight": shape for n, shape in held.items() if f"{n}.weight" in tensors}
        return cls(linears, norms, tensors)


def _called(module: nn.Linear, parent: nn.Module, name: str) -> bool:
    """Whether ``parent`` calls its layer ``name`` as the linear layer it is, so that an adapter there acts.

    Mixers of Mamba hand the weight of their output layer to a fused kernel in training, past an adapter; routers give tuples.
    """
    import torch

    kind: type = type(parent)
    if name in _read_by(kind):
        return False
    if type(module).__module__.startswith("transformers.models.") and "forward" in vars(type(module)):
        with torch.no_grad():
            return isinstance(module(module.weight.new_zeros(1, module.in_features)), torch.Tensor)
    return True


@cache
def _read_by(kind: type) -> frozenset[str]:
    """Layers of an architecture's module whose whole weight its code reads."""
    if not kind.__module__.startswith("transformers.models."):
        return frozenset()
    try:
        return frozenset(re.findall(r"self\.(\w+)\.weight\b(?![.\[])", inspect.getsource(kind)))
    except (OSError, TypeError):  # no source at hand
        return frozenset()


def matches(full: str, name: str) -> bool:
    """Whether a full module name ends in a target name."""
    return full == name or full.endswith("." + name)


def _ends(full: str) -> list[str]:
    """The names that match a full module name, shortest first."""
    parts = full.split(".")
    return [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]


def _product(shape: Sequence[int]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result


def _qwen2(*, vocab: int, hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> Layout:
    """Layout of an untied Qwen2 by arithmetic, so that a table of methods needs no torch."""
    kv = hidden // heads * kv_heads
    block = {
        "self_attn.q_proj": Linear(hidden, hidden, True),
        "self_attn.k_proj": Linear(kv, hidden, True),
        "self_attn.v_proj": Linear(kv, hidden, True),
        "self_attn.o_proj": Linear(hidden, hidden),
        "mlp.gate_proj": Linear(intermediate, hidden),
        "mlp.up_proj": Linear(intermediate, hidden),
        "mlp.down_proj": Linear(hidden, intermediate),
    }
    assert {name.rpartition(".")[2] for name in block} == set(LINEAR_LAYERS)
    linears = {f"model.layers.{i}.{name}": shape for i in range(layers) for name, shape in block.items()}
    norms = {f"model.layers.{i}.{name}": hidden for i in range(layers) for name in _QWEN2_NORMS} | {
        "model.norm": hidden
    }
    tensors: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "lm_head.weight": (vocab, hidden),
    }
    tensors |= {f"{name}.weight": (shape.out, shape.inp) for name, shape in linears.items()}
    tensors |= {f"{name}.bias": (shape.out,) for name, shape in linears.items() if shape.bias}
    tensors |= {f"{name}.weight": (size,) for name, size in norms.items()}
    return Layout(linears, norms, tensors)


_QWEN2_NORMS = ("input_layernorm", "post_attention_layernorm")

#: The base of the paper (config.json of deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B): 1,777,088,000 parameters.
DEEPSEEK_R1_DISTILL_QWEN_1_5B = _qwen2(vocab=151936, hidden=1536, intermediate=8960, layers=28, heads=12, kv_heads=2)
