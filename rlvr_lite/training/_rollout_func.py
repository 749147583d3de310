"""A user's own rollouts, by TRL's ``rollout_func``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlvr_lite.errors import UserError
from rlvr_lite.grpo import RolloutBatch

__all__ = ["RolloutFunction"]

_REQUIRED = ("prompt_ids", "completion_ids", "logprobs")


class RolloutFunction:
    """Calls a ``rollout_func`` as TRL does and makes a batch of what it returns.

    Args:
        function: ``(prompts) -> {"prompt_ids", "completion_ids", "logprobs", ...}``; the prompts come repeated, one for
            each completion. Further lists are columns for the reward functions.
        pad_id: of the tokenizer.

    Attributes:
        columns: the further columns of the last call, a row for each completion.
    """

    def __init__(self, function: Callable[[list[Any]], Mapping[str, Any]], pad_id: int):
        self.function = function
        self.pad_id = pad_id
        self.columns: list[dict[str, Any]] = []

    def __call__(self, prompts: Sequence[Any], device: torch.device) -> RolloutBatch:
        """A completion for each of the prompts.

        Raises:
            UserError: something is missing in what the function returned, or has another length.
        """
        output = dict(self.function(list(prompts)))
        missing = [name for name in _REQUIRED if name not in output]
        if missing:
            raise UserError(f"rollout_func must return {', '.join(missing)} too")
        ids, completions, logprobs = (output.pop(name) for name in _REQUIRED)
        for name, values in (("prompt_ids", ids), ("completion_ids", completions), ("logprobs", logprobs)):
            if values is not None and len(values) != len(prompts):
                raise UserError(f"rollout_func returned {len(values)} {name} for {len(prompts)} prompts")
        if not all(len(row) for row in (*ids, *completions)):
            raise UserError("rollout_func returned an empty prompt or completion: give each at least one token")
        own = output.pop("env_mask", None)
        if own is not None and not all(all(row) for row in own):
            raise UserError("rollout_func's env_mask leaves out tokens, which is not supported: use trl.GRPOTrainer")
        self.columns = [
            {k: v[i] if isinstance(v, list) else v for k, v in output.items() if not isinstance(v, list) or i < len(v)}
            for i in range(len(prompts))
        ]
        zeros = torch.zeros(len(prompts), device=device)
        return RolloutBatch(
            prompt_ids=_padded(ids, self.pad_id, left=True).to(device),
            prompt_mask=_padded([[1] * len(row) for row in ids], 0, left=True).to(device),
            completions=_padded(completions, self.pad_id).to(device),
            mask=_padded([[1] * len(row) for row in completions], 0).to(device),
            advantages=zeros,
            weights=zeros,
            sampled_logprobs=None if logprobs is None else _padded(logprobs, 0.0).to(device),
        )


def _padded(rows: Sequence[Sequence[Any]], fill: float, *, left: bool = False) -> Tensor:
    width = max(map(len, rows))
    if left:
        return torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows])
    return torch.tensor([list(row) + [fill] * (width - len(row)) for row in rows])
