"""TRL's fields for vLLM, as they act on the engine beside the model."""

from __future__ import annotations

from typing import Any

__all__ = ["engine_options", "honours", "uncorrected"]

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


def engine_options(args: Any) -> dict[str, Any]:
    """What an engine is built with; without ``use_vllm`` it sleeps while nothing is sampled."""
    found = {"longest": args.vllm_max_model_length, "memory": args.vllm_gpu_memory_utilization}
    if args.use_vllm:
        found |= {"sleep": args.vllm_enable_sleep_mode, "model_impl": args.vllm_model_impl}
    return found
