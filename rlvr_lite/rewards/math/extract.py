r"""Finding the answer in a completion: the last ``\boxed{...}`` after the last ``</think>``.

The policy, in full:

* only the text after the last ``</think>`` counts; a completion without think tags is read whole;
* a ``<think>`` that is opened and never closed (also one reopened after the last close) means no answer;
* the answer is the content of the last ``\boxed{...}``; a box inside a box belongs to the outer one;
* an empty, unclosed (truncated) or braceless last box is no answer, and there is no falling back to an earlier box, to
  ``####`` or to "the answer is": text around the box is never read.

The scan is linear in the length of the text, without recursion, and looks at the last :data:`TAIL` characters only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["ANSWER", "TAIL", "Extraction", "extract"]

TAIL = 32_768
"""How many characters at the end of a completion are searched for a box."""

ANSWER = 8_192
"""The longest answer, in characters, that is looked at."""

_BOX = re.compile(r"\\boxed(?![A-Za-z])[ \t\r\n]*")
_BRACES = re.compile(r"\\boxed(?![A-Za-z])[ \t\r\n]*\{|\\\\(?!boxed)|\\[{}]|[{}]")


class Extraction(NamedTuple):
    """The boxed answer, or ``None`` and why there is none."""

    answer: str | None
    reason: str


def _last_box(text: str) -> tuple[int, int] | None:
    """Start and end of the last box's content, widened to the outermost closed box around it; ``None`` if unclosed."""
    open_braces: list[int] = []  # start of content for a box, -1 for another brace
    last_start, last, pending = -1, None, False
    for token in _BRACES.finditer(text):
        kind = token.group()
        if kind[-1] == "{" and kind[0] != "\\":
            open_braces.append(-1)
        elif kind.startswith("\\boxed"):
            open_braces.append(token.end())
            last_start, last, pending = token.end(), None, True
        elif kind == "}" and open_braces:
            start = open_braces.pop()
            if start == last_start and pending:
                last, pending = (start, token.start()), False
            elif last is not None and 0 <= start < last[0] and token.start() >= last[1]:
                last = (start, token.start())
    return last


def extract(completion: str) -> Extraction:
    r"""The content of the last box after the last ``</think>``.

    >>> extract(r"<think>\boxed{1}</think> so \boxed{\frac{1}{2}}.").answer
    '\\frac{1}{2}'
    >>> extract(r"<think>it is \boxed{1}").reason
    'the thinking was never closed'
    """
    close = completion.rfind("</think>")
    start = 0 if close < 0 else close + len("</think>")
    if completion.find("<think>", start) >= 0:
        return Extraction(None, "the thinking was never closed")
    tail = completion[max(start, len(completion) - TAIL) :]
    last = tail.rfind("\\boxed")
    box = _BOX.match(tail, last) if last >= 0 else None
    while last >= 0 and box is None:  # \boxedx is another macro
        last = tail.rfind("\\boxed", 0, last)
        box = _BOX.match(tail, last) if last >= 0 else None
    if box is None:
        where = "after the thinking" if close >= 0 else "in the completion"
        return Extraction(None, f"no \\boxed{{}} {where}")
    if not tail.startswith("{", box.end()):
        return Extraction(None, "the last \\boxed has no braces")
    found = _last_box(tail)
    if found is None:
        return Extraction(None, "the last \\boxed{ is never closed: the answer was cut off")
    if found[1] - found[0] > ANSWER:
        return Extraction(None, f"the answer is longer than {ANSWER:,} characters")
    answer = tail[found[0] : found[1]].strip()
    if not answer:
        return Extraction(None, "the last \\boxed{} is empty")
    return Extraction(answer, "")
