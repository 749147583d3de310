"""Sampling completions: prefill once a group, drop finished rows; shared by training, evaluation and chat."""

from rlvr_lite.grpo import eval_mode
from rlvr_lite.sampling._cache import growing_cache, takes_own_mask
from rlvr_lite.sampling._choice import choose
from rlvr_lite.sampling._colocated import ColocatedVLLM
from rlvr_lite.sampling._decode import Rollout, rollout
from rlvr_lite.sampling._keys import row_keys
from rlvr_lite.sampling._limits import check_copy, check_engine, check_overflow, check_room, fitted
from rlvr_lite.sampling._longest import longest_of, longest_prompt, task_prompt
from rlvr_lite.sampling._portions import Portion, even_portions, joined, plan_portions, sample_portions
from rlvr_lite.sampling._sampler import (
    SampledPolicy,
    Sampler,
    Samples,
    register_sampler,
    sampler,
    sampler_names,
)
from rlvr_lite.sampling._step import FixedStep, next_hidden
from rlvr_lite.sampling._text import Completion, Messages, encode, eos_ids, pad_id, render, tokenize
from rlvr_lite.sampling._transformers import TransformersSampler
from rlvr_lite.sampling._vllm import VLLMSampler
from rlvr_lite.sampling._vllm import library as vllm_library
from rlvr_lite.sampling._ways import way

__all__ = [
    "ColocatedVLLM",
    "Completion",
    "FixedStep",
    "Messages",
    "Portion",
    "Rollout",
    "SampledPolicy",
    "Sampler",
    "Samples",
    "TransformersSampler",
    "VLLMSampler",
    "check_copy",
    "check_engine",
    "check_overflow",
    "check_room",
    "choose",
    "encode",
    "eos_ids",
    "eval_mode",
    "even_portions",
    "fitted",
    "growing_cache",
    "joined",
    "longest_of",
    "longest_prompt",
    "next_hidden",
    "pad_id",
    "plan_portions",
    "register_sampler",
    "render",
    "rollout",
    "row_keys",
    "sample_portions",
    "sampler",
    "sampler_names",
    "takes_own_mask",
    "task_prompt",
    "tokenize",
    "vllm_library",
    "way",
]
