"""All checks in order, and their table."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rlvr_lite.diagnostics import _attention, _life, _machine, _memory, _numbers, _speed, _unsloth
from rlvr_lite.diagnostics._check import Check, Finding, carry_out
from rlvr_lite.diagnostics._subject import Subject
from rlvr_lite.errors import as_html, unknown_name
from rlvr_lite.host import obstacles, this_host
from rlvr_lite.progress import bar
from rlvr_lite.table import Table
from rlvr_lite.training import threads

if TYPE_CHECKING:
    import pandas

__all__ = ["Diagnosis", "check_names", "doctor"]

_CHECKS: Mapping[str, Callable[[Subject], Finding]] = {
    "versions": _machine.package_versions,
    "driver": _machine.driver,
    "card": _machine.card,
    "card's memory": _machine.shared_card,
    "bitsandbytes": _machine.four_bit_library,
    "memory": _machine.memory,
    "disk": _machine.disk,
    "NF4 products": _numbers.four_bit_products,
    "attention kernels": _attention.attention_kernels,
    "gradients": _numbers.packed_gradients,
    "decoding": _numbers.adapter_in_decoding,
    "rollouts": _numbers.same_rollouts,
    "sampled and scored": _numbers.sampled_and_scored,
    "fp16 overflow": _numbers.scaler_overflow,
    "8-bit moments": _numbers.eight_bit_moments,
    "methods": _life.every_method,
    "kill and resume": _life.kill_and_resume,
    "other cards' states": _life.other_cards,
    "plan": _memory.plan_against_measured,
    "out of memory": _memory.out_of_memory,
    "Unsloth": _unsloth.unsloth_parity,
    "tokens a second": _speed.throughput,
    "launches and waits a token": _speed.launches,
    "paper's recipe": _speed.hours,
}


@dataclass(frozen=True)
class Diagnosis:
    """What a check-up found; it prints itself, in a notebook as HTML.

    Attributes:
        checks: in order.
        report: the sentence that a report of a fault needs.
    """

    checks: tuple[Check, ...]
    report: str

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not any(check.verdict == "failed" for check in self.checks)

    @property
    def table(self) -> Table:
        """A row a check."""
        failed = any(check.remedy for check in self.checks)
        rows = [
            {"check": check.name, "verdict": check.verdict, "found": check.figure, "limit": check.limit}
            | ({"what to do": check.remedy} if failed else {})
            for check in self.checks
        ]
        count = {said: sum(check.verdict == said for check in self.checks) for said in ("ok", "failed", "skipped")}
        title = ", ".join(f"{number} {said}" for said, number in count.items())
        seconds = sum(check.seconds for check in self.checks)
        return Table.of(rows, title=f"{title}; {seconds:.0f} s", note=self.report)

    def to_json(self) -> str:
        """The checks and the sentence for a report, as indented JSON."""
        return json.dumps({"passed": self.passed} | dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    def to_pandas(self) -> pandas.DataFrame:
        """A row a check, as a ``pandas.DataFrame`` (needs pandas)."""
        return Table.of([dataclasses.asdict(check) for check in self.checks]).to_pandas()

    def __str__(self) -> str:
        return str(self.table)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table.title})"

    def _repr_html_(self) -> str:
        said = "nothing failed" if self.passed else "something failed"
        return f"<div><b>{as_html(said)}</b>{self.table._repr_html_()}</div>"


def check_names() -> tuple[str, ...]:
    """The checks by name, in order."""
    return tuple(_CHECKS)


def doctor(*, only: Sequence[str] = (), progress: bool = True) -> Diagnosis:
    """Check this machine: what is computed here against what it should be, and how fast it is. Some two minutes.

    On a CPU, or where the card cannot be used, what needs one is skipped. A check that breaks is one that failed, and the others go on.

    Args:
        only: names of checks, or the beginnings of them; by default all.
        progress: show a progress bar.

    Returns:
        The checks with figure, limit, verdict and, where one failed, the way out.

    Raises:
        UserError: there is no check of such a name.
    """
    for name in only:
        if not any(_asked(known, name) for known in _CHECKS):
            raise unknown_name("check", name, _CHECKS)
    host = this_host()
    useless = any(found.fatal and found.precision is None for found in obstacles(host))
    device = torch.device("cuda", torch.cuda.current_device()) if host.cards and not useless else torch.device("cpu")
    chosen = [name for name in _CHECKS if not only or any(_asked(name, part) for part in only)]
    checks = []
    with (
        tempfile.TemporaryDirectory(prefix="rlvr-lite-doctor-") as folder,
        threads(1 if device.type == "cpu" else torch.get_num_threads()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # libraries talking to their developers would tear the bar
        subject = Subject(device, host, Path(folder))
        shown = bar(total=len(chosen), desc="doctor", unit="check", shown=progress)
        for name in chosen:
            shown.set_postfix_str(name)
            checks.append(carry_out(name, lambda look=_CHECKS[name]: look(subject)))  # type: ignore[misc]
            shown.update()
        shown.close()
    return Diagnosis(tuple(checks), _machine.report_line(host))


def _asked(name: str, part: str) -> bool:
    return name.casefold().startswith(part.casefold())
