"""Answers that are words, options or times of day: what their text says."""

from __future__ import annotations

import re
from typing import NamedTuple

from rlvr_lite.rewards.math._notation import fold, words

__all__ = ["Option", "affirmed", "clock", "foreign", "is_words", "option"]

_TEXT = r"\\(?:text|textbf|textrm|mathrm|mathbf|boldsymbol)\s*"
_OPTION = re.compile(
    rf"(?:{_TEXT}\{{\s*)?(?:\(\s*([A-J])\s*\)|([A-J])(?:\s*\)|[.:](?=\s|\}}|$)|(?=\s*\}}?$)))\s*[.:]?\s*(\}})?\s*[.:]?(.*)",
    re.DOTALL,
)
_CLOCK = re.compile(r"(\d{1,2})(?:\s*\{?:\}?\s*(\d\d))?\s*([ap]\s?m)?")
_ANSWERS = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
_FIRST = re.compile(r"(?:\\text\w*\s*\{)?\s*(yes|no|true|false)\s*[,.;:]\s*(.+)", re.IGNORECASE | re.DOTALL)
_MACRO = re.compile(r"\\[A-Za-z]+")
_PHRASE = re.compile(r"[^\W\d_][\w\s,.'’&/()-]*")
_WORD = re.compile(rf"{_TEXT}\{{[^{{}}]*[A-Za-z]{{2}}|\\(?:mbox|hbox)\b")
_EXPLODES = re.compile(r"!|\^[^+,=]*\^|\^\s*\{?\s*-?\d{4}|\d{13}|\d\s*[eE]\s*\d|\{\s*\{\s*\{|[^\x00-\x7f]")
_LONGEST = 8


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
    return (int(match[1]), int(match[2] or 0)), (match[3] or "").replace(" ", "")


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
    return bool(_PHRASE.fullmatch(said)) and not re.search(r"\d", said) and len(said.split()) <= _LONGEST


def has_words(text: str) -> bool:
    """Whether a text holds words: letters in a text macro, or three and more side by side."""
    return bool(_WORD.search(text) or re.search(r"[A-Za-z]{3,}", _MACRO.sub(" ", text)))


def foreign(text: str) -> bool:
    """Whether a text that our reader does not know may be shown to another: short, no words, nothing that explodes."""
    return len(text) <= 200 and not has_words(text) and bool(re.search(r"\w", text)) and not _EXPLODES.search(text)
