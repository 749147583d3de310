"""A study as it stands on disk: its rows, what may be said about them, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.analysis.replication import Comparison, compare_to_reference, probability_of_best, seed_problem_interval
from rlvr_lite.analysis.statistics import Interval
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError, printable
from rlvr_lite.study._design import ONE_SEED, Design, Trial, Variant
from rlvr_lite.study._store import Store, read_design
from rlvr_lite.table import Table
from rlvr_lite.training import Run

if TYPE_CHECKING:
    import pandas

    from rlvr_lite.figure import Figure

__all__ = ["Row", "SearchResult", "Study"]

_MEMORY_NOISE = 0.05  # share of a peak within which rows hold the same


@dataclass(frozen=True)
class SearchResult:
    """One run of a learning-rate search.

    Attributes:
        learning_rate: that was tried.
        steps: it was trained for.
        rung: of the search, from 0.
        score: accuracy on the validation split; ``None`` where it failed or is not done.
        status: ``done``, ``failed`` or ``open``.
    """

    learning_rate: float
    steps: int
    rung: int
    score: Interval | None
    status: str


@dataclass(frozen=True)
class Row:
    """One row of a comparison.

    Attributes:
        label: its name.
        config: of its runs; the seed in it means nothing.
        learning_rate: it is compared at; ``None`` as long as it is not known.
        search: the results of the search for it.
        runs: finished runs of the comparison by seed.
        scores: avg@k of every seed and problem, ``[S, P]``; ``None`` until every seed is done.
        problem: why the row is incomplete; empty if it is complete.
    """

    label: str
    config: RunConfig
    learning_rate: float | None
    search: tuple[SearchResult, ...]
    runs: Mapping[int, Run]
    scores: NDArray[np.float64] | None
    problem: str


@dataclass(frozen=True)
class Study:
    """A comparison of methods, finished or not.

    Attributes:
        directory: of the study.
        design: what is compared.
    """

    directory: Path
    design: Design

    @classmethod
    def load(cls, directory: str | Path) -> Study:
        """The study in ``directory``.

        Raises:
            UserError: there is none.
        """
        path = Path(directory)
        return cls(path, read_design(path))

    # ---- what is on disk --------------------------------------------------------------------------------------

    @cached_property
    def _accuracies(self) -> dict[str, float | None]:
        return self._store.accuracies(self.design)

    @property
    def _store(self) -> Store:
        return Store(self.directory)

    @cached_property
    def rows(self) -> dict[str, Row]:
        """The rows by label, in the order they were entered."""
        return {variant.label: self._row(variant) for variant in self.design.variants}

    def _row(self, variant: Variant) -> Row:
        store, design = self._store, self.design
        search = tuple(self._searched(trial) for rung in design.search(variant, self._accuracies) for trial in rung)
        rate = design.learning_rate(variant, self._accuracies)
        trials = [] if rate is None else design.finals(variant, rate)
        states = {trial.config.seed: store.state(trial) for trial in trials}
        runs = {trial.config.seed: store.run(trial) for trial in trials if states[trial.config.seed] == "done"}
        problem = ""
        failed = [trial for trial in trials if states[trial.config.seed] == "failed"]
        if failed:
            problem = f"seed {failed[0].config.seed} failed: {store.reason(failed[0])}"
        elif rate is None and search and all(found.status == "failed" for found in search):
            first = design.search(variant, self._accuracies)[0][0]
            problem = f"every learning rate failed: {store.reason(first)}"
        elif len(runs) < len(design.seeds):
            problem = f"{len(runs)} of {len(design.seeds)} seeds done"
        scores = None if problem else np.stack([self._by_problem(trial) for trial in trials])
        config = next(iter(runs.values())).config if runs else design.config(variant)
        return Row(variant.label, config, rate, search, runs, scores, problem)

    def _searched(self, trial: Trial) -> SearchResult:
        score = self._store.score(trial)
        found = None if score is None else score.metrics()[self.metric]
        rate, steps = trial.config.learning_rate or 0.0, trial.config.steps or 0
        return SearchResult(rate, steps, trial.rung, found, self._store.state(trial))

    def _by_problem(self, trial: Trial) -> NDArray[np.float64]:
        score = self._store.score(trial)
        if score is None:
            raise UserError(f"{self._store.path(trial)} lost its answers: delete it and call compare again")
        return score.by_problem()[self.metric]

    @property
    def metric(self) -> str:
        """What is compared, such as ``avg@8``."""
        return f"avg@{self.design.shared.eval_k}"

    @cached_property
    def base(self) -> NDArray[np.float64] | None:
        """The untrained base's avg@k of every seed and problem, ``[S, P]``; ``None`` until it is scored."""
        trials = self.design.base_trials()
        if any(self._store.state(trial) != "done" for trial in trials):
            return None
        return np.stack([self._by_problem(trial) for trial in trials])

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do; rows may have failed."""
        return all(self._store.state(trial) != "open" for trial in self.trials)

    @property
    def trials(self) -> list[Trial]:
        """Every trial that is known so far, row by row, the base's first."""
        return self.design.known(self._accuracies)

    @property
    def search_seconds(self) -> dict[str, float]:
        """What the search of each row took, in seconds of training and scoring."""
        return {
            variant.label: self._seconds(self.design.search(variant, self._accuracies))
            for variant in self.design.variants
        }

    def _seconds(self, rungs: list[list[Trial]]) -> float:
        trials = [trial for rung in rungs for trial in rung if self._store.state(trial) == "done"]
        return sum(sum(_times(self._store.run(trial))) for trial in trials)

    # ---- what may be said -------------------------------------------------------------------------------------

    def accuracy(self, label: str) -> Interval | None:
        """Accuracy of the row ``label`` over seeds and problems; ``None`` while it is incomplete."""
        scores = self._known(label).scores
        return None if scores is None else seed_problem_interval(scores)

    def comparison(self, label: str) -> Comparison | None:
        """The row ``label`` against the reference; ``None`` for the reference itself and while one is incomplete."""
        self._known(label)
        return self._comparisons.get(label)

    @cached_property
    def _complete(self) -> dict[str, NDArray[np.float64]]:
        """Scores of the rows that are complete, by label."""
        return {label: row.scores for label, row in self.rows.items() if row.scores is not None}

    @cached_property
    def _comparisons(self) -> dict[str, Comparison]:
        scores = self._complete
        if self.design.reference not in scores or len(scores) < 2:
            return {}
        found = compare_to_reference(scores, self.design.reference, zone=self.design.zone)
        return {comparison.method: comparison for comparison in found}

    @cached_property
    def _best(self) -> dict[str, float]:
        """Probability that no other complete row has a higher true accuracy; none from one seed, which says nothing of it."""
        scores = self._complete
        if len(scores) < 2 or self.design.of_runs:
            return {}
        chances = probability_of_best(np.stack(list(scores.values())))
        return dict(zip(scores, chances, strict=True))

    def _known(self, label: str) -> Row:
        self.design.variant(label)
        return self.rows[label]

    def trained_parameters(self, label: str) -> int | None:
        """Trained parameters of the runs of the row ``label``."""
        return self._median(label, "trainable_parameters")

    def peak_memory(self, label: str) -> int | None:
        """Most bytes the row ``label`` held: on the GPU, or in a process that may have held other runs before."""
        return self._median(label, "peak_memory_bytes")

    @property
    def memory_differs(self) -> bool:
        """Whether rows differ in peak memory by more than an allocator's noise; otherwise it is not shown row by row."""
        found = [size for label in self.rows if (size := self.peak_memory(label))]
        return len(found) > 1 and max(found) - min(found) > _MEMORY_NOISE * max(found)

    def train_seconds(self, label: str) -> float | None:
        """Seconds in optimizer steps, rollouts included, of the row ``label``: the median over seeds."""
        seconds = [run.summary["seconds"]["train"] for run in self._known(label).runs.values()]
        return float(np.median(seconds)) if seconds else None

    def _median(self, label: str, fact: str) -> int | None:
        values = [run.summary[fact] for run in self._known(label).runs.values() if run.summary[fact] is not None]
        return int(np.median(values)) if values else None

    @property
    def leaderboard(self) -> Table:
        """Accuracy with interval, difference to the reference with interval, verdict; best row first.

        Holds no clock: a study that was killed and continued gives the same bytes as one that was left alone.
        """
        rows: list[dict[str, Any]] = []
        for label in sorted(self.rows, key=self._order):
            row, accuracy, against = self.rows[label], self.accuracy(label), self.comparison(label)
            trials: dict[str, Any] = {"row": label, self.metric: None if accuracy is None else str(accuracy)}
            verdict: str | None = row.problem or None
            difference = adjusted = None
            best = f"{self._best[label]:.0%}" if label in self._best else None
            if against is not None:
                d = against.difference
                difference = f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
                adjusted, verdict = f"{against.adjusted_p:.3g}", self.design.said(against.verdict)
            elif label == self.design.reference and not row.problem:
                verdict = "reference"
            trials |= {f"against {self.design.reference}": difference, "p (Holm)": adjusted, "verdict": verdict}
            trials |= {"P(best)": best, "trained": self.trained_parameters(label), "learning rate": row.learning_rate}
            rows.append(trials)
        if self.base is not None:
            rows.append({"row": "untrained base", self.metric: str(seed_problem_interval(self.base)), "trained": 0})
        return Table.of(rows, title=self.title, note=self._note())

    def _order(self, label: str) -> tuple[bool, float]:
        accuracy = self.accuracy(label)
        return (accuracy is None, 0.0 if accuracy is None else -accuracy.value)

    @property
    def title(self) -> str:
        """What was compared on what."""
        shared = self.design.shared
        return f"{len(self.rows)} methods on {shared.task}, base {shared.base}, {len(self.design.seeds)} seed{'s' * (not self.design.of_runs)}"

    def _note(self) -> str:
        design = self.design
        equal = "equal steps" if design.budget is None else f"equal rollouts ({design.budget:,} completions a run)"
        tuned = "each at the learning rate of its own search" if design.tune == "lr" else "no learning-rate search"
        zone = f"; equivalent means within {design.zone:g}" if design.zone else ""
        over = "problems alone" if self.design.of_runs else "seeds and problems"
        runs = f" {ONE_SEED}" if self.design.of_runs else ""
        return (
            f"{equal}, {tuned}; {design.shared.eval_problems} problems x {design.shared.eval_k} answers; 95 % intervals "
            f"over {over}, paired, Holm over all rows{zone}.{runs}"
        )

    @property
    def learning_rates(self) -> Table:
        """Each row's chosen rate, how wide its good band is, and whether it lies at the edge of what was tried.

        The good band is the unbroken run of rates of the first rung around the best whose accuracy lies inside its
        interval; its width is in decades, half a decade a rate.
        """
        rows: list[dict[str, Any]] = []
        for label, row in self.rows.items():
            first = [t for t in row.search if t.rung == 0]
            trials: dict[str, Any] = {"row": label, "chosen": row.learning_rate}
            if any(t.score is not None for t in first):
                good = _good_band(first)
                edges = (min(t.learning_rate for t in row.search), max(t.learning_rate for t in row.search))
                trials |= {
                    "good from": min(good),
                    "to": max(good),
                    "decades": round(math.log10(max(good) / min(good)) + 0.5, 1),
                    "at the edge": row.learning_rate in edges,
                    "trials": len(row.search),
                    "failed": sum(t.status == "failed" for t in row.search),
                }
            rows.append(trials)
        return Table.of(rows, title="Learning rates", note="Scored on the validation split, with a seed of its own.")

    @property
    def costs(self) -> Table:
        """Trained parameters, memory, time, tokens and size on disk of each row."""
        rows, differs = [], self.memory_differs
        sizes_held = [size for label in self.rows if (size := self.peak_memory(label))]
        for label, row in self.rows.items():
            seconds, memory = self.train_seconds(label), self.peak_memory(label)
            tokens = [sum(m.get("tokens/sampled", 0) for m in run.metrics()) for run in row.runs.values()]
            sizes = [sum(f.stat().st_size for f in run.files.adapter.iterdir()) for run in row.runs.values()]
            rows.append(
                {
                    "row": label,
                    "trained": self.trained_parameters(label),
                    **({"peak MiB": None if memory is None else round(memory / 2**20)} if differs else {}),
                    "train s": None if seconds is None else round(seconds, 1),
                    "search s": round(self.search_seconds[label], 1),
                    "rollout tokens": int(np.median(tokens)) if tokens else None,
                    "adapter KiB": round(float(np.median(sizes)) / 1024, 1) if sizes else None,
                }
            )
        note = "Medians over seeds; seconds of the machine it ran on."
        if sizes_held and not differs:
            note += f" Peak memory was the same, {round(max(sizes_held) / 2**20):,} MiB to within {_MEMORY_NOISE:.0%}."
        return Table.of(rows, title="Costs", note=note)

    # ---- shown ------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return printable(f"{self.leaderboard}\n{self.directory}")

    def __repr__(self) -> str:
        return f"Study({str(self.directory)!r}, {len(self.rows)} rows, {'complete' if self.complete else 'under way'})"

    def _repr_html_(self) -> str:
        from rlvr_lite.study._report import notebook_parts

        return notebook_parts(self)

    def plot(self) -> Figure:
        """Accuracy against the share of parameters trained, with intervals."""
        from rlvr_lite.study.figures import accuracy_against_share

        return accuracy_against_share(self)

    def report(self, path: str | Path | None = None) -> Path:
        """Write one HTML file that needs no network to ``path``, by default ``report.html`` in the directory."""
        from rlvr_lite.study._report import write_report

        return write_report(self, Path(path) if path is not None else self.directory / "report.html")

    def to_markdown(self) -> str:
        """The leaderboard in GitHub's Markdown."""
        from rlvr_lite.study._report import to_markdown

        return to_markdown(self)

    def to_pandas(self) -> pandas.DataFrame:
        """The leaderboard in numbers, a row a method, with the ends of every interval (needs pandas).

        Columns: row, accuracy, accuracy_low, accuracy_high, difference, difference_low, difference_high, p_holm, verdict,
        trained_parameters, learning_rate, peak_memory_bytes, train_seconds; what is not known is NaN.
        """
        from rlvr_lite.study._frame import frame

        return frame(self)


def _good_band(results: Sequence[SearchResult]) -> list[float]:
    """Rates next to each other, the best among them, that do as well as it within its interval."""
    ordered = sorted(results, key=lambda result: result.learning_rate)
    values = [-1.0 if result.score is None else result.score.value for result in ordered]
    best = values.index(max(values))
    score = ordered[best].score
    assert score is not None
    first, last = best, best
    while first and values[first - 1] >= score.low:
        first -= 1
    while last + 1 < len(values) and values[last + 1] >= score.low:
        last += 1
    return [result.learning_rate for result in ordered[first : last + 1]]


def _times(run: Run) -> list[float]:
    return [value for name, value in run.summary["seconds"].items() if name != "step"]
