"""A third sampler, all of it: it recites what it was given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from rlvr_lite.config import SamplingConfig
from rlvr_lite.sampling import Messages, SampledPolicy, Sampler, Samples, register_sampler


class Scripted(Sampler):
    name, precision, weights = "scripted", "fp32", "none: it recites"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, lines: Sequence[str]):
        self.tokenizer, self.lines = tokenizer, lines

    def sample(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        texts = [self.lines[i % len(self.lines)] for i in range(len(prompts) * k)]
        rows = [[*self.tokenizer(text).input_ids, self.tokenizer.eos_token_id] for text in texts]
        ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
        return Samples(ids, mask, -1.0 * mask, texts, torch.ones(len(rows), dtype=torch.bool))


def build(policy: SampledPolicy) -> Sampler:
    return Scripted(policy.load()[1], ["\\boxed{1}", "\\boxed{2}"])


register_sampler("scripted", build)
