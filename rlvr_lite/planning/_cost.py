"""What runs take before they are started: generated tokens, hours and disk, from a plan and a stated throughput."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlvr_lite import methods
from rlvr_lite.table import Table

if TYPE_CHECKING:
    from rlvr_lite.planning._planned import Plan

__all__ = ["Cost", "Throughput", "cost_table", "run_cost", "score_cost", "throughput"]

#: Assumed, not measured. Completions are half as long as they may be; a decoded token of all completions at once takes no
#: less than this many seconds on a GPU; 60 % of the memory's bandwidth is reached; training does so many floating-point
#: operations for each byte a second of bandwidth; a CPU does so many a second and core, and no token in less than this.
_LENGTH = 0.5
_DECODE_FLOOR = 0.025
_BANDWIDTH_SHARE = 0.6
_OPERATIONS_A_BYTE = 40.0
_CPU = 5e10
_CPU_FLOOR = 1e-4
#: Bytes on disk of a completion's record, of a generated token of it, and of a trained number in adapter and checkpoint
#: (the weights twice and two moments of the optimizer, in fp32).
_RECORD, _TOKEN, _TRAINED = 200, 5, 16
#: Gigabytes a second of the cards' memory, from their makers' sheets; another card is taken for an average one.
_BANDWIDTH: Mapping[str, float] = {
    "T4": 320, "P100": 732, "V100 16GB": 900, "V100 32GB": 900, "RTX A4000": 448, "RTX 3060": 360, "RTX 4060 Ti 16GB": 288,
    "RTX 5060 Ti 16GB": 448, "RTX 4070": 504, "RTX 4070 Ti": 504, "RTX 4070 Ti Super": 672, "RTX 4080": 717,
    "RTX 5070": 672, "RTX 5070 Ti": 896, "RTX 5080": 960, "L4": 300, "A10": 600, "A10G": 600, "A30": 933,
    "RTX A5000": 768, "RTX 3090": 936, "RTX 3090 Ti": 1008, "Quadro RTX 6000": 672, "RTX 4090": 1008, "RTX 5090": 1792,
    "A100 40GB": 1555, "A100 80GB": 2039, "L40": 864, "L40S": 864, "A40": 696, "RTX A6000": 768, "RTX 6000 Ada": 960,
    "H100": 3350, "H200": 4800, "RTX PRO 6000 Blackwell": 1792, "B200": 8000,
}  # fmt: skip
_USUAL_BANDWIDTH = 450.0


@dataclass(frozen=True)
class Throughput:
    """Seconds a generated token takes.

    Attributes:
        sampled: to be sampled, s.
        trained: to be scored and trained on, s.
        device: on what.
        source: of these numbers, in words.
    """

    sampled: float
    trained: float
    device: str
    source: str


@dataclass(frozen=True)
class Cost:
    """What a number of runs takes.

    Attributes:
        runs: how many train.
        tokens: generated, in training and in scoring.
        seconds: of one device, s.
        disk: bytes that stay.
        device: that the seconds are of.
        source: of the throughput, in words.
    """

    runs: int
    tokens: float
    seconds: float
    disk: float
    device: str = ""
    source: str = ""

    @property
    def hours(self) -> float:
        """Hours of one device."""
        return self.seconds / 3600

    def __add__(self, other: Cost) -> Cost:
        """Both together.

        >>> (Cost(1, 10, 3600, 5) + Cost(2, 20, 3600, 5)).hours
        2.0
        """
        device, source = (
            "; ".join(dict.fromkeys(part for text in pair for part in text.split("; ") if part))
            for pair in ((self.device, other.device), (self.source, other.source))
        )
        sums = (
            self.runs + other.runs,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
            self.disk + other.disk,
        )
        return Cost(*sums, device, source)

    def times(self, n: int) -> Cost:
        """The same ``n`` times."""
        return replace(self, runs=n * self.runs, tokens=n * self.tokens, seconds=n * self.seconds, disk=n * self.disk)

    def __str__(self) -> str:
        runs = f"{self.runs:,} run{'s' * (self.runs != 1)}"
        return (
            f"{runs}, {_short(self.tokens)} generated tokens, about {_hours(self.seconds)} of {self.device or 'one device'}, "
            f"{_bytes(self.disk)} on disk ({self.source})"
        )

    def cells(self) -> dict[str, object]:
        """A row of a table."""
        return {
            "runs": self.runs,
            "generated tokens": _short(self.tokens),
            "hours": float(f"{self.hours:.2g}"),
            "disk": _bytes(self.disk),
        }


def cost_table(parts: Mapping[str, Cost], title: str) -> Table:
    """A row a part, and their sum."""
    whole = sum(parts.values(), Cost(0, 0, 0, 0))
    rows = [{"part": name, **cost.cells()} for name, cost in (*parts.items(), ("all", whole))]
    return Table.of(rows, title=title, note=f"Hours of {whole.device or 'one device'}: {whole.source}.")


def throughput(plan: Plan) -> Throughput:
    """How fast a plan's run is assumed to be on its card, or on a CPU without one.

    On a card: ``max(25 ms, (weights + N/2 full caches) / (0.6 bandwidth)) / N`` to sample a token, with N completions at
    once; training takes 6 operations a parameter and token, 8 with recomputed activations. On a CPU: 2 operations a
    parameter to sample. Both times the method's own cost beside LoRA's, where that was measured.

    Args:
        plan: of the run.
    """
    config, shape = plan.config, plan.shape
    layout_size = shape.parameters
    slower = methods.get(config.method).cost or (1.0, 1.0)
    training = (8 if config.gradient_checkpointing else 6) * layout_size * slower[0]
    if plan.card is None:
        cores = 1 if config.base == "tiny" else _threads()
        speed = _CPU * cores
        source = (
            f"assumed, not measured: {_CPU / 1e9:g} GFLOP/s a core, no token below {_CPU_FLOOR * 1e3:g} ms, completions half "
            "as long as they may be"
        )
        floor = _CPU_FLOOR / 2
        device = f"this CPU ({cores} core{'s' * (cores != 1)})"
        return Throughput(max(floor, 2 * layout_size * slower[1] / speed), max(floor, training / speed), device, source)
    bandwidth = 1e9 * _BANDWIDTH.get(plan.card.name, _USUAL_BANDWIDTH)
    rows, length = max(1, plan.step.sampled), plan.step.prompt_length + plan.step.completion_length
    size = 4 if config.precision == "fp32" else 2
    bytes_a_step = plan.phases["rollout"].get("weights", 0) + _LENGTH * rows * shape.cached(length) * size
    decoded = max(_DECODE_FLOOR, bytes_a_step / (_BANDWIDTH_SHARE * bandwidth)) * slower[1] / rows
    named = "" if plan.card.name in _BANDWIDTH else ", as of an average card"
    source = (
        f"assumed, not measured: {bandwidth / 1e9:,.0f} GB/s of memory{named}, all that fits sampled at once, a decoding step "
        f"of {_DECODE_FLOOR * 1e3:g} ms or more, completions half as long as they may be"
    )
    return Throughput(decoded, training / (_OPERATIONS_A_BYTE * bandwidth), plan.card.name, source)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def score_cost(plan: Plan) -> Cost:
    """Scoring one policy on the held-out problems of a plan's run, greedily and with ``eval_k`` answers each.

    Args:
        plan: of the run.
    """
    c, speed = plan.config, throughput(plan)
    problems = 100 if c.eval_problems is None else c.eval_problems
    answers = problems * (c.eval_k + 1)
    tokens = answers * _LENGTH * (c.max_completion_length or 1)
    return Cost(0, tokens, tokens * speed.sampled, answers * _RECORD + tokens * _TOKEN, speed.device, speed.source)


def run_cost(plan: Plan) -> Cost:
    """One training run of a plan, with the scoring before and after it that its configuration asks for.

    Dynamic sampling may draw up to ``1 + max_resample`` times as many completions; that most is counted.

    Args:
        plan: of the run.
    """
    c, speed = plan.config, throughput(plan)
    completions = (c.steps or 1) * (c.prompts_per_step or 1) * c.group_size
    drawn = completions * (1 + c.max_resample)
    length = _LENGTH * (c.max_completion_length or 1)
    seconds = length * (drawn * speed.sampled + completions * speed.trained)
    disk = drawn * (_RECORD + _TOKEN * length) + _TRAINED * plan.adapter.trained
    trained = Cost(1, drawn * length, seconds, disk, speed.device, speed.source)
    return trained + score_cost(plan).times(1 + c.eval_before)


def _short(number: float) -> str:
    """A number in three figures.

    >>> _short(950), _short(1_234_567), _short(2.1e9)
    ('950', '1.23 million', '2.1 billion')
    """
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:,.3g} {word}" if number < 1000 * size else f"{number / size:,.0f} {word}"
    return f"{number:,.0f}"


def _hours(seconds: float) -> str:
    if seconds < 3600:
        return f"{max(1, math.ceil(seconds / 60))} min"
    hours = seconds / 3600
    return f"{hours:.2g} hours" if hours < 100 else f"{hours:,.0f} hours"


def _bytes(size: float) -> str:
    """
    >>> _bytes(5e5), _bytes(7.7e8), _bytes(3.2e9)
    ('0.5 MB', '770 MB', '3.2 GB')
    """
    number, unit = (size / 1e9, "GB") if size >= 1e9 else (size / 1e6, "MB")
    return f"{number:,.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"
