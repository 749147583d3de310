"""Several processes take the steps of one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import rlvr_lite
from rlvr_lite import records
from rlvr_lite.errors import UserError
from rlvr_lite.training import Run
from rlvr_lite.training._parallel import Processes
from tests.training.helpers import gradients, policy, relative, sparse, trainer

SETTINGS = {
    "steps": 2,
    "prompts_per_step": 6,  # of 4 answers: an odd number of groups a process
    "group_size": 4,
    "max_resample": 1,
    "kl_coef": 0.05,
    "micro_batch": 3,
    "max_completion_length": 24,
    "eval_problems": 3,
    "eval_k": 2,
    "max_hours": 1e-9,  # so that each call takes one step
}


class _Alone(Processes):
    """A process that computes its share and never hears of the others."""

    def gather(self, value):
        return [value]

    def add(self, tensors):
        pass


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("loss", ["dapo", "bnpo", "gspo"])
def test_gradients_of_the_shares_add_up_to_that_of_the_whole(tmp_path, count, loss):
    def made():
        options = {"importance_sampling_level": "sequence"} if loss == "gspo" else {}
        found = trainer(tmp_path, policy(spread=0.05), reward=sparse, loss_type=loss.replace("gspo", "grpo"), **options)
        found.current_gradient_accumulation_steps = 1
        found.model.train()
        return found

    whole = made()
    batch = whole._prepare_inputs(None)
    loss_of_all = whole.accumulate(batch)
    parts, losses = [], []
    for rank in range(count):
        part = made()
        part.processes = _Alone(rank, count)
        losses.append(part.accumulate(batch))
        parts.append(gradients(part.model))
    total = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0]}
    assert relative(total, gradients(whole.model)) < 1e-5
    assert torch.stack(losses).sum().item() == pytest.approx(loss_of_all.item(), rel=1e-4)


@pytest.mark.parametrize("items", range(8))
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_are_the_whole_in_order(items, count):
    shares = [list(Processes(rank, count).share(range(items))) for rank in range(count)]
    assert [item for share in shares for item in share] == list(range(items))
    assert max(map(len, shares)) == -(-items // count)


def test_a_step_that_cannot_be_shared_evenly_is_refused():
    from rlvr_lite.config import RunConfig
    from rlvr_lite.training._arguments import arguments

    config = RunConfig(prompts_per_step=3, group_size=5)
    with pytest.raises(UserError, match="prompts_per_step"):
        arguments(config, torch.float32, torch.device("cpu"), Path("never"), 2)


def _launch(out: Path, processes: int) -> Run:
    """The command line under accelerate's launcher, on CPUs."""
    given = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_machines=1", f"--num_processes={processes}"]
    command = [sys.executable, "-m", *launcher, "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, "-m", "rlvr_lite", "train", *given, "--quiet", f"--out={out}"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return Run(out)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_take_the_steps_of_one(tmp_path):
    """Stopped by the clock after a step and continued: rollouts are the same bytes, losses and weights up to rounding."""
    for _ in range(2):
        one = rlvr_lite.train(out=tmp_path / "one", progress=False, **SETTINGS)
    first = _launch(tmp_path / "two", 2)
    assert first.status == "stopped"
    assert len(first.metrics()) == 1
    two = _launch(tmp_path / "two", 2)
    assert one.status == two.status == "done"
    assert one.files.rollouts.path.read_bytes() == two.files.rollouts.path.read_bytes()
    for mine, yours in zip(one.metrics(), two.metrics(), strict=True):
        for name in ("loss", "grad_norm", "entropy", "kl", "clip_ratio/high_mean", "reward", "groups/drawn"):
            assert mine[name] == pytest.approx(yours[name], rel=1e-4, abs=1e-7), name
    alone, shared = (load_file(run.files.adapter / "adapter_model.safetensors") for run in (one, two))
    assert relative(shared, alone) < 1e-5
    scores = [records.read_json(run.files.evaluations / "after.json") for run in (one, two)]
    assert scores[0]["greedy"] == scores[1]["greedy"]
