"""A step that the fp16 gradient scaler skips is no step: not of the schedule, not of a rank budget, not of the proof."""

from __future__ import annotations

import torch

from rlvr_lite import methods
from tests.training.helpers import policy, trained, trainer


def test_it_leaves_no_trace(tmp_path, monkeypatch):
    made = trainer(
        tmp_path,
        policy("adalora", every=1),
        method="adalora",
        max_steps=4,
        lr_scheduler_type="linear",
    )
    monkeypatch.setattr(made.accelerator.state, "_mixed_precision", "fp16")
    made.accelerator.native_amp = True
    made.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-52)
    seen: list[tuple[bool, float, int]] = []
    step = methods.after_backward
    monkeypatch.setattr(
        methods,
        "after_backward",
        lambda *a: (seen.append((made.overflowed, made.lr_scheduler.get_last_lr()[0], len(a))), step(*a))[1],
    )
    before = trained(made.model)
    made.train()
    rows = made.metrics_log.rows()
    assert rows[0]["skipped_steps"] == 1.0
    assert "skipped_steps" not in rows[1]
    assert len(seen) == 3  # of four steps
    assert not any(overflowed for overflowed, _, _ in seen)
    assert seen[0][1] == max(rate for _, rate, _ in seen)  # the schedule began with the first step that was taken
    assert all(bool(t.isfinite().all()) for t in methods.get("adalora").state(made.model).values())
    assert any(not torch.equal(t, before[n]) for n, t in trained(made.model).items())
    assert made.gradients_seen
