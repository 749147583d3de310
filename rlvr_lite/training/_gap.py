"""Before the first update the policy that is scored is the one that was sampled: a gap beyond rounding has a cause."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping

import torch
from torch import nn

from rlvr_lite import grpo
from rlvr_lite.errors import UserError

__all__ = ["check_gap"]

#: Nats by which one token's log-probability may differ at most: rounding in single precision (chunked sums of linear
#: attention too), and in half precision the rare token whose expert or attention falls the other way.
_MOST = 0.02
_MOST_HALF = 2.0
#: PEFT's layers keep their dropout by the adapter's name.
_OF_ADAPTER = re.compile(r"\.\w+_dropout\.[^.]+\.p$")


def check_gap(model: nn.Module, gap: float | None, device: torch.device, *, autocast: bool = False) -> None:
    """Stop a run that samples from its own model and scores otherwise, and say what is likely to be the cause.

    Args:
        model: the policy, in the mode that it is scored in.
        gap: largest difference between a sampled and a scored log-probability of the first step; ``None`` if unknown.
        device: that computes; a GPU rounds in single precision too (TF32).
        autocast: whether products are taken in half precision, whatever the weights are held in.

    Dropout of the adapter was asked for, so it is warned about: a start that is not zero (PiSSA, MiLoRA) is scored with
    a part of it missing, as TRL scores it.

    Raises:
        UserError: it is larger than the precision explains.
    """
    head = grpo.output_head(model)
    types = {p.dtype for p in head.backbone.parameters() if p.is_floating_point()}
    half = autocast or bool(types & {torch.float16, torch.bfloat16}) or _four_bit(model) or device.type == "cuda"
    most = _MOST_HALF if half else _MOST
    if gap is None or gap <= most:
        return
    rates = grpo.dropout_rates(model) if model.training else {}
    if rates and all(_OF_ADAPTER.search(name) for name in rates):
        warnings.warn(
            f"the adapter's dropout ({max(rates.values()):g}) acts while scoring, not while sampling: log-probabilities "
            f"differ by up to {gap:.3g} nats before the first update",
            stacklevel=2,
        )
        return
    raise UserError(
        f"sampled and scored log-probabilities differ by up to {gap:.3g} nats before the first update, where rounding "
        f"explains {most:g}: {_cause(head, rates)}"
    )


def _four_bit(model: nn.Module) -> bool:
    return any(type(module).__name__ == "Linear4bit" for module in model.modules())


def _cause(head: grpo.OutputHead, rates: Mapping[str, float]) -> str:
    if rates:
        name, rate = next(iter(rates.items()))
        return f"dropout acts while scoring ({name} is {rate:g}): set it to 0"
    ropes = getattr(head.causal_lm.config.get_text_config(), "rope_parameters", None) or {}
    if ropes.get("rope_type") in ("dynamic", "longrope"):
        return "rotary frequencies change with the length: keep prompt and completion below the original length"
    return "the sampler has other weights, another precision or another template than training; try precision fp32"
