"""Scores with honest intervals: k answers a problem on the benchmarks of the field."""

from rlvr_lite.analysis.statistics import paired_difference
from rlvr_lite.evaluation.metrics import avg_at_k, length_quantiles, maj_at_k, pass_at_k, pass_curve
from rlvr_lite.evaluation.samples import GREEDY, Sample
from rlvr_lite.evaluation.scores import Score
from rlvr_lite.evaluation.scoring import score

__all__ = [
    "GREEDY",
    "Sample",
    "Score",
    "avg_at_k",
    "length_quantiles",
    "maj_at_k",
    "paired_difference",
    "pass_at_k",
    "pass_curve",
    "score",
]
