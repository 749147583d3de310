"""A finished evaluation: shown as a table with intervals, compared with another, kept as JSON."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlvr_lite.analysis.replication import equivalent, in_words, seed_problem_difference, verdict
from rlvr_lite.analysis.statistics import Interval, clustered_standard_error, holm, student_quantile
from rlvr_lite.errors import UserError, as_written, unknown_name
from rlvr_lite.evaluation._scores import Score
from rlvr_lite.records import JsonLines, hash_file, make_folder, read_json, write_json
from rlvr_lite.table import Table

if TYPE_CHECKING:
    import pandas

    from rlvr_lite.figure import Figure

__all__ = ["EVALUATION_FILE", "Evaluation", "compare_evaluations"]

#: The file that makes a directory an evaluation.
EVALUATION_FILE = "evaluation.json"
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Evaluation(Mapping[str, Score]):
    """Scores of one policy on some benchmarks; a mapping from benchmark to :class:`Score`.

    Attributes:
        facts: what was evaluated and how: policy, parity, preset, sampling, seed, engine, style.
        scores: by benchmark.
        sources: of each benchmark its source, checksum and what was left out.
        directory: where its files are; ``None`` if nothing was written.
    """

    facts: Mapping[str, Any]
    scores: Mapping[str, Score]
    sources: Mapping[str, Mapping[str, Any]]
    directory: Path | None = None

    def __getitem__(self, benchmark: str) -> Score:
        try:
            return self.scores[benchmark]
        except KeyError:
            raise unknown_name("benchmark of this evaluation", benchmark, self.scores) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    # ---- shown ------------------------------------------------------------------------------------------------

    @property
    def table(self) -> Table:
        """A row a benchmark: greedy, avg@k, pass@k and maj@k with 95 % intervals, mean length, share of cut answers."""
        ks = {score.k for score in self.scores.values()}
        k = "k" if len(ks) > 1 else str(*ks)
        rows = []
        for name, score in self.scores.items():
            cells = {_column(_family(metric), k): str(interval) for metric, interval in score.metrics().items()}
            lengths = {"tokens": round(float(score.tokens.mean()), 1), "cut": f"{score.truncated.mean():.0%}"}
            size: dict[str, Any] = {"problems": len(score.ids)} | ({"k": score.k or None} if k == "k" else {})
            rows.append({"benchmark": name, **size, **cells, **lengths})
        if len(self.scores) > 1:
            cells = {_column(family, k): str(interval) for family, interval in self.average().items()}
            rows.append({"benchmark": "average", **cells})
        return Table.of(rows, title=self._title(), note=self._note())

    def average(self) -> dict[str, Interval]:
        """Mean over the benchmarks, each counting alike, of greedy, avg, pass and maj, with 95 % intervals.

        Student's t at Welch and Satterthwaite's degrees of freedom, clustered by problem.
        """
        groups = [{_family(metric): v for metric, v in score.by_problem().items()} for score in self.scores.values()]
        found = {}
        for family in dict.fromkeys(family for group in groups for family in group):
            if all(family in group and len(group[family]) > 1 for group in groups):
                values = [group[family] for group in groups]
                mean = float(np.mean([v.mean() for v in values]))
                errors = [clustered_standard_error(v, range(len(v))) for v in values]
                half = _welch_quantile(errors, [len(v) for v in values]) * math.hypot(*errors) / len(values)
                found[family] = Interval(mean, max(0.0, mean - half), min(1.0, mean + half))
        return found

    def _title(self) -> str:
        policy = self.facts["policy"]
        name = policy.get("base") or policy.get("model")
        method = f" + {policy['method']} (seed {policy['seed']})" if "method" in policy else ""
        return f"{name}{method}"

    def _note(self) -> str:
        sampling = self.facts["sampling"]
        drawn = f"T {sampling['temperature']:g}, top-p {sampling['top_p']:g}" if sampling["temperature"] else "greedy"
        parity = self.facts["parity"]
        proof = "" if parity is None else f"; differs from the trained policy by {parity:.1g} of the largest logit"
        lengths = sorted({source["max_completion_length"] for source in self.sources.values()})
        unjudged = sum(score.unjudged for score in self.scores.values())
        open_ = f"; {unjudged:,} answers could not be judged and count as not right" if unjudged else ""
        return (
            f"95 % intervals over problems; {drawn}, at most {'/'.join(f'{n:,}' for n in lengths)} tokens, "
            f"seed {self.facts['seed']}, {self.facts['style']} prompts{proof}{open_}."
        )

    def __str__(self) -> str:
        return str(self.table)

    def __repr__(self) -> str:
        return f"Evaluation({self._title()!r}, {', '.join(self.scores)})"

    def _repr_html_(self) -> str:
        return self.table._repr_html_() + self.plot().to_html("Right and wrong answers, problem by problem")

    def plot(self) -> Figure:
        """Heat map: a column a problem, from hard to easy, a row a sample; dark is right."""
        from rlvr_lite.evaluation._figures import heat_map

        return heat_map(self.scores)

    def to_pandas(self) -> pandas.DataFrame:
        """A row a problem: benchmark, id, every metric, mean length and share of cut answers (needs pandas)."""
        import pandas

        frames = []
        for name, score in self.scores.items():
            columns: dict[str, Any] = {"benchmark": name, "id": score.ids, **score.by_problem()}
            columns |= {"tokens": score.tokens.mean(axis=1), "truncated": score.truncated.mean(axis=1)}
            frames.append(pandas.DataFrame(columns))
        return pandas.concat(frames, ignore_index=True)

    def samples(self, benchmark: str) -> list[dict[str, Any]]:
        """The answers to a benchmark with their verdicts, as read from its file where they are not at hand.

        Raises:
            UserError: the answers were not kept, or there is no such ``benchmark``.
        """
        score = self[benchmark]
        if not score.samples and self.directory is not None:
            score = Score.read(self.directory / sample_file(benchmark), benchmark)
        if not score.samples:
            raise UserError("the answers were not kept: evaluate with out=... to have them on disk")
        return score.rows()

    # ---- compared ---------------------------------------------------------------------------------------------

    def compare(self, other: Evaluation, *, margin: float = 0.0) -> Table:
        """Paired differences, this minus the other, on the same problems.

        Args:
            other: an evaluation of the same benchmarks.
            margin: equivalence margin, in accuracy.

        Raises:
            UserError: they were not made alike, or share no benchmark; see :func:`compare_evaluations`.
        """
        return compare_evaluations([self], [other], margin=margin)

    # ---- on disk ----------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Everything but the texts, JSON-able; the same evaluation gives the same dictionary."""
        benchmarks = {
            name: {**self.sources[name], **score.to_dict(outcomes=True)} for name, score in self.scores.items()
        }
        return {"evaluation": _FORMAT, **self.facts, "benchmarks": benchmarks}

    def save(self, path: str | Path) -> Path:
        """Write ``evaluation.json`` into the directory ``path``, or the file itself if its name ends in ``.json``."""
        target = Path(path)
        if target.suffix != ".json":
            target = make_folder(target) / EVALUATION_FILE
        stored = self.to_dict()
        files = {name: target.parent / sample_file(name) for name in self.scores}
        for path in files.values():
            JsonLines(path).sync()
        stored["sha256"] = {name: hash_file(path) for name, path in files.items() if path.is_file()}
        write_json(target, {**stored, "sha256": {**stored["sha256"], EVALUATION_FILE: _digest(stored)}})
        return target

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what :meth:`save` wrote to ``path``, the directory or the file.

        Raises:
            UserError: it is not an evaluation, or it or a file of samples beside it is damaged.
        """
        target = Path(path)
        target = target / EVALUATION_FILE if target.is_dir() else target
        stored = read_json(target)
        if not isinstance(stored, dict) or stored.get("evaluation") != _FORMAT:
            raise UserError(f"{target} is not an evaluation of this version: evaluate again")
        with as_written(target):
            found = cls._read(target, stored)
            _ = found._title(), found._note()  # which ask every fact for what it is shown by
        return found

    @classmethod
    def _read(cls, target: Path, stored: dict[str, Any]) -> Evaluation:
        hashes = stored.get("sha256", {})
        own = hashes.pop(EVALUATION_FILE, None)
        digest = _digest(stored)  # which refuses what is no JSON, such as Infinity
        if own is not None and own != digest:
            raise UserError(f"{target} is damaged (it differs from its hash): delete it and evaluate again")
        for name, expected in stored.pop("sha256", {}).items():
            path = target.parent / sample_file(name)
            if path.is_file() and hash_file(path) != expected:
                raise UserError(f"{path} is damaged (it differs from its hash): delete it and evaluate again")
        benchmarks = stored.pop("benchmarks")
        stored.pop("evaluation")
        scores = {name: Score.from_dict(name, facts) for name, facts in benchmarks.items()}
        sources = {
            name: {key: facts[key] for key in ("source", "checksum", "excluded", "max_completion_length")}
            for name, facts in benchmarks.items()
        }
        return cls(stored, scores, sources, target.parent)

    def to_lighteval(self, path: str | Path) -> Path:
        """Write the scores to ``path`` as lighteval would; see :func:`rlvr_lite.evaluation._lighteval.results`."""
        from rlvr_lite.evaluation._lighteval import results

        write_json(Path(path), results(self))
        return Path(path)


def _digest(stored: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stored, sort_keys=True, allow_nan=False).encode()).hexdigest()


def sample_file(benchmark: str) -> str:
    """The name of the file that holds a benchmark's samples."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in benchmark) + ".jsonl"


