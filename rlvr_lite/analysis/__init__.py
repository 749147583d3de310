"""From arrays and configurations to tables: where updates go, and what differences between runs are worth.

The modules load on use; ``meter`` and ``spectrum`` need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr_lite.analysis import memory, meter, replication, spectrum, statistics

__all__ = ["memory", "meter", "replication", "spectrum", "statistics"]


def __getattr__(name: str) -> Any:
    """Load a module of this room on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
