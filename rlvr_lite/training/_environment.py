"""Where a run took place: versions, machine, device."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["describe", "peak_memory_bytes", "reset_peak_memory", "threads", "versions"]

_PACKAGES = (
    "rlvr-lite",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "accelerate",
    "bitsandbytes",
    "math-verify",
)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe() -> dict[str, Any]:
    """Versions, platform and device, as JSON."""
    facts: dict[str, Any] = {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        facts |= {
            "device": card.name,
            "capability": f"{card.major}.{card.minor}",
            "device_memory_bytes": card.total_memory,
        }
    return facts


def reset_peak_memory() -> None:
    """Begin a new measurement for :func:`peak_memory_bytes`, where the system can (CUDA, Linux)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int | None:
    """Most memory held at once since the last reset: allocated on the GPU if there is one, else resident.

    ``None`` where unknown. What an earlier run left with the allocator of a shared process counts as resident.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


_TURN = threading.RLock()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads inside: a tiny model gains nothing from a second one, and waits for it where cores are shared.

    The number, the random states and accelerate's state belong to the process, so callers in several threads take turns.
    """
    with _TURN:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)
