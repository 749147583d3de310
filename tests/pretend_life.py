"""What a run lives through, on a pretend card: ``python -m tests.pretend_life OUT METHOD...`` prints one JSON object."""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

from tests.pretend_card import PretendCard

warnings.simplefilter("ignore")

import torch  # noqa: E402

import rlvr_lite  # noqa: E402
from rlvr_lite import bases  # noqa: E402
from rlvr_lite.diagnostics._subject import Subject  # noqa: E402
from rlvr_lite.training import GRPOTrainer, generator_states, restore_generators  # noqa: E402

RUN: dict[str, Any] = {
    "prompts_per_step": 2,
    "group_size": 4,
    "max_completion_length": 24,
    "eval_problems": 2,
    "eval_k": 2,
    "save_steps": 1,
    "smoke": True,
    "progress": False,
}


def alternating(completions: list[Any], **_: Any) -> list[float]:
    """A reward with variance in every group, so that every step trains."""
    return [float(i % 2) for i in range(len(completions))]


#: Of all methods but the first.
SHORT: dict[str, Any] = {"max_completion_length": 8, "eval_problems": 0, "rewards": [alternating]}
CHECKS = ("card", "attention", "gradients", "decoding", "fp16", "out of", "other")


def life(card: PretendCard, method: str, out: Path, place: int = 0, **changes: Any) -> dict[str, Any]:
    """Train, go on from a checkpoint, score, look at the spectrum, export; and the waits of a step."""
    base = bases.load("tiny", device=f"cuda:{place}")
    steps: list[Counter[str]] = []
    inner = GRPOTrainer.training_step

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = Counter(card.waits)
        loss = inner(self, *args, **kwargs)
        steps.append(card.waits - before)
        return loss

    GRPOTrainer.training_step = watched  # type: ignore[method-assign]
    try:
        settings = RUN | changes
        stopped = rlvr_lite.train(method, base, "chain-sum", out=out, steps=3, max_hours=1e-9, **settings)
        assert stopped.status == "stopped"
        run = rlvr_lite.train(method, base, "chain-sum", out=out, steps=3, **settings)
    finally:
        GRPOTrainer.training_step = inner  # type: ignore[method-assign]
    scored = run.evaluate(n=2, k=2, out=out / "scored")
    exported = run.export("merged" if method == "full" else "adapter", out / "exported")
    return {
        "device": str(base.model.device),
        "status": run.status,
        "reason": run.summary["reason"],
        "steps": [row["step"] for row in run.metrics() if "loss" in row],
        "precision": run.config.precision,
        "waits": dict(steps[-1].most_common(60)),
        "scored": type(scored).__name__,
        "spectrum": type(rlvr_lite.spectrum(run)).__name__,
        "exported": sorted(path.name for path in Path(exported).iterdir()),
    }


def main(out: Path, names: list[str]) -> dict[str, Any]:
    """Lives of the methods on a card of capability 8.6, the last on a second one, and the check-up on one of 7.5."""
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with PretendCard(cards=2) as card:
        found["device"] = str(bases.load("tiny").device)
        found["lives"] = {
            name: life(card, name, out / name, int(name == names[-1]), **(SHORT if i else {}))
            for i, name in enumerate(names)
        }
        found["graphs"] = sum(graph.replays for graph in card.graphs)
        states = generator_states()
        restore_generators(states | {"cuda": states["cuda"] * 2})
    with PretendCard(capability=(7, 5)), mock.patch.object(Subject, "large", lambda subject, *_: subject.base):
        checks = rlvr_lite.doctor(only=CHECKS, progress=False).checks
        found["checks"] = {check.name: [check.verdict, check.figure] for check in checks}
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
