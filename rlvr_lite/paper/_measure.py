"""What claims need besides scores of a study: spectra of finished runs, and the same policies scored another way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlvr_lite import evaluation, methods, tasks
from rlvr_lite.config import AdapterConfig, SamplingConfig
from rlvr_lite.errors import as_written
from rlvr_lite.exports import base_in_training, updates_of
from rlvr_lite.records import make_folder, read_json, write_json

if TYPE_CHECKING:
    from rlvr_lite.study import Row

__all__ = ["DECODINGS", "decoded", "put_back", "ratios", "shares", "wrong_base"]

#: Temperature and top-p: of the paper's text, and of every script in its repository.
DECODINGS = ((0.6, 0.95), (0.7, 0.9))
_SIDES = ("left", "right")
_ENDS = (("top", 0), ("bottom", -1))


def ratios(row: Row, cache: Path) -> dict[str, list[float]]:
    """Energy of a row's updates in the leading and the trailing tenth over a random update's, one number a seed.

    Args:
        row: a finished row of matrix methods.
        cache: directory of the decompositions of the base, and of what was found.
    """
    from rlvr_lite.analysis.spectrum import compare_updates

    make_folder(cache)
    path = cache / f"{row.label}.json"
    if path.exists():
        with as_written(path, "delete it"):
            stored = read_json(path)
            if stored["seeds"] == list(row.runs):
                return dict(stored["ratios"])
    found: dict[str, list[float]] = {}
    for run in row.runs.values():
        spectrum = compare_updates({row.label: updates_of(run)}, cache=cache).runs[0]
        for side in _SIDES:
            for name, end in _ENDS:
                average = spectrum.bins(side)[end]
                if average is not None:
                    found.setdefault(f"{row.label} {side} {name}", []).append(average.ratio)
    write_json(path, {"seeds": list(row.runs), "ratios": found})
    return found


def decoded(row: Row, temperature: float, top_p: float, out: Path) -> NDArray[np.float64]:
    """A row's policies scored again under other decoding: avg@k ``[S, P]``."""
    return _rescored(row, out, lambda model: None, temperature=temperature, top_p=top_p)


def wrong_base(row: Row, out: Path) -> NDArray[np.float64]:
    """A residual row's factors on the weights that training started from: avg@k ``[S, P]``.

    This reproduces a defect, not a method: training changed the base to ``W - s B0 A0``, the checkpoint holds A and B with
    a plain LoRA's configuration, and evaluation adds ``s B A`` to W, so that the policy is off by ``s B0 A0``.
    """
    return _rescored(row, out, put_back)


def put_back(model: Any) -> None:
    """The original weights under the adapter that was trained on their residuals."""
    for module in model.modules():
        if hasattr(module, "original") and hasattr(module, "residual"):
            module.get_base_layer().weight.data = module.original


def _rescored(
    row: Row, out: Path, change: Callable[[Any], None], *, temperature: float | None = None, top_p: float = 1.0
) -> NDArray[np.float64]:
    """Score every seed's policy after a change to it, on the problems and with the seeds of its run."""
    make_folder(out)
    found = []
    for seed, run in row.runs.items():
        config, base = run.gate().config, base_in_training(run)
        model = methods.load(base.model, run.files.adapter)
        change(model)
        task = tasks.recall(config.task, config.task_options, near=run.directory)
        style = config.prompt_style or "instruct"
        score = evaluation.score(
            model,
            base.tokenizer,
            task.at_most(config.eval_split, config.eval_problems or 0),
            messages=lambda problem, task=task, style=style: task.messages(problem, style),  # type: ignore[misc]
            k=config.eval_k,
            sampling=SamplingConfig(
                temperature=temperature or config.temperature,
                top_p=top_p,
                max_completion_length=config.max_completion_length or 1,
            ),
            seed=config.seed,
            name=out.name,
            log=out / f"seed-{seed}.jsonl",
        )
        found.append(score.by_problem()[f"avg@{config.eval_k}"])
    return np.stack(found)


def shares(names: Sequence[str]) -> dict[str, float]:
    """Trained share of the paper's 1.5B base by method, in percent, counted from its shapes."""
    layout = methods.DEEPSEEK_R1_DISTILL_QWEN_1_5B
    found = {}
    for name in names:
        adapter = methods.resolve(name, AdapterConfig(), "paper")
        shapes = methods.get(name).expected(layout, adapter).values()
        found[name] = 100 * sum(int(np.prod(shape)) for shape in shapes) / layout.parameters
    return found
