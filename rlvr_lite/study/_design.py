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
from rlvr_lite.habits import unknown_option
from rlvr_lite.study._lattice import COARSE, MOST, USUAL, Optimum, best_place, optimum, place_of, rate_at

__all__ = [
    "ONE_SEED",
    "SEARCH_SEED",
    "Design",
    "Stage",
    "Trial",
    "Tune",
    "Variant",
    "make_variants",
]

Tune = Literal["lr", "none"]
Stage = Literal["base", "search", "final"]

ONE_SEED = "One seed compares these runs, not the methods, for two runs of one method differ as well: take three seeds or more."
_RUN_WORDS = {"better": "this run higher", "worse": "this run lower", "equivalent": "this run as good"}
#: First seed of the search, far from those of the comparison: a rate picked for its luck must not be scored on that luck.
SEARCH_SEED = 1000
#: Share of the steps of a run that the coarse pass of a search takes.
_COARSE_STEPS = 0.5
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
        rung: of the search: 0 in its coarse pass, 1 in its fine one.
    """

    variant: str
    stage: Stage
    config: RunConfig
    rung: int = 0

    @property
    def key(self) -> str:
        """Unlike any other trial's of the study."""
        if self.stage == "search":
            pass_ = "fine" if self.rung else "coarse"
            return f"{self.variant}/search-{pass_}-lr{self.config.learning_rate:g}-seed-{self.config.seed}"
        return f"{self.variant}/seed-{self.config.seed}" if self.stage == "final" else f"/base-seed-{self.config.seed}"


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
        margin: equivalence margin, as a share of what the reference gains over the untrained base; 0 for none.
        search_seeds: seeds of the fine pass of the search.
        sources: hashes of the source of reward functions and tasks of the user's own, by name.
    """

    variants: tuple[Variant, ...]
    shared: RunConfig
    scale: str
    seeds: tuple[int, ...]
    tune: Tune = "lr"
    budget: int | None = None
    reference: str = ""
    margin: float = 0.0
    search_seeds: int = 2
    sources: Mapping[str, str] = field(default_factory=dict)
    _by_label: Mapping[str, Variant] = field(init=False, repr=False, compare=False)
    _configs: dict[str, tuple[RunConfig, RunConfig]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    _known: dict[tuple[Any, ...], list[Trial]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        labels = [variant.label for variant in self.variants]
        if not labels:
            raise UserError("a study needs at least one method")
        double = next((label for label in labels if labels.count(label) > 1), None)
        if double is not None:
            raise UserError(f"{double!r} is entered twice: give each row a name, such as {{'{double} again': ...}}")
        if not isinstance(self.search_seeds, int) or self.search_seeds < 1:
            raise UserError(f"search_seeds must be a whole number of at least 1, got {self.search_seeds!r}")
        if not self.seeds:
            raise UserError("a study needs seeds: give at least one")
        last = SEARCH_SEED + self.search_seeds - 1
        if len(set(self.seeds)) < len(self.seeds) or {*self.seeds} & {*range(SEARCH_SEED, last + 1)}:
            raise UserError(
                f"seeds must be different whole numbers other than the search's {SEARCH_SEED} to {last}, got {self.seeds}"
            )
        if self.tune not in ("lr", "none"):
            raise unknown_name("tune", self.tune, ("lr", "none"))
        if self.reference not in labels:
            raise unknown_name("reference", self.reference, labels)
        if self.shared.eval_problems is not None and self.shared.eval_problems < 2:
            raise UserError("a comparison needs at least two problems: raise eval_problems")
        if self.budget is not None and self.budget < 1:
            raise UserError(f"budget must be at least one completion, got {self.budget}")
        if not 0 <= self.margin < 1:
            raise UserError(
                f"margin must lie in [0, 1), a share of the reference's gain over the base; got {self.margin}"
            )
        object.__setattr__(self, "_by_label", {variant.label: variant for variant in self.variants})

    @property
    def of_runs(self) -> bool:
        """Whether there is one seed only, so that runs are compared and nothing is known of methods."""
        return len(self.seeds) == 1

    def said(self, verdict: str) -> str:
        """A verdict in the words that the number of seeds allows."""
        word, comma, rest = verdict.partition(",")
        return f"{_RUN_WORDS.get(word, word)}{comma}{rest}" if self.of_runs else verdict

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
        if ("base",) not in self._known:
            self._known["base",] = [Trial("", "base", dataclasses.replace(self.shared, seed=s)) for s in self.seeds]
        return self._known["base",]

    def centre(self, variant: Variant) -> int:
        """The place on the lattice of rates nearest to a row's own rate."""
        return place_of(self.config(variant).learning_rate or 1.0)

    def _searching(self, variant: Variant, rung: int, places: Sequence[int]) -> list[Trial]:
        """Trials of the search at these places: in the coarse pass one short run each, in the fine one a whole run a seed."""
        key = (variant.label, rung, *sorted(places))
        if key not in self._known:  # asked for again after every run
            whole = self.config(variant)
            steps = whole.steps if rung else max(1, math.ceil((whole.steps or 1) * _COARSE_STEPS))
            config = dataclasses.replace(whole, steps=steps, eval_split="validation")
            self._known[key] = [
                Trial(
                    variant.label,
                    "search",
                    dataclasses.replace(config, learning_rate=rate_at(p), seed=SEARCH_SEED + s),
                    rung,
                )
                for p in sorted(places)
                for s in range(self.search_seeds if rung else 1)
            ]
        return self._known[key]

    def search(self, variant: Variant, scores: Mapping[str, float | None]) -> list[list[Trial]]:
        """The trials of a row's search as far as they are known, in the order in which they become so.

        A coarse pass: half decades around the row's own rate, half of the steps, one seed. Then the best of them and its
        neighbours on the lattice of quarter decades, all steps, every seed of the search; as long as the best has no
        neighbour on one side, that one is added.

        Args:
            variant: the row.
            scores: accuracy on the validation split by trial key, ``None`` where the run failed; unfinished ones absent.
        """
        return self._searched(variant, scores)[0]

    def _searched(
        self, variant: Variant, scores: Mapping[str, float | None]
    ) -> tuple[list[list[Trial]], Optimum | None, bool]:
        """The trials of a search, what it found, and whether it is over."""
        if self.tune == "none":
            return [], None, True
        centre = self.centre(variant)
        coarse = self._searching(variant, 0, [centre + step for step in COARSE])
        waves = [coarse]
        if any(trial.key not in scores for trial in coarse):
            return waves, None, False
        start = best_place({_place(trial): scores[trial.key] for trial in coarse}, centre)
        if start is None:
            return waves, None, True
        fresh, found = [start - 1, start, start + 1], {}
        while True:
            waves.append(self._searching(variant, 1, fresh))
            if any(trial.key not in scores for trial in waves[-1]):
                return waves, None, False
            for place in fresh:
                found[place] = [scores[trial.key] for trial in waves[-1] if _place(trial) == place]
            best = best_place({place: _mean(row) for place, row in found.items()}, start)
            lowest, highest = min(found), max(found)
            if len(found) >= MOST or (best is not None and lowest < best < highest):
                return waves, None if best is None else optimum(found, best), True
            fresh = [lowest - 1 if best in (None, lowest) else highest + 1]

    def optimum(self, variant: Variant, scores: Mapping[str, float | None]) -> Optimum | None:
        """What a row's search found; ``None`` as long as it is not over, if every rate failed, or without a search."""
        return self._searched(variant, scores)[1]

    def learning_rate(self, variant: Variant, scores: Mapping[str, float | None]) -> float | None:
        """The rate that a row is compared at; ``None`` as long as its search is not over, or if every rate failed."""
        if self.tune == "none":
            return self.config(variant).learning_rate
        found = self.optimum(variant, scores)
        return None if found is None else rate_at(found.place)

    def left(self, scores: Mapping[str, float | None]) -> list[tuple[RunConfig, Stage, int]]:
        """Configurations of what is not done, what for and how many runs, with those that cannot be named before a search is over.

        Args:
            scores: as in :meth:`search`.
        """
        found: list[tuple[RunConfig, Stage, int]] = [
            (trial.config, trial.stage, 1) for trial in self.known(scores) if trial.key not in scores
        ]
        for variant in self.variants:
            waves, _, over = self._searched(variant, scores)
            if not over:
                more = USUAL * self.search_seeds - sum(map(len, waves[1:]))
                found += [(self._searching(variant, 1, [0])[0].config, "search", max(0, more))]
                found += [(self.finals(variant, 1.0)[0].config, "final", len(self.seeds))]
        return found

    def finals(self, variant: Variant, rate: float) -> list[Trial]:
        """The runs of the comparison, one a seed."""
        key = (variant.label, "final", rate)
        if key not in self._known:
            config = self.config(variant, learning_rate=rate)
            self._known[key] = [
                Trial(variant.label, "final", dataclasses.replace(config, seed=seed)) for seed in self.seeds
            ]
        return self._known[key]

    def known(self, scores: Mapping[str, float | None]) -> list[Trial]:
        """Every trial that can be named so far, finished or not, row by row."""
        trials = list(self.base_trials())
        for variant in self.variants:
            trials += itertools.chain.from_iterable(self.search(variant, scores))
            rate = self.learning_rate(variant, scores)
            trials += self.finals(variant, rate) if rate is not None else []
        return trials


def _place(trial: Trial) -> int:
    return place_of(trial.config.learning_rate or 1.0)


def _mean(scores: Sequence[float | None]) -> float | None:
    """Of all seeds; ``None`` if one failed, for then the rate is not one to train with."""
    alive = [score for score in scores if score is not None]
    return sum(alive) / len(alive) if len(alive) == len(scores) else None


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
    if not isinstance(entries, Mapping | Sequence):
        raise UserError(f"methods must be names, or a mapping of rows; got {entries!r}")
    if not isinstance(entries, Mapping):
        double = next((name for name in entries if list(entries).count(name) > 1), None)
        if double is not None:
            raise UserError(
                f"{double!r} is entered twice: give each row a name, such as {{'{double} again': '{double}'}}"
            )
        entries = {name: name for name in entries}
    variants = []
    for label, entry in entries.items():
        if not isinstance(entry, str | Mapping):
            raise UserError(f"a row must be a method or options by name, such as {{'rank': 8}}; got {entry!r}")
        fields = {"method": entry} if isinstance(entry, str) else dict(entry)
        if "method" not in fields and label not in methods.names():
            raise UserError(f"row {label!r} names no method: add one, such as {{'method': 'lora'}}")
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
            raise unknown_option("a run", name, known)
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
