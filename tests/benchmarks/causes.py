"""What a published run did around PiSSA and MiLoRA, one thing at a time: ``python -m tests.benchmarks.causes``.

The bundled tiny model, 40 steps of 16 prompts x 8 answers, each method's residual form (the base becomes ``W - s B0 A0``) at its own
rate. Varied: the precision of the base, dropout, and whether the adapter is merged into the live base and taken out of it again, as
TRL does to hand weights to vLLM: 26 times a step, so that 40 steps have the 1,024 times of arXiv 2512.23165. Each policy is then
scored as it was trained, on the base that training began with, on a residual whose randomised SVD is computed anew (as PEFT does
when it loads ``pissa_niter_4``), and on the untouched W.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

import rlvr_lite
from rlvr_lite import bases, evaluation, methods, rewards, tasks
from rlvr_lite.config import AdapterConfig, SamplingConfig
from rlvr_lite.table import Table
from tests.benchmarks.main_job import STEPS, configuration, problems

METHODS, SEEDS, SYNCS = ("pissa", "milora"), (0, 1), 26
PRECISIONS, DROPOUTS = ("fp32", "bf16"), (0.0, 0.05)
ADAPTER = "default"
_GAP = "sampling/sampling_logp_difference/mean"  # nats a token


def residual_layers(model: nn.Module) -> list[Any]:
    """The layers whose base weight is a residual."""
    return [module for module in model.modules() if hasattr(module, "original") and hasattr(module, "residual")]


class MergeAndUnmerge(TrainerCallback):
    """Adds the update to the live base and subtracts it, in the base's precision, as PEFT's merging does."""

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        with torch.no_grad():
            for layer in residual_layers(model):
                weight, delta = layer.get_base_layer().weight.data, layer.get_delta_weight(ADAPTER)
                for _ in range(SYNCS):
                    weight += delta
                    weight -= delta


def drawn_anew(original: Tensor, rank: int) -> Tensor:
    """``W - s B0 A0`` from another randomised SVD, ``torch.svd_lowrank`` with four iterations."""
    u, s, v = torch.svd_lowrank(original.float(), rank, niter=4)
    return (original.float() - (u * s) @ v.T).to(original.dtype)


def one(method: str, precision: str, dropout: float, merged: bool, seed: int) -> dict[str, Any]:
    """Train a policy and score it in four ways."""
    task, base = tasks.get("chain-sum"), bases.load("tiny", precision)
    adapter = AdapterConfig(options={"dropout": dropout})
    model = methods.attach(base.model, f"{method}:residual", adapter, total_steps=STEPS, seed=seed)
    layers = residual_layers(model)
    start = [layer.residual.clone() for layer in layers]
    with tempfile.TemporaryDirectory() as folder:
        rate = methods.learning_rate(method, "tiny").value
        args = configuration(Path(folder), seed, rate, bf16=precision == "bf16")
        trainer = rlvr_lite.training.GRPOTrainer(
            model, rewards.get("accuracy"), args, problems(task, seed), processing_class=base.tokenizer,
            callbacks=[MergeAndUnmerge()] if merged else [], sampler_gap_limit=None,
        )  # fmt: skip
        trainer.train()
        history = [row["reward"] for row in trainer.state.log_history if "reward" in row]
        drift = [
            float((layer.residual.float() - kept.float()).norm() / kept.float().norm())
            for layer, kept in zip(layers, start, strict=True)
        ]
        gaps = [row[_GAP] for row in trainer.state.log_history if _GAP in row]
        found: dict[str, Any] = {"reward, last 5 steps": sum(history[-5:]) / 5, "drift of the base": max(drift)}
        found["sampled - scored, first step"] = gaps[0]
        found["as trained"] = score(model, base.tokenizer, task, seed, Path(folder) / "0")
        anew = [drawn_anew(layer.original, layer.lora_A[ADAPTER].anchor.shape[0]) for layer in layers]
        weights = {"base of the start": start, "on W": [layer.original for layer in layers]}
        if method == "pissa":
            weights["SVD anew"] = anew
        for i, (name, held) in enumerate(weights.items(), 1):
            for layer, weight in zip(layers, held, strict=True):
                layer.residual = layer.get_base_layer().weight.data = weight
            found[name] = score(model, base.tokenizer, task, seed, Path(folder) / str(i))
    return found


def score(model: nn.Module, tokenizer: Any, task: tasks.Task, seed: int, log: Path) -> float:
    """avg@8 of 100 held-out problems."""
    done = evaluation.score(
        model, tokenizer, task.problems("test", 100), messages=lambda problem: task.messages(problem, "bare"), k=8,
        sampling=SamplingConfig(temperature=1.0, max_completion_length=56), seed=seed, name="causes", log=log,
    )  # fmt: skip
    return float(done.by_problem()["avg@8"].mean())


def settings() -> Iterator[tuple[str, str, float, bool, int]]:
    """Every run."""
    return itertools.product(METHODS, PRECISIONS, DROPOUTS, (False, True), SEEDS)


def main() -> None:
    """Run what is not in the file yet, and print the table: means over seeds."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("results", type=Path, help="a JSON file, which is continued")
    file = options.parse_args().results
    warnings.simplefilter("ignore", FutureWarning)
    found = json.loads(file.read_text()) if file.exists() else {}
    for setting in settings():
        key = " ".join(map(str, setting))
        if key not in found:
            found[key] = one(*setting)
            file.write_text(json.dumps(found, indent=1) + "\n")
            print(key, found[key], flush=True)
    rows = []
    for method, precision, dropout, merged in itertools.product(METHODS, PRECISIONS, DROPOUTS, (False, True)):
        runs = [found[" ".join(map(str, (method, precision, dropout, merged, seed)))] for seed in SEEDS]
        means = {name: round(sum(run[name] for run in runs) / len(runs), 3) for name in runs[0]}
        rows.append({"method": method, "base": precision, "dropout": dropout, "merged": merged, **means})
    print(Table.of(rows, title=f"Bundled tiny model, {STEPS} steps, mean over {len(SEEDS)} seeds").to_markdown())


if __name__ == "__main__":
    main()
