"""What a run, a plan and the check-up say of a machine: ``python -m tests.pretend_host OUT`` prints one JSON object."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

from tests.pretend_card import GIB, PretendCard

warnings.simplefilter("ignore")

import torch  # noqa: E402

import rlvr_lite  # noqa: E402
from rlvr_lite import bases, diagnostics, host, planning  # noqa: E402, F401 - to be imported without the card
from rlvr_lite.errors import UserError  # noqa: E402
from rlvr_lite.training import _workflow  # noqa: E402

#: Machines on which something is in the way, and the precision in which a run is asked for.
MACHINES: dict[str, tuple[dict[str, Any], str]] = {
    "no driver": ({"driver": None}, "auto"),
    "old driver": ({"driver": ("470.57", (11, 4))}, "auto"),
    "P100": ({"capability": (6, 0)}, "auto"),
    "in use": ({"others": 9 * GIB}, "auto"),
    "in use from outside of the container": ({"others": 9 * GIB, "listed": False}, "auto"),
    "forked": ({"forked": True}, "auto"),
    "bitsandbytes": ({"built": "14.0", "driver": ("600.1", (14, 0))}, "nf4"),
}
#: Values of CUDA_VISIBLE_DEVICES on a machine with two cards; a number that no card has hides those after it.
VISIBLE = (None, "1", "0,7", "", "first")
RUN: dict[str, Any] = {"steps": 1, "prompts_per_step": 2, "group_size": 2, "max_completion_length": 4}
RUN |= {"eval_problems": 0, "save_steps": 0, "smoke": True, "progress": False}


class Lines(logging.Handler):
    """What the package says of the machine."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


class Begun(Exception):
    """A run has its base; the rest is as on any other machine."""


def begun(out: Path, lines: Lines, **changes: Any) -> dict[str, Any]:
    """Where the base of a run lies, what was said, why it was refused, and whether it has written something."""
    host._SAID.clear()
    lines.said = []
    refused, device = "", None

    def go(stages: Any) -> Any:
        nonlocal device
        device = torch.cuda.get_device_name() if stages.loaded.device.type == "cuda" else "cpu"
        raise Begun

    try:
        with mock.patch.object(_workflow._Stages, "go", go):
            rlvr_lite.train("lora", "tiny", "chain-sum", out=out, **RUN | changes)
    except Begun:
        pass
    except UserError as error:
        refused = str(error)
    return {"device": device, "said": lines.said, "refused": refused, "written": device is None and out.exists()}


def nothing(completions: list[Any], **_: Any) -> list[float]:
    """A reward that no group has variance in."""
    return [0.0] * len(completions)


def failed(*only: str) -> list[str]:
    """The lines of the checks that failed."""
    checks = rlvr_lite.doctor(only=only, progress=False).checks
    return [f"{check.figure}: {check.remedy}" for check in checks if check.verdict == "failed"]


def main(out: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    lines = Lines()
    logging.getLogger("rlvr_lite.host").addHandler(lines)
    machines, visible = {}, {}
    for name, (facts, precision) in MACHINES.items():
        with PretendCard(**facts):
            machines[name] = begun(out / name, lines, precision=precision)
            machines[name]["doctor"] = failed("driver", "card", "bitsandbytes", "fp16")
    for value in VISIBLE:
        named = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
        with mock.patch.dict(os.environ, named), PretendCard(cards=2):
            found = begun(out / f"visible {value}", lines)
            card = rlvr_lite.plan("tiny", "lora").card
            found |= {"planned": card and card.name, "doctor": failed("driver", "card")}
            visible[str(value)] = found
    with PretendCard():
        run = rlvr_lite.train("lora", bases.load("tiny", device="cpu"), "chain-sum", out=out / "on the CPU", **RUN)
    with PretendCard(capability=(7, 5)):
        flat = rlvr_lite.train("lora", "tiny", "chain-sum", out=out / "flat", rewards=[nothing], **RUN)
    both = {"base on the CPU": run, "no signal in fp16": flat}
    return {"machines": machines, "visible": visible} | {
        name: [made.status, made.config.precision] for name, made in both.items()
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
