"""Rollout speed against transformers' generate, which stock TRL calls, in the same run.

    python -m tests.benchmarks.rollout                         # a random model of the embedded base's size
    RLVR_LITE_SMOLLM2=folder python -m tests.benchmarks.rollout --model smollm2

Both sides sample from the same LoRA model at temperature 1. Its head is flattened and its end token given a constant
probability, so that lengths are geometric with a long tail: their mean is a third of the longest. Times are CPU seconds
of one thread, the best of the repeats, both sides alternating; tokens are those up to the end token.
"""

from __future__ import annotations

import argparse
import math
import os
import time
import warnings
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor, nn

from rlvr_lite.config import SamplingConfig
from rlvr_lite.sampling import rollout, row_keys
from rlvr_lite.table import Table
from tests.benchmarks.grpo_core import peft_model

EOS, PAD = 1, 0


def end_probability(longest: int) -> float:
    """The p for which a geometric length cut at ``longest`` has mean ``longest / 3``: (1 - (1 - p)^n) / p = n / 3."""
    low, high = 1e-9, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = (1 - (1 - middle) ** longest) / middle
        low, high = (middle, high) if mean > longest / 3 else (low, middle)
    return low


def flatten_head(model: Any, longest: int) -> None:
    """Give every token about the same probability and the end token a constant one."""
    base = model.get_base_model()
    p, vocab = end_probability(longest), base.config.vocab_size
    head = nn.Linear(base.config.hidden_size, vocab, bias=True)
    with torch.no_grad():
        head.weight.copy_(base.get_output_embeddings().weight * 1e-3)
        head.bias.zero_()
        head.bias[EOS] = math.log(p * (vocab - 1) / (1 - p))
    base.lm_head = head.requires_grad_(False)


def ours(model: Any, ids: Tensor, mask: Tensor, group: int, longest: int, seed: int) -> int:
    """Tokens sampled by one rollout."""
    sampled = rollout(
        model,
        ids,
        mask,
        group_size=group,
        sampling=SamplingConfig(max_completion_length=longest),
        eos_ids=[EOS],
        pad_id=PAD,
        row_keys=row_keys(seed, rows=len(ids) * group),
    )
    return int(sampled.mask.sum())


def stock(model: Any, ids: Tensor, mask: Tensor, group: int, longest: int, seed: int) -> int:
    """Tokens sampled by generate on repeated prompts, as TRL calls it."""
    torch.manual_seed(seed)
    with torch.no_grad():
        found = model.generate(
            input_ids=ids.repeat_interleave(group, 0),
            attention_mask=mask.repeat_interleave(group, 0),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_completion_length=longest,
            eos_token_id=EOS,
            pad_token_id=PAD,
            disable_compile=True,
        )[:, ids.shape[1] :]
    before_end = (found == EOS).cumsum(1) - (found == EOS).long()
    return int((before_end == 0).sum())


def measure(name: str, prompts: int, group: int, width: int, longest: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    model, _ = peft_model(name, seed=0)
    flatten_head(model, longest)
    model.eval()
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(width) >= torch.randint(0, width // 2, (prompts, 1), generator=generator)).long()
    ids = torch.randint(2, model.get_base_model().config.vocab_size, (prompts, width), generator=generator) * mask
    rates = {"ours": 0.0, "generate": 0.0}
    lengths = {}
    for sample in (ours, stock):
        sample(model, ids[:1], mask[:1], 2, 4, 0)  # first-call costs
    for seed in range(repeats):
        for side, sample in (("ours", ours), ("generate", stock)):
            start = time.process_time()
            tokens = sample(model, ids, mask, group, longest, seed)
            rates[side] = max(rates[side], tokens / (time.process_time() - start))
            lengths[side] = tokens / (prompts * group)
    return {
        "model": name,
        "prompts x G": f"{prompts} x {group}",
        "prompt": width,
        "longest": longest,
        "mean length, ours": lengths["ours"],
        "generate's": lengths["generate"],
        "generate tokens/s": rates["generate"],
        "ours tokens/s": rates["ours"],
        "ratio": rates["ours"] / rates["generate"],
    }


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=["tiny", "smollm2"], default="tiny")
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    shapes = [(16, 8, 16, 56), (16, 8, 45, 256), (8, 8, 200, 256)] if chosen.model == "tiny" else [(4, 8, 100, 128)]
    rows = []
    for shape in shapes:
        rows.append(measure(chosen.model, *shape, chosen.repeats))
        print(rows[-1], flush=True)
    print(Table.of(rows, "Rollout on ragged lengths"))


if __name__ == "__main__":
    main()
