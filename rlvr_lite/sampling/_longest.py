"""How long the prompts of a task are on a base whose weights are not loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.config import PromptStyle
from rlvr_lite.sampling._text import Messages, encode

if TYPE_CHECKING:
    from rlvr_lite.tasks import Task

__all__ = ["longest_of", "longest_prompt", "task_prompt"]

_UNKNOWN = 256  # tokens of a long prompt of a task that nobody named
_LOOKED_AT = 1000  # problems of a task
_CHARACTERS = 3  # a token, of mathematics; more in prose
_TURN = 8  # tokens of a template around a message


def task_prompt(
    task: Task | None, style: PromptStyle, where: str | Path, revision: str | None, template: Any, spare: int = 0
) -> tuple[int, bool]:
    """Tokens of a task's longest prompt, and whether they were counted.

    Args:
        task: what is trained on, if that is known.
        style: of its prompts.
        where: as for :func:`longest_prompt`, with the next two.
        revision: of a Hub model.
        template: keyword arguments for the chat template.
        spare: fewer need not be counted.
    """
    chats = [] if task is None else [task.messages(problem, style) for problem in task.at_most("train", _LOOKED_AT)]
    if not chats:
        return _UNKNOWN, False
    most = max(len(str(chat).encode()) for chat in chats)
    if most < spare:  # no token is shorter than a byte, and quotes and braces are more than a template adds
        return most, False
    return longest_prompt(where, chats, revision=revision, template=template)


def longest_prompt(
    where: str | Path, prompts: Sequence[Messages], *, revision: str | None = None, template: Any = None
) -> tuple[int, bool]:
    """Tokens of the longest prompt, and whether they were counted; without a tokenizer its letters tell.

    Args:
        where: folder of a base, or a Hub model.
        prompts: at least one.
        revision: of a Hub model.
        template: keyword arguments for the chat template.
    """
    try:
        return longest_of(_tokenizer(where, revision), prompts, template), True
    except Exception:  # others wrote tokenizer and template: what is wrong with them is said where they are loaded
        longest = _by_letters(prompts)
        return max(_letters(p) // _CHARACTERS + _TURN * (1 if isinstance(p, str) else len(p)) for p in longest), False


def longest_of(tokenizer: Any, prompts: Sequence[Messages], template: Any = None) -> int:
    """Tokens of the longest prompt, taken for one of the eight with most letters.

    Args:
        tokenizer: of the base.
        prompts: at least one.
        template: keyword arguments for the chat template.
    """
    return int(encode(tokenizer, _by_letters(prompts), template)[0].shape[1])


def _by_letters(prompts: Sequence[Messages]) -> list[Messages]:
    return sorted(prompts, key=_letters)[-8:]


def _letters(prompt: Messages) -> int:
    return len(prompt) if isinstance(prompt, str) else sum(len(str(message["content"])) for message in prompt)


def _tokenizer(where: str | Path, revision: str | None) -> Any:
    """The base's tokenizer, where it is here."""
    from transformers import AutoTokenizer

    folder = Path(where).expanduser()
    where = folder if folder.is_dir() else str(where)
    return AutoTokenizer.from_pretrained(where, revision=revision, local_files_only=True, trust_remote_code=False)
