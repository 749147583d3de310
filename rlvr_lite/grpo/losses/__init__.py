r"""Policy losses: a per-token formula, and a weight for each row that holds all of the normalisation.

.. math:: L = \sum_i w_i \sum_t m_{it} \ell_{it}

The weights :math:`w_i` are computed once over every row sampled for an optimizer step (:func:`row_weights`). After
that, rows whose advantage is zero can be dropped and the rest split into micro-batches of any sizes: the losses and
gradients of the parts add up to those of the whole.

A file of this folder that calls :func:`register` adds a loss.
"""

from rlvr_lite.grpo.losses._policy import LossStats, policy_loss, row_weights
from rlvr_lite.grpo.losses._registry import (
    Level,
    Loss,
    Tokens,
    get,
    mean_of_local_tokens,
    mean_of_rows,
    mean_of_tokens,
    names,
    register,
    sum_over_longest,
    sum_per_row,
)

__all__ = [
    "Level",
    "Loss",
    "LossStats",
    "Tokens",
    "get",
    "mean_of_local_tokens",
    "mean_of_rows",
    "mean_of_tokens",
    "names",
    "policy_loss",
    "register",
    "row_weights",
    "sum_over_longest",
    "sum_per_row",
]
