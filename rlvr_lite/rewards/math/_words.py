"""What words mean in an answer: options, times of day, names, units and what is counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rlvr_lite.rewards.math._lexer import Token
from rlvr_lite.rewards.math._nodes import Unit, Unreadable
from rlvr_lite.rewards.math._notation import fold, word_set, words

__all__ = ["KNOWN", "Option", "affirmed", "clock", "foreign", "is_words", "magnitude", "option", "unit_of"]

_TEXT = r"\\(?:text|textbf|textrm|mathrm|mathbf|boldsymbol)\s*"
_OPTION = re.compile(
    rf"(?:{_TEXT}\{{\s*)?(?:\(\s*([A-J])\s*\)|([A-J])(?:\s*\)|[.:](?=\s|\}}|$)|(?=\s*\}}?$)))\s*[.:]?\s*(\}})?\s*[.:]?(.*)",
    re.DOTALL,
)
_CLOCK = re.compile(r"(\d{1,2})(?:\s*\{?:\}?\s*(\d\d))?\s*([ap](?:\s?m)?)?")
_ANSWERS = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_FIRST = re.compile(r"(?:\\text\w*\s*\{)?\s*(yes|no|true|false)\s*[,.;:]\s*(.+)", re.IGNORECASE | re.DOTALL)
_MACRO = re.compile(r"\\(?:(?:begin|end|operatorname)\s*\{\w*\}|[A-Za-z]+)")
_PHRASE = re.compile(r"[^\W\d_][\w\s,.'’&/()-]*")
_WORD = re.compile(rf"{_TEXT}\{{[^{{}}]*[A-Za-z]{{2}}|\\(?:mbox|hbox)\b")
#: What math-verify takes for less or something else: dots, rows outside of a matrix, numbers side by side, subscripts.
_MISREAD = re.compile(r"dots|\\\\(?!.*\\end)|\d[\s~]+\d|(?<!matrix)\}\s*\d|\d\s*[_{]")
_EXPLODES = re.compile(
    r"!|\^\s*(?:\{[^}]*\^|\\?(?:\d+|[A-Za-z]+)\s*\^)|\^\s*\{?\s*-?\d{4}|\d{13}|\d\s*[eE]\s*\d|\{\s*\{\s*\{|[^\x00-\x7f]"
)


class Option(NamedTuple):
    """A letter and what stands after it."""

    letter: str
    rest: str


def option(text: str) -> Option | None:
    r"""The option that a text names.

    >>> option(r"\textbf{(C)}\ 31"), option("C"), option("(x)")
    (Option(letter='C', rest='31'), Option(letter='C', rest=''), None)
    """
    match = _OPTION.fullmatch(fold(text)) if len(text) < 500 else None
    if match is None:
        return None
    letter, rest = match[1] or match[2], match[4].strip()
    if "{" in match[0][: match.start(4)] and not match[3]:  # the text macro goes on: \text{(C) blue}
        rest = f"\\text{{{rest}"
    others = re.search(r"\([A-J]\)|\b[A-J]\)|\b(?:or|and|not|none|both)\b", rest)
    return None if others or rest.startswith(("+", "-", "=", "^", "_", "/", "*")) else Option(letter, rest.strip(" ."))


def clock(text: str) -> tuple[tuple[int, int], str] | None:
    """Hour and minute, and "am" or "pm" if that is said; ``None`` if the text is no time of day.

    >>> clock("9:45 a.m."), clock("2:00"), clock("3/4")
    (((9, 45), 'am'), ((2, 0), ''), None)
    """
    if len(text) > 60:
        return None
    bare = re.sub(
        r"[\s.]+", " ", _MACRO.sub(" ", fold(text)).replace("{", " ").replace("}", " ").lower().replace(".", "")
    ).strip()
    match = _CLOCK.fullmatch(bare.replace(" : ", ":").replace(" :", ":").replace(": ", ":"))
    if match is None or not (match[2] or match[3]) or int(match[1]) > 24 or int(match[2] or 0) > 59:
        return None
    return (int(match[1]), int(match[2] or 0)), f"{match[3][0]}m" if match[3] else ""


def affirmed(gold: str, answer: str) -> bool:
    """Whether both begin with the same yes, no, true or false, and nothing after it takes that back."""
    found = []
    for text in (gold, answer):
        first = _FIRST.match(fold(text))
        word, rest = (first[1].lower(), words(first[2]).split()) if first else (words(text), [])
        if word not in _ANSWERS or {_ANSWERS[word], word, "but", "or"} & set(rest) or (word == "yes" and "not" in rest):
            return False
        found.append(word)
    return found[0] == found[1]


def is_words(text: str) -> bool:
    """Whether a text is a name or a few words, without a number in it."""
    said = words(text)
    return bool(_PHRASE.fullmatch(said)) and not re.search(r"\d", said) and len(said.split()) <= 8


def foreign(text: str) -> bool:
    """Whether a text that our reader does not know may be shown to another: short, no words, nothing that explodes."""
    if len(text) > 200 or not re.search(r"\w", text) or re.search(r"[A-Za-z]{3,}", _MACRO.sub(" ", text)):
        return False
    return not any(pattern.search(text) for pattern in (_WORD, _EXPLODES, _MISREAD))


#: A unit, then its other names.
_SAME = """mm millimeter millimetre; cm centimeter centimetre; dm decimeter decimetre; m meter metre; km kilometer kilometre;
in inch inches; ft foot feet; yd yard; mi mile; mg milligram; g gram; kg kilogram; lb pound lbs; oz ounce;
ml milliliter millilitre mL; l liter litre L; gal gallon; s second sec secs; min minute mins; h hour hr hrs; day; week;
month; year yr yrs; deg degree; rad radian; dollar USD; cent; euro EUR; Hz hertz; N newton; J joule; kJ kilojoule; eV;
W watt; kW kilowatt; V volt; A ampere amp; K kelvin; Pa pascal; mol mole; mph; kmh kph; percent pct percentage; degF fahrenheit;
degC celsius; acre"""
_ALIASES = {alias: names.split()[0] for names in _SAME.split(";") for alias in names.split()}
#: Written without a text macro these are units after a number; single letters are variables there.
KNOWN = frozenset(name for name in _ALIASES if len(name) > 1)
_GENERIC = {"unit", "sq"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
_TIMES = {"hundred": 100, "thousand": 1_000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
#: What a whole number may count, besides any plural in -s: the irregular, the singular and the collective.
_COUNTED = word_set("""people person men women children child students mice geese feet teeth dice pennies sheep fish deer cattle oxen apple
book ball box card chair coin cookie egg flower game grade car dog cat girl boy friend hat house item job lesson
marble number page pair part pen pencil piece place player point problem question ride room row seat shirt sticker
student team ticket toy tree trip triangle square way word solution edge side vertex face vertices indices matrices
axes digit face fruit furniture money gas water milk juice sugar flour rice paint candy work""")
_PLAIN = _COUNTED | _GENERIC | _ALIASES.keys() | _POWERS.keys()
#: Words that may stand before what is counted or measured.
_MODIFIERS = word_set("""different distinct possible total ordered unordered positive negative nonnegative real complex rational whole natural
prime even odd distinct unique valid such red blue green white black yellow small large big old new full equal square
cubic free us more additional extra remaining consecutive fewer linear fluid nautical light solar the a an of per each
every in for""")
#: Plurals and words that change the value that they follow.
_CHANGING = word_set("""halves thirds quarters fourths fifths sixths sevenths eighths ninths tenths elevenths twelfths hundredths thousandths
millionths dozens scores hundreds thousands millions billions trillions modulus plus minus less is as percents this
was has its does always sometimes unless minus""")
_PART = re.compile(r"([A-Za-z][A-Za-z'.-]*)|([/*·])|\^?\s*\{?\s*(-?\d+)\s*\}?|([ ,^{}()])")
_MORE = re.compile(r" *(?!per\b)[A-Za-z]")


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
    if word in _ALIASES or not {bare, _name(word)}.isdisjoint(_PLAIN):
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
            if not _allowed(word) or count > 6:
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
