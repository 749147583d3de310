"""Explain a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from rlvr_lite.errors import UserError
from rlvr_lite.records import read_jsonl

__all__ = ["verify"]


def verify(
    gold: Annotated[str | None, tyro.conf.Positional] = None,
    answer: Annotated[str | None, tyro.conf.Positional] = None,
    *,
    audit: Path | None = None,
) -> None:
    r"""Explain the verdict on an answer, or look for doubtful verdicts in a run or file.

    Args:
        gold: the right answer.
        answer: a completion, or just what stands in \boxed{}.
        audit: a run's directory, or a JSONL file with gold (or answer) and completion; lists the verdicts that
            math-verify disagrees with and the golds that cannot be read, by kind.
    """
    from rlvr_lite import rewards

    if audit is not None:
        if audit.is_file():
            rows = read_jsonl(audit)
        else:
            from rlvr_lite.training import Run

            rows = Run.load(audit).rollouts()
        print(rewards.audit(rows))
    elif gold is None or answer is None:
        raise UserError("give the right answer and the one to judge, or --audit RUN_OR_FILE")
    else:
        print(rewards.explain(gold, answer))
