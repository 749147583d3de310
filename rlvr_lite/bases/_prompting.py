"""What a tokenizer has to say of prompts and of the end of an answer, and what it left out."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_lite.deadline import time_limit
from rlvr_lite.errors import UserError

__all__ = ["adds_bos", "end_of_turn", "plain_template", "preset", "rendered"]

_LOG = logging.getLogger(__name__)
_MARK = "rlvr-lite-ends-here"
_LONGEST_RENDERING = 10.0  # seconds; a prompt takes milliseconds


def adds_bos(tokenizer: Any) -> bool:
    """Whether the tokenizer puts its beginning-of-sequence token before plain text by itself."""
    return tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]


def plain_template(tokenizer: Any) -> str:
    """A chat template for a base without one: the turns as paragraphs, after a BOS token where the tokenizer adds one."""
    begin = "{{ bos_token }}" if adds_bos(tokenizer) else ""
    return begin + "{% for message in messages %}{{ message['content'] + '\n\n' }}{% endfor %}"


def preset(tokenizer: Any, values: Mapping[str, Any]) -> None:
    """Give variables of the chat template a value of their own, such as ``enable_thinking``: false.

    They are written into the template, so that training, evaluation, conversation and an exported model all see them.

    Raises:
        UserError: a name that the template does not read, a value that is not plain data, or a template that is none.
    """
    from jinja2 import Environment, TemplateError, meta

    try:
        parsed = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_plain(tokenizer))
    except TemplateError as error:
        raise UserError(f"the chat template of this base cannot be read ({error}): mend it") from error
    read = meta.find_undeclared_variables(parsed)
    for name, value in values.items():
        if name not in read:
            known = ", ".join(sorted(read - {"messages", "add_generation_prompt", "bos_token", "eos_token"})) or "none"
            raise UserError(f"the chat template of this base reads no {name!r} (it reads {known}): leave it out")
        try:
            text = json.dumps(value)
        except TypeError as error:
            raise UserError(f"chat_template_kwargs {name} must be plain data, got {type(value).__name__}") from error
        literal = "none" if value is None else text
        tokenizer.chat_template = f"{{%- set {name} = {literal} -%}}\n{tokenizer.chat_template}"


def _plain(tokenizer: Any) -> str:
    """The template without the tags that only transformers knows."""
    return str(tokenizer.chat_template).replace("generation %}", "if true %}").replace("endgeneration", "endif")


def rendered(tokenizer: Any, turns: Sequence[Mapping[str, Any]], **how: Any) -> str:
    """The text that the chat template makes of a chat.

    It runs in jinja's sandbox, which keeps a stranger's template away from Python and files but lets it loop for ever,
    on the first chat or on one that says a certain word: a limit breaks it off.

    Args:
        tokenizer: with the template.
        turns: each with ``role`` and ``content``.
        **how: of transformers' ``apply_chat_template``, and variables of the template.

    Raises:
        UserError: it came to no end within 10 s; what the template itself raises may be anything.
    """
    with time_limit(_LONGEST_RENDERING):
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **how))


def end_of_turn(tokenizer: Any, known: set[int]) -> int | None:
    """The special token that the chat template writes after an answer, if it is not among the known end tokens.

    Raises:
        UserError: the template does not come to an end.
    """
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _MARK}]
    try:
        text = rendered(tokenizer, turns)
    except UserError as error:
        raise UserError(f"the chat template of this base {error}: mend it") from error
    except Exception:  # templates may want anything: then nothing can be said
        return None
    after = text.rpartition(_MARK)[2].strip()
    marked = re.match(r"<[^<>\s]+>|\[/?[A-Z_]+\]", after)
    vocabulary = tokenizer.get_vocab()
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    found = vocabulary.get(marked[0]) if marked else None
    if found is None:
        first = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        found = first[0] if first and first[0] in special else None
    if found is None or found in known or found == tokenizer.bos_token_id:
        return None
    _LOG.warning(
        "the chat template ends a turn with %r, which is not an end token of this base: it is added",
        tokenizer.convert_ids_to_tokens(found),
    )
    return int(found)
