"""The paper's fourteen methods on a pretrained model: ``python -m tests.benchmarks.pretrained run|base|report|pictures``.

SmolLM2-135M-Instruct in fp32 (its folder in RLVR_LITE_SMOLLM2) learns sums and differences of two numbers up to 20: one worked
example, the answer opened with the sum itself, so that it takes three tokens. It solves about a fifth of them at the start; 12 steps
of 8 prompts x 8 answers follow. Each method first trains at three rates of one lattice of half decades around its own default (seed
1000, validation problems; while the best lies on the edge, one more on that side, at most two). Where a neighbour of the best ends
below the untrained model, one seed says too little of a cliff, and a second is searched at all its rates (a rule made after MiLoRA's
first runs). At the best rate follow five seeds, scored on 100 held-out problems x 8 answers. ``run`` takes the next piece of work that has no file in ``results/pretrained`` until none
is left, so it goes on on any machine; ``base`` scores the untrained model once; ``report`` prints what is there and ``pictures``
draws it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.rewards import Verdict
from rlvr_lite.study._lattice import doubt as lattice_doubt
from rlvr_lite.study._lattice import optimum
from rlvr_lite.tasks import ChainSum, Problem

RESULTS = Path(__file__).parent / "results" / "pretrained"
_BASE = RESULTS / "base.json"
_PICTURES = Path(__file__).parents[2] / "notebooks" / "pictures"
_DASHED: Mapping[str, Any] = {"color": "#8a8a8a", "linestyle": "--", "linewidth": 1}
#: Equivalence margin, as a share of what LoRA gains over the untrained base: that of the claims.
_MARGIN = 0.08
METHODS = [
    "lora",
    "dora",
    "adalora",
    "miss",
    "pissa",
    "milora",
    "rslora",
    "lora_plus",
    "lora_fa",
    "rank1",
    "full",
    "vera",
    "ia3",
    "ln_tuning",
]
SEEDS = (0, 1, 2, 3, 4)
SEARCH_SEEDS = (1000, 1001)
PROTOCOL: Mapping[str, Any] = {
    "steps": 12,
    "prompts_per_step": 8,
    "group_size": 8,
    "max_completion_length": 6,
    "precision": "fp32",
    "gradient_checkpointing": False,
    "eval_before": False,
    "eval_k": 8,
}
_EVALUATION = {"search": {"eval_split": "validation", "eval_problems": 50}, "final": {"eval_problems": 100}}


class Opened(ChainSum):
    """``12+7=?`` whose answer is opened with ``12+7=``, after one worked example; right is the number alone."""

    shares: ClassVar[Mapping[str, int]] = {"train": 50, "validation": 15, "test": 30, "ood": 5}

    def messages(self, problem: Problem | str, style: str = "instruct") -> list[dict[str, Any]]:
        question = problem if isinstance(problem, str) else problem.problem
        turns = ["9-4=?", "9-4=5", question, question.removesuffix("?")]
        return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[Verdict]:
        return [
            Verdict(c.strip() == p.answer, c.strip(), "text", 0.0, "")
            for p, c in zip(problems, completions, strict=True)
        ]


def lattice(n: int) -> float:
    """The n-th rate of the lattice that all methods share: half decades, two figures.

    >>> lattice(-6), lattice(-7)
    (0.001, 0.00032)
    """
    return float(f"{10 ** (n / 2):.2g}")


def centre(method: str) -> int:
    """The place on the lattice nearest to a method's own default for a base of this size."""
    from rlvr_lite import methods

    return round(2 * math.log10(methods.learning_rate(method, "small").value))


def path(method: str, place: int, seed: int) -> Path:
    """The file of one run."""
    return RESULTS / method / f"lr{lattice(place):g}-seed{seed}.json"


def score(method: str, place: int, seed: int) -> float | None:
    """Mean accuracy of the drawn answers of a run that is there; 0 where it failed."""
    file = path(method, place, seed)
    return json.loads(file.read_text())["avg@8"] if file.exists() else None


def untrained_score() -> float:
    """Mean accuracy of the model as it is."""
    return float(json.loads(_BASE.read_text())["avg@8"])


def _mean(scores: Sequence[float | None]) -> float:
    return sum(s or 0.0 for s in scores) / len(scores)


def searched(method: str) -> tuple[dict[int, list[float | None]], int | None]:
    """Scores by place, one a search seed, of the runs that the search needs so far, and the best place once all are there."""
    seeds: Sequence[int] = SEARCH_SEEDS[:1]
    places = [centre(method) + i for i in (-1, 0, 1)]
    while True:
        found = {p: [score(method, p, s) for s in seeds] for p in places}
        means = {p: _mean(row) for p, row in found.items() if None not in row}
        if len(means) < len(places):
            return found, None
        best = max(places, key=lambda p: (means[p], -p))
        if best in (places[0], places[-1]) and len(places) < 5:
            places = sorted([*places, best + (1 if best == places[-1] else -1)])
        elif len(seeds) == 1 and min(means.get(p, 1.0) for p in (best - 1, best + 1)) < untrained_score():
            seeds = SEARCH_SEEDS
        else:
            return found, best


