"""The backbone and the output head of a causal language model: what its forward does between hidden states and logits.

Models scale their logits (Granite, Cohere, Falcon-H1), cap them (Gemma 2, NanoChat) or scale what goes into the head
(MiniCPM). None of this is taken from names: the model's own forward runs on hidden states put in place of its
backbone's, and the operators it applies to them are read.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_lite.grpo._feed import feed
from rlvr_lite.grpo._modes import eval_mode

__all__ = ["OutputHead", "output_head", "single_precision_head"]

_TOLERANCE = 0.05  # relative; rounding of half precision, no more
_SINGLE: weakref.WeakSet[nn.Module] = weakref.WeakSet()
_READ: weakref.WeakKeyDictionary[nn.Module, tuple[str, int, float, float | None]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class OutputHead:
    r"""The parts of a model that scoring and sampling call one by one.

    With u = W h + b, logits are ``scale u``, or ``cap tanh(scale u / cap)`` where there is a cap.

    Attributes:
        causal_lm: the transformers model, without PEFT's wrapper.
        backbone: gives last hidden states ``[B, T, H]``.
        module: the linear output head.
        vocabulary: V, of which a head may have more rows than the model uses.
        scale: factor of the logits.
        cap: bound of the logits (Gemma 2, arXiv 2408.00118, section 2), or ``None``.
    """

    causal_lm: Any
    backbone: Any
    module: nn.Linear
    vocabulary: int
    scale: float = 1.0
    cap: float | None = None

    @property
    def weight(self) -> Tensor:
        """``[V, H]``."""
        weight = self.module.weight
        return weight if len(weight) == self.vocabulary else weight[: self.vocabulary]

    @property
    def bias(self) -> Tensor | None:
        """``[V]``, if the head has one."""
        bias = self.module.bias
        return bias if bias is None or len(bias) == self.vocabulary else bias[: self.vocabulary]

    def precision(self) -> AbstractContextManager[Any]:
        """The context in which the head computes: without autocast after :func:`single_precision_head`."""
        if self.module not in _SINGLE:
            return nullcontext()
        return torch.autocast(self.module.weight.device.type, enabled=False)

    def logits(self, hidden: Tensor) -> Tensor:
        """``[B, V]`` from ``[B, H]``, in single precision where they are scaled or capped."""
        raw = self.module(hidden.to(self.module.weight.dtype))[..., : self.vocabulary]
        if self.scale == 1 and self.cap is None:
            return raw
        raw = raw.float() * self.scale
        return raw if self.cap is None else raw.div_(self.cap).tanh_().mul_(self.cap)


def output_head(model: nn.Module) -> OutputHead:
    """Take a causal language model apart, after checking that this is exact.

    Supported are models whose logits are a linear head's, scaled and capped or not. Refused are other heads, quantised
    ones, adapters on the head, and prompt-learning adapters, which need PEFT's own forward. The first time a model is
    seen its own logits on a few tokens are compared with those made from its parts, so that an unknown architecture
    cannot pass unnoticed.

    Args:
        model: a transformers causal language model, or a ``PeftModel`` around one.

    Raises:
        ValueError: naming what is not supported.
    """
    peft_config = getattr(model, "active_peft_config", None)
    if getattr(peft_config, "is_prompt_learning", False):
        raise ValueError("prompt-learning adapters are not supported: they change the input, not the weights")
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    head = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    active = getattr(head, "active_adapter", None)
    if isinstance(active, str) and active in getattr(head, "modules_to_save", {}):
        head = head.modules_to_save[active]  # type: ignore[union-attr]
    if not isinstance(head, nn.Linear) or not head.weight.is_floating_point():
        kind = type(head).__name__
        raise ValueError(
            f"the output head must be a floating-point Linear layer, got {kind}: leave lm_head out of the adapter"
        )
    if base not in _READ:
        read = _read(base, head)
        if not head.weight.is_meta:
            _check_logits(OutputHead(base, base.get_submodule(read[0]), head, *read[1:]))
        _READ[base] = read
    name, vocabulary, scale, cap = _READ[base]
    return OutputHead(base, base.get_submodule(name), head, vocabulary, scale, cap)


def single_precision_head(model: nn.Module) -> None:
    """Hold the output head in fp32 and compute it so, also under autocast; what the embeddings give keeps its type.

    The head is where half precision parts what samples from what is scored (MiniMax-M1, arXiv 2506.13585, section 3.2).

    Args:
        model: a transformers causal language model, or a ``PeftModel`` around one.
    """
    head = output_head(model)
    embeddings, before = head.causal_lm.get_input_embeddings(), head.module.weight.dtype
    tied = embeddings.weight is head.module.weight
    head.module.float()
    vars(head.module)["forward"] = types.MethodType(_in_single_precision, head.module)
    _SINGLE.add(head.module)
    if tied and before != torch.float32:
        embeddings.register_forward_hook(lambda module, inputs, output: output.to(before))


def _in_single_precision(self: nn.Linear, hidden: Tensor) -> Tensor:
    with torch.autocast(hidden.device.type, enabled=False):
        return F.linear(hidden.float(), self.weight, self.bias)


# ---- reading the head off the operators of the model's own forward ------------------------------------------------

_SAME = {  # operators that leave every number as it is
    "view", "_unsafe_view", "reshape", "slice", "alias", "unsqueeze", "squeeze", "expand", "clone", "detach", "_to_copy",
    "index", "contiguous", "_reshape_alias", "lift_fresh", "t", "transpose",
}  # fmt: skip
_PRODUCTS = {"mm", "addmm", "bmm", "matmul", "linear", "baddbmm"}


class _Steps(TorchDispatchMode):
    """What happens to one tensor: factors, the product with the head, and the hyperbolic tangent, in order."""

    def __init__(self, hidden: Tensor):
        super().__init__()
        self.followed = [hidden]
        self.steps: list[tuple[str, float]] = []
        self.unknown: str | None = None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._follows(args) and isinstance(out, Tensor):
            self._note(func.overloadpacket.__name__, args)
            self.followed.append(out)
        return out

    def _follows(self, args: Any) -> bool:
        return any(x is seen for x in args if isinstance(x, Tensor) for seen in self.followed)

    def _note(self, name: str, args: Any) -> None:
        name = name if name == "_to_copy" or name.startswith("_") else name.rstrip("_")
        if name == "slice" and "head" in dict(self.steps) and args[1] == args[0].dim() - 1 and args[2]:
            self.unknown = "a cut of the vocabulary's beginning"
        others = [x for x in args if not any(x is seen for seen in self.followed)]
        if name in _SAME:
            return
        if name in _PRODUCTS:
            self.steps.append(("head", 1.0))
        elif name == "tanh":
            self.steps.append(("tanh", 1.0))
        elif name in ("mul", "div") and len(others) == 1 and isinstance(others[0], int | float):
            self.steps.append(("factor", float(others[0]) if name == "mul" else 1 / float(others[0])))
        else:
            self.unknown = self.unknown or name

    def trouble(self, bias: bool) -> str:
        """Why scale and cap do not say everything; empty if they do."""
        kinds = [kind for kind, _ in self.steps]
        if self.unknown:
            return f"it applies {self.unknown}"
        if kinds.count("head") != 1:
            return "its head is not one product"
        if kinds.count("tanh") > 1 or "tanh" in kinds[: kinds.index("head")]:
            return "it applies tanh in an unknown place"
        return "it scales what goes into a head with a bias" if bias and kinds[0] == "factor" else ""

    @property
    def scale_and_cap(self) -> tuple[float, float | None]:
        """With a factor a before the tangent and c after it, c tanh(a u) is capped at c and scaled by a c."""
        before, after, capped = 1.0, 1.0, False
        for kind, factor in self.steps:
            capped = capped or kind == "tanh"
            if kind == "factor":
                before, after = (before, after * factor) if capped else (before * factor, after)
        return (before * after, after) if capped else (before, None)


class _Output:
    """Stands for whatever a backbone returns: hidden states first, and nothing else."""

    def __init__(self, hidden: Tensor):
        self.last_hidden_state = hidden

    def __getitem__(self, index: Any) -> Any:
        return self.last_hidden_state if index == 0 else None

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def _in_place_of(backbone: Any, hidden: Tensor) -> Iterator[list[int]]:
    """Inside, the backbone answers every call with ``hidden``; the list gets an entry a call."""
    calls: list[int] = []

    def answer(*args: Any, **kwargs: Any) -> _Output:
        calls.append(1)
        return _Output(hidden)

    before = backbone.__dict__.get("forward")
    backbone.forward = answer
    try:
        yield calls
    finally:
        if before is None:
            del backbone.forward
        else:
            backbone.forward = before


def _candidates(base: Any) -> list[str]:
    """Names of the modules that may be the backbone, the likeliest first: it is the one that the model's forward calls."""
    named = {id(module): name for name, module in reversed([*base.named_modules()])}
    first = [base.base_model, getattr(base.base_model, "decoder", None)]
    children = [child for _, child in base.named_children()]
    deeper = [grandchild for child in children for _, grandchild in child.named_children()]
    found = [named[id(m)] for m in [*first, *children, *deeper] if m is not None and id(m) in named]
    return [name for name in dict.fromkeys(found) if name and hasattr(base.get_submodule(name), "config")]


