"""A study's leaderboard in numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    from rlvr_lite.study._study import Study

__all__ = ["frame"]


def frame(study: Study) -> pandas.DataFrame:
    """A row a method, best first, with the ends of every interval; what is not known is NaN."""
    import pandas

    rows = []
    for label in [row["row"] for row in study.leaderboard if row["row"] in study.rows]:
        against = study.comparison(label)
        rows.append(
            {
                "row": label,
                **_ends("accuracy", study.accuracy(label)),
                **_ends("difference", None if against is None else against.difference),
                "p_holm": None if against is None else against.adjusted_p,
                "verdict": None if against is None else study.design.said(against.words),
                "trained_parameters": study.trained_parameters(label),
                "learning_rate": study.rows[label].learning_rate,
                "peak_memory_bytes": study.peak_memory(label),
                "train_seconds": study.train_seconds(label),
            }
        )
    found = pandas.DataFrame(rows)
    return found.astype({name: float for name in found.columns if name not in ("row", "verdict")})


def _ends(name: str, interval: Any) -> dict[str, float]:
    values = (math.nan,) * 3 if interval is None else (interval.value, interval.low, interval.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
