"""TRL's fields for vLLM, as they act on the engine beside the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rlvr_lite import sampling

__all__ = ["engine_options", "honours", "uncorrected", "without_engine"]

_SPARE = 64  # tokens: the longest prompt by its letters need not be the longest

#: How the rollouts are corrected is ``sampler_correction``'s affair; a server has other fields.
_HONOURED = frozenset(
    [
        "vllm_enable_sleep_mode",
        "vllm_gpu_memory_utilization",
        "vllm_importance_sampling_correction",
        "vllm_max_model_length",
        "vllm_model_impl",
    ]
)
#: How it would be corrected.
_CORRECTION = (
    "vllm_importance_sampling_mode",
    "vllm_importance_sampling_clip_max",
    "vllm_importance_sampling_clip_min",
)


def honours(args: Any, name: str) -> bool:
    """Whether a field acts here, or has nothing to act on, as in TRL."""
    if name == "use_vllm" or name in _HONOURED:
        return True
    return name.startswith("vllm_") and (not args.use_vllm or (name in _CORRECTION and uncorrected(args)))


def uncorrected(args: Any) -> bool:
    """Whether rollouts of an engine are taken as if the scorer had drawn them."""
    return bool(args.use_vllm) and not args.vllm_importance_sampling_correction


def engine_options(args: Any, rows: Any, tokenizer: Any, template: Any) -> dict[str, Any]:
    """What an engine is built with; without ``use_vllm`` it sleeps while nothing is sampled.

    Args:
        args: TRL's.
        rows: the prompts, whose longest says how much the engine has to have room for where ``args`` do not; vLLM does not
            start without room for one sequence of full length, and the base's own may be very long.
        tokenizer: of the base.
        template: keyword arguments for the chat template.
    """
    longest = args.vllm_max_model_length
    if longest is None and hasattr(rows, "column_names") and args.max_completion_length:
        longest = sampling.longest_of(tokenizer, rows["prompt"], template) + args.max_completion_length + _SPARE
    found = {"longest": longest, "memory": args.vllm_gpu_memory_utilization}
    if args.use_vllm:
        found |= {"sleep": args.vllm_enable_sleep_mode, "model_impl": args.vllm_model_impl}
    return found


def without_engine(rows: Iterable[Mapping[str, Any]]) -> str:
    """Which steps of a run with an engine were sampled without it, because it had failed; empty for none.

    >>> without_engine([{"step": 1, "sampling/vllm": 1.0}, {"step": 2, "sampling/vllm": 0.0}, {"step": 3, "sampling/vllm": 0.0}])
    'vLLM failed: 2 of 3 steps, from step 2 on, were sampled from the model itself'
    """
    told = [row for row in rows if "sampling/vllm" in row]
    lost = [row["step"] for row in told if row["sampling/vllm"] < 1]
    if not lost:
        return ""
    return f"vLLM failed: {len(lost)} of {len(told)} steps, from step {lost[0]} on, were sampled from the model itself"
