"""Every architecture through every command, on tiny random models in fp32: exact to 1e-5, or refused before a weight is loaded.

    python -m tests.benchmarks.architectures --out OUT                     # LoRA on all, ten methods on twelve
    python -m tests.benchmarks.architectures --out OUT --only lfm2 gemma2  # some; what OUT has is not run again

A number is the largest difference from the model's own logits or log-probabilities: sampled (``train``), of a run that was
stopped after a step (``resume``), of the saved adapter on a fresh base (``reload``), and of both exports, read by PEFT and
transformers alone. ``evaluate`` compares greedy answers with an argmax over whole forward passes, ``plan`` the planned weights
with the real ones, ``dry run`` the same.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import rlvr_lite
from rlvr_lite import bases, methods, tasks
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import Packer
from rlvr_lite.table import Table
from tests.zoo import ZOO, saved

METHODS = ("full", "lora", "dora", "miss", "adalora", "pissa", "vera", "ia3", "ln_tuning", "oft")
TWELVE = (
    "llama", "qwen2", "qwen3", "qwen3_5", "lfm2", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "phi3", "granitemoehybrid", "mixtral",
)  # fmt: skip
COMMANDS = ("train", "resume", "reload", "evaluate", "plan", "dry run", "lora", "merged")
EXACT, STEPWISE = 1e-5, 2e-4
HOW: dict[str, Any] = {
    "task": "chain-sum", "progress": False, "prompts_per_step": 2, "group_size": 4, "max_completion_length": 10,
    "eval_problems": 0, "kl_coef": 0.05,
}  # fmt: skip
IDS = torch.arange(2, 18).reshape(2, 8)


def reward(completions: Any, **_: Any) -> list[float]:
    """Some number that differs."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [sum(map(ord, text)) % 7 / 7 for text in texts]


class _Loads:
    """How often weights were loaded."""

    count = 0


@contextmanager
def _counting() -> Iterator[_Loads]:
    loads, plain = _Loads(), AutoModelForCausalLM.from_pretrained

    def load(*args: Any, **kwargs: Any) -> Any:
        loads.count += 1
        return plain(*args, **kwargs)

    with mock.patch.object(AutoModelForCausalLM, "from_pretrained", load):
        yield loads


def _said(call: Callable[[], Any]) -> Any:
    """What a call gives, or how it was refused; anything else is a failure with its name."""
    with _counting() as loads:
        try:
            return call()
        except UserError as error:
            late = " AFTER LOADING" if loads.count else ""
            return f"refused{late}: {error}" if "\n" not in str(error) else f"FAILED: several lines: {error!s:.80}"
        except Exception as error:
            return f"FAILED: {type(error).__name__}: {error!s:.120}"


def _train(base: Path, out: Path, method: str, steps: int = 2, **more: Any) -> Any:
    rank = {"rank": 4} if "rank" in methods.get(method).uses and methods.get(method).fixed_rank is None else {}
    targets = {"targets": ("all-linear",)} if "targets" in methods.get(method).uses else {}
    run = rlvr_lite.train(
        method, base=str(base), out=out, rewards=[reward], steps=steps, **HOW, **rank, **targets, **more
    )
    if run.status == "failed":
        raise RuntimeError(run.summary["reason"])
    return run


def _tensors(run: Any) -> dict[str, torch.Tensor]:
    return {n: x for path in sorted(run.files.adapter.rglob("*.safetensors")) for n, x in load_file(path).items()}


def _gap(run: Any) -> float:
    rows = [json.loads(line) for line in run.files.metrics.path.read_text().splitlines()]
    return max(row["sampling/sampling_logp_difference/max"] for row in rows)


@torch.no_grad()
def _logits(model: Any) -> torch.Tensor:
    return model.eval()(input_ids=IDS).logits


def _policy(base: Path, run: Any) -> Any:
    return methods.load(bases.load(str(base)).model, run.files.adapter)


def _distance(model: Any, expected: torch.Tensor) -> float:
    return float((_logits(model) - expected).abs().max() / expected.abs().max())


def _greedy(base: Path, run: Any, out: Path) -> str:
    """Whether greedy answers are an argmax over whole forward passes."""
    rlvr_lite.evaluate(run, "chain-sum:test", preset="greedy", n=2, max_completion_length=8, out=out, progress=False)
    told = {
        row["id"]: row["completion"] for row in map(json.loads, (out / "chain-sum_test.jsonl").read_text().splitlines())
    }
    loaded = bases.load(str(base))
    model, task = methods.load(loaded.model, run.files.adapter), tasks.get("chain-sum")
    for problem in task.at_most("test", 2):
        chat = task.messages(problem, run.config.prompt_style or "bare")
        ids = loaded.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        answer: list[int] = []
        with torch.no_grad():
            while len(answer) < 8 and not (answer and answer[-1] in loaded.eos_ids):
                answer.append(int(model(input_ids=torch.tensor([[*ids, *answer]])).logits[0, -1].argmax()))
        if told[problem.id] != loaded.tokenizer.decode(answer, skip_special_tokens=True):
            return "FAILED: other answers"
    return "same"


