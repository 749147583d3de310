"""What an answer can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from rlvr_lite.rewards.math._nodes import Node
from rlvr_lite.rewards.math._units import Unit

__all__ = [
    "DEGREES",
    "PERCENT",
    "Equation",
    "Inequality",
    "Interval",
    "Items",
    "Matrix",
    "Named",
    "Reading",
    "SetOperation",
    "Value",
]

DEGREES: Unit = (("deg", 1),)
PERCENT: Unit = (("percent", 1),)


@dataclass(frozen=True, slots=True)
class Value:
    """One expression, with the unit written after it (``None`` if there is none).

    ``places`` counts the digits after the point of a plain numeral; ``None`` for anything else.
    """

    node: Node
    unit: Unit | None = None
    places: int | None = None


@dataclass(frozen=True, slots=True)
class Items:
    """Several readings. ``kind``: "list" (bare commas, any order), "set" (braces), "tuple" (brackets, in order)."""

    kind: str
    items: tuple[Reading, ...]
    brackets: str = ""
    joiner: str = ","


@dataclass(frozen=True, slots=True)
class Interval:
    """A real interval; ``brackets`` such as ``(]`` say which ends belong to it."""

    low: Node
    high: Node
    brackets: str


@dataclass(frozen=True, slots=True)
class SetOperation:
    """``op``: "cup", "cap" or "minus"."""

    op: str
    left: Reading
    right: Reading


@dataclass(frozen=True, slots=True)
class Equation:
    """Two or more sides that are said to be equal."""

    sides: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Inequality:
    """``sides[0] ops[0] sides[1] ...``."""

    ops: tuple[str, ...]
    sides: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of entries."""

    rows: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True, slots=True)
class Named:
    """Something known by its name: "empty", "R", or words."""

    name: str


Reading: TypeAlias = Value | Items | Interval | SetOperation | Equation | Inequality | Matrix | Named
