"""What every method states as its ``memory``, from dry runs of two layers in four shapes: ``plan calibrate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rlvr_lite import bases, methods
from rlvr_lite.analysis.memory import BASE, Shape, Step
from rlvr_lite.config import AdapterConfig
from rlvr_lite.planning._dry_run import dry_run
from rlvr_lite.planning._layouts import layout_of

#: Hidden width, inner width, query heads, key heads, tokens of a completion.
CELLS = (
    (1536, 8960, 12, 2, 1024),
    (1536, 8960, 12, 2, 3072),
    (3584, 18944, 28, 4, 512),
    (1024, 3072, 16, 8, 2048),
)
LAYERS, VOCABULARY, ROWS = 2, 32_000, 4


def calibrate(names: Sequence[str]) -> None:
    """Print a line a method and precision: the cost, and how far the fit is from each cell."""
    for name in names:
        for precision in ("nf4", "bf16", "fp32"):
            if precision not in methods.get(name).unsupported:
                cost, fit = costs(name, precision)
                print(f'"{name}" "{precision}": {cost},  # closed / dry {fit}', flush=True)


def costs(name: str, precision: str) -> tuple[tuple[float, ...], list[float]]:
    """(a, b, c, d, f) of a method, and the fitted over the counted activations in each cell."""
    size = 4 if precision == "fp32" else 2
    features, counted, forward = [], [], BASE[size]
    for hidden, inner, heads, kv_heads, length in CELLS:
        peaks, step, shape, trained = _cell(name, precision, hidden, inner, heads, kv_heads, length)
        kept = LAYERS * step.tokens * hidden * (4 if methods.get(name).trains_base else size)
        back = peaks["backward"]
        held = sum(back.get(kind, 0) for kind in ("weights", "adapter", "optimizer"))
        known = (
            4 * trained * (1 + 1 / LAYERS) + kept + (4 * VOCABULARY * hidden if methods.get(name).trains_base else 0)
        )
        counted.append(back["total"] - held - known)
        quadratic = length * (length + step.prompt_length)
        features.append((step.tokens * hidden, step.tokens * inner, quadratic, shape.block))
        if not peaks["forward"].get("head"):  # the highest moment lies in a block
            casts = 2 * trained if size == 2 else 0
            forward = max(forward, (peaks["forward"]["activations"] - kept - casts) / step.tokens / inner)
    found, fit = _non_negative(np.array(features, float), np.array(counted, float))
    return (*(round(float(x), 2) for x in found), round(forward, 1)), [round(float(x), 3) for x in fit]


def _cell(
    name: str, precision: str, hidden: int, inner: int, heads: int, kv_heads: int, length: int
) -> tuple[dict[str, dict[str, int]], Step, Shape, int]:
    from transformers import AutoConfig

    config: Any = AutoConfig.for_model(
        "qwen2",
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=VOCABULARY,
        tie_word_embeddings=False,
    )
    shape = bases.shape_of("base", config.to_dict())
    adapter = methods.resolve(name, AdapterConfig(), "paper")
    trained = sum(int(np.prod(s)) for s in methods.get(name).expected(layout_of(shape), adapter).values())
    step = Step(prompts=4, group_size=8, prompt_length=128, completion_length=length, micro_batch=ROWS, rows=32)
    return dry_run(config, precision, name, adapter, step).peaks, step, shape, trained


def _non_negative(features: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of relative errors with no negative coefficient, and the fit over what was counted."""
    kept = list(range(features.shape[1]))
    while True:
        found = np.zeros(features.shape[1])
        found[kept] = np.linalg.lstsq(features[:, kept] / counted[:, None], np.ones(len(counted)), rcond=None)[0]
        if (found >= 0).all():
            return found, features @ found / counted
        kept.remove(int(found.argmin()))
