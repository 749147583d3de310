"""The proof that a run trained what its label says."""

from __future__ import annotations

import dataclasses
from typing import Any

from rlvr_lite import methods
from rlvr_lite.config import RunConfig
from rlvr_lite.records import write_json
from rlvr_lite.runs import RunDirectory
from rlvr_lite.training._trainer import GRPOTrainer

__all__ = ["prove_identity"]

_LIVE_STEPS = 3  # steps with a signal by which every tensor of every method has had a gradient


def prove_identity(trainer: GRPOTrainer, model: Any, config: RunConfig, files: RunDirectory) -> tuple[list[str], str]:
    """Write ``identity.json``.

    Args:
        trainer: that has trained.
        model: what it trained.
        config: of the run.
        files: of the run.

    Returns:
        What speaks against the label; and, where too little happened to tell, what that was.
    """
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)  # below accelerate's wrapper
    proof = methods.identity(model, config.method, config.adapter, optimizer=optimizer)
    failures, short = list(proof.failures), ""
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    silent = [n for n in names if n not in trainer.gradients_seen]
    live = sum(row.get("groups/kept", 0) > 0 for row in files.metrics.rows())
    if silent and live < _LIVE_STEPS:
        short = (
            f"too few steps: only {live} of {config.steps} had a group with two different rewards; take more of them, an "
            "easier task or a larger group_size"
        )
    elif silent:
        failures.append(f"{len(silent)} of {len(names)} trained tensors never had a gradient, such as {silent[0]}")
    said = [*failures, *([short] if short else [])]
    share = 1 - len(silent) / len(names)
    write_json(files.identity, dataclasses.asdict(proof) | {"with_gradient": share, "failures": said})
    return failures, short
