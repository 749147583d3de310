"""Sampling completions: prefill once a group, drop finished rows; shared by training, evaluation and chat."""

from rlvr_lite.grpo import eval_mode
from rlvr_lite.sampling.decode import Rollout, next_hidden, rollout
from rlvr_lite.sampling.keys import row_keys
from rlvr_lite.sampling.text import Completion, Messages, encode, eos_ids, generate, pad_id, render
from rlvr_lite.sampling.ways import way

__all__ = [
    "Completion",
    "Messages",
    "Rollout",
    "encode",
    "eos_ids",
    "eval_mode",
    "generate",
    "next_hidden",
    "pad_id",
    "render",
    "rollout",
    "row_keys",
    "way",
]
