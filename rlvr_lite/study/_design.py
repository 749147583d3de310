"""What a study compares, what all its runs share, and which runs that makes. Nothing here reads or writes a file."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr_lite import methods, resolve
from rlvr_lite.config import RunConfig, replace_fields
from rlvr_lite.errors import UserError, unknown_name

__all__ = [
    "ONE_SEED",
    "SEARCH_SEED",
    "Design",
    "Stage",
    "Trial",
    "Tune",
    "Variant",
    "half_decades",
    "make_variants",
]

Tune = Literal["lr", "none"]
Stage = Literal["base", "search", "final"]

ONE_SEED = "One seed compares these runs, not the methods, for two runs of one method differ as well: take three seeds or more."
_RUN_WORDS = {"better": "this run higher", "worse": "this run lower", "equivalent": "this run as good"}
#: The seed of the search, far from those of the comparison: a rate picked for its luck must not be scored on that luck.
SEARCH_SEED = 1000
#: Trials of the search: rates at half a decade from each other around the method's default.
_RATES = 5
#: Share of the steps of a run, and how many rates go on from there.
_RUNGS = ((0.5, _RATES), (1.0, 2))
_TUPLES = ("targets", "rewards", "reward_weights", "report_to")
#: What was named for all rows, so that a row without it is refused and does not leave it out.
_NAMED = ("rank", "alpha", "targets", "method_options", "task_options")
#: What a study decides itself.
_OWN = {"seed": "seeds", "eval_split": None, "eval_before": None}


@dataclass(frozen=True)
class Variant:
    """One row of a comparison.

    Attributes:
        label: what the row is called.
        overrides: the fields of ``RunConfig`` in which it differs from what all share, ``method`` among them.
    """

    label: str
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Trial:
    """One piece of work of a study: a training run, or the score of the untrained base.

    Attributes:
        variant: label of the row; empty for the base.
        stage: the base, the learning-rate search, or the comparison itself.
        config: what is run.
        rung: of the search, from 0.
    """

    variant: str
    stage: Stage
    config: RunConfig
    rung: int = 0

    @property
    def key(self) -> str:
        """Unlike any other trial's of the study."""
        if self.stage == "search":
            return f"{self.variant}/search-{self.rung}-lr{self.config.learning_rate:g}"
        return f"{self.variant}/seed-{self.config.seed}" if self.stage == "final" else f"/base-seed-{self.config.seed}"


def half_decades(centre: float, count: int = _RATES) -> tuple[float, ...]:
    """Learning rates at half a decade from each other, two figures each, around ``centre``.

    >>> half_decades(2e-3)
    (0.0002, 0.00063, 0.002, 0.0063, 0.02)
    """
    return tuple(float(f"{centre * 10 ** ((i - count // 2) / 2):.2g}") for i in range(count))


