"""Before a run is started: how small a difference could its evaluation show?"""

from __future__ import annotations

from collections.abc import Sequence

from rlvr_lite.analysis.statistics import detectable_difference
from rlvr_lite.errors import unknown_name
from rlvr_lite.table import Table
from rlvr_lite.tasks import BENCHMARKS, PAPER

__all__ = ["power_table"]

_DEFAULT_K = 8


def power_table(
    benchmarks: Sequence[str] = PAPER,
    k: int | None = None,
    *,
    problems: int | None = None,
    seeds: Sequence[int] = (1, 3, 5),
    comparisons: int = 1,
    within: float = 0.12,
    between: float = 0.1,
    seed_sd: float = 0.01,
    power: float = 0.8,
) -> Table:
    """The smallest difference in avg@k between two methods that each benchmark can show, by number of training seeds.

    Args:
        benchmarks: names of ``list_benchmarks()``; any name if ``problems`` says how many it has.
        k: samples a problem; ``None`` takes the paper's, 8 for others.
        problems: problems asked, where that is fewer than the benchmark has.
        seeds: training runs a method.
        comparisons: methods compared with the reference, for Holm's correction.
        within: mean over problems of p (1 - p), the variance of one answer; 0.12 is that of a 1.5B model on AIME.
        between: standard deviation over problems of the true difference.
        seed_sd: standard deviation of a method's accuracy over training seeds.
        power: chance of showing a difference of that size.

    Raises:
        UserError: a name that is no benchmark, without ``problems``.
    """
    rows = []
    for name in [benchmarks] if isinstance(benchmarks, str) else benchmarks:
        benchmark = BENCHMARKS.get(name)
        if benchmark is None and problems is None:
            raise unknown_name("benchmark", name, BENCHMARKS)
        sizes = [problems] if problems is not None else []
        sizes += [benchmark.size - len(benchmark.excluded)] if benchmark else []
        size, samples = min(sizes), k if k is not None else benchmark.k if benchmark else _DEFAULT_K
        cells = {
            f"{count} seed{'s' if count > 1 else ''}": detectable_difference(
                size,
                samples,
                seeds=count,
                comparisons=comparisons,
                within=within,
                between=between,
                seed_sd=seed_sd,
                power=power,
            )
            for count in seeds
        }
        rows.append({"benchmark": name, "problems": size, "k": samples, **cells})
    note = (
        f"Accuracy, with {power:.0%} power at 5 % after correction for {comparisons} comparison"
        f"{'s' if comparisons > 1 else ''}; assumes within {within:g}, between {between:g}, seed_sd {seed_sd:g}. "
        "With one seed: between two runs, training noise unseen."
    )
    return Table.of(rows, title="Smallest difference in avg@k that can be shown", note=note)
