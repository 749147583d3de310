"""Units of measurement as they follow an answer: which are the same, which contradict each other."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlvr_lite.rewards.math._lexer import Token
from rlvr_lite.rewards.math._nodes import Unreadable

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
    "percent": "pct",
    "degF": "fahrenheit",
    "degC": "celsius",
    "gal": "gallon",
    "kmh": "kph",
    "acre": "",
}
_ALIASES = {alias: unit for unit, names in _SAME.items() for alias in (unit, *names.split())}
#: Written without a text macro these are units after a number; single letters are variables there.
KNOWN = frozenset(name for name in _ALIASES if len(name) > 1)
_GENERIC = {"unit", "sq"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_TIMES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
#: What a whole number may count, besides any plural in -s: the irregular, the singular and the collective.
_COUNTED = frozenset(
    str.split(
        """people person men women children child students mice geese feet teeth dice pennies sheep fish deer
        cattle oxen apple book ball box card chair coin cookie egg flower game grade car dog cat girl boy
        friend hat house item job lesson marble number page pair part pen pencil piece place player point
        problem question ride room row seat shirt sticker student team ticket toy tree trip triangle square
        way word solution edge side vertex face vertices indices matrices axes digit face fruit
        furniture money gas water milk juice sugar flour rice paint candy work"""
    )
)
#: Words that may stand before what is counted or measured.
_MODIFIERS = frozenset(
    str.split(
        """different distinct possible total ordered unordered positive negative nonnegative real complex
        rational whole natural prime even odd distinct unique valid such red blue green white black yellow
        small large big old new full equal square cubic free us more additional extra remaining consecutive
        fewer linear fluid nautical light solar the a an of per each every in for"""
    )
)
#: Plurals and words that change the value that they follow.
_CHANGING = frozenset(
    str.split(
        """halves thirds quarters fourths fifths sixths sevenths eighths ninths tenths elevenths twelfths
        hundredths thousandths millionths dozens scores hundreds thousands millions billions trillions
        modulus plus minus less is as percents this was has its does always sometimes unless minus"""
    )
)
_PART = re.compile(r"([A-Za-z][A-Za-z'.-]*)|([/*·])|\^?\s*\{?\s*(-?\d+)\s*\}?|([ ,^{}()])")
_MORE = re.compile(r" *(?!per\b)[A-Za-z]")
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


def _allowed(word: str) -> bool:
    """Whether a word after a number leaves that number as it is: a unit, something counted, or a word before these."""
    bare = word.lower().rstrip(".")
    if word in _ALIASES or bare in _ALIASES or _name(word) in _SAME or bare in _POWERS or bare in _GENERIC | _COUNTED:
        return True
    plural = len(bare) > 3 and bare.endswith("s") and not bare.endswith("ss") and bare.isalpha()
    return bare not in _CHANGING and (plural or bare in _MODIFIERS)


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
            if not _allowed(word) or count > _LONGEST:
                raise Unreadable(f"{text!r} after a number")
            alone = word in _ALIASES and not _MORE.match(text, at)  # 12 in, 3 A; not 12 in total
            if word.lower() in ("per", "a", "an", "each", "every") and last and not alone:
                sign = -1
            elif word.lower() in _POWERS:
                if word.lower().endswith("ed"):
                    if not last:
                        raise Unreadable(f"{text!r} after a number")
                    found[last] *= _POWERS[word.lower()]
                else:
                    pending = _POWERS[word.lower()]
            elif word.lower() in _MODIFIERS and not alone:
                continue
            else:
                last = _name(word)
                found[last] = found.get(last, 0) + sign * pending
                sign, pending = 1, 1
        elif operator:
            sign = -1 if operator == "/" else sign
        elif exponent:
            attached = exponent in ("2", "3") and text[part.start() - 1].isalpha()  # cm2
            if not last or not ("^" in part[0] or attached):
                raise Unreadable(f"{text!r} after a number")
            found[last] *= int(exponent)
    if not found:
        raise Unreadable(f"{text!r} after a number")
    return tuple(sorted((name, power) for name, power in found.items() if name not in _GENERIC and power))
