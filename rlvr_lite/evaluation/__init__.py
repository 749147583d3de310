"""Scores with honest intervals: k answers a problem on the benchmarks of the field."""

from rlvr_lite.analysis.statistics import paired_difference
from rlvr_lite.evaluation._harness import evaluate
from rlvr_lite.evaluation._loading import ProblemSet, load_problems
from rlvr_lite.evaluation._metrics import avg_at_k, length_quantiles, maj_at_k, pass_at_k, pass_curve
from rlvr_lite.evaluation._policies import (
    check_fingerprint,
    fingerprint,
    fingerprint_distance,
    recorded_fingerprint,
)
from rlvr_lite.evaluation._power import power_table
from rlvr_lite.evaluation._presets import PRESETS, Preset
from rlvr_lite.evaluation._results import EVALUATION_FILE, Evaluation, compare_evaluations
from rlvr_lite.evaluation._samples import GREEDY, Sample
from rlvr_lite.evaluation._scores import Score
from rlvr_lite.evaluation._scoring import Grade, graded_by, rescore, score
from rlvr_lite.evaluation._strangers import open_stranger
from rlvr_lite.tasks import BENCHMARKS, PAPER, Benchmark, list_benchmarks

__all__ = [
    "BENCHMARKS",
    "EVALUATION_FILE",
    "GREEDY",
    "PAPER",
    "PRESETS",
    "Benchmark",
    "Evaluation",
    "Grade",
    "Preset",
    "ProblemSet",
    "Sample",
    "Score",
    "avg_at_k",
    "check_fingerprint",
    "compare_evaluations",
    "evaluate",
    "fingerprint",
    "fingerprint_distance",
    "graded_by",
    "length_quantiles",
    "list_benchmarks",
    "load_problems",
    "maj_at_k",
    "open_stranger",
    "paired_difference",
    "pass_at_k",
    "pass_curve",
    "power_table",
    "recorded_fingerprint",
    "rescore",
    "score",
]
