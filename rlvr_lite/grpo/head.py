"""The backbone and the output head of a causal language model, and the proof that its logits are a plain projection."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlvr_lite.grpo.modes import eval_mode

__all__ = ["OutputHead", "output_head"]

#: Settings by which a model changes its logits after the head, and the values that leave them alone.
_POSTPROCESSING = {
    "final_logit_softcapping": (None, 0, 0.0),
    "logit_scale": (None, 1.0),
    "logits_scaling": (None, 1.0),
    "output_multiplier": (None, 1.0),
    "lm_head_multiplier": (None, 1.0),
}
_TOLERANCE = 0.05  # relative; rounding of half precision, no more
_CHECKED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@dataclass(frozen=True)
class OutputHead:
    """The parts of a model that scoring and sampling call one by one.

    Attributes:
        causal_lm: the transformers model, without PEFT's wrapper.
        backbone: gives last hidden states ``[B, T, H]``.
        module: the linear output head.
    """

    causal_lm: Any
    backbone: Any
    module: nn.Linear

    @property
    def weight(self) -> Tensor:
        """``[V, H]``."""
        return self.module.weight

    @property
    def bias(self) -> Tensor | None:
        """``[V]``, if the head has one."""
        return self.module.bias

    def logits(self, hidden: Tensor) -> Tensor:
        """``[B, V]`` from ``[B, H]``."""
        return self.module(hidden)


def output_head(model: nn.Module) -> OutputHead:
    """Take a causal language model apart, after checking that this is exact.

    Supported are models whose logits are ``hidden @ weight.T (+ bias)`` with a floating-point head: Llama, Qwen 2 and
    3, Mistral, SmolLM and most others. Refused are models that scale or cap their logits, quantised heads, adapters on
    the head, and prompt-learning adapters, which need PEFT's own forward. The first time a model is seen its own
    logits on a few tokens are compared with the projection, so that an unknown architecture cannot pass unnoticed.

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
    found = OutputHead(base, base.base_model, head)
    if base not in _CHECKED:
        _check_settings(base)
        if not head.weight.is_meta:
            _check_logits(found)
        _CHECKED.add(base)
    return found


def _check_settings(base: Any) -> None:
    config = base.config.get_text_config()
    for name, harmless in _POSTPROCESSING.items():
        value = getattr(config, name, None)
        if value not in harmless:
            raise ValueError(
                f"{type(base).__name__} changes its logits ({name}={value}): its log-probabilities are not supported"
            )


@torch.no_grad()
def _check_logits(head: OutputHead) -> None:
    """Compare the model's own logits on a few tokens with its head applied to its backbone."""
    ids = torch.arange(4, device=head.weight.device)[None] % head.weight.shape[0]
    with eval_mode(head.causal_lm):
        expected = head.causal_lm(input_ids=ids, use_cache=False).logits.float()
        hidden = head.backbone(input_ids=ids, use_cache=False).last_hidden_state
    found = F.linear(hidden.to(head.weight.dtype), head.weight, head.bias).float()
    if found.shape != expected.shape or not (found - expected).norm() <= _TOLERANCE * expected.norm():
        raise ValueError(
            f"the logits of {type(head.causal_lm).__name__} are not a plain projection of its hidden states"
        )
