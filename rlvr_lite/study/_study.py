"""A study as it stands on disk: its rows, what may be said about them, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.analysis.replication import Comparison, compare_to_reference, probability_of_best, seed_problem_interval
from rlvr_lite.analysis.statistics import Interval
from rlvr_lite.errors import UserError, printable
from rlvr_lite.records import is_file
from rlvr_lite.runs import STUDY
from rlvr_lite.study._design import ONE_SEED, Design, Trial, Variant
from rlvr_lite.study._lattice import doubt
from rlvr_lite.study._report_words import optim_words
from rlvr_lite.study._row import MEMORY_NOISE, Row, SearchResult, seconds_of, tried
from rlvr_lite.study._store import Store, read_design
from rlvr_lite.table import Table

if TYPE_CHECKING:
    import pandas

    from rlvr_lite.figure import Figure

__all__ = ["Row", "SearchResult", "Study"]


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
        if not is_file(self.directory / STUDY):
            raise UserError(f"{self.directory} has no {STUDY} any more: load the study from where it is now")
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
        optimum = design.optimum(variant, self._accuracies)
        return Row(variant.label, config, rate, search, runs, scores, problem, optimum)

    def _searched(self, trial: Trial) -> SearchResult:
        score = self._store.score(trial)
        found = None if score is None else score.metrics()[self.metric]
        rate, steps = trial.config.learning_rate or 0.0, trial.config.steps or 0
        return SearchResult(rate, steps, trial.rung, found, self._store.state(trial), trial.config.seed)

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
    def base_problem(self) -> str:
        """Why the untrained base has no score; empty where it has one."""
        trials = self.design.base_trials()
        states = [self._store.state(trial) for trial in trials]
        if "failed" in states:
            failed = trials[states.index("failed")]
            return f"seed {failed.config.seed} failed: {self._store.reason(failed)}"
        done = states.count("done")
        return "" if done == len(trials) else f"{done} of {len(trials)} seeds done"

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do; rows may have failed."""
        return all(self._store.state(trial) != "open" for trial in self.trials)

    @property
    def trials(self) -> list[Trial]:
        """Every trial that is known so far, row by row, the base's first."""
        return self.design.known(self._accuracies)

    @cached_property
    def search_seconds(self) -> dict[str, float]:
        """What the search of each row took, in seconds of training and scoring."""
        return {
            variant.label: self._seconds(self.design.search(variant, self._accuracies))
            for variant in self.design.variants
        }

    def _seconds(self, rungs: list[list[Trial]]) -> float:
        trials = [trial for rung in rungs for trial in rung if self._store.state(trial) == "done"]
        return sum(seconds_of(self._store.run(trial)) for trial in trials)

    # ---- what may be said -------------------------------------------------------------------------------------

    def accuracy(self, label: str) -> Interval | None:
        """Accuracy of the row ``label`` over seeds and problems; ``None`` while it is incomplete."""
        scores = self._known(label).scores
        return None if scores is None else seed_problem_interval(scores, of_choice=self._of_choice.get(label, 0.0))

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
        found = compare_to_reference(scores, self.design.reference, margin=self.margin, of_choice=self._of_choice)
        return {comparison.method: self._checked(comparison) for comparison in found}

    @cached_property
    def _of_choice(self) -> dict[str, float]:
        """What each row owes to the luck of its search, as a variance."""
        return {label: row.optimum.variance for label, row in self.rows.items() if row.optimum is not None}

    @cached_property
    def gain(self) -> float | None:
        """What the reference gains over the untrained base; ``None`` until both are complete."""
        own = self._complete.get(self.design.reference)
        return None if own is None or self.base is None else float(own.mean() - self.base.mean())

    @property
    def margin(self) -> float:
        """The equivalence margin in accuracy: the design's share of the reference's gain; 0 where there is no gain."""
        return self.design.margin * max(0.0, self.gain or 0.0)

    def search_doubt(self, label: str, effect: float = math.inf) -> str:
        """Why the search leaves open what the row ``label`` could reach; empty where it does not, and without a search.

        Args:
            label: of the row.
            effect: a difference that is to be believed; a neighbour of the best rate must not be further below it.
        """
        base = None if self.base is None else seed_problem_interval(self.base).low
        return doubt(self.rows[label].optimum, base, effect)

    def _checked(self, c: Comparison) -> Comparison:
        """A verdict as far as the searches bear it: who is behind might have been at a bad rate."""
        both = [self.design.reference, c.method]
        open_ends = [label for label in both if self.search_doubt(label)]
        behind = c.method if c.verdict == "worse" else self.design.reference if c.verdict == "better" else ""
        doubtful = bool(behind and self.search_doubt(behind, c.difference.value))
        return replace(
            c,
            verdict="search inconclusive" if doubtful else c.verdict,
            equivalent=c.equivalent and not open_ends and not doubtful,
        )

    @cached_property
    def _best(self) -> dict[str, float]:
        """Probability that no other row has a higher true accuracy, of complete rows whose search is conclusive; none from
        one seed, which says nothing of it."""
        scores = {label: table for label, table in self._complete.items() if not self.search_doubt(label)}
        if len(scores) < 2 or self.design.of_runs:
            return {}
        chance = [self._of_choice.get(label, 0.0) for label in scores]
        chances = probability_of_best(np.stack(list(scores.values())), of_choice=chance)
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
        return len(found) > 1 and max(found) - min(found) > MEMORY_NOISE * max(found)

    def train_seconds(self, label: str) -> float | None:
        """Seconds in optimizer steps, rollouts included, of the row ``label``: the median over seeds."""
        seconds = [run.outcome["seconds"]["train"] for run in self._known(label).runs.values()]
        return float(np.median(seconds)) if seconds else None

    def _median(self, label: str, fact: str) -> int | None:
        values = [run.outcome[fact] for run in self._known(label).runs.values()]
        known = [value for value in values if value is not None]
        return int(np.median(known)) if known else None

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
                difference = against.difference.signed
                adjusted, verdict = f"{against.adjusted_p:.3g}", self.design.said(against.words)
            elif label == self.design.reference and not row.problem:
                verdict = "reference"
            trials |= {f"against {self.design.reference}": difference, "p (Holm)": adjusted, "verdict": verdict}
            trials |= {"learning rate": row.learning_rate}
            trials |= {"rates tried": tried(row)} if self.design.tune == "lr" else {}
            trials |= {"P(best)": best, "trained": self.trained_parameters(label)}
            rows.append(trials)
        if self.base is not None:
            rows.append({"row": "untrained base", self.metric: str(seed_problem_interval(self.base)), "trained": 0})
        else:
            rows.append({"row": "untrained base", "verdict": self.base_problem})
        return Table.of(rows, title=self.title, note=self._note())

    def _order(self, label: str) -> tuple[bool, bool, float]:
        accuracy, against = self.accuracy(label), self.comparison(label)
        unranked = against is not None and against.verdict == "search inconclusive"
        return (accuracy is None, unranked, 0.0 if accuracy is None else -accuracy.value)

    @property
    def title(self) -> str:
        """What was compared on what."""
        shared = self.design.shared
        return f"{len(self.rows)} methods on {shared.task}, base {shared.base}, {len(self.design.seeds)} seed{'s' * (not self.design.of_runs)}"

    def _note(self) -> str:
        design = self.design
        equal = "equal steps" if design.budget is None else f"equal rollouts ({design.budget:,} completions a run)"
        tuned = (
            f"each at the best learning rate of its own search on the lattice 10^(n/4), {design.search_seeds} search seed"
            f"{'s' * (design.search_seeds != 1)}"
            if design.tune == "lr"
            else "no learning-rate search"
        )
        margin = f"; {self.margin_words}" if design.margin else ""
        optim = optim_words([row.config for row in self.rows.values()])
        over = "problems alone" if self.design.of_runs else "seeds and problems"
        if design.tune == "lr" and design.search_seeds > 1 and not design.of_runs:
            over += ", the choice of the rate included"
        runs = f" {ONE_SEED}" if self.design.of_runs else ""
        return (
            f"{equal}, {tuned}; {optim}; {design.shared.eval_problems} problems x {design.shared.eval_k} answers; 95 % intervals "
            f"over {over}, paired, Holm over all rows{margin}.{runs}"
        )

    @property
    def margin_words(self) -> str:
        """The equivalence margin, and what it is a share of."""
        reference, share = self.design.reference, self.design.margin
        if self.gain is None:
            return f"equivalence margin {share:.3g} of what {reference} gains over the untrained base, which is not known yet"
        if self.gain <= 0:
            return f"no equivalence margin, for {reference} gains nothing over the untrained base"
        return f"equivalence margin {self.margin:.3g}, {share:.3g} of the {self.gain:.3g} that {reference} gains over the untrained base"

    @property
    def learning_rates(self) -> Table:
        """Each row's chosen rate, how wide its good band is, and whether it lies at the edge of what was tried.

        The good band is the unbroken run of rates of the fine pass around the best whose mean score lies inside the
        interval of the best; its width is in decades, a quarter of one a rate.
        """
        from rlvr_lite.study._tables import learning_rates

        return learning_rates(self)

    @property
    def costs(self) -> Table:
        """Trained parameters, memory, time, tokens and size on disk of each row."""
        from rlvr_lite.study._tables import costs

        return costs(self)

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
