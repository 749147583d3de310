"""From what was asked to what is run: every open field of a configuration filled in, every contradiction refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from rlvr_lite import grpo, methods, rewards
from rlvr_lite.config import SCALES, RunConfig, to_json
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.runs import RunDirectory, RunRecord
from rlvr_lite.tasks import Task

__all__ = ["check_early", "default_directory", "fill", "is_done", "reward_functions"]

_TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}


def check_early(config: RunConfig) -> None:
    """Refuse what can be refused before a weight is loaded.

    Raises:
        UserError: an unknown method, loss or tracker, a tracker that is not installed, a method on a base it cannot sit on, or an option it does not use.
    """
    methods.get(config.method)
    if config.precision != "auto":
        methods.check_precision(config.method, config.precision)
    methods.check_reference(config.method, config.kl_coef)
    methods.resolve(config.method, config.adapter, "tiny")
    check_loss(config)
    for tracker in config.report_to:
        if tracker not in INTEGRATION_TO_CALLBACK:
            raise unknown_name("tracker", tracker, INTEGRATION_TO_CALLBACK)
        if tracker in _TRACKERS and not any(map(find_spec, _TRACKERS[tracker])):
            raise UserError(f"report_to {tracker} needs a package that is not installed: pip install {tracker}")


def check_loss(config: RunConfig) -> None:
    """Refuse a loss that nobody registered, or an option that it does not have.

    Raises:
        UserError: naming those there are.
    """
    if config.loss not in grpo.losses.names():
        raise unknown_name("loss", config.loss, grpo.losses.names())
    try:
        grpo.losses.get(config.loss).with_defaults(config.loss_options)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(str(error)) from None


def fill(config: RunConfig, *, scale: str, precision: Any, task: Task) -> RunConfig:
    """``config`` with every ``None`` that has a default replaced by it.

    Args:
        config: what was asked.
        scale: of the base, a key of ``config.SCALES``.
        precision: the base was loaded in.
        task: what it is trained on.

    Raises:
        UserError: the method does not use an option that was given.
    """
    defaults = SCALES[scale]
    adapter = methods.resolve(config.method, config.adapter, scale)
    length = min(defaults.max_completion_length, task.max_completion_length)
    values: dict[str, Any] = {
        "steps": defaults.steps,
        "learning_rate": methods.learning_rate(config.method, scale).value,
        "warmup_steps": defaults.warmup_steps,
        "prompts_per_step": defaults.prompts_per_step,
        "max_completion_length": length,
        "prompt_style": defaults.prompt_style,
        "gradient_checkpointing": defaults.gradient_checkpointing,
        "micro_batch": defaults.micro_batch,
    }
    filled = {name: value for name, value in values.items() if getattr(config, name) is None}
    result = dataclasses.replace(
        config,
        **filled,
        precision=precision,
        rank=adapter.rank,
        alpha=adapter.alpha,
        targets=adapter.targets,
        method_options=dict(adapter.options),
    )
    if result.micro_batch is not None and result.micro_batch > result.prompts_per_step * result.group_size:  # type: ignore[operator]
        rows = result.prompts_per_step * result.group_size  # type: ignore[operator]
        raise UserError(f"micro_batch {result.micro_batch} exceeds the {rows} completions of a step: lower it")
    return result


def default_directory(config: RunConfig) -> Path:
    """``runs/TASK-BASE-METHOD-sSEED-HASH``: the same for the same configuration, another for any other."""
    digest = hashlib.sha256(to_json(config).encode()).hexdigest()[:6]
    parts = (Path(config.task).stem, Path(config.base).name, config.method.replace(":", "-"), f"s{config.seed}", digest)
    return Path("runs") / "-".join(parts)


def reward_functions(given: Any) -> tuple[list[Callable[..., Any]], tuple[str, ...]]:
    """Reward functions and their names, from a name or function or several of them."""
    given = [given] if isinstance(given, str) or callable(given) else list(given)
    functions = [rewards.get(item) if isinstance(item, str) else item for item in given]
    return functions, tuple(i if isinstance(i, str) else getattr(i, "__name__", type(i).__name__) for i in given)


def is_done(directory: RunDirectory, asked: RunConfig) -> bool:
    """Whether the directory holds this very run, finished; raises if it holds another one."""
    root = directory.root
    if root.exists() and not root.is_dir():
        raise UserError(f"{root} is a file: choose another --out")
    if not directory.config.exists():
        if root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()):
            raise UserError(f"{root} holds other files: choose an empty or new --out")
        return False
    record = RunRecord(root)
    before = record.env.get("asked", {})
    now = json.loads(to_json(asked))
    for name, value in now.items():
        if before.get(name) != value:
            raise UserError(
                f"{root} holds a run with {name} = {before.get(name)!r}, not {value!r}: choose another --out"
            )
    return record.settled
