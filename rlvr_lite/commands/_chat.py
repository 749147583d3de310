"""Chat with a policy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["chat"]

_Run = Annotated[Path, tyro.conf.Positional]


def chat(run: _Run, *, temperature: float = 0.0, seed: int = 0, force: bool = False) -> None:
    """Ask a policy before and after training the same questions, side by side.

    Args:
        run: the run's directory.
        temperature: of the answers; 0 takes the most likely token.
        seed: of drawn answers.
        force: also take a run whose proof failed.
    """
    from rlvr_lite.conversation import Chat

    Chat(run, temperature=temperature, seed=seed, force=force).talk()
