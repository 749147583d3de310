"""The arithmetic of GRPO in plain torch: advantages, losses, log-probabilities, packing and group selection.

Knows nothing of trainers, adapters or files. Every saving in here is exact: the gradient is that of the plain
computation, up to rounding. Other rooms may import the modules ``losses`` and ``logprobs``.
"""

from rlvr_lite.grpo import losses
from rlvr_lite.grpo._advantages import group_advantages, live_groups, select_groups
from rlvr_lite.grpo._batch import RolloutBatch, keep_informative, micro_batches, prompt_groups, trim
from rlvr_lite.grpo._correction import effective_sample_size, truncated_weights
from rlvr_lite.grpo._feed import cache_name, feed, takes
from rlvr_lite.grpo._head import OutputHead, output_head, single_precision_head
from rlvr_lite.grpo._modes import dropout_rates, eval_mode, remove_dropout
from rlvr_lite.grpo._packer import Packer
from rlvr_lite.grpo._packing import Packed, pack_groups
from rlvr_lite.grpo._packing import TreeMask as TreeMask
from rlvr_lite.grpo._positions import position_limit
from rlvr_lite.grpo._scoring import completion_logprobs
from rlvr_lite.grpo._truncation import Truncation
from rlvr_lite.grpo.logprobs import token_logprobs
from rlvr_lite.grpo.losses import LossStats, policy_loss, row_weights

__all__ = [
    "LossStats",
    "OutputHead",
    "Packed",
    "Packer",
    "RolloutBatch",
    "Truncation",
    "cache_name",
    "completion_logprobs",
    "dropout_rates",
    "effective_sample_size",
    "eval_mode",
    "feed",
    "group_advantages",
    "keep_informative",
    "live_groups",
    "losses",
    "micro_batches",
    "output_head",
    "pack_groups",
    "policy_loss",
    "position_limit",
    "prompt_groups",
    "remove_dropout",
    "row_weights",
    "select_groups",
    "single_precision_head",
    "takes",
    "token_logprobs",
    "trim",
    "truncated_weights",
]