@torch.no_grad()
def _read(base: Any, head: nn.Linear) -> tuple[str, int, float, float | None]:
    """The backbone's name, the vocabulary, scale and cap, from the operators between its hidden states and the logits."""
    kind, weight = type(base).__name__, head.weight
    ids = torch.zeros(1, 2, dtype=torch.long, device=weight.device)
    hidden = torch.zeros(1, 2, weight.shape[1], dtype=weight.dtype, device=weight.device)
    why = "it has no backbone apart from its head"
    for name in _candidates(base):
        try:
            with eval_mode(base), _in_place_of(base.get_submodule(name), hidden) as calls, _Steps(hidden) as seen:
                logits = base(input_ids=ids, use_cache=False).logits
        except Exception as error:
            why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        if not calls:
            continue
        why = seen.trouble(head.bias is not None)
        if not why:
            return name, logits.shape[-1], *seen.scale_and_cap
        break
    raise ValueError(f"the logits of {kind} are not a scaled or capped projection of its hidden states ({why})")


@torch.no_grad()
def _check_logits(head: OutputHead) -> None:
    """Compare the model's own logits on a few tokens with those of its parts."""
    ids = torch.arange(4, device=head.weight.device)[None] % head.weight.shape[0]
    with eval_mode(head.causal_lm):
        hidden = feed(head.backbone, ids)
        expected = head.causal_lm(input_ids=ids, use_cache=False).logits.float()
    found = head.logits(hidden).float()
    if not expected.isfinite().all():
        return  # whoever samples or scores says where they come from
    if found.shape != expected.shape or not (found - expected).norm() <= _TOLERANCE * expected.norm():
        raise ValueError(
            f"the logits of {type(head.causal_lm).__name__} are not a scaled or capped projection of its hidden states"
        )
