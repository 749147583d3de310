"""Figures of evaluation: coverage of its intervals, false alarms between equal methods, resumption, and speed.

    python -m tests.benchmarks.evaluation coverage     # intervals: share that hold the truth, in simulation
    python -m tests.benchmarks.evaluation alarms       # the same method twice: how often is it called different
    python -m tests.benchmarks.evaluation resume       # SmolLM2-135M on 100 GSM8K problems, killed and continued
    python -m tests.benchmarks.evaluation speed        # against a plain model.generate loop on the same problems

The last two need RLVR_LITE_SMOLLM2 (a folder with SmolLM2-135M-Instruct) and RLVR_LITE_DATA (with gsm8k_test.jsonl).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rlvr_lite.analysis.replication import seed_problem_difference
from rlvr_lite.analysis.statistics import accuracy_interval, bootstrap_interval, paired_difference
from rlvr_lite.table import Table


def _covers(low: float, high: float, truth: float) -> bool:
    return bool(low <= truth <= high)


def coverage(trials: int = 2000) -> None:
    """95 % intervals of an accuracy, and of a paired difference, on simulated benchmarks."""
    rows = []
    for n in (30, 500):
        for k in (1, 8, 32):
            for accuracy in (0.1, 0.3, 0.5, 0.7, 0.9):
                rng = np.random.default_rng([n, k, round(100 * accuracy)])
                ours, plain, boot = 0, 0, 0
                boots = min(trials, 300)
                for trial in range(trials):
                    x = rng.binomial(k, rng.beta(accuracy, 1 - accuracy, n)) / k
                    interval = accuracy_interval(x)
                    ours += _covers(interval.low, interval.high, accuracy)
                    error = 1.96 * x.std(ddof=1) / n**0.5
                    plain += _covers(x.mean() - error, x.mean() + error, accuracy)
                    if trial < boots:
                        bca = bootstrap_interval(x, draws=1000)
                        boot += _covers(bca.low, bca.high, accuracy)
                rows.append(
                    {
                        "problems": n,
                        "k": k,
                        "accuracy": accuracy,
                        "printed": ours / trials,
                        "mean ± 1.96 SE": plain / trials,
                        "BCa bootstrap": boot / boots,
                    }
                )
        for k in (1, 8, 32):
            part = [row for row in rows if row["problems"] == n and row["k"] == k]
            means = {
                c: float(np.mean([row[c] for row in part])) for c in ("printed", "mean ± 1.96 SE", "BCa bootstrap")
            }
            rows.append({"problems": n, "k": k, "accuracy": None, **means})
    print(Table.of(rows, title=f"Coverage of 95 % intervals, {trials} benchmarks a row (– : mean over accuracies)"))
    rows = []
    for n in (30, 500):
        for k in (1, 8, 32):
            rng = np.random.default_rng([n, k])
            hits = 0
            for _ in range(trials):
                chance = rng.beta(0.8, 1.2, n)
                better = chance + 0.3 * (1 - chance) * rng.random(n)  # 0.15 x 0.6 = 0.09 in the mean
                d = paired_difference(rng.binomial(k, chance) / k, rng.binomial(k, better) / k)
                hits += _covers(d.low, d.high, 0.09)
            rows.append({"problems": n, "k": k, "printed": hits / trials})
    print()
    print(Table.of(rows, title=f"Coverage of 95 % intervals of a paired difference, {trials} pairs a row"))


def alarms(trials: int = 2000) -> None:
    """How often the same method, trained twice with S seeds, is called different at the 5 % level."""
    rows = []
    for seeds in (2, 3, 5):
        for training in (0.0, 0.1, 0.3, 0.8):
            rng = np.random.default_rng([seeds, round(100 * training)])
            ours, naive = 0, 0
            for _ in range(trials):
                level = rng.normal(0, 1.5, (1, 1, 100)) + training * rng.standard_normal((2, seeds, 1))
                level = level + 0.5 * rng.standard_normal((2, seeds, 100))
                a, b = rng.binomial(8, 1 / (1 + np.exp(-level))) / 8
                ours += seed_problem_difference(a, b).excludes_zero
                d = (b - a).mean(axis=0)
                naive += abs(d.mean()) > 1.98 * d.std(ddof=1) / 10
            rows.append(
                {
                    "seeds": seeds,
                    "training noise (logits)": training,
                    "seeds and problems": ours / trials,
                    "problems only": naive / trials,
                }
            )
    print(Table.of(rows, title=f"False alarms at 5 %: 100 problems, k = 8, {trials} studies a row"))


_CHILD = """
import os, sys, torch
torch.set_num_threads(1)
from rlvr_lite.config import SamplingConfig
from rlvr_lite.evaluation import evaluate
evaluate(os.environ["RLVR_LITE_SMOLLM2"], "gsm8k", k=2, n=100, seed=0, style="instruct", out=sys.argv[1],
         sampling=SamplingConfig(temperature=0.6, top_p=0.95, max_completion_length=128), progress=False)
