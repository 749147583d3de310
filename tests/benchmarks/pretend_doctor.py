"""What the check-up says on a pretend card: ``python -m tests.benchmarks.pretend_doctor --capability 7.5 --memory 16``."""

from __future__ import annotations

import argparse
import warnings
from unittest import mock

from tests.pretend_card import GIB, PretendCard

warnings.simplefilter("ignore")

import torch  # noqa: E402

from rlvr_lite import diagnostics, training  # noqa: E402, F401 - libraries are to be imported without the card
from rlvr_lite.diagnostics._subject import Subject  # noqa: E402

CHECKS = ("driver", "card", "bits", "NF4", "attention", "gradients", "decoding", "rollouts", "fp16", "out of", "other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capability", default="8.6")
    parser.add_argument("--memory", type=int, default=12, help="GiB")
    parser.add_argument("--checks", nargs="+", default=CHECKS, help="names, or their beginnings")
    given = parser.parse_args()
    torch.set_num_threads(1)
    major, minor = map(int, given.capability.split("."))
    check_up = diagnostics.doctor
    # The block of 1.5B takes minutes here; the tiny base has the same kinds of layers.
    small = mock.patch.object(Subject, "large", lambda subject, *_: subject.base)
    with PretendCard((major, minor), given.memory * GIB), small:
        print(check_up(only=given.checks, progress=False))


if __name__ == "__main__":
    main()