def _family(metric: str) -> str:
    return metric.partition("@")[0]


def _welch_quantile(errors: Sequence[float], sizes: Sequence[int]) -> float:
    """97.5 % quantile for a sum of independent means with these standard errors."""
    parts = sum(error**4 / (size - 1) for error, size in zip(errors, sizes, strict=True))
    return student_quantile(0.975, math.hypot(*errors) ** 4 / parts) if parts > 0 else 0.0


def _column(family: str, k: str) -> str:
    return family if family == "greedy" else f"{family}@{k}"


def compare_evaluations(mine: Sequence[Evaluation], others: Sequence[Evaluation], *, margin: float = 0.0) -> Table:
    """Paired differences of two policies on every benchmark and metric they share, corrected for their number.

    Pairs are problems; with several evaluations a side, one a training seed and in the same order, they are
    (seed, problem), and the noise of training is in the intervals too.

    Args:
        mine: evaluations of one policy, one a seed.
        others: of the other, as many.
        margin: equivalence margin, in accuracy.

    Returns:
        Columns benchmark, metric, this, other, difference, low, high, p, p (Holm), verdict.

    Raises:
        UserError: they were not made alike, or share no benchmark.
    """
    if len(mine) != len(others) or not mine:
        raise UserError(f"{len(mine)} evaluations against {len(others)}: give one a seed on both sides")
    shared = [name for name in mine[0] if all(name in e.scores for e in (*mine, *others))]
    if not shared:
        raise UserError(f"the evaluations share no benchmark: {', '.join(mine[0])} against {', '.join(others[0])}")
    for evaluation in (*mine[1:], *others):
        _check_alike(mine[0], evaluation, shared)
    rows, p_values = [], []
    for name in shared:
        for metric in mine[0][name].by_problem():
            a = _stack(others, name, metric)
            b = _stack(mine, name, metric)
            difference = seed_problem_difference(a, b)
            p_values.append(difference.p_value)
            means = {"this": float(b.mean()), "other": float(a.mean())}
            rows.append(({"benchmark": name, "metric": metric, **means}, difference))
    table = [
        {
            **head,
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
            "p": difference.p_value,
            "p (Holm)": adjusted,
            "verdict": in_words(verdict(difference, adjusted), equivalent(difference, margin)),
        }
        for (head, difference), adjusted in zip(rows, holm(p_values), strict=True)
    ]
    noise = f"{len(mine)} seeds and problems" if len(mine) > 1 else "problems; one training run a side"
    note = f"Difference: this minus other, paired, 95 % intervals over {noise}; Holm over {len(table)} rows."
    return Table.of(table, title=f"{mine[0]._title()} against {others[0]._title()}", note=note)


def _stack(evaluations: Sequence[Evaluation], benchmark: str, metric: str) -> NDArray[np.float64]:
    return np.stack([evaluation[benchmark].by_problem()[metric] for evaluation in evaluations])


def _check_alike(a: Evaluation, b: Evaluation, benchmarks: Sequence[str]) -> None:
    for fact in ("sampling", "greedy", "style", "engine"):
        own, other = a.facts.get(fact), b.facts.get(fact)
        if own != other:
            raise UserError(f"the evaluations differ in {fact} ({own}, {other}): evaluate both alike")
    for name in benchmarks:
        for what in ("checksum", "max_completion_length"):
            if a.sources[name][what] != b.sources[name][what]:
                raise UserError(f"{name} was evaluated with another {what}: evaluate both alike")
        if a[name].ids != b[name].ids:
            raise UserError(f"{name} was evaluated on other problems: evaluate both on the same")
        if list(a[name].by_problem()) != list(b[name].by_problem()):
            raise UserError(f"{name} was evaluated with k = {a[name].k} and {b[name].k}: evaluate both with one k")
