"""What the README says of the main job: ``python -m tests.benchmarks.main_job [learn] [agree] [real]``.

``learn``: LoRA on the embedded base, three seeds, accuracy on held-out problems before and after.
``agree``: the same run through stock TRL and through this package, reward curve and seconds a step side by side.
``real``: three steps on SmolLM2-135M (folder in RLVR_LITE_SMOLLM2) in fp32, bf16 and NF4, and the hash of its base.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from peft import LoraConfig

import rlvr_lite
from rlvr_lite import bases, evaluation, rewards, tasks
from rlvr_lite.config import LINEAR_LAYERS, SamplingConfig
from rlvr_lite.table import Table
from tests.benchmarks.trainer_step import Clock

SEEDS = (0, 1, 2)
STEPS = 40


def learn(folder: Path) -> Table:
    """Accuracy before and after 40 steps of LoRA, with 95 % intervals over 200 problems of the test split."""
    rows = []
    for seed in SEEDS:
        run = rlvr_lite.train("lora", out=folder / f"learn-{seed}", seed=seed, eval_problems=200, progress=False)
        scores = run.summary["evaluation"]
        row: dict[str, Any] = {"seed": seed}
        for metric in ("greedy", "avg@8", "pass@8"):
            for when in ("before", "after"):
                s = scores[when][metric]
                row[f"{metric} {when}"] = f"{s['value']:.3f} [{s['low']:.2f}, {s['high']:.2f}]"
        ood = run.evaluate("chain-sum:ood", n=200, progress=False)["chain-sum:ood"].metrics()["greedy"]
        rows.append(row | {"ood greedy after": f"{ood.value:.3f}", "s/step": run.summary["seconds"]["step"]})
    return Table.of(rows, title=f"LoRA r16 on chain-sum, base tiny, {STEPS} steps")


def problems(task: tasks.Task, seed: int) -> Dataset:
    """What 40 steps of 16 prompts are trained on."""
    drawn = task.problems("train", 16 * STEPS, seed=seed)
    return Dataset.from_list([{"prompt": task.messages(p, "bare"), "answer": p.answer} for p in drawn])


def configuration(folder: Path, seed: int, learning_rate: float, *, bf16: bool = False) -> trl.GRPOConfig:
    """40 steps of DAPO on 16 prompts x 8 answers, as TRL is told."""
    return trl.GRPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=bf16, per_device_train_batch_size=128, num_generations=8,
        max_steps=STEPS, learning_rate=learning_rate, lr_scheduler_type="constant_with_warmup", warmup_steps=5, beta=0.0,
        max_completion_length=56, temperature=1.0, top_k=0, epsilon=0.2, epsilon_high=0.28, loss_type="dapo",
        logging_steps=1, save_strategy="no", report_to="none", seed=seed, gradient_checkpointing=False,
        disable_tqdm=True, shuffle_dataset=False,
    )  # fmt: skip


def _one(ours: bool, seed: int, folder: Path) -> tuple[list[float], float, float]:
    """Reward by step, median CPU seconds a step, and greedy accuracy at the end."""
    task, base = tasks.get("chain-sum"), bases.load("tiny")
    args, rows = configuration(folder, seed, 2e-3), problems(task, seed)
    clock, kind = Clock(), rlvr_lite.training.GRPOTrainer if ours else trl.GRPOTrainer
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules=list(LINEAR_LAYERS), task_type="CAUSAL_LM")
    trainer = kind(
        base.model, rewards.get("accuracy"), args, rows, processing_class=base.tokenizer,
        peft_config=adapter, callbacks=[clock],
    )  # fmt: skip
    trainer.train()
    curve = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    trainer.model.get_base_model().__dict__.pop("forward", None)
    score = evaluation.score(
        trainer.model, base.tokenizer, task.problems("test", 200), messages=lambda p: task.messages(p, "bare"), k=1,
        sampling=SamplingConfig(temperature=0.0, max_completion_length=56), name="greedy",
    )  # fmt: skip
    return curve, statistics.median(clock.steps), score.metrics()["greedy"].value


def agree(folder: Path) -> Table:
    """Mean reward of ten steps at a time, for stock TRL and this package, by seed; and CPU seconds a step."""
    rows: list[dict[str, Any]] = []
    ratios = []
    for seed in SEEDS:
        clocks = {}
        for name, ours in (("stock TRL", False), ("rlvr_lite", True)):
            curve, clocks[name], greedy = _one(ours, seed, folder)
            means = {f"{i + 1}-{i + 10}": round(statistics.mean(curve[i : i + 10]), 3) for i in range(0, STEPS, 10)}
            rows.append({"trainer": name, "seed": seed, **means, "greedy after": greedy, "CPU s/step": clocks[name]})
        ratios.append(clocks["rlvr_lite"] / clocks["stock TRL"])
    note = f"CPU time a step, rlvr_lite / stock TRL {trl.__version__}: " + ", ".join(f"{r:.2f}" for r in ratios)
    return Table.of(rows, title="The same configuration through both trainers, mean reward by step", note=note)


def real(folder: Path) -> Table:
    """Three steps on a real pretrained model in every precision that a CPU has.

    A run whose base changed by a bit, or whose gradients were all zero, is not "proven".
    """
    place, rows = os.environ["RLVR_LITE_SMOLLM2"], []
    for precision in ("fp32", "bf16", "nf4"):
        run = rlvr_lite.train(
            "lora", place, "chain-sum", out=folder / f"real-{precision}", steps=3, precision=precision,
            task_options={"operands": 2, "hi": 20}, prompts_per_step=4, group_size=8, max_completion_length=24,
            eval_problems=0, learning_rate=2e-4, progress=False,
        )  # fmt: skip
        metrics = run.metrics()
        norms = [row["grad_norm"] for row in metrics]
        rows.append(
            {
                "precision": precision,
                "status": run.status,
                "gradient norms": ", ".join(f"{n:.3g}" for n in norms),
                "identity and base": run.summary["identity"],
                "reward": ", ".join(f"{row['reward']:.2f}" for row in metrics),
                "s/step": run.summary["seconds"]["step"],
            }
        )
    return Table.of(rows, title="LoRA r32, SmolLM2-135M-Instruct, 3 steps of 4 x 8 completions")


def main() -> None:
    """Run the parts that are named, or all."""
    parts = {"learn": learn, "agree": agree, "real": real}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("parts", nargs="*", choices=[*parts, "all"], default="all")
    wanted = options.parse_args().parts
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for name in parts if "all" in wanted else wanted:
            print(f"\n{parts[name](Path(folder))}", flush=True)


if __name__ == "__main__":
    main()
