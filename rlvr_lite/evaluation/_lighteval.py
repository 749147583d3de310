"""Scores in the layout of a lighteval result file, for tools that read those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlvr_lite.analysis.statistics import clustered_standard_error

if TYPE_CHECKING:
    from rlvr_lite.evaluation._results import Evaluation

__all__ = ["results"]


def results(evaluation: Evaluation) -> dict[str, Any]:
    """The scores as lighteval's ``results_*.json`` holds them.

    Tasks are named ``rlvr_lite|BENCHMARK|0`` (suite, task, worked examples), so that they are not taken for lighteval's
    own, whose prompts and grader differ. Metrics have lighteval's names (``avg@n:n=8``) and its ``_stderr`` beside
    them, here clustered by problem.
    """
    found: dict[str, dict[str, float]] = {}
    for benchmark, score in evaluation.items():
        row = found.setdefault(f"rlvr_lite|{benchmark}|0", {})
        for metric, values in score.by_problem().items():
            name = _metric_name(metric, score.k)
            row[name] = float(values.mean())
            if len(values) > 1:
                row[f"{name}_stderr"] = clustered_standard_error(values, range(len(values)))
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    whole = [name for name in names if all(name in row for row in found.values())]
    average = {name: sum(row[name] for row in found.values()) / len(found) for name in whole}
    policy, sampling = evaluation.facts["policy"], evaluation.facts["sampling"]
    return {
        "config_general": {
            "lighteval_sha": "",
            "num_fewshot_seeds": 1,
            "max_samples": None,
            "model_name": policy.get("base") or policy.get("model"),
            "model_sha": policy.get("revision") or "",
            "model_dtype": policy.get("precision"),
            "generation_parameters": {**sampling, "seed": evaluation.facts["seed"]},
        },
        "results": {**found, "all": average},
        "versions": dict.fromkeys(found, 0),
        "config_tasks": {f"rlvr_lite|{name}": {"name": name, **dict(evaluation.sources[name])} for name in evaluation},
        "summary_tasks": {},
        "summary_general": {},
    }


def _metric_name(metric: str, k: int) -> str:
    family = metric.partition("@")[0]
    return {"greedy": "pass@1", "avg": f"avg@n:n={k}", "pass": f"pass@k:k={k}&n={k}", "maj": f"maj@n:n={k}"}[family]