def doubt(method: str, effect: float) -> bool:
    """Whether its search leaves open a difference of this size: the best on an edge, or a neighbour further below it."""
    found, best = searched(method)
    return best is None or bool(lattice_doubt(optimum(found, best), None, effect))


def work(methods: Sequence[str] = METHODS) -> Iterator[tuple[str, int, int, str]]:
    """What has no file yet, the search of all methods first, then seed by seed."""
    while True:
        open_ = [
            (m, p, SEARCH_SEEDS[i], "search")
            for m in methods
            for p, row in searched(m)[0].items()
            for i, value in enumerate(row)
            if value is None
        ]
        best = {m: searched(m)[1] for m in methods}
        open_ += [
            (m, p, s, "final") for s in SEEDS for m, p in best.items() if p is not None and score(m, p, s) is None
        ]
        if not open_:
            return
        yield open_[0]


def do(method: str, place: int, seed: int, stage: str) -> None:
    """Train and score one run, and keep its scores."""
    import rlvr_lite
    from rlvr_lite.evaluation import Score

    base = os.environ["RLVR_LITE_SMOLLM2"]
    with tempfile.TemporaryDirectory() as folder:
        run = rlvr_lite.train(
            method, base, Opened(operands=2, hi=20), out=Path(folder) / "run", learning_rate=lattice(place), seed=seed, progress=False,
            **PROTOCOL, **_EVALUATION[stage],
        )  # fmt: skip
        if run.status == "stopped":
            raise SystemExit(f"{method}, seed {seed}: {run.summary.get('reason')}")
        found = Score.read(run.directory / "eval" / "after.jsonl", "after") if run.status == "done" else None
        facts = {
            "method": method,
            "learning_rate": lattice(place),
            "seed": seed,
            "stage": stage,
            "status": run.status,
            "reason": run.summary.get("reason", ""),
            "avg@8": 0.0 if found is None else float(found.by_problem()["avg@8"].mean()),
            "rewards": [row["reward"] for row in run.metrics()],
            "by_problem": None
            if found is None
            else dict(zip(found.ids, found.by_problem()["avg@8"].tolist(), strict=True)),
            "trainable_parameters": run.summary.get("trainable_parameters"),
            "seconds": run.summary.get("seconds"),
            "versions": run.summary.get("versions"),
        }
    file = path(method, place, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(facts, indent=1) + "\n")


def untrained() -> None:
    """Score the base as it is on the problems of the final runs, and keep it."""
    import rlvr_lite
    from rlvr_lite.evaluation import Score

    with tempfile.TemporaryDirectory() as folder:
        run = rlvr_lite.train(
            "ln_tuning", os.environ["RLVR_LITE_SMOLLM2"], Opened(operands=2, hi=20), out=Path(folder) / "run", seed=0,
            progress=False, **{**PROTOCOL, "steps": 1, "eval_before": True}, **_EVALUATION["final"],
        )  # fmt: skip
        found = Score.read(run.directory / "eval" / "before.jsonl", "before")
        scores = dict(zip(found.ids, found.by_problem()["avg@8"].tolist(), strict=True))
    _BASE.write_text(json.dumps({"avg@8": sum(scores.values()) / len(scores), "by_problem": scores}, indent=1) + "\n")


def finals() -> dict[str, NDArray[np.float64]]:
    """Accuracy by method ``[S, P]`` on the seeds that it has, the first ones; a failed run counts as 0."""
    runs: dict[str, list[dict[str, float] | None]] = {}
    for method in METHODS:
        best = searched(method)[1]
        if best is None:
            continue
        done = [path(method, best, seed) for seed in SEEDS]
        there = list(itertools.takewhile(Path.exists, done))
        if there:
            runs[method] = [json.loads(file.read_text())["by_problem"] for file in there]
    problems = sorted(next((run for rows in runs.values() for run in rows if run), {}))
    return {
        method: np.array([[run[k] if run else 0.0 for k in problems] for run in rows]) for method, rows in runs.items()
    }


def _gain(scores: Mapping[str, NDArray[np.float64]], method: str) -> float:
    """Mean accuracy minus LoRA's, over the seeds that both have."""
    loras, its = _paired(scores, method)
    return float(its.mean() - loras.mean())


def _paired(scores: Mapping[str, NDArray[np.float64]], method: str) -> list[NDArray[np.float64]]:
    seeds = min(len(scores[method]), len(scores["lora"]))
    return [scores[name][:seeds] for name in ("lora", method)]


