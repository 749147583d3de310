"""Train a few methods on the bundled tiny model."""

from __future__ import annotations

from pathlib import Path

__all__ = ["demo"]


def demo(
    *,
    out: Path = Path("runs/demo"),
    methods: tuple[str, ...] = ("lora", "dora", "full"),
    steps: int = 40,
    progress: bool = True,
) -> None:
    """Train a few methods on the bundled tiny model and show what they learned; some two minutes, offline.

    Args:
        out: where runs, curves and the page are written.
        methods: which methods.
        steps: optimizer steps of each.
        progress: show progress bars; -q shows none.
    """
    from rlvr_lite.demo import demo as run_demo

    run_demo(out, methods=methods, steps=steps, progress=progress)
