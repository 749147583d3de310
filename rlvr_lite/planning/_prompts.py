"""How long the prompts of a task are on a base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.bases import EMBEDDED

if TYPE_CHECKING:
    from rlvr_lite.config import RunConfig
    from rlvr_lite.tasks import Task

__all__ = ["PROMPT", "prompt_tokens"]

#: Tokens of a long prompt of a task that nobody named.
PROMPT = 256
_LOOKED_AT = 1000
_CHARACTERS = 3  # a token, of mathematics; more in prose
_TURN = 8  # tokens of a template around a message


def prompt_tokens(config: RunConfig, task: Task | None) -> int:
    """Tokens of a task's longest prompt: counted where the base's tokenizer is on this machine, else from its letters.

    Args:
        config: filled.
        task: what is trained on, if that is known.
    """
    if task is None:
        return PROMPT
    style = config.prompt_style or "instruct"
    chats: list[Any] = [task.messages(problem, style) for problem in task.at_most("train", _LOOKED_AT)]
    longest = sorted(chats, key=_letters)[-8:]
    tokenizer = _tokenizer(config)
    if tokenizer is None:
        return max((_letters(chat) // _CHARACTERS + _TURN * len(chat) for chat in longest), default=PROMPT)
    from rlvr_lite.sampling import encode

    return int(encode(tokenizer, longest)[0].shape[1]) if longest else PROMPT


def _letters(chat: Any) -> int:
    return len(chat) if isinstance(chat, str) else sum(len(str(message["content"])) for message in chat)


def _tokenizer(config: RunConfig) -> Any:
    """The base's tokenizer, where it is here and has a template."""
    from transformers import AutoTokenizer

    where = EMBEDDED.get(config.base, Path(config.base).expanduser())
    try:
        found = AutoTokenizer.from_pretrained(
            where if where.is_dir() else config.base,
            revision=config.revision,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception:  # a folder that others wrote can be wrong in any way
        return None
    return found if found.chat_template else None