def lora(name: str, place: Path) -> dict[str, Any]:
    """One architecture through every command."""
    base = saved(name, place / "base")
    row: dict[str, Any] = {"architecture": name, "model type": ZOO[name]().model_type}
    run = _said(lambda: _train(base, place / "run", "lora"))
    if isinstance(run, str):
        return row | dict.fromkeys(COMMANDS, run) | {"packed": None}
    expected = _logits(_policy(base, run))
    row |= {"train": _gap(run), "reload": run.summary["parity"]}

    def resumed() -> float:
        stopped = _train(base, place / "again", "lora", max_hours=1e-9)
        assert stopped.status == "stopped"
        again, first = _tensors(_train(base, place / "again", "lora")), _tensors(run)
        assert again.keys() == first.keys()
        return max(float((again[n] - first[n]).abs().max()) for n in first)

    def exported(to: str) -> float:
        folder = rlvr_lite.export(run, to=to, progress=False, **({"dtype": "fp32"} if to == "merged" else {}))
        proof = rlvr_lite.verify_export(folder)
        if not proof.proven:
            raise RuntimeError(proof.reason)
        plain = AutoModelForCausalLM.from_pretrained(folder if to == "merged" else base, dtype=torch.float32)
        return _distance(plain if to == "merged" else PeftModel.from_pretrained(plain, folder), expected)

    def planned(dry: bool) -> float:
        plan = rlvr_lite.plan(str(base), "lora", gpu="t4", precision="fp32", rank=4)
        weights = (plan.dry_run() if dry else plan).phases["load"]["weights"]
        held = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        return weights / sum(x.numel() * x.element_size() for x in (*held.parameters(), *held.buffers())) - 1

    row["resume"] = _said(resumed)
    row["evaluate"] = _said(lambda: _greedy(base, run, place / "eval"))
    row["plan"], row["dry run"] = _said(lambda: planned(False)), _said(lambda: planned(True))
    row |= {to: _said(lambda to=to: exported(to)) for to in ("lora", "merged")}
    return row | {"packed": Packer().supports(AutoModelForCausalLM.from_pretrained(base)) or "packed"}


def method(name: str, label: str, place: Path) -> dict[str, Any]:
    """One method on one architecture: trained, loaded and merged, as the largest of the three differences."""
    base = saved(name, place / "base")
    row = {"architecture": name, "method": label}
    run = _said(lambda: _train(base, place / "run", label, steps=8 if label == "adalora" else 3, learning_rate=1e-3))
    if isinstance(run, str):
        return row | {"exact": run}

    def merged() -> float:
        folder = rlvr_lite.export(run, to="merged", dtype="fp32", progress=False)
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return _distance(plain, _logits(_policy(base, run)))

    found = _said(merged)
    return row | {"exact": found if isinstance(found, str) else max(found, run.summary["parity"]), "train": _gap(run)}


def silent(row: dict[str, Any]) -> list[str]:
    """What of a row is neither exact nor refused at the start."""
    limits = {"train": STEPWISE, "plan": 0.01, "dry run": 0.01}
    found = []
    for key in (*COMMANDS, "exact"):
        value = row.get(key, 0.0)
        if isinstance(value, str):
            early = value.startswith("refused:") or (key in ("lora", "merged", "exact") and value.startswith("refused"))
            good = early or value == "same"
        else:
            good = value is not None and abs(value) <= limits.get(key, EXACT)
        found += [] if good else [key]
    return found


def _shown(value: Any) -> Any:
    return f"{value:.0e}" if isinstance(value, float) and value else "0" if value == 0 else value


def main() -> None:
    """Run what is missing, and print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=list(ZOO), default=list(ZOO))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    given = parser.parse_args()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    log = given.out / "rows.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["architecture"], row.get("method")) for row in rows}
    wanted: list[tuple[str, str | None]] = [(name, None) for name in given.only]
    wanted += [(name, label) for name in given.only if name in TWELVE for label in given.methods]
    for name, label in wanted:
        if (name, label) in done:
            continue
        place = Path(tempfile.mkdtemp(dir=given.out))
        row = lora(name, place) if label is None else method(name, label, place)
        shutil.rmtree(place)
        gc.collect()
        rows.append(row)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, label or "", "; ".join(f"{key} {row[key]}" for key in silent(row)) or "well", flush=True)
    wide = [{key: _shown(value) for key, value in row.items()} for row in rows if "method" not in row]
    print(Table.of(wide, title=f"{len(wide)} architectures with LoRA").to_markdown())
    grid: dict[str, dict[str, Any]] = {}
    for row in rows:
        if "method" in row:
            grid.setdefault(row["architecture"], {"architecture": row["architecture"]})[row["method"]] = _shown(
                row["exact"]
            )
    if grid:
        print(Table.of(list(grid.values()), title="Methods").to_markdown())
    bad = [(row["architecture"], row.get("method"), silent(row)) for row in rows if silent(row)]
    print(f"{len(rows)} rows, {len(bad)} with something that is neither exact nor refused at the start: {bad}")


if __name__ == "__main__":
    main()
