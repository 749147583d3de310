"""How fast: tokens a second, launches and waits a decoded token, and the hours that the paper's recipe would take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_lite import bases, grpo, sampling
from rlvr_lite.config import Precision
from rlvr_lite.diagnostics._check import Finding
from rlvr_lite.diagnostics._numbers import SCORED_TOKENS, gradient
from rlvr_lite.diagnostics._subject import LARGE, VOCABULARY_SHARE, Subject
from rlvr_lite.planning import config_of
from rlvr_lite.recipes import read_recipe

__all__ = ["hours", "launches", "throughput"]

_TOKENS = 32
_ROWS = (1, 64, 128)
#: Give another view of the same numbers, and start nothing on the device.
_VIEWS = frozenset(
    [
        "view",
        "_unsafe_view",
        "t",
        "transpose",
        "expand",
        "slice",
        "select",
        "unsqueeze",
        "squeeze",
        "permute",
        "as_strided",
        "detach",
        "alias",
        "unbind",
        "split",
        "chunk",
        "reshape",
        "_reshape_alias",
        "split_with_sizes",
        "unflatten",
        "empty",
        "new_empty",
        "empty_like",
        "empty_strided",
        "lift_fresh",
    ]
)
#: Make the host wait until the device has computed what they return.
_WAITS = frozenset(["_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "unique_dim", "is_nonzero"])


class _Launches(TorchDispatchMode):
    """Counts what is started on the device, and where the host waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.started: Counter[str] = Counter()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.rpartition("::")[2]
        if name not in _VIEWS:
            self.started[name] += 1
        self.waits += name in _WAITS
        made = func(*args, **(kwargs or {}))
        if name in ("_to_copy", "copy_") and isinstance(made, torch.Tensor) and made.device.type == "cpu":
            self.waits += any(isinstance(x, torch.Tensor) and x.device.type != "cpu" for x in args)
        return made


def throughput(subject: Subject) -> Finding:
    """Completion tokens a second that the tiny base with a LoRA samples, 64 rows at once."""
    prompts, keys = subject.prompts(8), sampling.row_keys(0, rows=64)
    with subject.policy(subject.base) as model, subject.autocast(subject.base.compute_dtype):
        seconds = _best(subject, lambda: subject.rollout(model, prompts, 8, _TOKENS, keys))
    return Finding(f"{64 * _TOKENS / seconds:,.0f} tokens/s with the tiny base, 64 rows{_threads(subject)}")


def launches(subject: Subject) -> Finding:
    """Operations that a decoded token starts, and times that the host waits for the device, at 1, 64 and 128 rows."""
    found = []
    with subject.policy(subject.base) as model, subject.autocast(subject.base.compute_dtype):
        for rows in _ROWS:
            prompts, keys = subject.prompts(rows, padded=False), sampling.row_keys(0, rows=rows)
            subject.rollout(model, prompts, 1, 2, keys)
            counted = []
            for tokens in (1, 1 + _TOKENS):  # the difference leaves out what is done once
                with _Launches() as counter:
                    subject.rollout(model, prompts, 1, tokens, keys)
                counted.append(counter)
            started, waits = (
                (sum(counted[1].started.values()) - sum(counted[0].started.values())) / _TOKENS,
                (counted[1].waits - counted[0].waits) / _TOKENS,
            )
            found.append((rows, started, waits))
    layers = len(list(grpo.output_head(subject.base.model).backbone.layers))
    figure = ", ".join(f"{rows} rows: {started:.0f} and {waits:.1f}" for rows, started, waits in found)
    limit = 0.2 if subject.card else float("inf")  # the host looks every 16 tokens
    good = max(waits for _, _, waits in found) <= limit
    return Finding(f"{figure} ({layers} blocks)", f"{limit:g} waits" if subject.card else "", good, "report it")


