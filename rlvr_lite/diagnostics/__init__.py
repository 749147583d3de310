"""A check-up of the machine: whether what this package computes holds here, and how fast it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.lazy import on_use

if TYPE_CHECKING:
    from rlvr_lite.diagnostics._check import Check
    from rlvr_lite.diagnostics._doctor import Diagnosis, check_names, doctor

__all__ = ["Check", "Diagnosis", "check_names", "doctor"]

_HOMES = {"Check": "_check", "Diagnosis": "_doctor", "check_names": "_doctor", "doctor": "_doctor"}

#: Reading a name needs no torch.
__getattr__ = on_use(__name__, _HOMES)
