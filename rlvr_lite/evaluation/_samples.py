"""One judged answer, and the log that takes one a line and survives a kill."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError, as_written
from rlvr_lite.records import JsonLines, make_folder, read_json, write_json

__all__ = ["GREEDY", "Sample", "SampleLog", "facts_file"]

#: ``Sample.index`` of the greedy answer; the k drawn ones count from 0.
GREEDY = -1


@dataclass(frozen=True)
class Sample:
    """One answer of the model and the verdict on it.

    Attributes:
        id: of the problem.
        index: 0 to k - 1 of the drawn answers, :data:`GREEDY` of the greedy one.
        completion: the text.
        extracted: the answer found in it; ``None`` if there is none.
        correct: the verdict; ``None`` where none could be given.
        how: the stage of the verifier that decided, or ``reward``.
        tokens: length, the end token included.
        truncated: cut at the longest length before an end token.
        reward: what it earned where it is rewards that are scored; ``None`` where verdicts are.
        opened: whether the prompt ends inside of thinking, so that an answer has to close it.
    """

    id: str
    index: int
    completion: str
    extracted: str | None
    correct: bool | None
    how: str
    tokens: int
    truncated: bool
    reward: float | None = None
    opened: bool = False

    @property
    def value(self) -> float:
        """What it counts: its reward, else 1 for a right answer and 0 for any other."""
        return float(bool(self.correct)) if self.reward is None else self.reward

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; the reward where there is one, and the opened thinking."""
        fields = dataclasses.asdict(self)
        if self.reward is None:
            del fields["reward"]
        if not self.opened:
            del fields["opened"]
        return fields


_OPTIONAL = {"reward", "opened"}
_FIELDS = {field.name for field in dataclasses.fields(Sample)} - _OPTIONAL


def facts_file(log: Path) -> Path:
    """The file beside a log of samples that says what they were drawn under."""
    return log.with_suffix(".config.json")


class SampleLog:
    """Judged samples on disk, one a line, beside the facts they were drawn under (``NAME.config.json``).

    A line torn by a kill is dropped. A log that was begun under other facts is refused, so that two settings never
    mix in one file.

    Args:
        path: of the ``.jsonl`` file; its directory is made.
        facts: everything that decides the samples, JSON-able.
        notes: not compared, but those of the first start are kept, see :attr:`notes`.

    Raises:
        UserError: the log was begun under other facts, or holds a whole line that is no sample.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], notes: Mapping[str, Any] | None = None):
        self.path = path
        self._lines = JsonLines(path)
        sidecar = facts_file(path)
        make_folder(path.parent)
        wanted = json.loads(json.dumps(facts))
        self.notes: dict[str, Any] = dict(notes or {})
        if sidecar.exists():
            with as_written(sidecar, "delete it with the samples beside it"):
                stored = read_json(sidecar)
                _refuse_other(path, stored.get("facts", {}), wanted)
                self.notes.update(stored.get("notes", {}))
        elif self._lines.position:
            raise UserError(f"{path} exists without {sidecar.name}: move it away, or choose another --out")
        else:
            write_json(sidecar, {"facts": wanted, "notes": self.notes})

    def read(self) -> dict[tuple[str, int], Sample]:
        """What is there by (id, index); what a kill tore or a power cut filled with zeros is cut off first."""
        if not self.path.exists():
            return {}
        self._lines.cut(self._lines.whole())
        found: dict[tuple[str, int], Sample] = {}
        for number, row in enumerate(self._lines.rows(), start=1):
            if set(row) - _OPTIONAL != _FIELDS:
                raise UserError(f"{self.path}, line {number} is not a sample: it was edited; choose another --out")
            sample = Sample(**row)
            found.setdefault((sample.id, sample.index), sample)
        return found

    def append(self, samples: Iterable[Sample]) -> None:
        """Write the samples behind the others."""
        self._lines.append(*(sample.to_dict() for sample in samples))


def _refuse_other(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    differing: Sequence[str] = [k for k in sorted({*stored, *wanted}) if stored.get(k) != wanted.get(k)]
    if differing:
        key = differing[0]
        raise UserError(
            f"{path} was begun with another {key} ({_short(stored.get(key))}, now {_short(wanted.get(key))}): "
            "repeat the first call to continue it, or choose another --out"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
