"""Scores with honest intervals: k answers a problem on the benchmarks of the field."""

from rlvr_lite.analysis.statistics import paired_difference
from rlvr_lite.evaluation.harness import evaluate
from rlvr_lite.evaluation.loading import ProblemSet, load_problems
from rlvr_lite.evaluation.metrics import avg_at_k, length_quantiles, maj_at_k, pass_at_k, pass_curve
from rlvr_lite.evaluation.policies import check_fingerprint, fingerprint
from rlvr_lite.evaluation.power import power_table
from rlvr_lite.evaluation.presets import PRESETS, Preset
from rlvr_lite.evaluation.results import EVALUATION_FILE, Evaluation, compare_evaluations
from rlvr_lite.evaluation.samples import GREEDY, Sample
from rlvr_lite.evaluation.scores import Score
from rlvr_lite.evaluation.scoring import Grade, graded_by, rescore, score
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
    "graded_by",
    "length_quantiles",
    "list_benchmarks",
    "load_problems",
    "maj_at_k",
    "paired_difference",
    "pass_at_k",
    "pass_curve",
    "power_table",
    "rescore",
    "score",
]