def hours(subject: Subject) -> Finding:
    """Hours of the paper's recipe that suits this machine, from blocks of its base with random weights, measured here."""
    recipe = _recipe(subject)
    config = recipe.config
    precision: Precision = config.precision if subject.card else "fp32"
    if precision == "bf16" and bases.native_dtype(subject.device) != torch.bfloat16:
        precision = "fp16"
    rows = 64 if subject.card else 8
    decode, scored = {}, {}
    for layers in (1, 2):
        base = subject.large(layers, precision)
        with subject.policy(base) as model:
            decode[layers] = _decode_seconds(subject, base, model, rows)
            scored[layers] = _training_seconds(subject, base, model)
    blocks, share = int(config_of(LARGE)["num_hidden_layers"]), VOCABULARY_SHARE
    head = _head_seconds(subject, base, rows)
    a_token = (_extended(decode, blocks) + (share - 1) * head) / rows
    a_scored = _extended(scored, blocks) + 3 * (share - 1) * head / rows
    length = (config.max_completion_length or 0) / 2
    completions = (config.steps or 0) * (config.prompts_per_step or 0) * config.group_size
    took = completions * length * (a_token + a_scored) / 3600
    figure = (
        f"about {took:,.0f} hours for {recipe.name} with answers of {length:,.0f} tokens on average: an estimate from "
        f"{_rate(1 / a_token)} tokens/s sampled at {rows} rows and {_rate(1 / a_scored)} trained, {precision}{_threads(subject)}"
    )
    return Finding(figure)


def _recipe(subject: Subject) -> Any:
    """The largest of the recipes for 1.5B that the memory is enough for, else the smallest."""
    names = ("paper-1.5b", "paper-1.5b-24gb", "paper-1.5b-16gb", "paper-1.5b-12gb")
    gib = subject.host.memory / 2**30
    return next(
        (found for name in names if (found := read_recipe(name)).memory_gib <= gib * 1.1), read_recipe(names[-1])
    )


def _extended(seconds: dict[int, float], blocks: int) -> float:
    """From one and two blocks to all of them; a block takes at least a third of what two take."""
    a_block = max(seconds[2] - seconds[1], seconds[2] / 3)
    return seconds[2] + (blocks - 2) * a_block


def _decode_seconds(subject: Subject, base: bases.Base, model: Any, rows: int) -> float:
    """Seconds a decoded token of all rows together."""
    prompts, keys, tokens = subject.prompts(1, padded=False), sampling.row_keys(0, rows=rows), 8
    with subject.autocast(base.compute_dtype):
        once = _best(subject, lambda: subject.rollout(model, prompts, rows, 1, keys))
        whole = _best(subject, lambda: subject.rollout(model, prompts, rows, 1 + tokens, keys))
    return max(whole - once, whole / (2 * tokens)) / tokens


def _training_seconds(subject: Subject, base: bases.Base, model: Any) -> float:
    """Seconds a completion token, forward and backward with recomputed activations."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    try:
        seconds = _best(subject, lambda: gradient(subject, model, base.compute_dtype, grpo.Packer()))
    finally:
        model.gradient_checkpointing_disable()
        model.eval()
    return seconds / SCORED_TOKENS


def _head_seconds(subject: Subject, base: bases.Base, rows: int) -> float:
    head = grpo.output_head(base.model)
    hidden = torch.ones(rows, head.weight.shape[1], dtype=head.weight.dtype, device=subject.device)
    with torch.no_grad():
        return _best(subject, lambda: head.logits(hidden))


def _rate(value: float) -> str:
    """A number a second, as exactly as it is known.

    >>> _rate(0.123), _rate(12345.6)
    ('0.12', '12,346')
    """
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _threads(subject: Subject) -> str:
    return "" if subject.card else f", {torch.get_num_threads()} thread"


def _best(subject: Subject, work: Callable[[], Any], repeats: int = 2) -> float:
    """Seconds of the fastest of the repeats, after one that is not counted; on a CPU those that it worked."""
    clock = time.perf_counter if subject.card else time.process_time  # others may share its cores
    times = []
    for _ in range(1 + repeats):
        _wait(subject)
        started = clock()
        work()
        _wait(subject)
        times.append(clock() - started)
    return max(min(times[1:]), 1e-9)


def _wait(subject: Subject) -> None:
    if subject.card:
        torch.cuda.synchronize()
