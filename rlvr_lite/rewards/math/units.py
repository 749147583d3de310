"""Units of measurement as they follow an answer: which are the same, which contradict each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlvr_lite.rewards.math.lexer import Token
from rlvr_lite.rewards.math.nodes import Unreadable

__all__ = ["KNOWN", "Unit", "magnitude", "unit_of"]

Unit = tuple[tuple[str, int], ...]
"""Names with exponents, sorted; empty for a unit that says nothing, such as "units"."""

_SAME = {
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "dm": "decimeter decimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inches",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram",
    "kg": "kilogram",
    "lb": "pound lbs",
    "oz": "ounce",
    "ml": "milliliter millilitre mL",
    "l": "liter litre L",
    "s": "second sec secs",
    "min": "minute mins",
    "h": "hour hr hrs",
    "day": "",
    "week": "",
    "month": "",
    "year": "yr yrs",
    "deg": "degree",
    "rad": "radian",
    "dollar": "USD",
    "cent": "",
    "euro": "EUR",
    "Hz": "hertz",
    "N": "newton",
    "J": "joule",
    "kJ": "kilojoule",
    "eV": "",
    "W": "watt",
    "kW": "kilowatt",
    "V": "volt",
    "A": "ampere amp",
    "K": "kelvin",
    "Pa": "pascal",
    "mol": "mole",
    "mph": "",
}
_ALIASES = {alias: unit for unit, names in _SAME.items() for alias in (unit, *names.split())}
#: Written without a text macro these are units after a number; single letters are variables there.
KNOWN = frozenset(name for name in _ALIASES if len(name) > 1)
_GENERIC = {"unit", "sq"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_TIMES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
#: Words that change or withdraw the answer they follow, so that it cannot be read as a number with a unit.
_HEDGES = frozenset(
    [
        "or",
        "and",
        "not",
        "no",
        "about",
        "approximately",
        "approx",
        "around",
        "roughly",
        "less",
        "fewer",
        "more",
        "least",
        "most",
        "over",
        "under",
        "above",
        "below",
        "if",
        "when",
        "where",
        "mod",
        "modulo",
        "to",
        "than",
        "except",
        "possibly",
        "maybe",
        "perhaps",
        "but",
        "either",
        "nor",
        "wrong",
        "incorrect",
        "half",
        "third",
        "quarter",
        "plus",
        "minus",
        "times",
        "point",
        "hundredth",
        "thousandth",
    ]
)
_PART = re.compile(r"([A-Za-z][A-Za-z'.-]*)|([/*·])|\^?\s*\{?\s*(-?\d+)\s*\}?|([ ,^{}()])")
_LONGEST = 6


def _name(word: str) -> str:
    for name in (word, word.lower()):
        if name in _ALIASES:
            return _ALIASES[name]
    singular = word.lower().rstrip(".")
    for ending, replacement in (("ies", "y"), ("ches", "ch"), ("s", "")):
        if singular.endswith(ending) and len(singular) > len(ending) + 1:
            singular = singular[: -len(ending)] + replacement
            break
    return _ALIASES.get(singular, singular)


def magnitude(tokens: Sequence[Token]) -> tuple[int, Sequence[Token]]:
    """The factor of a leading number word ("million"), and what follows it."""
    if tokens and tokens[0].kind in ("text", "run"):
        first, _, rest = tokens[0].value.partition(" ")
        if first.lower() in _TIMES:
            after = [Token("text", rest)] if rest else []
            return _TIMES[first.lower()], [*after, *tokens[1:]]
    return 1, tokens


def unit_of(tokens: Sequence[Token]) -> Unit:
    """The unit that tokens after a number spell.

    >>> unit_of([Token("text", "square inches")]) == unit_of([Token("text", "in"), Token("op", "^"), Token("num", "2")])
    True

    Raises:
        Unreadable: they are no unit, or hold a word that withdraws the answer.
    """
    text = " ".join(token.value for token in tokens)
    found: dict[str, int] = {}
    sign, pending, last, count = 1, 1, "", 0
    at = 0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            raise Unreadable(f"{text[at:]!r} after a number")
        at = part.end()
        word, operator, exponent, _ = part.groups()
        if word:
            count += 1
            if word.lower() in _HEDGES or count > _LONGEST:
                raise Unreadable(f"{text!r} after a number")
            if word.lower() == "per":
                sign = -1
            elif word.lower() in _POWERS:
                if word.lower().endswith("ed") and last:
                    found[last] *= _POWERS[word.lower()]
                else:
                    pending = _POWERS[word.lower()]
            else:
                last = _name(word)
                found[last] = found.get(last, 0) + sign * pending
                sign, pending = 1, 1
        elif operator:
            sign = -1 if operator == "/" else sign
        elif exponent:
            if not last:
                raise Unreadable(f"{text!r} after a number")
            found[last] *= int(exponent)
    return tuple(sorted((name, power) for name, power in found.items() if name not in _GENERIC and power))
