"""What a run takes of the machine: its memory and its threads."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

__all__ = ["peak_memory_bytes", "reset_peak_memory", "threads"]


def reset_peak_memory() -> None:
    """Begin a new measurement for :func:`peak_memory_bytes`, where the system can (CUDA, Linux)."""
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int | None:
    """Most memory held at once since the last reset: allocated on the GPU if one is in use, else resident.

    ``None`` where unknown. What an earlier run left with the allocator of a shared process counts as resident.
    """
    if torch.cuda.is_initialized():
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
