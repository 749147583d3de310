"""How an evaluation is run, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlvr_lite.config import SamplingConfig

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """Settings that belong together.

    Attributes:
        sampling: how answers are drawn.
        k: samples a problem; ``None`` takes what the paper takes for each benchmark, 8 where it has none.
        greedy: take a greedy answer besides.
        n: problems a benchmark at most; ``None`` takes all.
    """

    sampling: SamplingConfig
    k: int | None
    greedy: bool
    n: int | None


#: ``paper`` is the protocol of arXiv 2512.23165, section 2 (32,768 tokens: hours on one card); ``quick`` answers within
#: minutes for a small model; ``greedy`` is one deterministic answer to each problem.
PRESETS: Mapping[str, Preset] = {
    "paper": Preset(SamplingConfig(temperature=0.6, top_p=0.95, max_completion_length=32_768), None, False, None),
    "quick": Preset(SamplingConfig(temperature=0.6, top_p=0.95, max_completion_length=1024), 8, True, 100),
    "greedy": Preset(SamplingConfig(temperature=0.0, max_completion_length=1024), 1, True, None),
}