@dataclass(frozen=True)
class Design:
    """A whole study.

    Attributes:
        variants: its rows.
        shared: what all runs have in common; ``method`` and ``seed`` in it mean nothing.
        scale: of the base, a key of ``config.SCALES``.
        seeds: training seeds of the comparison.
        tune: ``lr`` searches each row's learning rate, ``none`` takes its default or what is given.
        budget: completions each run may draw, so that all have equal rollouts; ``None`` gives all equal steps.
        reference: the row that the others are compared with.
        zone: half width of the zone of practical equivalence, in accuracy.
        sources: hashes of the source of reward functions and tasks of the user's own, by name.
    """

    variants: tuple[Variant, ...]
    shared: RunConfig
    scale: str
    seeds: tuple[int, ...]
    tune: Tune = "lr"
    budget: int | None = None
    reference: str = ""
    zone: float = 0.0
    sources: Mapping[str, str] = field(default_factory=dict)
    _by_label: Mapping[str, Variant] = field(init=False, repr=False, compare=False)
    _configs: dict[str, tuple[RunConfig, RunConfig]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        labels = [variant.label for variant in self.variants]
        if not labels:
            raise UserError("a study needs at least one method")
        double = next((label for label in labels if labels.count(label) > 1), None)
        if double is not None:
            raise UserError(f"{double!r} is entered twice: give each row a name, such as {{'{double} again': ...}}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or SEARCH_SEED in self.seeds:
            raise UserError(f"seeds must be different whole numbers other than {SEARCH_SEED}, got {self.seeds}")
        if self.tune not in ("lr", "none"):
            raise unknown_name("tune", self.tune, ("lr", "none"))
        if self.reference not in labels:
            raise unknown_name("reference", self.reference, labels)
        if self.shared.eval_problems is not None and self.shared.eval_problems < 2:
            raise UserError("a comparison needs at least two problems: raise eval_problems")
        if self.budget is not None and self.budget < 1:
            raise UserError(f"budget must be at least one completion, got {self.budget}")
        if not 0 <= self.zone < (1 if "accuracy" in self.shared.rewards else math.inf):
            raise UserError(f"zone must lie in [0, 1) for accuracies, and be 0 or above for rewards, got {self.zone}")
        object.__setattr__(self, "_by_label", {variant.label: variant for variant in self.variants})

    @property
    def of_runs(self) -> bool:
        """Whether there is one seed only, so that runs are compared and nothing is known of methods."""
        return len(self.seeds) == 1

    def said(self, verdict: str) -> str:
        """A verdict in the words that the number of seeds allows."""
        return _RUN_WORDS.get(verdict, verdict) if self.of_runs else verdict

    def variant(self, label: str) -> Variant:
        """The row of that name.

        Raises:
            UserError: there is none.
        """
        if label not in self._by_label:
            raise unknown_name("row", label, self._by_label)
        return self._by_label[label]

    def _filled(self, variant: Variant) -> tuple[RunConfig, RunConfig]:
        """What a row's runs are asked to do, and the same with every field filled that the scale decides."""
        if variant.label not in self._configs:
            named = {name: value for name in _NAMED if (value := getattr(self.shared, name))}
            asked = resolve.merge(named | dict(variant.overrides), self.shared)
            filled = resolve.fill(asked, facts=resolve.BaseFacts(self.scale), task=None)
            self._configs[variant.label] = asked, filled
        return self._configs[variant.label]

    def config(self, variant: Variant, **changes: Any) -> RunConfig:
        """The configuration of a row's runs, with steps and learning rate filled in.

        Raises:
            UserError: the budget is less than a step.
        """
        config, filled = self._filled(variant)
        rows = (filled.prompts_per_step or 1) * filled.group_size
        steps = filled.steps or 1
        if self.budget is not None:
            steps = round(self.budget / rows)
            if steps < 1:
                raise UserError(
                    f"a budget of {self.budget} completions is less than a step of {variant.label} ({rows})"
                )
        known = {"steps": steps, "learning_rate": filled.learning_rate, "eval_before": False}
        return dataclasses.replace(config, **known | changes)

    # ---- trials ------------------------------------------------------------------------------------------------

    def base_trials(self) -> list[Trial]:
        """The untrained base on the problems of the comparison, with each seed's samples."""
        return [Trial("", "base", dataclasses.replace(self.shared, seed=seed)) for seed in self.seeds]

    def rung(self, variant: Variant, number: int, rates: Sequence[float]) -> list[Trial]:
        """The trials of one rung of a row's search."""
        whole = self.config(variant)
        assert whole.steps is not None
        steps = max(1, math.ceil(whole.steps * _RUNGS[number][0]))
        config = dataclasses.replace(whole, steps=steps, seed=SEARCH_SEED, eval_split="validation")
        return [
            Trial(variant.label, "search", dataclasses.replace(config, learning_rate=rate), rung=number)
            for rate in rates
        ]

    def search(self, variant: Variant, scores: Mapping[str, float | None]) -> list[list[Trial]]:
        """The rungs of a row's search as far as they are known: successive halving (Jamieson and Talwalkar 2016).

        All rates train for a part of the steps; the best of them on the validation split train for all steps.

        Args:
            variant: the row.
            scores: accuracy on the validation split by trial key, ``None`` where the run failed; unfinished ones absent.
        """
        if self.tune == "none":
            return []
        rates: Sequence[float] = half_decades(self.config(variant).learning_rate or 0.0)
        rungs: list[list[Trial]] = []
        for number, (_, keep) in enumerate(_RUNGS):
            trials = self.rung(variant, number, sorted(rates[:keep]))
            rungs.append(trials)
            if not all(trial.key in scores for trial in trials):
                break
            rates = [trial.config.learning_rate or 0.0 for trial in _ranked(trials, scores)]
            if not rates:
                break
        return rungs

    def learning_rate(self, variant: Variant, scores: Mapping[str, float | None]) -> float | None:
        """The rate that a row is compared at; ``None`` as long as its search is not over, or if every trial failed."""
        if self.tune == "none":
            return self.config(variant).learning_rate
        rungs = self.search(variant, scores)
        last = rungs[-1]
        if len(rungs) < len(_RUNGS) or not all(trial.key in scores for trial in last):
            return None
        ranked = _ranked(last, scores)
        return ranked[0].config.learning_rate if ranked else None

    def finals(self, variant: Variant, rate: float) -> list[Trial]:
        """The runs of the comparison, one a seed."""
        return [
            Trial(variant.label, "final", self.config(variant, learning_rate=rate, seed=seed)) for seed in self.seeds
        ]

    def known(self, scores: Mapping[str, float | None]) -> list[Trial]:
        """Every trial that can be named so far, finished or not, row by row."""
        trials = self.base_trials()
        for variant in self.variants:
            trials += itertools.chain.from_iterable(self.search(variant, scores))
            rate = self.learning_rate(variant, scores)
            trials += self.finals(variant, rate) if rate is not None else []
        return trials


def _ranked(trials: Sequence[Trial], scores: Mapping[str, float | None]) -> list[Trial]:
    """Cells that did not fail, best first; of equals the lower rate."""
    alive = [(score, trial) for trial in trials if (score := scores[trial.key]) is not None]
    return [trial for _, trial in sorted(alive, key=lambda pair: (-pair[0], pair[1].config.learning_rate))]


def make_variants(
    entries: str | Sequence[str] | Mapping[str, Any], axes: Mapping[str, Sequence[Any]]
) -> tuple[Variant, ...]:
    """The rows of a study: every entry with every combination of the axes' values.

    Args:
        entries: method names, or a mapping from a row's name to a method name or to fields of ``RunConfig``.
        axes: values by field of ``RunConfig``.

    >>> [variant.label for variant in make_variants(["lora"], {"rank": [1, 8]})]
    ['lora rank=1', 'lora rank=8']
    """
    if isinstance(entries, str):
        entries = [name.strip() for name in entries.split(",") if name.strip()]
    if not isinstance(entries, Mapping):
        double = next((name for name in entries if list(entries).count(name) > 1), None)
        if double is not None:
            raise UserError(
                f"{double!r} is entered twice: give each row a name, such as {{'{double} again': '{double}'}}"
            )
        entries = {name: name for name in entries}
    variants = []
    for label, entry in entries.items():
        fields = {"method": entry} if isinstance(entry, str) else dict(entry)
        methods.get(fields.setdefault("method", label))
        for values in itertools.product(*axes.values()):
            point = dict(zip(axes, values, strict=True))
            parts = [label, *(f"{name}={_short(value)}" for name, value in point.items())]
            variants.append(Variant(" ".join(parts), fields | point))
    for variant in variants:
        for name in variant.overrides:
            if name in _OWN:
                raise UserError(f"{name} is decided by the study: {_advice(name)}")
        replace_fields(RunConfig(), dict(variant.overrides))
    return tuple(variants)


def split_axes(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Shared fields and axes: a list or tuple is an axis, of fields that are tuples themselves one of lists."""
    known = {f.name for f in dataclasses.fields(RunConfig)}
    shared: dict[str, Any] = {}
    axes: dict[str, list[Any]] = {}
    for name, value in overrides.items():
        if name not in known:
            raise unknown_name("option or axis", name, known)
        many = isinstance(value, list | tuple)
        if name in _TUPLES:
            many = many and bool(value) and all(isinstance(item, list | tuple) for item in value)
        if not many:
            shared[name] = value
        elif not value:
            raise UserError(f"axis {name} is empty: give it at least one value")
        else:
            axes[name] = list(value)
    return shared, axes


def _short(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _advice(name: str) -> str:
    return f"use {_OWN[name]}" if _OWN[name] else "leave it out"
