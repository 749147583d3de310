"""What a run lives through, on a pretend card: ``python -m tests.pretend_life OUT METHOD...`` prints one JSON object.

A method after ``only`` is trained, proven and loaded back, but neither resumed, scored nor exported.
"""

from __future__ import annotations

import gc
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
from rlvr_lite.tasks import _generated  # noqa: E402
from rlvr_lite.training import GRPOTrainer, _workflow, generator_states, restore_generators  # noqa: E402
from tests import pretend_host  # noqa: E402

RUN: dict[str, Any] = {
    "steps": 3,  # stopped after one; the next has what is done once
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
#: One of each way that a policy is written in.
EXPORTED: dict[str, Any] = {"full": "merged", "lora_fa": "adapter"}
#: Of a method that is only trained; where activations are recomputed, a layer's devices are asked for twice.
ONCE: dict[str, Any] = {"steps": 2, "save_steps": 0, "gradient_checkpointing": True}
CHECKS = ("card", "attention", "gradients", "decoding", "fp16", "out of", "other")


def life(card: PretendCard, method: str, out: Path, place: int = 0, **changes: Any) -> dict[str, Any]:
    """Train, go on from a checkpoint, score, look at the spectrum, export; and the waits of a step."""
    base = bases.load("tiny", device=f"cuda:{place}")
    found, run = trained(card, method, base, out, max_hours=1e-9, **changes)
    assert run.status == "stopped"
    found, run = trained(card, method, base, out, **changes)
    found["scored"] = type(run.evaluate(n=1, k=2, out=out / "scored")).__name__
    found["spectrum"] = type(rlvr_lite.spectrum(run)).__name__
    if method in EXPORTED:
        exported = run.export(EXPORTED[method], out / "exported")
        found["exported"] = sorted(path.name for path in Path(exported).iterdir())
    return found


def trained(card: PretendCard, method: str, base: bases.Base, out: Path, **changes: Any) -> tuple[dict[str, Any], Any]:
    """A run, or what is left of it, and the waits of its last step."""
    steps: list[Counter[str]] = []
    inner = GRPOTrainer.training_step

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = Counter(card.waits)
        loss = inner(self, *args, **kwargs)
        steps.append(card.waits - before)
        return loss

    with mock.patch.object(GRPOTrainer, "training_step", watched):
        run = rlvr_lite.train(method, base, "chain-sum", out=out, **RUN | changes)
    return {
        "device": str(base.model.device),
        "status": run.status,
        "reason": run.summary["reason"],
        "steps": [row["step"] for row in run.metrics() if "loss" in row],
        "precision": run.config.precision,
        "waits": dict(steps[-1].most_common(60)),
    }, run


def main(out: Path, names: list[str], only: list[str]) -> dict[str, Any]:
    """Lives of the methods on a card of capability 8.6, the last on a second one, and the check-up on one of 7.5."""
    torch.set_num_threads(1)
    gc.freeze()  # runs collect: what was imported stays
    found: dict[str, Any] = {}
    # Ten thousand problems are no other than a hundred.
    with PretendCard(cards=2) as card, mock.patch.object(_generated, "_MOST", 100):
        found["device"] = str((base := bases.load("tiny")).device)
        found["lives"] = {
            names[0]: life(card, names[0], out / names[0])  # looks ahead, as all would
        }
        with mock.patch.object(_workflow._Stages, "_look_ahead", return_value=None):
            for name in names[1:]:
                found["lives"][name] = life(card, name, out / name, int(name == names[-1]), **SHORT)
            found["trained"] = {name: trained(card, name, base, out / name, **SHORT | ONCE)[0] for name in only}
        found["graphs"] = sum(graph.replays for graph in card.graphs)
        states = generator_states()
        restore_generators(states | {"cuda": states["cuda"] * 2})
    with PretendCard(capability=(7, 5)), mock.patch.object(Subject, "large", lambda subject, *_: subject.base):
        checks = rlvr_lite.doctor(only=CHECKS, progress=False).checks
        found["checks"] = {check.name: [check.verdict, check.figure] for check in checks}
    return found | pretend_host.main(out / "hosts")


if __name__ == "__main__":
    names = sys.argv[2:]
    cut = names.index("only") if "only" in names else len(names)
    print(json.dumps(main(Path(sys.argv[1]), names[:cut], names[cut + 1 :])))
