"""The dry run holds what the real step holds, and the closed form what the dry run holds."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import AutoConfig

from rlvr_lite import bases, methods
from rlvr_lite.analysis.memory import GIB, Step, phases
from rlvr_lite.analysis.meter import Meter
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods import footprint
from rlvr_lite.planning import plan
from rlvr_lite.planning._dry_run import dry_run, measure_step
from rlvr_lite.planning._layouts import layout_of
from tests.planning.architectures import ARCHITECTURES
from tests.zoo import ZOO

STEP = Step(prompts=2, group_size=4, prompt_length=12, completion_length=20, micro_batch=4, rows=8, checkpointing=True)


def totals(meter):
    return {phase: kinds["total"] for phase, kinds in meter.peaks.items()}


def config_like(**sizes):
    common = {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False}
    return AutoConfig.for_model("qwen2", **(common | sizes))


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("lora", "fp32"),
        ("dora", "nf4"),
        ("full", "bf16"),
        ("pissa", "bf16"),
        ("milora:residual", "bf16"),
        ("adalora", "nf4"),
    ],
)
def test_fake_tensors_take_the_bytes_of_real_ones(name, precision):
    base = bases.load("tiny", precision)
    adapter = methods.resolve(name, AdapterConfig(), "tiny")
    step = dataclasses.replace(STEP, reference=True)
    dry = dry_run(base.model.config, precision, name, adapter, step, device="cpu", compute=base.compute_dtype)
    model = methods.attach(base.model, name, adapter, total_steps=100, seed=0)
    real = measure_step(model, name, base.compute_dtype, step, device="cpu")
    assert list(totals(dry)) == list(totals(real))
    assert totals(dry) == pytest.approx(totals(real), rel=0.02)


@pytest.mark.parametrize(
    "name",
    ["dora", "pissa", "lora_xs", "tinylora", "nora", "hra", "oft", "hira", "randlora", "vera", "lora", "lora_fa"],
)
def test_what_is_kept_while_sampling_is_planned(name):
    config = config_like(vocab_size=512, hidden_size=256, intermediate_size=640, num_hidden_layers=4)
    shape = bases.shape_of("base", config.to_dict())
    adapter = methods.resolve(name, AdapterConfig(), "tiny")
    added = footprint(name, layout_of(shape), adapter, size=2)
    assert added.kept > 0
    step = dataclasses.replace(STEP, prompts=1, group_size=1, micro_batch=1, rows=1)  # little else in memory
    closed, dry = phases(shape, "bf16", added, step), dry_run(config, "bf16", name, adapter, step)
    assert sum(closed["load"].values()) == pytest.approx(dry.peaks["load"]["total"], rel=0.01)
    rise = sum(closed["rollout"].values()) - sum(closed["load"].values())
    assert rise == pytest.approx(dry.peaks["rollout"]["total"] - dry.peaks["load"]["total"], rel=0.15)


@pytest.mark.parametrize(("name", "precision"), [("lora", "nf4"), ("vera", "bf16"), ("lora_fa", "fp32")])
def test_the_closed_form_is_near_the_dry_run_and_never_far_below(name, precision):
    config = config_like(
        vocab_size=8192, hidden_size=512, intermediate_size=2560, num_hidden_layers=4, num_attention_heads=8
    )
    shape = bases.shape_of("base", config.to_dict())
    adapter = methods.resolve(name, AdapterConfig(), "small")
    step = dataclasses.replace(STEP, prompt_length=128, completion_length=512, reference=True)
    added = footprint(name, layout_of(shape), adapter, size=4 if precision == "fp32" else 2)
    closed = phases(shape, precision, added, step)
    dry = dry_run(config, precision, name, adapter, step)
    assert sum(closed["load"].values()) == pytest.approx(dry.peaks["load"]["total"], rel=0.01)
    highest = max(sum(kinds.values()) for kinds in closed.values())
    assert 0.95 <= highest / max(totals(dry).values()) <= 1.10


def test_full_training_keeps_its_hidden_states_in_fp32():
    config = config_like(vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=24)
    shape = bases.shape_of("base", config.to_dict())
    adapter = methods.resolve("full", AdapterConfig(), "small")
    step = dataclasses.replace(STEP, completion_length=1024, reference=False)
    added = footprint("full", layout_of(shape), adapter, size=2)
    closed, dry = phases(shape, "bf16", added, step), dry_run(config, "bf16", "full", adapter, step)
    assert sum(closed["forward"].values()) == pytest.approx(dry.peaks["forward"]["total"], rel=0.05)


def test_nothing_large_is_real(monkeypatch):
    """Moments of 7 billion weights, for one, would fill the memory of a laptop."""
    real, add = [], Meter.add

    def note(self, tensor, kind=None):
        if not (isinstance(tensor, FakeTensor) or tensor.is_meta):
            real.append(tensor.untyped_storage().nbytes())
        add(self, tensor, kind)

    monkeypatch.setattr(Meter, "add", note)
    config = config_like(vocab_size=32_000, hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    for name in ("full", "dora"):
        dry_run(config, "bf16", name, methods.resolve(name, AdapterConfig(), "small"), STEP)
    assert real
    assert max(real) < 2**16


def test_larger_steps_take_more_in_every_phase_that_sees_them():
    config = config_like(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    adapter = methods.resolve("lora", AdapterConfig(), "tiny")
    small = totals(dry_run(config, "bf16", "lora", adapter, STEP))
    longer = totals(dry_run(config, "bf16", "lora", adapter, dataclasses.replace(STEP, completion_length=200)))
    stored = totals(dry_run(config, "bf16", "lora", adapter, dataclasses.replace(STEP, checkpointing=False)))
    assert longer["rollout"] > small["rollout"]
    assert longer["backward"] > small["backward"]
    assert stored["forward"] > small["forward"]
    assert longer["load"] == small["load"]


def test_a_dry_run_tells_kinds_apart():
    found = plan("tiny", "lora", "t4", kl_coef=0.1, max_completion_length=32).dry_run()
    assert found.source == "dry run"
    assert list(found.phases) == ["load", "rollout", "scoring", "forward", "backward", "optimizer"]
    assert found.phases["rollout"]["KV cache"] > 0
    assert found.phases["forward"]["head"] > 0
    assert found.phases["optimizer"]["optimizer"] > found.phases["optimizer"]["adapter"]  # two moments in fp32
    assert found.phases["optimizer"]["gradients"] == found.phases["optimizer"]["adapter"]
    closed = plan("tiny", "lora", "t4", kl_coef=0.1, max_completion_length=32)
    assert sum(found.phases["load"].values()) == pytest.approx(sum(closed.phases["load"].values()), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["nf4", "bf16", "fp32"])
@pytest.mark.parametrize("name", methods.names())
def test_every_method_runs_dry(name, precision):
    if precision in methods.get(name).unsupported:
        pytest.skip(f"{name} cannot sit on {precision}")
    config = config_like(vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=2)
    shape = bases.shape_of("base", config.to_dict())
    adapter = methods.resolve(name, AdapterConfig(), "tiny")
    found = dry_run(config, precision, name, adapter, STEP)
    added = footprint(name, layout_of(shape), adapter, size=4 if precision == "fp32" else 2)
    closed = phases(shape, precision, added, STEP)
    assert sum(closed["load"].values()) == pytest.approx(found.peaks["load"]["total"], rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["DeepSeek-R1-Distill-Qwen-1.5B", "DeepSeek-R1-Distill-Qwen-7B"])
def test_the_closed_form_holds_at_full_size(base):
    closed = plan(base, "dora", "80GiB", precision="nf4", max_completion_length=2048)
    dry = closed.dry_run()
    assert 0.95 <= closed.peak_tensors / dry.peak_tensors <= 1.10
    for phase in ("load", "rollout", "backward", "optimizer"):
        ratio = sum(closed.phases[phase].values()) / sum(dry.phases[phase].values())
        assert 0.95 <= ratio <= 1.10, phase
    assert dry.peak_tensors > GIB
    assert torch.is_grad_enabled()


QUICK = ("OPT-1.3B", "Pythia-1B")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ARCHITECTURES]
)
def test_the_closed_form_holds_for_every_kind_of_block(name, tmp_path):
    kind, sizes = ARCHITECTURES[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind} | sizes))
    size = {"max_completion_length": 1024, "group_size": 8, "prompts_per_step": 4, "micro_batch": 4, "kl_coef": 0.05}
    closed = plan(str(tmp_path), "lora", "80GiB", precision="bf16", prompt_length=128, **size)
    dry = closed.dry_run()
    assert 0.95 <= closed.peak / dry.peak <= 1.10
    assert 0.95 <= sum(closed.phases["backward"].values()) / sum(dry.phases["backward"].values()) <= 1.10


def test_experts_run_dry_in_fp32(tmp_path):
    (tmp_path / "config.json").write_text(ZOO["mixtral"]().to_json_string())
    closed = plan(str(tmp_path), "lora", "t4", precision="fp32", rank=4)
    assert closed.dry_run().phases["load"]["weights"] == closed.phases["load"]["weights"]
