"""What a Markdown document asks its reader to type: fenced blocks, the commands in them, and code between the lines."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\]\(([^)#\s]+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text and the line of the document that it starts on."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """One command of a block or of the text, as words, and its line."""

    words: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        return f"line {self.line}: {shlex.join(self.words)}"


def blocks(text: str) -> list[Block]:
    """Every fenced block, in order."""
    return [Block(found[1], found[2], _line(text, found.start(2))) for found in _FENCE.finditer(text)]


def commands(block: Block) -> list[Command]:
    """The commands of a shell block: comments left out, continued lines joined, ``&&`` split."""
    found = []
    for number, line in enumerate(block.text.replace("\\\n", " ").split("\n")):
        words = shlex.shlex(line, posix=True, punctuation_chars="&")
        words.whitespace_split = True
        found += [Command(tuple(part), block.line + number) for part in _split(list(words)) if part]
    return found


def spans(text: str) -> list[tuple[str, int]]:
    """Code between the lines, as one line each, and the line of the document."""
    prose = _FENCE.sub(lambda found: "\n" * found[0].count("\n"), text)
    return [(" ".join(found[1].split()), _line(prose, found.start())) for found in _SPAN.finditer(prose)]


def links(text: str) -> list[str]:
    """Targets of the document's links and pictures."""
    return _LINK.findall(_FENCE.sub("", text))


def section(text: str, title: str) -> str:
    """What stands under a heading of the second level."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def _split(words: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "&&":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
