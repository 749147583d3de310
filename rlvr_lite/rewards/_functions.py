r"""Reward functions in TRL's signature, ``f(completions, **columns) -> list[float | None]``.

TRL calls a reward function with the completions (texts, or lists of chat messages), with every column of the data set
and with ``completion_ids`` as keywords. The gold is in column ``answer``. Any function of TRL's or a user's has the same
shape, so it can stand wherever one of these does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.rewards.math._extract import FALLBACK, extract
from rlvr_lite.rewards.math._verifier import verify_batch

__all__ = ["RewardFunction", "accuracy", "combine", "format", "get", "overlong", "text_of"]

#: TRL's signature: ``f(completions=..., **columns)`` gives a reward a completion, or ``None`` for no opinion.
RewardFunction: TypeAlias = Callable[..., "list[float | None]"]


def text_of(completion: Any) -> str:
    r"""The text of a completion: a text as it is, of chat messages the assistant's last.

    >>> text_of([{"role": "assistant", "content": "5"}])
    '5'
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Mapping):
        content = completion.get("content")
        if isinstance(content, str):
            return content
        parts = content if isinstance(content, Sequence) else ()
        return "".join(str(part.get("text") or "") for part in parts if isinstance(part, Mapping))
    if isinstance(completion, Sequence) and completion:
        return text_of(completion[-1])
    return ""


def accuracy(
    completions: Sequence[Any],
    answer: Sequence[str],
    prompts: Sequence[Any] | None = None,
    fallback: str | None = None,
    rendered_prompts: Sequence[str] | None = None,
    **columns: Any,
) -> list[float | None]:
    r"""1 where the boxed answer equals the gold in column ``answer``, else 0; ``None`` where there is no gold that can be
    read, or the comparison was cut short (see :class:`~rlvr_lite.rewards.Verdict`).

    ``prompts`` (TRL passes them) and ``fallback`` are those of :func:`~rlvr_lite.rewards.verify`; ``rendered_prompts``,
    the same after the chat template (this package passes them), go before ``prompts``.

    >>> accuracy([r"so \boxed{2}", r"so \boxed{3}", r"so \boxed{4}"], answer=["2", "2", ""])
    [1.0, 0.0, None]
    """
    texts = [text_of(completion) for completion in completions]
    verdicts = verify_batch(answer, texts, prompts=rendered_prompts or prompts, fallback=fallback)
    missing = [gold is None or not str(gold).strip() for gold in answer]
    return [
        None if empty or verdict.correct is None else float(verdict.correct)
        for empty, verdict in zip(missing, verdicts, strict=True)
    ]


def format(
    completions: Sequence[Any],
    prompts: Sequence[Any] | None = None,
    rendered_prompts: Sequence[str] | None = None,
    **columns: Any,
) -> list[float | None]:
    r"""1 where the completion has the form that the verifier reads: thinking closed, then a box with something in it.

    ``prompts`` (TRL passes them) or ``rendered_prompts``, the same after the chat template (this package passes them):
    where one ends in an opened ``<think>``, so does its completion begin.

    >>> format([r"<think>a</think> \boxed{2}", r"<think>so \boxed{2}"])
    [1.0, 0.0]
    """
    shown = rendered_prompts or prompts or [""] * len(completions)
    pairs = zip(completions, shown, strict=True)
    return [float(extract(text_of(completion), prompt).answer is not None) for completion, prompt in pairs]


