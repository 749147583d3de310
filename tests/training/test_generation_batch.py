"""Rounds of different widths become one generation batch: prompts end where they ended, completions begin where they began."""

from __future__ import annotations

import torch

from rlvr_lite.grpo import RolloutBatch
from rlvr_lite.training._generation_batch import join

PAD = 9


def _round(prompt: list[int], completion: list[int]) -> RolloutBatch:
    rows = [torch.tensor([values]) for values in (prompt, [1] * len(prompt), completion, [1] * len(completion))]
    return RolloutBatch(*rows, torch.ones(1), torch.ones(1), sampled_logprobs=torch.full((1, len(completion)), -0.5))


def test_prompts_are_padded_on_the_left_and_completions_on_the_right():
    batch = join([_round([1, 2], [3, 4, 5]), _round([6, 7, 8], [2])], PAD)
    assert batch.prompt_ids.tolist() == [[PAD, 1, 2], [6, 7, 8]]
    assert batch.prompt_mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert batch.completions.tolist() == [[3, 4, 5], [2, PAD, PAD]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.sampled_logprobs.tolist() == [[-0.5, -0.5, -0.5], [-0.5, 0, 0]]
    assert batch.old_logprobs is None
