"""The options of a run in the signatures of the functions that take them, each written down once in ``RunConfig``."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypedDict, TypeVar

from rlvr_lite.config import AdvantageScale, Optim, Option, Precision, PromptStyle, RunConfig
from rlvr_lite.typed import hints

__all__ = ["RunOptions", "meanings", "with_options"]

F = TypeVar("F", bound=Callable[..., Any])


class RunOptions(TypedDict, total=False):
    """The fields of ``RunConfig`` as keywords, for editors; ``None`` is not named."""

    task_options: Mapping[str, Option] | None
    seed: int | None
    steps: int | None
    learning_rate: float | None
    warmup_steps: int | None
    optim: Optim | None
    weight_decay: float | None
    max_grad_norm: float | None
    prompts_per_step: int | None
    group_size: int | None
    max_completion_length: int | None
    temperature: float | None
    loss: str | None
    loss_options: Mapping[str, Option] | None
    advantage_scale: AdvantageScale | None
    clip_low: float | None
    clip_high: float | None
    kl_coef: float | None
    max_resample: int | None
    sampler: Literal["transformers", "vllm"] | None
    rollout_copy: Literal["auto", True, False] | None
    sampler_correction: Literal["truncated", "none"] | None
    sampler_gap_limit: float | None
    rewards: Any
    reward_weights: tuple[float, ...] | None
    rank: int | None
    alpha: float | None
    targets: tuple[str, ...] | None
    method_options: Mapping[str, Option] | None
    precision: Precision | None
    backend: Literal["auto", "transformers", "unsloth"] | None
    revision: str | None
    prompt_style: PromptStyle | None
    chat_template_kwargs: Mapping[str, Option] | None
    gradient_checkpointing: bool | None
    micro_batch: int | None
    eval_problems: int | None
    eval_split: Literal["validation", "test", "ood"] | None
    eval_before: bool | None
    eval_k: int | None
    save_steps: int | None
    keep_checkpoints: int | None
    max_hours: float | None
    spectrum_steps: int | None
    stop_on_collapse: bool | None
    report_to: tuple[str, ...] | None


def meanings() -> dict[str, str]:
    """What each field of ``RunConfig`` means, from its docstring, with its default."""
    text = inspect.cleandoc(RunConfig.__doc__ or "").partition("Attributes:\n")[2]
    found = {m[1]: " ".join(m[2].split()) for m in re.finditer(r"^    (\w+): (.*?)(?=^    \w|\Z)", text, re.M | re.S)}
    return {name: f"{said.rstrip('.')}{_default(name)}." for name, said in found.items()}


def _default(name: str) -> str:
    value = getattr(RunConfig(), name)
    if value is None or value in ((), {}):
        return ""
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f" (default: {shown})"


def with_options(*, leave_out: Iterable[str] = ()) -> Callable[[F], F]:
    """Let a function that takes ``**options`` show each of them, with type and meaning, to ``help``, Tab and the command line.

    Args:
        leave_out: fields of ``RunConfig`` that the function does not take.
    """

    def show(function: F) -> F:
        signature = inspect.signature(function)
        own = {n: p for n, p in signature.parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        rest = next(n for n, p in signature.parameters.items() if p.kind is inspect.Parameter.VAR_KEYWORD)
        names = [f.name for f in dataclasses.fields(RunConfig) if f.name not in own and f.name not in set(leave_out)]
        types = {name: hints(RunConfig)[name] | None for name in names}
        more = [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=types[n]) for n in names]
        function.__signature__ = signature.replace(parameters=[*own.values(), *more])  # type: ignore[attr-defined]
        kept = {name: hint for name, hint in function.__annotations__.items() if name != rest}
        function.__annotations__ = kept | types
        function.__doc__ = _with_meanings(function.__doc__ or "", rest, names)
        return function

    return show


def _with_meanings(doc: str, rest: str, names: list[str]) -> str:
    """A docstring whose paragraph on ``**rest`` is followed by one for each option."""
    doc = inspect.cleandoc(doc)
    said = meanings()
    listed = "".join(f"    {name}: {said[name]}\n" for name in names)
    found = re.search(rf"^    \*\*{rest}: .*?\n(?=^    \w|^\w|^\n|\Z)", doc + "\n", re.M | re.S)
    assert found, f"the docstring says nothing of **{rest}"
    return (doc + "\n")[: found.start()] + listed + (doc + "\n")[found.end() :]
