"""What the check-up says on a pretend card: ``python -m tests.benchmarks.pretend_doctor --capability 7.5 --memory 16``."""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import warnings
from typing import Any
from unittest import mock

from tests.pretend_card import GIB, PretendCard

warnings.simplefilter("ignore")

import torch  # noqa: E402

from rlvr_lite import diagnostics, training  # noqa: E402, F401 - libraries are to be imported without the card
from rlvr_lite.diagnostics import _doctor, _life  # noqa: E402
from rlvr_lite.diagnostics._check import Check  # noqa: E402
from rlvr_lite.diagnostics._subject import Subject  # noqa: E402

#: Have numbers of the card itself; on a pretend one it is only seen that they run through.
MEASURED = {"plan": "memory", "tokens a second": "speed", "paper's recipe": "speed"}
CHILD = """
from tests.pretend_card import PretendCard
from rlvr_lite import training
import rlvr_lite.diagnostics._life as life
PretendCard({}, {}).__enter__()
{}
"""


def without_numbers(check: Check) -> Check:
    """A check that ran through, without what it measured where that was of the CPU."""
    if check.name not in MEASURED or check.limit == "no error" or check.verdict == "skipped":
        return check
    said = f"ran through; {MEASURED[check.name]}: not on a pretend card"
    return dataclasses.replace(check, figure=said, limit="", verdict="ok", remedy="")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capability", default="8.6")
    parser.add_argument("--memory", type=int, default=12, help="GiB")
    parser.add_argument("--checks", nargs="+", default=(), help="names, or their beginnings; by default all")
    given = parser.parse_args()
    torch.set_num_threads(1)
    capability = tuple(map(int, given.capability.split(".")))
    # The block of 1.5B takes minutes here; the tiny base has the same kinds of layers.
    small = mock.patch.object(Subject, "large", lambda subject, *_: subject.base)
    popen = subprocess.Popen

    def on_the_card(command: list[str], **options: Any) -> Any:
        """The child that is to be killed, on such a card as well."""
        *rest, last = command
        mine = "life.child" in last
        return popen([*rest, CHILD.format(capability, given.memory * GIB, last)] if mine else command, **options)

    child = mock.patch.object(_life.subprocess, "Popen", on_the_card)
    carry_out = _doctor.carry_out
    shown = mock.patch.object(_doctor, "carry_out", lambda *a: without_numbers(carry_out(*a)))
    with PretendCard(capability, given.memory * GIB), small, child, shown:
        print(diagnostics.doctor(only=given.checks, progress=False))


if __name__ == "__main__":
    main()