"""


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def resume() -> None:
    """100 GSM8K problems end to end on a CPU, once in one go and once killed in the middle."""
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", _CHILD, str(whole)], check=True)
        seconds = time.perf_counter() - started
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(broken)])
        while _lines(broken / "gsm8k.jsonl") < 170 and child.poll() is None:
            time.sleep(0.2)
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = _lines(broken / "gsm8k.jsonl")
        subprocess.run([sys.executable, "-c", _CHILD, str(broken)], check=True)
        from rlvr_lite.evaluation import Evaluation, load_problems, rescore

        found = load_problems("gsm8k")
        again = [json.dumps(rescore(whole / "gsm8k.jsonl", found.problems).to_dict(outcomes=True)) for _ in range(2)]
        digests = [hashlib.sha256((d / "evaluation.json").read_bytes()).hexdigest()[:16] for d in (whole, broken)]
        texts = [sorted((d / "gsm8k.jsonl").read_text().splitlines()) for d in (whole, broken)]
        rows = [
            {"run": "in one go", "samples": len(texts[0]), "evaluation.json": digests[0], "seconds": round(seconds)},
            {"run": f"killed after {kept}, continued", "samples": len(texts[1]), "evaluation.json": digests[1]},
        ]
        print(Evaluation.load(whole))
        print()
        print(Table.of(rows, title="SmolLM2-135M on 100 GSM8K problems"))
        print(
            f"same JSON: {digests[0] == digests[1]}; same samples: {texts[0] == texts[1]}; judged twice, same bytes: {again[0] == again[1]}"
        )


def speed(problems: int = 16, k: int = 8, new_tokens: int = 48, repeats: int = 2) -> None:
    """Answers a second: evaluation's sampler, and model.generate problem by problem, in turn."""
    import torch

    from rlvr_lite import bases
    from rlvr_lite.config import SamplingConfig
    from rlvr_lite.evaluation import load_problems, score
    from rlvr_lite.sampling import TransformersSampler, encode, row_keys

    torch.set_num_threads(1)
    base = bases.load(os.environ["RLVR_LITE_SMOLLM2"])
    asked = load_problems("gsm8k", problems)
    sampling = SamplingConfig(temperature=0.6, top_p=0.95, max_completion_length=new_tokens)
    prompts = [asked.task.messages(problem, "instruct") for problem in asked.problems]

    def ours() -> int:
        found = score(
            base.model,
            base.tokenizer,
            asked.problems,
            messages=lambda problem: asked.task.messages(problem, "instruct"),
            k=k,
            sampling=sampling,
            greedy=False,
        )
        return int(found.tokens.sum())

    def sampler_alone() -> int:
        keys = [key for problem in asked.problems for key in row_keys(0, "eval", problem.id, rows=k)]
        return int(TransformersSampler(base.model, base.tokenizer).sample(prompts, k, sampling, keys).mask.sum())

    def loop() -> int:
        torch.manual_seed(0)
        total = 0
        for prompt in prompts:
            ids, mask = encode(base.tokenizer, [prompt])
            out = base.model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=True,
                temperature=0.6,
                top_p=0.95,
                top_k=0,
                max_completion_length=new_tokens,
                num_return_sequences=k,
                pad_token_id=base.tokenizer.pad_token_id,
            )[:, ids.shape[1] :]
            base.tokenizer.batch_decode(out, skip_special_tokens=True)
            total += int((out != base.tokenizer.pad_token_id).sum())
        return total

    times: dict[str, list[float]] = {"evaluate (with verdicts)": [], "its sampler": [], "model.generate loop": []}
    tokens = {}
    with torch.no_grad():
        for _ in range(repeats):
            for name, call in zip(times, (ours, sampler_alone, loop), strict=True):
                started = time.process_time()
                tokens[name] = call()
                times[name].append(time.process_time() - started)
    reference = statistics.median(times["model.generate loop"])
    rows = [
        {
            "sampler": name,
            "CPU seconds": statistics.median(seconds),
            "answers a second": problems * k / statistics.median(seconds),
            "tokens a second": tokens[name] / statistics.median(seconds),
            "ratio": reference / statistics.median(seconds),
        }
        for name, seconds in times.items()
    ]
    print(
        Table.of(
            rows,
            title=f"SmolLM2-135M fp32, 1 thread, {problems} GSM8K problems, k = {k}, at most {new_tokens} tokens",
            note=f"Median of {repeats} rounds in turn; ratio of answers a second to the loop.",
        )
    )


def main() -> None:
    """Print the figures that are named, or those that need no model."""
    figures = {"coverage": coverage, "alarms": alarms, "resume": resume, "speed": speed}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("figures", nargs="*", choices=[*figures, "simulated"], default="simulated")
    wanted = options.parse_args().figures
    for name in ["coverage", "alarms"] if "simulated" in wanted else wanted:
        figures[name]()
        print()


if __name__ == "__main__":
    main()
