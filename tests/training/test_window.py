"""Rounds of different widths become one window: prompts end where they ended, completions begin where they began."""

from __future__ import annotations

import torch

from rlvr_lite.grpo import Batch
from rlvr_lite.training.window import join

PAD = 9


def _round(prompt: list[int], completion: list[int]) -> Batch:
    rows = [torch.tensor([values]) for values in (prompt, [1] * len(prompt), completion, [1] * len(completion))]
    return Batch(*rows, torch.ones(1), torch.ones(1), sampled_logprobs=torch.full((1, len(completion)), -0.5))


def test_prompts_are_padded_on_the_left_and_completions_on_the_right():
    window = join([_round([1, 2], [3, 4, 5]), _round([6, 7, 8], [2])], PAD)
    assert window.prompt_ids.tolist() == [[PAD, 1, 2], [6, 7, 8]]
    assert window.prompt_mask.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert window.completions.tolist() == [[3, 4, 5], [2, PAD, PAD]]
    assert window.mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert window.sampled_logprobs.tolist() == [[-0.5, -0.5, -0.5], [-0.5, 0, 0]]
    assert window.old_logprobs is None
