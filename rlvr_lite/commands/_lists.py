"""The tables of what is known by name."""

from __future__ import annotations

__all__ = ["bases", "benchmarks", "methods", "tasks"]


def bases() -> None:
    """List the architectures of bases that are proven, and with what restriction."""
    from rlvr_lite.bases import list_bases

    print(list_bases())


def benchmarks() -> None:
    """List the benchmarks."""
    from rlvr_lite.evaluation import list_benchmarks

    print(list_benchmarks())


def methods(*, base: str | None = None) -> None:
    """List the adapter methods.

    Args:
        base: to see trained parameters on it; by default DeepSeek-R1-Distill-Qwen-1.5B, for which nothing is loaded.
    """
    from rlvr_lite.methods import list_methods

    if base is None:
        print(list_methods())
        return
    from rlvr_lite.bases import locate

    print(list_methods(locate(base).folder))


def tasks() -> None:
    """List the tasks."""
    from rlvr_lite.tasks import list_tasks

    print(list_tasks())
