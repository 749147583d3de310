"""Which runs the claims need: the same experiments at three scales, every run in one study only.

At ``tiny``: seventeen methods, each with a search (5 halves of a run and about 8 whole ones) and five seeds, 306 runs; two methods in
all settings that may break them, three seeds, 90; two ranks at rates of their own, 34; rank, loss, learning rate and batch around
LoRA's tuned rate, four seeds, 52. What runs of different studies share by configuration is trained once.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from rlvr_lite import resolve
from rlvr_lite.config import SCALES, RunConfig
from rlvr_lite.errors import unknown_name
from rlvr_lite.planning import shape_of
from rlvr_lite.recipes import recipe

__all__ = [
    "EXPERIMENTS",
    "FACTORS",
    "METHODS",
    "Experiment",
    "Rate",
    "Setting",
    "cause_settings",
    "rank_at_its_rate",
    "setting",
]

#: Rows of the tuned comparison: the paper's methods, the controls of the spectral ones, and a sparse update.
METHODS = (
    *("lora", "full", "dora", "adalora", "miss", "lora_plus", "rslora", "rank1", "vera", "ia3", "ln_tuning"),
    *("pissa", "milora", "rlpo", "rlmo", "random_directions", "shira"),
)
#: What may break PiSSA and MiLoRA besides their directions: harmless level, suspect level.
FACTORS: Mapping[str, tuple[Any, Any]] = {
    "form": ("delta", "residual"),
    "precision": ("fp32", "bf16"),
    "dropout": (0.0, 0.05),
    "rate": ("own", "lora's"),
}
_WORDS = {0.0: "no dropout", 0.05: "dropout", "own": "at its own rate", "lora's": "at lora's rate"}
_RANKS = (1, 8, 16, 32)
Rate = Callable[[str], float]


@dataclass(frozen=True)
class Setting:
    """A scale of the claims.

    Attributes:
        scale: a key of ``config.SCALES``.
        config: what all runs share.
        seeds: of the tuned comparison.
        cause_seeds: of the search for what breaks a method.
        ablation_seeds: of the ablations.
        margin: equivalence margin, as a share of what LoRA gains over the untrained base.
        search_seeds: of the search for learning rates.
    """

    scale: Literal["tiny", "small", "paper"]
    config: RunConfig
    seeds: int
    cause_seeds: int
    ablation_seeds: int
    margin: float = 0.08
    search_seeds: int = 2

    @cached_property
    def filled(self) -> RunConfig:
        """The configuration with the scale's defaults, as a row of plain LoRA runs it."""
        asked = resolve.merge({"method": "lora"}, self.config)
        return resolve.fill(asked, facts=resolve.BaseFacts(self.scale), task=None)

    @cached_property
    def size(self) -> str:
        """Parameters of the base, as verdicts name them."""
        count = shape_of(self.config).parameters
        for unit, word in ((1e9, "B"), (1e6, "M")):
            if count >= unit:
                return f"{count / unit:.3g}{word}"
        return f"{count / 1e6:.2g}M"

    @property
    def prompts(self) -> int:
        """Prompts of a step."""
        return self.filled.prompts_per_step or 1

    @property
    def rollouts(self) -> int:
        """Completions that a whole run draws."""
        return (self.filled.steps or 1) * self.prompts * self.filled.group_size

    @property
    def ranks(self) -> tuple[int, ...]:
        """Ranks of the ablation besides the scale's own."""
        return tuple(rank for rank in _RANKS if rank != self.filled.rank)

    @property
    def high_rank(self) -> int:
        """Four times the scale's rank, where a high rank is asked for."""
        return 4 * self._rank

    @property
    def searched_ranks(self) -> tuple[int, int]:
        """A quarter and four times the scale's rank, which are searched for their best rates."""
        return max(1, self._rank // 4), self.high_rank

    @property
    def _rank(self) -> int:
        rank = self.filled.rank
        assert isinstance(rank, int)
        return rank

    @property
    def small_batch(self) -> str:
        """Row of the small batch: a quarter of the prompts, four times the steps."""
        return f"batch {max(1, self.prompts // 4) * self.filled.group_size}"


def setting(scale: str, **changes: Any) -> Setting:
    """The claims at a scale.

    Args:
        scale: ``tiny``, ``small`` or ``paper``.
        **changes: fields of :class:`Setting` that differ, for a smaller or larger study.
    """
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    if scale == "tiny":
        found = Setting("tiny", RunConfig(precision="fp32", eval_problems=200), 5, 3, 4)
    elif scale == "small":
        base = "HuggingFaceTB/SmolLM2-135M-Instruct"
        found = Setting("small", RunConfig(base=base, precision="fp32", eval_problems=200), 5, 3, 4)
    else:  # what not every method has is left to the scale's defaults, which are the recipe's; dropout is a factor here
        config = dataclasses.replace(recipe("paper-1.5b"), rank=None, alpha=None, targets=None, method_options={})
        found = Setting("paper", config, 5, 3, 5)
    return dataclasses.replace(found, **changes)


@dataclass(frozen=True)
class Experiment:
    """One study.

    Attributes:
        name: of its directory.
        seeds: field of :class:`Setting` that says how many.
        rows: ``f(setting, rate)``, the fields of each row by label; ``rate`` gives a tuned method's learning rate.
        after: methods whose tuned rates it needs.
        tuned: whether its rows are searched themselves.
        equal_rollouts: whether rows have equal rollouts instead of equal steps.
    """

    name: str
    seeds: str
    rows: Callable[[Setting, Rate], Mapping[str, Mapping[str, Any]]]
    after: tuple[str, ...] = ()
    tuned: bool = False
    equal_rollouts: bool = False

    def labels(self, at: Setting) -> tuple[str, ...]:
        """Its rows."""
        return tuple(self.rows(at, lambda method: 1.0 if method == "lora" else 2.0))


def _cell_label(method: str, at: Setting, key: tuple[Any, ...]) -> str:
    usual = _usual(at)
    words = [str(_WORDS.get(level, level)) for level, plain in zip(key, usual, strict=True) if level != plain]
    return " ".join([method, *words])


def _usual(at: Setting) -> tuple[Any, ...]:
    """The levels that the tuned comparison has."""
    return ("delta", at.config.precision, 0.0, "own")


def cause_settings(method: str, at: Setting) -> dict[tuple[Any, ...], str]:
    """Rows of all settings that may break a method by their levels; the one of the tuned comparison among them."""
    return {key: _cell_label(method, at, key) for key in itertools.product(*FACTORS.values())}


def _causes(method: str) -> Callable[[Setting, Rate], dict[str, dict[str, Any]]]:
    def rows(at: Setting, rate: Rate) -> dict[str, dict[str, Any]]:
        found = {}
        for key, label in cause_settings(method, at).items():
            form, precision, dropout, which = key
            if key == _usual(at) or (which != "own" and rate("lora") == rate(method)):
                continue  # run elsewhere under the same configuration
            found[label] = {
                "method": method if form == "delta" else f"{method}:{form}",
                "precision": precision,
                "method_options": {"dropout": dropout},
                "learning_rate": rate(method if which == "own" else "lora"),
            }
        return found

    return rows


def _methods(at: Setting, rate: Rate) -> dict[str, dict[str, Any]]:
    return {name: {"method": name} for name in METHODS}


def _ranks(at: Setting, rate: Rate) -> dict[str, dict[str, Any]]:
    lora, alpha = {"method": "lora", "learning_rate": rate("lora")}, at.filled.alpha
    scaled = {f"rank {r}": lora | {"rank": r, "alpha": 2.0 * r} for r in at.ranks}
    return scaled | {
        f"rank {r}, alpha {alpha:g}": lora | {"rank": r, "alpha": alpha} for r in at.ranks if 2 * r != alpha
    }


def _losses(at: Setting, rate: Rate) -> dict[str, dict[str, Any]]:
    return {
        f"loss {name}": {"method": "lora", "learning_rate": rate("lora"), "loss": name} for name in ("grpo", "dr_grpo")
    }


def _rates(at: Setting, rate: Rate) -> dict[str, dict[str, Any]]:
    return {f"rate / {n}": {"method": "lora", "learning_rate": rate("lora") / n} for n in (2, 10)}


def _batch(at: Setting, rate: Rate) -> dict[str, dict[str, Any]]:
    lora, few = {"method": "lora", "learning_rate": rate("lora")}, {"prompts_per_step": max(1, at.prompts // 4)}
    high = {"rank": at.high_rank, "alpha": 2.0 * at.high_rank}
    return {
        at.small_batch: lora | few,
        f"rank {at.high_rank}": lora | high,
        f"rank {at.high_rank}, {at.small_batch}": lora | high | few,
    }


def _searched_ranks(at: Setting, rate: Rate) -> dict[str, dict[str, Any]]:
    return {rank_at_its_rate(r): {"method": "lora", "rank": r, "alpha": 2.0 * r} for r in at.searched_ranks}


def rank_at_its_rate(rank: int) -> str:
    """Row of a LoRA of this rank, alpha = 2 r, at the rate of its own search."""
    return f"rank {rank} at its own rate"


#: In the order they are run; the paper's numbers for them stand with the claims.
EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("methods", "seeds", _methods, tuned=True),
    Experiment("causes-pissa", "cause_seeds", _causes("pissa"), after=("lora", "pissa")),
    Experiment("causes-milora", "cause_seeds", _causes("milora"), after=("lora", "milora")),
    Experiment("searched-ranks", "ablation_seeds", _searched_ranks, tuned=True),
    Experiment("rank", "ablation_seeds", _ranks, after=("lora",)),
    Experiment("loss", "ablation_seeds", _losses, after=("lora",)),
    Experiment("learning-rate", "ablation_seeds", _rates, after=("lora",)),
    Experiment("batch", "ablation_seeds", _batch, after=("lora",), equal_rollouts=True),
)
