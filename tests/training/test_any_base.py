"""A whole run on every architecture: trained, scored, planned, exported, and the same policy in each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import rlvr_lite
from rlvr_lite import bases, methods
from rlvr_lite.bases import list_bases
from rlvr_lite.errors import UserError
from tests.zoo import ZOO, saved

REFUSED = {row["model type"] for row in list_bases().rows if row["status"] == "refused"}
FAST = ("gemma2", "lfm2")


def reward(completions: Any, **_: Any) -> list[float]:
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [sum(map(ord, text)) % 7 / 7 for text in texts]


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in ZOO])
def test_a_run_is_exact_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = saved(name, tmp_path / "base")
    size = {"rank": 4, "targets": ("all-linear",)}
    how = {"task": "chain-sum", "progress": False, "steps": 2, "prompts_per_step": 2, "group_size": 4}
    how |= {"max_completion_length": 14, "eval_problems": 0, "rewards": [reward], "kl_coef": 0.05}
    if ZOO[name]().model_type in REFUSED:
        with pytest.raises(UserError) as refused:
            rlvr_lite.train("lora", base=str(folder), out=tmp_path / "run", **how, **size)
        assert "\n" not in str(refused.value)
        return
    run = rlvr_lite.train("lora", base=str(folder), out=tmp_path / "run", **how, **size)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "done", summary
    assert summary["parity"] <= 1e-5
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert first["sampling/sampling_logp_difference/max"] <= 2e-4
    assert first["kl"] == pytest.approx(0, abs=1e-6)
    rlvr_lite.verify_export(rlvr_lite.export(run, to="merged"))
    held = bases.load(str(folder))
    if methods.moved_by_peft(held.model, run.adapter["adapter"]["targets"]):
        with pytest.raises(UserError, match="experts"):
            rlvr_lite.export(run, to="lora")
    else:
        exported = rlvr_lite.export(run, to="lora")
        rlvr_lite.verify_export(exported)
        read = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), exported)
        ids = torch.arange(2, 18)[None]
        ours = methods.load(held.model, run.files.adapter).eval()(ids).logits
        assert torch.allclose(read.eval()(ids).logits, ours, rtol=0, atol=1e-5 * float(ours.abs().max()))
    plan = rlvr_lite.plan(str(folder), "lora", gpu="t4", precision="fp32", **size)
    assert plan.phases["load"]["weights"] - plan.shape.buffers == 4 * bases.load(str(folder)).parameters
    assert rlvr_lite.evaluate(run, "chain-sum:test", k=1, n=2, progress=False).scores
