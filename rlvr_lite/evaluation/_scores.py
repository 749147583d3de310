"""The score of one benchmark: who solved what, and every number that follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.analysis.statistics import Interval, accuracy_interval, mean_interval
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation._metrics import avg_at_k, length_quantiles, maj_at_k, pass_curve
from rlvr_lite.evaluation._samples import GREEDY, Sample
from rlvr_lite.records import read_jsonl

__all__ = ["Score"]


@dataclass(frozen=True, eq=False)
class Score:
    """Outcomes of n problems on one benchmark, with k drawn answers each, a greedy one, or both.

    Where rewards are scored instead of verdicts, ``greedy`` and ``correct`` hold those, there is no pass@k or maj@k,
    and avg@k is the mean reward.

    Attributes:
        name: of the benchmark.
        ids: of the problems, ``[n]``, sorted.
        greedy: whether the greedy answer is right, bool ``[n]``; ``None`` if there was none.
        correct: whether each drawn answer is right, bool ``[n, k]``; ``None`` if there was none.
        majority: maj@k of each problem, float ``[n]``; ``None`` without drawn answers, or of rewards.
        tokens: length of each answer, int ``[n, k]``, of the greedy one ``[n, 1]`` if that is all there is.
        truncated: whether it was cut, bool, of the same shape.
        samples: the answers themselves where they are at hand.
        unjudged: how many answers could not be judged; they count as not right.
    """

    name: str
    ids: tuple[str, ...]
    greedy: NDArray[Any] | None
    correct: NDArray[Any] | None
    majority: NDArray[np.float64] | None
    tokens: NDArray[np.int64]
    truncated: NDArray[np.bool_]
    samples: tuple[Sample, ...] = ()
    unjudged: int = 0

    @classmethod
    def of(cls, name: str, samples: Iterable[Sample]) -> Score:
        """The score of judged samples, in whatever order they come.

        Raises:
            UserError: there are none, one occurs twice, or a problem lacks one that another has.
        """
        table: dict[str, dict[int, Sample]] = {}
        for sample in samples:
            answers = table.setdefault(sample.id, {})
            if sample.index in answers:
                raise UserError(f"{name}: answer {sample.index} to problem {sample.id} occurs twice")
            answers[sample.index] = sample
        if not table:
            raise UserError(f"{name} has no samples")
        ids = tuple(sorted(table))
        indices = sorted(table[ids[0]])
        for id in ids:
            if sorted(table[id]) != indices:
                raise UserError(
                    f"{name} is incomplete: problem {id} has {len(table[id])} answers, {ids[0]} {len(indices)}"
                )
        drawn = [index for index in indices if index != GREEDY]
        shown = drawn or [GREEDY]
        grid = [[table[id][index] for index in shown] for id in ids]
        rewarded = grid[0][0].reward is not None
        kind = np.float64 if rewarded else np.bool_
        return cls(
            name=name,
            ids=ids,
            greedy=np.array([table[id][GREEDY].value for id in ids], dtype=kind) if GREEDY in indices else None,
            correct=np.array([[s.value for s in row] for row in grid], dtype=kind) if drawn else None,
            majority=np.array([maj_at_k([s.extracted for s in row], [bool(s.correct) for s in row]) for row in grid])
            if drawn and not rewarded
            else None,
            tokens=np.array([[s.tokens for s in row] for row in grid]),
            truncated=np.array([[s.truncated for s in row] for row in grid]),
            samples=tuple(table[id][index] for id in ids for index in indices),
            unjudged=sum(
                sample.correct is None and sample.reward is None for row in table.values() for sample in row.values()
            ),
        )

    @classmethod
    def read(cls, path: Path, name: str | None = None) -> Score:
        """The score of a file of samples, one a line.

        Raises:
            UserError: it is not such a file.
        """
        try:
            return cls.of(name or path.stem, (Sample(**row) for row in read_jsonl(path)))
        except TypeError as error:
            raise UserError(f"{path} is not a file of samples: give the eval/NAME.jsonl of a run") from error

    @property
    def k(self) -> int:
        """Drawn answers a problem; 0 if only the greedy one was taken."""
        return 0 if self.correct is None else self.correct.shape[1]

    @property
    def rewarded(self) -> bool:
        """Whether rewards are scored instead of verdicts."""
        some = self.greedy if self.correct is None else self.correct
        return some is not None and some.dtype != np.bool_

    def by_problem(self) -> dict[str, NDArray[np.float64]]:
        """Each metric's value problem by problem, ``[n]``: greedy, avg@k, pass@k, maj@k."""
        values: dict[str, NDArray[np.float64]] = {}
        if self.greedy is not None:
            values["greedy"] = self.greedy.astype(np.float64)
        if self.correct is not None:
            values[f"avg@{self.k}"] = avg_at_k(self.correct)
        if self.correct is not None and self.majority is not None:
            values[f"pass@{self.k}"] = np.asarray(self.correct.any(axis=1), dtype=np.float64)
            values[f"maj@{self.k}"] = self.majority
        return values

    def metrics(self) -> dict[str, Interval]:
        """Each metric with its 95 % interval over problems (see ``accuracy_interval``)."""
        interval = mean_interval if self.rewarded else accuracy_interval
        return {metric: interval(values) for metric, values in self.by_problem().items()}

    def pass_curve(self) -> dict[int, Interval]:
        """Unbiased pass@k' with its interval for every k' from 1 to k."""
        if self.correct is None or self.rewarded:
            return {}
        return {size: accuracy_interval(column) for size, column in enumerate(pass_curve(self.correct).T, start=1)}

    def to_dict(self, *, outcomes: bool = False) -> dict[str, Any]:
        """Metrics with intervals, lengths and the share of cut answers, JSON-able.

        Args:
            outcomes: add who solved what, from which :meth:`from_dict` rebuilds the score.
        """
        facts: dict[str, Any] = {metric: interval.to_dict() for metric, interval in self.metrics().items()}
        facts["problems"] = len(self.ids)
        facts["mean_tokens"] = float(self.tokens.mean())
        facts["truncated"] = float(self.truncated.mean())
        facts["lengths"] = length_quantiles(self.tokens)
        if self.unjudged:
            facts["unjudged"] = self.unjudged
        if self.rewarded:
            facts["scored_on"] = "reward"
        elif self.correct is not None:
            facts["pass_curve"] = [interval.value for interval in self.pass_curve().values()]
        if outcomes:
            facts["outcomes"] = [
                {
                    "id": id,
                    "greedy": None
                    if self.greedy is None
                    else self.greedy[i].item()
                    if self.rewarded
                    else int(self.greedy[i]),
                    "correct": "" if self.correct is None else _outcomes(self.correct[i]),
                    "majority": None if self.majority is None else float(self.majority[i]),
                    "truncated": _bits(self.truncated[i]),
                    "tokens": " ".join(map(str, self.tokens[i].tolist())),
                }
                for i, id in enumerate(self.ids)
            ]
        return facts

    @classmethod
    def from_dict(cls, name: str, facts: Mapping[str, Any]) -> Score:
        """The inverse of ``to_dict(outcomes=True)``, without the texts.

        Raises:
            UserError: the outcomes are not there.
        """
        try:
            rows: Sequence[Mapping[str, Any]] = facts["outcomes"]
            drawn = bool(rows[0]["correct"])
            rewarded = facts.get("scored_on") == "reward"
            greedy = None if rows[0]["greedy"] is None else [row["greedy"] for row in rows]
            correct = [row["correct"] if rewarded else [c == "1" for c in row["correct"]] for row in rows]
            kind = np.float64 if rewarded else np.bool_
            return cls(
                name=name,
                ids=tuple(row["id"] for row in rows),
                greedy=None if greedy is None else np.array(greedy, dtype=kind),
                correct=np.array(correct, dtype=kind) if drawn else None,
                majority=np.array([row["majority"] for row in rows]) if drawn and not rewarded else None,
                tokens=np.array([[int(n) for n in row["tokens"].split()] for row in rows]),
                unjudged=int(facts.get("unjudged", 0)),
                truncated=np.array([[c == "1" for c in row["truncated"]] for row in rows]),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"the outcomes of {name} are missing or damaged: evaluate again") from error

    def rows(self) -> list[dict[str, Any]]:
        """The samples as plain dictionaries, ordered by problem and index."""
        return [sample.to_dict() for sample in self.samples]


def _outcomes(row: NDArray[Any]) -> str | list[float]:
    return _bits(row) if row.dtype == np.bool_ else row.tolist()


def _bits(row: NDArray[np.bool_]) -> str:
    return "".join("1" if value else "0" for value in row)
