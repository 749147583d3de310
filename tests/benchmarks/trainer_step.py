"""A whole training step against stock TRL: ``python -m tests.benchmarks.trainer_step [tiny] [smollm2]``.

Both trainers get the same model, prompts, configuration and reward. The reward is scripted so that the wanted share of
groups has no variance. CPU seconds a step on one thread, rollout included, in turns, so that a machine whose speed drifts
does not favour one side.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback

from rlvr_lite import bases, tasks
from rlvr_lite.config import LINEAR_LAYERS
from rlvr_lite.table import Table
from rlvr_lite.training import GRPOTrainer


def scripted(idle: float, group: int) -> Callable[..., list[float]]:
    """A reward that is constant in a share ``idle`` of the groups of a batch, and differs inside all others."""

    def reward(prompts: list[Any], completions: list[Any], **_: Any) -> list[float]:
        groups = len(prompts) // group
        dead = round(idle * groups)
        return [0.0 if i // group < dead else float(i % 2) for i in range(len(prompts))]

    return reward


class Clock(TrainerCallback):
    """CPU seconds of every step."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps.append(time.process_time() - self._began)


def seconds(kind: type, place: str, idle: float, prompts: int, length: int, steps: int) -> tuple[float, float]:
    """Median CPU seconds a step after the first, and sampled tokens a step."""
    base, group = bases.load(place), 8
    small = base.scale == "tiny"
    task = tasks.get("chain-sum") if small else tasks.get("chain-sum", operands=2, hi=20)
    style: Any = "bare" if small else "instruct"
    rows = [{"prompt": task.messages(p, style), "answer": p.answer} for p in task.problems("train", prompts * steps)]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        args = trl.GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, per_device_train_batch_size=prompts * group, num_generations=group,
            max_steps=steps, learning_rate=1e-5, max_completion_length=length, top_k=0, loss_type="dapo", logging_steps=1,
            save_strategy="no", report_to="none", gradient_checkpointing=False, disable_tqdm=True, shuffle_dataset=False,
        )  # fmt: skip
        adapter = LoraConfig(r=16, lora_alpha=32, target_modules=list(LINEAR_LAYERS), task_type="CAUSAL_LM")
        trainer = kind(
            base.model, scripted(idle, group), args, Dataset.from_list(rows), processing_class=base.tokenizer,
            peft_config=adapter, callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    lengths = [row["completions/mean_length"] for row in trainer.state.log_history if "completions/mean_length" in row]
    return statistics.median(clock.steps[1:]), statistics.mean(lengths) * prompts * group


def compare(place: str, prompts: int, length: int, steps: int, shares: tuple[float, ...] = (0.0, 0.3, 0.6)) -> Table:
    """Seconds a step of both trainers at some shares of groups without variance."""
    rows = []
    for idle in shares:
        (ours, tokens), (theirs, _) = (
            seconds(kind, place, idle, prompts, length, steps) for kind in (GRPOTrainer, trl.GRPOTrainer)
        )
        rows.append(
            {
                "idle groups": idle,
                "rlvr_lite s/step": ours,
                "TRL s/step": theirs,
                "ratio": ours / theirs,
                "tokens": tokens,
            }
        )
    title = (
        f"{os.path.basename(place)}: {prompts} prompts x 8 answers of at most {length} tokens, TRL {trl.__version__}"
    )
    return Table.of(rows, title=title)


def main() -> None:
    """Run the parts that are named, or both."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("bases", nargs="*", choices=["tiny", "smollm2", "all"], default="all")
    wanted = options.parse_args().bases
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if "tiny" in wanted or "all" in wanted:
        print(compare("tiny", prompts=16, length=56, steps=8), flush=True)
    if "smollm2" in wanted or "all" in wanted:
        print(compare(os.environ["RLVR_LITE_SMOLLM2"], prompts=5, length=32, steps=3, shares=(0.6,)), flush=True)


if __name__ == "__main__":
    main()
