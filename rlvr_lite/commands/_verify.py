"""Explain a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from rlvr_lite.errors import UserError

__all__ = ["verify"]


def verify(
    gold: Annotated[str | None, tyro.conf.Positional] = None,
    answer: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    audit: Path | None = None,
) -> None:
    r"""Explain the verdict on an answer, or look for doubtful verdicts in a run.

    Args:
        gold: the right answer.
        answer: a completion, or just what stands in \boxed{}.
        audit: a run's directory; lists the verdicts that a second opinion disagrees with.
    """
    from rlvr_lite import rewards

    if audit is not None:
        from rlvr_lite.training import Run

        print(rewards.audit(Run.load(audit).rollouts()))
    elif gold is None or answer is None:
        raise UserError("give the right answer and the one to judge, or --audit RUN")
    else:
        print(rewards.explain(gold, answer))
