"""Train a few methods on the embedded base."""

from __future__ import annotations

from pathlib import Path

__all__ = ["demo"]


def demo(
    *, out: Path = Path("runs/demo"), methods: tuple[str, ...] = ("lora", "dora", "full"), steps: int = 40
) -> None:
    """Train a few methods on the embedded base and show what they learned; some two minutes, offline.

    Args:
        out: where runs, curves and the page are written.
        methods: which methods.
        steps: optimizer steps of each.
    """
    from rlvr_lite.demo import demo as run_demo

    run_demo(out, methods=methods, steps=steps)