def overlong(max_completion_length: int | None = None, margin: int | None = None) -> RewardFunction:
    r"""The soft overlong punishment of DAPO (Yu et al. 2025, arXiv 2503.14476, equation 13), in [-1, 0].

    .. math:: R(y) = 0 \text{ if } |y| \le L - C,\quad
        \frac{(L - C) - |y|}{C} \text{ if } L - C < |y| \le L,\quad -1 \text{ if } |y| > L

    Args:
        max_completion_length: L, the longest completion in tokens.
        margin: C, the last stretch of it, over which the punishment grows; by default a fifth, as in DAPO (4,096 of 20,480).

    Raises:
        UserError: no length, or a margin beyond it; when called, no ``completion_ids``.

    >>> overlong(100)(["a", "b", "c"], completion_ids=[[0] * 80, [0] * 90, [0] * 101])
    [0.0, -0.5, -1.0]
    """
    if max_completion_length is None:
        raise UserError("overlong needs the longest completion: rewards.get('overlong', max_completion_length=512)")
    stretch = margin if margin is not None else max(1, max_completion_length // 5)
    if not 0 < stretch <= max_completion_length:
        raise UserError(f"the margin of overlong must lie in 1..{max_completion_length} tokens, got {stretch}")
    return _named("overlong", functools.partial(_overlong, max_completion_length - stretch, stretch))


def _named(name: str, function: Any) -> RewardFunction:
    """The function with the name that TRL shows in its logs; a partial one can be pickled."""
    function.__name__ = name
    return function


def _overlong(
    free: int,
    margin: int,
    completions: Sequence[Any],
    completion_ids: Sequence[Sequence[int]] | None = None,
    **columns: Any,
) -> list[float | None]:
    if completion_ids is None:
        raise UserError("overlong counts tokens: pass completion_ids, one list of token ids a completion")
    return [min(0.0, max(-1.0, (free - len(ids)) / margin)) for ids in completion_ids]


_PLAIN: Mapping[str, RewardFunction] = {"accuracy": accuracy, "format": format}


def get(name: str, max_completion_length: int | None = None, *, fallback: str | None = None) -> RewardFunction:
    """The reward function of that name: ``accuracy``, ``format`` or ``overlong``.

    Args:
        name: one of the names.
        max_completion_length: in tokens; only ``overlong`` needs it.
        fallback: of ``accuracy``: "answer is", for base models that do not box (see :func:`~rlvr_lite.rewards.verify`).

    Raises:
        UserError: an unknown name, ``overlong`` without a length, or a ``fallback`` that does nothing.
    """
    if fallback is not None:
        if name != "accuracy" or fallback != FALLBACK:
            raise UserError(f"only rewards.get('accuracy', fallback={FALLBACK!r}) has a fallback")
        return _named("accuracy", functools.partial(accuracy, fallback=fallback))
    if name == "overlong":
        return overlong(max_completion_length)
    if name not in _PLAIN:
        raise unknown_name("reward", name, [*_PLAIN, "overlong"])
    return _PLAIN[name]


def combine(
    functions: Sequence[str | RewardFunction],
    weights: Sequence[float] | None = None,
    max_completion_length: int | None = None,
) -> RewardFunction:
    r"""One reward function that is the weighted sum of several.

    A sample gets ``None`` if every function gives it ``None``; a single ``None`` is left out of its sum, as in TRL.

    Args:
        functions: names, or functions in TRL's signature.
        weights: one each; by default 1.
        max_completion_length: for ``overlong``.

    Raises:
        UserError: no function, or another number of weights.

    >>> combine(["accuracy", "format"], [1.0, 0.1])([r"\boxed{2}", r"\boxed{3}"], answer=["2", "2"])
    [1.1, 0.1]
    """
    if not functions:
        raise UserError("combine needs at least one reward: combine(['accuracy'])")
    if weights is None:
        weights = [1.0] * len(functions)
    if len(weights) != len(functions):
        raise UserError(f"{len(functions)} rewards but {len(weights)} weights: give one each")
    members = [get(f, max_completion_length) if isinstance(f, str) else f for f in functions]
    factors = list(weights)

    def combined(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        parts = [member(completions=completions, **columns) for member in members]
        sums: list[float | None] = []
        for values in zip(*parts, strict=True):
            given = [w * value for w, value in zip(factors, values, strict=True) if value is not None]
            sums.append(sum(given) if given else None)
        return sums

    return _named("+".join(getattr(member, "__name__", type(member).__name__) for member in members), combined)
