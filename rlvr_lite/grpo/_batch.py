"""The rows of one optimizer step, and the exact ways to make them fewer, shorter and split."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

__all__ = ["RolloutBatch", "keep_informative", "micro_batches", "prompt_groups", "trim"]


@dataclass(frozen=True)
class RolloutBatch:
    """Rows to train on; rows of a group stand next to each other.

    Attributes:
        prompt_ids: int64 ``[B, T]``, padded on the left.
        prompt_mask: ``[B, T]``.
        completions: int64 ``[B, C]``, padded on the right.
        mask: ``[B, C]``, 1 at tokens that exist.
        advantages: ``[B]``, or ``[B, C]`` a token.
        weights: ``[B]`` of ``row_weights``, computed over all rows sampled for the step.
        old_logprobs: ``[B, C]`` at sampling time, or ``None`` for the first update.
        ref_logprobs: ``[B, C]`` of the reference policy, or ``None``.
        sampled_logprobs: ``[B, C]`` as the sampler computed them, to watch how far it is from the loss; or ``None``.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    completions: Tensor
    mask: Tensor
    advantages: Tensor
    weights: Tensor
    old_logprobs: Tensor | None = None
    ref_logprobs: Tensor | None = None
    sampled_logprobs: Tensor | None = None

    def __len__(self) -> int:
        return len(self.advantages)

    def rows(self, index: Tensor) -> RolloutBatch:
        """The rows with these numbers, in that order."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: value[index] for name, value in values.items() if value is not None})


def keep_informative(advantages: Tensor, mask: Tensor, *, kl_coef: float = 0.0) -> Tensor:
    """Numbers of the rows that have a gradient: tokens and a non-zero advantage, or tokens alone with a KL term.

    Exact for every loss once the weights come from ``row_weights`` over all rows: a row with advantage 0 adds 0.

    Args:
        advantages: ``[B]``.
        mask: ``[B, C]``.
        kl_coef: weight of the KL term, which also acts on rows without advantage.

    Returns:
        int64 ``[K]``, ascending.

    >>> keep_informative(torch.tensor([0.5, 0.0, -0.5]), torch.ones(3, 2))
    tensor([0, 2])
    """
    kept = mask.bool().any(-1)
    if not kl_coef:
        kept &= advantages != 0
    return kept.nonzero().squeeze(-1)


def trim(batch: RolloutBatch) -> RolloutBatch:
    """Without the columns that are padding in every row: prompts on the left, completions on the right."""
    if not len(batch):
        return batch
    prompt, completion = batch.prompt_mask.bool().any(0), batch.mask.bool().any(0)
    first = int(prompt.long().argmax())
    length = max(1, int(completion.nonzero().amax()) + 1 if completion.any() else 0)

    def cut(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, :length]

    return replace(
        batch,
        prompt_ids=batch.prompt_ids[:, first:],
        prompt_mask=batch.prompt_mask[:, first:],
        completions=batch.completions[:, :length],
        advantages=batch.advantages[:, :length] if batch.advantages.dim() == 2 else batch.advantages,
        mask=batch.mask[:, :length],
        old_logprobs=cut(batch.old_logprobs),
        ref_logprobs=cut(batch.ref_logprobs),
        sampled_logprobs=cut(batch.sampled_logprobs),
    )


def prompt_groups(prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """Group number ``[B]`` of each row: rows next to each other with the same prompt share one.

    >>> prompt_groups(torch.tensor([[5, 6], [5, 6], [0, 6]]), torch.tensor([[1, 1], [1, 1], [0, 1]]))
    tensor([0, 0, 1])
    """
    mask = prompt_mask.bool()
    shown = prompt_ids.masked_fill(~mask, -1)
    differs = (shown[1:] != shown[:-1]).any(-1)
    return torch.cat([differs.new_zeros(min(1, len(mask))), differs]).cumsum(0)


def micro_batches(batch: RolloutBatch, parts: int) -> list[RolloutBatch]:
    """Split into ``parts`` micro-batches of about equal tokens, each trimmed; groups stay whole where that fits.

    Groups go, the largest first, to the part with the fewest tokens so far; a group larger than twice an even share is
    halved first. The order of rows inside a group is kept, and the result depends on nothing but the batch.

    Args:
        batch: rows of one step, already without those that carry no signal.
        parts: how many; some may be empty if there are fewer rows.
    """
    lengths = (batch.prompt_mask.bool().sum(-1) + batch.mask.bool().sum(-1)).tolist()
    group = prompt_groups(batch.prompt_ids, batch.prompt_mask).tolist()
    runs: list[list[int]] = []
    for row, number in enumerate(group):
        if row and number == group[row - 1]:
            runs[-1].append(row)
        else:
            runs.append([row])
    share = sum(lengths) / max(parts, 1)
    queue, whole = runs, []
    while queue:
        run = queue.pop()
        if len(run) > 1 and sum(lengths[row] for row in run) > 2 * share:
            queue += [run[: len(run) // 2], run[len(run) // 2 :]]
        else:
            whole.append(run)
    whole.sort(key=lambda run: (-sum(lengths[row] for row in run), run))
    bins: list[list[int]] = [[] for _ in range(parts)]
    for run in whole:
        min(bins, key=lambda rows: sum(lengths[row] for row in rows)).extend(run)
    return [trim(batch.rows(torch.tensor(sorted(rows), dtype=torch.long, device=batch.mask.device))) for rows in bins]
