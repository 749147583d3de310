"""A check-up of the machine: whether what this package computes holds here, and how fast it is."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlvr_lite.diagnostics._check import Check
    from rlvr_lite.diagnostics._doctor import Diagnosis, check_names, doctor

__all__ = ["Check", "Diagnosis", "check_names", "doctor"]

_HOMES = {"Check": "_check", "Diagnosis": "_doctor", "check_names": "_doctor", "doctor": "_doctor"}


def __getattr__(name: str) -> Any:
    """Import on first use: reading a name needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
