r"""Finding the answer in a completion: the last ``\boxed{...}`` after the thinking.

What counts stands in :mod:`rlvr_lite.rewards`. In detail: of a reply in channels the last ``final`` one is read; a box
inside a box belongs to the outer one; after an empty, unclosed or braceless last box nothing else is looked for.
The scan is linear in the length of the text, without recursion, and looks at the last :data:`TAIL` characters only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ANSWER", "FALLBACK", "TAIL", "THINKING", "Extraction", "extract", "thinking_open"]

TAIL = 32_768
"""How many characters at the end of a completion are searched for a box."""

ANSWER = 8_192
"""The longest answer, in characters, that is looked at."""

FALLBACK = "answer is"
"""Name of the one fallback: without a box, what follows the last "answer is" (or ``####``) up to the end of its sentence."""

THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
)
"""Marks around thinking."""

_CHANNEL = re.compile(r"<\|channel\|>\s*(\w*)")
_BETWEEN = re.compile(r"(?:\s|[$,;&]|\\[,;:!\[\]() ]|\\\\|\\q?quad\b|\\text\s*\{\s*(?:and|or)\s*\}|\b(?:and|or)\b)*")
_SAYS = re.compile(r"answer\s+is(?![A-Za-z])[\s:]*|####\s*|answer\s*:\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?!\d)|\n|\*\*|[!?](?=\s|$)")
_BOX = re.compile(r"\\boxed(?![A-Za-z])[ \t\r\n]*")
_BRACES = re.compile(r"\\boxed(?![A-Za-z])[ \t\r\n]*\{|\\\\(?!boxed)|\\[{}]|[{}]")


class Extraction(NamedTuple):
    """The boxed answer, or ``None`` and why there is none."""

    answer: str | None
    reason: str


def _boxes(text: str) -> list[tuple[int, int, int, int]] | None:
    """Outermost closed boxes as (start of the macro, start and end of the content, end); ``None`` if the last is open."""
    open_braces: list[tuple[int, int]] = []  # where a box's macro and content start; -1 for another brace
    found: list[tuple[int, int, int, int]] = []
    last = -1
    for token in _BRACES.finditer(text):
        kind = token.group()
        if kind[-1] == "{" and kind[0] != "\\":
            open_braces.append((-1, -1))
        elif kind.startswith("\\boxed"):
            open_braces.append((token.start(), token.end()))
            last = token.end()
        elif kind == "}" and open_braces:
            macro, start = open_braces.pop()
            if macro >= 0:
                while found and found[-1][0] > macro:
                    found.pop()
                found.append((macro, start, token.start(), token.end()))
    return found if found and found[-1][1] <= last <= found[-1][2] else None


def thinking_open(prompt: object) -> bool:
    """Whether a prompt (rendered, or chat messages with a begun answer) ends inside of thinking.

    >>> thinking_open("<|Assistant|><think>\\n"), thinking_open("1+1?"), thinking_open("<think></think>")
    (True, False, False)
    """
    if isinstance(prompt, list | tuple) and prompt and isinstance(prompt[-1], dict):
        last = prompt[-1]
        prompt = last.get("content") if last.get("role") == "assistant" else ""
    if not isinstance(prompt, str):
        return False
    tail = prompt.rstrip()
    channel = re.search(r"<\|channel\|>\s*analysis(?:<\|message\|>)?$", tail[-60:])
    return bool(channel) or any(tail.endswith(opening) for opening, _ in THINKING)


def _after_thinking(text: str, opened: bool) -> tuple[int, bool]:
    """Where the answer may begin, and whether there is thinking that never ends."""
    channels = list(_CHANNEL.finditer(text))
    if channels:
        return channels[-1].end(), channels[-1].group(1) != "final"
    start = 0
    for _, closing in THINKING:
        at = text.rfind(closing)
        start = max(start, at + len(closing) if at >= 0 else 0)
    again = any(text.find(opening, start) >= 0 for opening, _ in THINKING)
    return start, again or (opened and not start)


def extract(completion: str, prompt: object = "", fallback: str | None = None) -> Extraction:
    r"""The content of the last box after the thinking.

    Args:
        completion: the text.
        prompt: as the model saw it; if it ends in an opened ``<think>``, so does the completion begin.
        fallback: :data:`FALLBACK`, to take what follows "answer is" where there is no box at all.

    >>> extract(r"<think>\boxed{1}</think> so \boxed{\frac{1}{2}}.").answer
    '\\frac{1}{2}'
    >>> extract(r"it is \boxed{1}", "<think>").reason
    'the thinking was never closed'
    >>> extract(r"The roots are $\boxed{1}$ and $\boxed{-2}$.").answer
    '1, -2'
    """
    start, thinking = _after_thinking(completion, thinking_open(prompt))
    if thinking:
        return Extraction(None, "the thinking was never closed")
    tail = completion[max(start, len(completion) - TAIL) :]
    last = tail.rfind("\\boxed")
    box = _BOX.match(tail, last) if last >= 0 else None
    while last >= 0 and box is None:  # \boxedx is another macro
        last = tail.rfind("\\boxed", 0, last)
        box = _BOX.match(tail, last) if last >= 0 else None
    if box is None:
        said = _said(tail) if fallback == FALLBACK else ""
        where = "after the thinking" if start else "in the completion"
        return Extraction(said, "") if said else Extraction(None, f"no \\boxed{{}} {where}")
    if not tail.startswith("{", box.end()):
        return Extraction(None, "the last \\boxed has no braces")
    found = _boxes(tail)
    if found is None:
        return Extraction(None, "the last \\boxed{ is never closed: the answer was cut off")
    answer = _joined(tail, found)
    if len(answer) > ANSWER:
        return Extraction(None, f"the answer is longer than {ANSWER:,} characters")
    if not answer:
        return Extraction(None, "the last \\boxed{} is empty")
    return Extraction(answer, "")


def _joined(text: str, boxes: list[tuple[int, int, int, int]]) -> str:
    """The last box, with those right before it; the same answer twice is one. Empty if the last is."""
    parts = [text[boxes[-1][1] : boxes[-1][2]].strip()]
    size = len(parts[0])
    for (_, start, end, after), (macro, *_) in zip(reversed(boxes[:-1]), reversed(boxes[1:]), strict=True):
        between = _BETWEEN.match(text, after, macro)
        size += end - start
        if not parts[0] or between is None or between.end() != macro or size > ANSWER:
            break
        part = text[start:end].strip()
        if part not in parts:
            parts.insert(0, part)
    return ", ".join(parts)


def _said(text: str) -> str:
    """What follows the last "answer is" or ``####``."""
    found = list(_SAYS.finditer(text))
    if not found:
        return ""
    said = text[found[-1].end() :].lstrip("*: ")
    end = _SENTENCE_END.search(said)
    return (said[: end.start()] if end else said)[:200].strip().strip("$").strip()
