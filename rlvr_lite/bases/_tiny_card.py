"""The model card of the bundled tiny model, from what was measured when it was made."""

from __future__ import annotations

from typing import Any

from rlvr_lite.table import Table

__all__ = ["card"]

_TEXT = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [rlvr, grpo, toy]
---

# tiny: a base with something left to learn

A causal language model of the Qwen2 architecture with {parameters:,} parameters (3 layers, width 128, 4 query and 2
key-value heads, tied embeddings; one token a character, 128 tokens), in bf16. It ships with `rlvr-lite` so that
reinforcement learning with verifiable rewards can be seen to work on any laptop in minutes. It loads through
`AutoModelForCausalLM` and `AutoTokenizer` and runs no code of its own.

## What it can do

Chain sums with the numbers 1 to 9, such as `3+4-2=?`, two to seven numbers long, asked as one user turn without any
instruction. It knows how to work them out line by line, but mostly blurts out an answer, and errs:

{figures}

{problems} problems a split of the task `chain-sum` (`validation` and `test`: 4 or 5 numbers, `ood`: 6 or 7), 8 samples
each at temperature 1, at most 56 new tokens. `greedy` and `avg@8` are shares of right answers, `pass@8` the share of
problems with at least one right sample.

## What it cannot do

Anything else. It has never seen a word. Characters outside printable ASCII and the newline are dropped. A chat of
several turns, a system turn or an instruction is unlike anything it was trained on. What a method gains on it says
little about what the same method gains on a real model.

## How it was made

`python -m rlvr_lite.bases.tiny` with seed {seed}: from a random start, in {seconds} CPU seconds on one thread, on
worked answers drawn by a program, in two stages (Muon for the matrices, AdamW for the rest):

{stages}

`step` writes one operation a line, `skip` often two, `direct` only the answer; a slip is a number written down wrong,
from which the answer then goes on. The second stage exists to make the model worse in a way that reinforcement
learning can undo.

Both stages drew chains of two to seven numbers, but only questions of the task's train share (70 % of all questions, by
a hash of the text). No question of `validation`, `test` or `ood` was ever shown. The lengths of `ood` were (15 % of the
lessons had 6 or 7 numbers): it is out of the distribution of the reinforcement learning, not of this pretraining. The
seed and the mixture of the second stage were chosen by the accuracies on `validation`.

The seed, the mixtures, the versions and the SHA-256 of every file are in `manifest.json`. The same versions on the same
kind of CPU give the same bytes; elsewhere the last bits may differ.
"""


def card(facts: dict[str, Any]) -> str:
    """The card as Markdown.

    Args:
        facts: what ``python -m rlvr_lite.bases.tiny`` puts into the manifest.
    """
    figures = [{"split": split, **{k: f"{v:.3f}" for k, v in row.items()}} for split, row in facts["figures"].items()]
    stages = [
        {
            "stage": number,
            "steps": stage["steps"],
            "batch": stage["batch"],
            "learning rate": f"{stage['learning_rate']:g}",
            "styles": ", ".join(f"{style} {weight:g}" for style, weight in stage["lessons"]["styles"].items()),
            "slips": f"{stage['lessons']['slip']:g}",
        }
        for number, stage in enumerate(facts["stages"], start=1)
    ]
    return _TEXT.format(
        parameters=facts["parameters"],
        figures=Table.of(figures).to_markdown(),
        problems=facts["problems_measured"],
        seed=facts["seed"],
        seconds=facts["training_seconds"]["cpu"],
        stages=Table.of(stages).to_markdown(),
    )
