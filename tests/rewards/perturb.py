"""Copies of a gold that are wrong by one small thing."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["perturbations"]

_OPEN, _CLOSE = "([{", ")]}"
_EXPONENT = re.compile(r"\^(?:\{\s*(-?\d+)\s*\}|(\d))|(?<=\d)e(-?\d+)\b")
_BASE = re.compile(r"(\d)_\{?(\d+)\}?$")


def _top_level_commas(text: str) -> list[int]:
    depth, found = 0, []
    for i, char in enumerate(text):
        depth += (char in _OPEN) - (char in _CLOSE)
        if char == "," and depth == 0:
            found.append(i)
    return found


def _outer(text: str) -> tuple[str, str, str]:
    """Opening bracket, inside and closing bracket of a text that one pair of brackets spans."""
    opening = re.match(r"\s*(?:\\left|\\quad)?\s*(\\\{|[(\[])", text)
    closing = re.search(r"(?:\\right\s*)?(\\\}|[)\]])\s*$", text)
    if opening and closing and not _top_level_commas(text):
        inside = text[opening.end() : closing.start()]
        if inside.count("(") == inside.count(")") and not re.search(r"[)\]][^(\[]*[(\[]", inside):
            return text[: opening.end()], inside, text[closing.start() :]
    return "", text, ""


def _flip(text: str) -> str:
    """The first element, or the right side of a label, with the other sign."""
    head, inside, tail = _outer(text)
    label = re.match(r"\s*(?:[A-Za-z](?:_\S+)?(?:\([a-z]\))?|\\angle[^=]*)\s*=", inside)
    if label:
        head, inside = head + inside[: label.end()], inside[label.end() :]
    commas = _top_level_commas(inside)
    first, rest = (inside[: commas[0]], inside[commas[0] :]) if commas else (inside, "")
    if (
        first.startswith(("(", "\\left(", "["))
        or "=" in first
        or "\\in" in first
        or "\\cup" in text
        or ">" in text
        or "geq" in text
    ):
        number = re.search(r"(?<![A-Za-z0-9_^{.])-?\d+(?:\.\d+)?", first)
        if number is None or not float(number.group()):
            return ""
        flipped = number.group()[1:] if number.group()[0] == "-" else f"-{number.group()}"
        return head + first[: number.start()] + flipped + first[number.end() :] + rest + tail
    if re.fullmatch(r"[\s+-]*[0.]*", first):
        return ""
    if "matrix" in first:
        return re.sub(r"(?<=pmatrix\})\s*(-?)", lambda m: " " if m.group(1) else " -", text, count=1)
    bare = first.strip()
    if rest and tail == "" and re.fullmatch(r"\d{1,3}", bare) and re.fullmatch(r"(,(\\!)? ?\d{3})+", rest):
        return f"-{text}"
    single = re.fullmatch(r"-\s*([^+-]+)", bare)
    return (
        head
        + (single.group(1) if single else f"-({bare})" if re.search(r"[+-]|\\pm", bare) else f"-{bare}")
        + rest
        + tail
    )


def _last_digit(text: str) -> str:
    digits = [m.start() for m in re.finditer(r"\d", text)]
    if not digits:
        return ""
    at = digits[-1]
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def _drop(text: str) -> str:
    if "\\\\" in text:
        return re.sub(r"\\\\[^\\]*?(?=\\end)", "", text)
    if "\\cup" in text:
        return text[: text.rindex("\\cup")].strip()
    head, inside, tail = _outer(text)
    commas = _top_level_commas(inside)
    if not commas or re.search(r"[a-z]{4}", inside.replace("frac", "").replace("sqrt", "")):
        return ""
    return head + inside[: commas[-1]] + tail


def perturbations(gold: str) -> Iterator[tuple[str, str]]:
    """Pairs of what was changed and the changed text; none where the change would not change the value."""
    if re.fullmatch(r"\\text\{.*\}", gold) or "where" in gold:
        return
    if flipped := _flip(gold):
        yield "sign flipped", flipped
    if changed := _last_digit(gold):
        yield "last digit changed", changed
    if (dropped := _drop(gold)) and dropped != gold:
        yield "one element dropped", dropped
    if base := _BASE.search(gold):
        yield "another base", f"{gold[: base.start(2)].rstrip('{')}{{{int(base.group(2)) + 1}}}"
    exponents = list(_EXPONENT.finditer(gold))
    if exponents:
        last = exponents[-1]
        group = next(i for i in (1, 2, 3) if last.group(i) is not None)
        value = str(int(last.group(group)) + 1)
        changed = f"{{{value}}}" if group == 2 and len(value) > 1 else value
        yield "exponent changed by one", gold[: last.start(group)] + changed + gold[last.end(group) :]
