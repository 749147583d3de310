"""Graphics cards by name: how much memory they have, and which 16-bit type they compute in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from rlvr_lite.analysis.memory import GIB
from rlvr_lite.errors import UserError, did_you_mean

__all__ = ["CARDS", "CONTEXT", "FRAGMENTATION", "USABLE", "Card", "card", "smallest"]

#: Assumed, not measured: the CUDA context with the libraries' workspaces, what the allocator loses between blocks (a share
#: of everything but weights), and the share of a card's memory that programs get (a T4 sold with 16 GB gives 14.7 GiB).
CONTEXT = 3 * GIB // 4
FRAGMENTATION = 0.05
USABLE = 0.92


@dataclass(frozen=True)
class Card:
    """A graphics card.

    Attributes:
        name: as its maker writes it.
        memory: bytes, as sold.
        capability: CUDA compute capability; bf16 needs 8.0.
    """

    name: str
    memory: int
    capability: float

    @property
    def half(self) -> Literal["bf16", "fp16"]:
        """The 16-bit type it computes in."""
        return "bf16" if self.capability >= 8 else "fp16"

    @property
    def usable(self) -> int:
        """Bytes that it gives to programs."""
        return int(self.memory * USABLE)

    @property
    def room(self) -> int:
        """Bytes of live tensors that it has room for, after context and fragmentation."""
        return int((self.memory * USABLE - CONTEXT) / (1 + FRAGMENTATION))

    def __str__(self) -> str:
        size = f"{self.memory / GIB:g} GiB"
        return self.name if self.name.endswith("GiB") else f"{self.name} ({size})"


def _card(name: str, gib: float, capability: float) -> Card:
    return Card(name, int(gib * GIB), capability)


#: Capabilities from NVIDIA's list of CUDA GPUs, the smallest card first.
CARDS: tuple[Card, ...] = (
    _card("RTX 2060", 6, 7.5),
    _card("RTX 3070", 8, 8.6),
    _card("RTX 3060 Ti", 8, 8.6),
    _card("RTX 2070", 8, 7.5),
    _card("RTX 2080", 8, 7.5),
    _card("RTX 4060", 8, 8.9),
    _card("RTX 4060 Ti 8GB", 8, 8.9),
    _card("RTX 5060", 8, 12.0),
    _card("RTX 5060 Ti 8GB", 8, 12.0),
    _card("RTX 3080", 10, 8.6),
    _card("RTX 2080 Ti", 11, 7.5),
    _card("RTX 3060", 12, 8.6),
    _card("RTX 4070", 12, 8.9),
    _card("RTX 4070 Ti", 12, 8.9),
    _card("RTX 5070", 12, 12.0),
    _card("T4", 16, 7.5),
    _card("P100", 16, 6.0),
    _card("V100 16GB", 16, 7.0),
    _card("RTX A4000", 16, 8.6),
    _card("RTX 4060 Ti 16GB", 16, 8.9),
    _card("RTX 5060 Ti 16GB", 16, 12.0),
    _card("RTX 5070 Ti", 16, 12.0),
    _card("RTX 5080", 16, 12.0),
    _card("RTX 4070 Ti Super", 16, 8.9),
    _card("RTX 4080", 16, 8.9),
    _card("L4", 24, 8.9),
    _card("A10", 24, 8.6),
    _card("A10G", 24, 8.6),
    _card("A30", 24, 8.0),
    _card("RTX A5000", 24, 8.6),
    _card("RTX 3090 Ti", 24, 8.6),
    _card("Quadro RTX 6000", 24, 7.5),
    _card("RTX 3090", 24, 8.6),
    _card("RTX 4090", 24, 8.9),
    _card("RTX 5090", 32, 12.0),
    _card("V100 32GB", 32, 7.0),
    _card("A100 40GB", 40, 8.0),
    _card("L40S", 48, 8.9),
    _card("A40", 48, 8.6),
    _card("RTX A6000", 48, 8.6),
    _card("L40", 48, 8.9),
    _card("RTX 6000 Ada", 48, 8.9),
    _card("A100 80GB", 80, 8.0),
    _card("H100", 80, 9.0),
    _card("RTX PRO 6000 Blackwell", 96, 12.0),
    _card("H200", 141, 9.0),
    _card("B200", 180, 10.0),
)
#: A name without a size stands for the smaller card.
_ALIASES: Mapping[str, str] = {
    "a100": "A100 40GB",
    "v100": "V100 16GB",
    "4060ti": "RTX 4060 Ti 8GB",
    "5060ti": "RTX 5060 Ti 8GB",
}


def _key(name: str) -> str:
    """A name without what people leave out.

    >>> _key("NVIDIA GeForce RTX 3060"), _key("rtx-3060"), _key("Tesla T4")
    ('3060', '3060', 't4')
    >>> _key("Tesla V100-SXM2-16GB"), _key("NVIDIA H100 80GB HBM3"), _key("NVIDIA RTX 6000 Ada Generation")
    ('v10016gb', 'h10080gb', '6000ada')
    """
    return re.sub(r"nvidia|geforce|tesla|quadro|rtx|pcie|sxm\d?|hbm\d?e?|generation|edition|[\s_\-]", "", name.lower())


def card(name: str) -> Card:
    """A card by its name, or by its memory.

    Args:
        name: such as ``T4``, ``RTX 3060`` or ``16GiB``; GB is read as GiB, as cards are sold.

    Raises:
        UserError: no such card.
    """
    size = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:gib|gb|g)\s*", name.lower())
    if size:
        gib = float(size[1])
        if not 1 <= gib <= 1024:
            raise UserError(f"a card of {gib:g} GiB: give its memory in GiB, such as 16GiB")
        return _card(f"{gib:g} GiB", gib, 8.0)
    known = {_key(c.name): c for c in CARDS}
    known |= {alias: known[_key(full)] for alias, full in _ALIASES.items()}
    found = known.get(_key(name)) or known.get(_key(re.sub(r"[\s_\-]\d+\s*gi?b\b", "", name.lower())))
    if found is None:
        meant = did_you_mean(_key(name), {_key(c.name): c.name for c in CARDS}, likeness=0.7)
        said = f"{meant} or give" if meant else "give a name such as T4 or RTX 4090, or"
        raise UserError(f"unknown card {name!r}: {said} its memory, such as 16GiB")
    return found


def smallest(needed: int) -> Card | None:
    """The card with the least memory that has at least ``needed`` bytes; ``None`` if there is none here."""
    return next((c for c in sorted(CARDS, key=lambda c: c.memory) if c.memory >= needed), None)