def report() -> None:
    """Accuracy by method over the seeds that it has, paired with LoRA's runs with these seeds, and the search of each."""
    from rlvr_lite.analysis.replication import (
        equivalent,
        in_words,
        seed_problem_difference,
        seed_problem_interval,
        verdict,
    )
    from rlvr_lite.analysis.statistics import holm
    from rlvr_lite.table import Table

    scores, base = finals(), untrained_score()
    margin = _MARGIN * max(0.0, float(scores["lora"].mean()) - base)
    several = [method for method, table in scores.items() if method != "lora" and len(table) > 1]
    against = {m: seed_problem_difference(*_paired(scores, m)) for m in several}
    adjusted = dict(zip(several, holm([d.p_value for d in against.values()]), strict=True))
    rows = []
    for method in sorted(scores, key=lambda m: -_gain(scores, m)):
        found, (tried, best) = seed_problem_interval(scores[method]), searched(method)
        row: dict[str, Any] = {"method": method, "avg@8": f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"}
        if method in against:
            d = against[method]
            direction, within = verdict(d, adjusted[method]), equivalent(d, margin)
            behind = {"worse": method, "better": "lora"}.get(direction)
            if behind and doubt(behind, d.value):
                direction, within = "search inconclusive", False
            row["against lora"] = f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
            row["verdict"] = in_words(direction, within)
        elif method != "lora":
            row |= {"against lora": f"{_gain(scores, method):+.3f}", "verdict": "one seed: a run, not a method"}
        row["single seeds"] = ", ".join(f"{mean:.2f}" for mean in scores[method].mean(axis=1))
        assert best is not None
        search = (f"{lattice(p):g}:" + "/".join(f"{s or 0.0:.2f}" for s in row_) for p, row_ in tried.items())
        row |= {"rate": f"{lattice(best):g}", "search": " ".join(search)}
        rows.append(row)
    print(
        f"untrained {base:.3f}; equivalence margin {margin:.3f}, {_MARGIN:g} of what LoRA gains; Holm over all with several seeds"
    )
    print(Table.of(rows).to_markdown())
    if missing := [method for method in METHODS if method not in scores]:
        print(f"\nthe search is not done of {', '.join(missing)}")


def pictures(folder: Path) -> None:
    """Two pictures: what each method reached, and its search.

    Args:
        folder: for ``study-pretrained-methods.png`` and ``study-pretrained-search.png``.
    """
    from rlvr_lite.analysis.replication import seed_problem_interval
    from rlvr_lite.figure import Figure
    from tests.notebooks.render import save_small

    scores, base = finals(), untrained_score()
    order = sorted(scores, key=lambda m: _gain(scores, m))
    reached = Figure(figsize=(5.6, 0.8 + 0.3 * len(order)), layout="constrained")
    axes = reached.subplots()
    for y, method in enumerate(order):
        axes.plot(
            scores[method].mean(axis=1), [y] * len(scores[method]), "o", color="#E69F00", markersize=3.5, zorder=3
        )
        if len(scores[method]) == 1:
            continue
        found = seed_problem_interval(scores[method])
        colour = "#000000" if method == "lora" else "#0072B2"
        axes.plot([found.low, found.high], [y, y], color=colour, linewidth=1.6)
        axes.plot([found.value], [y], "D", color=colour, markersize=5, zorder=4)
    axes.axvline(base, **_DASHED)
    axes.annotate("untrained", (base, len(order) - 0.4), fontsize=8, color="#555555", ha="center")
    axes.set_yticks(range(len(order)), order)
    axes.set_xlim(-0.02, 1.0)
    axes.set_ylim(-0.7, len(order) + 0.1)
    axes.set_xlabel("accuracy (avg@8): mean with 95 % interval, and single seeds")
    axes.spines[["top", "right"]].set_visible(False)
    save_small(reached._repr_png_(), folder / "study-pretrained-methods.png")
    search = Figure(figsize=(7.2, 5.6), layout="constrained")
    grid = search.subplots(math.ceil(len(METHODS) / 4), 4, sharey=True).ravel()
    for axes, method in itertools.zip_longest(grid, METHODS):
        if method is None:
            axes.set_visible(False)
            continue
        ran = {lattice(p): [s for s in row if s is not None] for p, row in searched(method)[0].items()}
        tried = [(rate, _mean(row)) for rate, row in ran.items() if row]
        axes.plot(*zip(*tried, strict=True), "o-", color="#0072B2", markersize=3.5, linewidth=1)
        axes.axhline(base, **_DASHED)
        axes.set_xscale("log")
        axes.set_title(method, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    search.supxlabel("learning rate", fontsize=9)
    search.supylabel("accuracy on validation problems", fontsize=9)
    save_small(search._repr_png_(), folder / "study-pretrained-search.png")


def main() -> None:
    """Run what is open, or print what is there."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("what", choices=["run", "base", "report", "pictures"])
    options.add_argument(
        "--methods", nargs="+", choices=METHODS, default=METHODS, help="only these, for a second process"
    )
    options.add_argument("--limit", type=int, help="end after so many runs")
    chosen = options.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    if chosen.what != "run":
        if chosen.methods is not METHODS or chosen.limit is not None:
            options.error("--methods and --limit are for run: leave them out")
        {"base": untrained, "report": report, "pictures": lambda: pictures(_PICTURES)}[chosen.what]()
        return
    for number, item in enumerate(work(chosen.methods)):
        if chosen.limit is not None and number >= chosen.limit:
            return
        do(*item)
        print(*item, score(*item[:3]), flush=True)


if __name__ == "__main__":
    main()
