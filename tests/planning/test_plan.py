"""A plan: what it fills in, what it says, what it refuses, and that what it proposes fits."""

from __future__ import annotations

import json

import pytest

import rlvr_lite
from rlvr_lite import methods
from rlvr_lite.analysis.memory import GIB
from rlvr_lite.bases import shape_of
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.planning import Plan, card, plan
from rlvr_lite.planning._bases import KNOWN, config_of

PAPER = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"

#: Parameters as the models' own pages state them, in millions.
STATED = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": 1777,
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": 7616,
    "Qwen/Qwen2.5-0.5B": 494,
    "Qwen/Qwen2.5-1.5B": 1544,
    "Qwen/Qwen2.5-3B": 3086,
    "Qwen/Qwen2.5-7B": 7616,
    "HuggingFaceTB/SmolLM2-135M": 135,
    "HuggingFaceTB/SmolLM2-360M": 362,
    "HuggingFaceTB/SmolLM2-1.7B": 1711,
    "meta-llama/Llama-3.2-1B": 1236,
    "meta-llama/Llama-3.2-3B": 3213,
}


@pytest.mark.parametrize("name", STATED)
def test_written_down_sizes_give_the_stated_number_of_parameters(name):
    assert shape_of(name, KNOWN[name]).parameters / 1e6 == pytest.approx(STATED[name], abs=1)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_plan(name):
    found = plan(PAPER, name, "A100 80GB", precision="bf16")
    assert found.fits
    assert found.adapter.trained > 0


def test_trained_numbers_are_those_of_the_table_of_methods():
    listed = {row["name"]: row["trainable"] for row in methods.list_methods()}
    assert {name: plan(PAPER, name, "H100", precision="bf16").adapter.trained for name in listed} == listed


def test_names_with_and_without_owner_and_instruct_are_one_base():
    sizes = [config_of(n) for n in ("Qwen/Qwen2.5-0.5B", "qwen2.5-0.5b", "Qwen/Qwen2.5-0.5B-Instruct")]
    assert sizes[0] == sizes[1] == sizes[2]


def test_the_embedded_base_and_a_folder_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config_of("tiny")))
    assert plan(str(tmp_path), "lora", "t4").shape == plan("tiny", "lora", "t4").shape


@pytest.mark.parametrize(
    ("said", "name", "gib"),
    [
        ("t4", "T4", 16),
        ("Tesla T4", "T4", 16),
        ("rtx3060", "RTX 3060", 12),
        ("NVIDIA GeForce RTX 4090", "RTX 4090", 24),
        ("4070 ti super", "RTX 4070 Ti Super", 16),
        ("A100", "A100 40GB", 40),
        ("a100-80gb", "A100 80GB", 80),
        ("H100", "H100", 80),
        ("NVIDIA H100 80GB HBM3", "H100", 80),
        ("Tesla P100-PCIE-16GB", "P100", 16),
        ("V100", "V100 16GB", 16),
        ("Tesla V100-SXM2-32GB", "V100 32GB", 32),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB", 40),
        ("a6000", "RTX A6000", 48),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada", 48),
        ("16GiB", "16 GiB", 16),
        ("7.5 gb", "7.5 GiB", 7.5),
    ],
)
def test_cards_go_by_many_names(said, name, gib):
    found = card(said)
    assert (found.name, found.memory) == (name, int(gib * GIB))


def test_the_capability_decides_the_16_bit_type():
    assert plan("tiny", "lora", "T4").config.precision == "fp16"
    assert plan("tiny", "lora", "RTX 3060").config.precision == "bf16"
    assert "compute capability 7.5" in " ".join(plan("tiny", "lora", "T4").advice)


@pytest.mark.parametrize(
    "gpu", ["10GiB", "RTX 3060", "T4", "RTX 4070 Ti Super", "RTX 3090", "RTX 4090", "A100", "H100"]
)
@pytest.mark.parametrize("base", ["DeepSeek-R1-Distill-Qwen-1.5B", "SmolLM2-1.7B", "Qwen2.5-7B"])
def test_what_fit_proposes_fits(gpu, base):
    found = plan(base, "dora", gpu, max_completion_length=2048).fit()
    assert isinstance(found, RunConfig)
    again = plan(found.base, found.method, gpu, config=found)
    assert again.fits
    assert again.config.micro_batch == found.micro_batch


def test_fit_changes_the_learning_problem_last():
    asked = plan("Qwen2.5-7B", "lora", "RTX 4070 Ti Super", max_completion_length=2048)
    assert not asked.fits
    found = asked.fit()
    assert (found.precision, found.group_size, found.max_completion_length) == ("nf4", 8, 2048)
    assert "First change precision" in asked.advice[0]


def test_fit_keeps_a_micro_batch_that_fits():
    assert plan(PAPER, "lora", "RTX 4090", micro_batch=2).fit().micro_batch == 2
    assert plan(PAPER, "lora", "RTX 4090").fit().micro_batch > 4


def test_a_16_bit_base_that_fits_is_pointed_out():
    assert any("samples faster" in s for s in plan(PAPER, "lora", "RTX 4090", precision="nf4").advice)
    assert not any("samples faster" in s for s in plan("Qwen2.5-7B", "lora", "RTX 3060", precision="nf4").advice)


def test_knobs_say_what_a_plan_with_the_change_needs():
    asked = plan(PAPER, "lora", "RTX 3090", max_completion_length=2048)
    rows = {(row["knob"], row["then"]): row["GiB"] for row in asked.knobs}
    assert {knob for knob, _ in rows} >= {
        "group_size",
        "max_completion_length",
        "micro_batch",
        "precision",
        "gradient_checkpointing",
        "rank",
        "optim",
    }
    assert rows["optim", "paged_adamw_8bit"] < asked.needed() / GIB
    assert rows["precision", "nf4"] == round(asked.with_fields(precision="nf4").needed() / GIB, 2)


def test_moments_are_in_fp32_unless_only_8_bits_fit():
    kinds = {
        ("lora", "RTX 3060", "nf4"): "adamw_torch_fused",
        ("full", "RTX 5090", "bf16"): "paged_adamw_8bit",
        ("full", "A100 80GB", "bf16"): "adamw_torch_fused",
        ("full", "RTX 3060", "bf16"): "adamw_torch_fused",  # neither fits
    }
    for (method, gpu, precision), optim in kinds.items():
        found = plan(PAPER, method, gpu, precision=precision, max_completion_length=1024)
        assert found.config.optim == optim, (method, gpu)
        assert found.adapter.moments == pytest.approx(
            (8 if optim != "paged_adamw_8bit" else 2) * found.adapter.trained, rel=0.02
        )
    assert plan(PAPER, "full", "RTX 5090", precision="bf16").fit().optim == "paged_adamw_8bit"
    named = plan(PAPER, "full", "RTX 5090", precision="bf16", optim="adamw_torch_fused")
    assert named.config.optim == "adamw_torch_fused"
    assert not named.fits


def test_an_engine_is_a_second_copy_while_it_samples():
    alone, beside = (plan(PAPER, "lora", "24GiB", precision="nf4", sampler=s) for s in ("transformers", "vllm"))
    assert beside.phases["rollout"]["engine"] == 2 * beside.shape.parameters
    whole = plan("tiny", "full", "24GiB", precision="bf16", sampler="vllm")  # its head is not tied there
    head = whole.shape.vocabulary * whole.shape.hidden
    assert whole.phases["rollout"]["engine"] == 2 * (whole.shape.parameters + head)
    assert {name: bill for name, bill in beside.phases.items() if name != "rollout"} == {
        name: bill for name, bill in alone.phases.items() if name != "rollout"
    }
    assert beside.needed("rollout") > alone.with_fields(group_size=2).needed("rollout")
    small = plan(PAPER, "lora", "6GiB", precision="nf4", sampler="vllm")
    assert small.fits is False
    assert "First change sampler from vllm to transformers" in small.advice[0]
    assert small.fit().sampler == "transformers"
    tiny = plan("tiny", "lora", "24GiB", sampler="vllm")
    assert tiny.dry_run().phases["rollout"] == tiny.phases["rollout"]


def test_a_plan_shows_itself_and_survives_json():
    found = plan(PAPER, "dora", "RTX 3060", max_completion_length=1024, kl_coef=0.1, targets=("q_proj", "v_proj"))
    assert Plan.from_json(found.to_json()) == found
    assert list(found.to_pandas()["phase"]) == ["load", "rollout", "scoring", "forward", "backward", "optimizer"]
    assert "<table>" in found._repr_html_()
    assert str(found.table) in str(found)
    bars = found.plot().axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(sum(found.needed(p) for p in found.phases) / GIB)


def test_the_public_names_are_these():
    assert rlvr_lite.plan is plan
    assert rlvr_lite.Plan is Plan


# ---- bad input ------------------------------------------------------------------------------------------------------


def test_an_unknown_base_names_the_known_ones_and_the_ways_out():
    with pytest.raises(UserError, match=r"model folder.*cache.*Qwen2.5-0.5B"):
        plan("Qwen/Qwen9-1B", "lora", "t4")


@pytest.mark.parametrize("gpu", ["RTX 30600", "potato", "0GiB", "", "99999 GiB"])
def test_an_unknown_card_is_refused_with_a_way_out(gpu):
    with pytest.raises(UserError, match=r"such as 16GiB"):
        plan("tiny", "lora", gpu)


def test_a_near_miss_of_a_card_is_offered():
    with pytest.raises(UserError, match=r"did you mean 'RTX 3060'"):
        card("RTX 30600")


def test_nothing_that_fits_names_the_least_that_would():
    with pytest.raises(UserError, match=r"least is \d+\.\d GiB .*take "):
        plan("Qwen2.5-7B", "full", "T4").fit()
    assert "the least is" in plan("Qwen2.5-7B", "full", "T4").advice[0]


def test_a_config_that_fits_needs_a_card(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="give gpu"):
        plan("tiny", "lora").fit()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"method": "full", "precision": "nf4"}, "4-bit"),
        ({"method": "c3a", "precision": "nf4"}, "cannot sit on a nf4 base"),
        ({"method": "lora", "rank": 4000}, "rank 4000 exceeds"),
        ({"method": "lorra"}, "did you mean 'lora'"),
        ({"method": "lora", "group_size": 1}, "group_size must be at least 2"),
        ({"method": "lora", "targets": ("nothing",)}, "matches no linear layer"),
        ({"method": "lora", "colour": "red"}, "no option colour"),
        ({"method": "lora", "prompt_length": 0}, "prompt_length"),
        ({"method": "ia3", "rank": 8}, "has no rank"),
    ],
)
def test_impossible_wishes_are_refused_in_one_line(fields, said):
    with pytest.raises(UserError, match=said) as caught:
        plan(PAPER, gpu="t4", **fields)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_decoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="encoder-decoder"):
        plan(str(tmp_path), "lora", "t4")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"asked": {}}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(UserError, match="not a plan"):
        Plan.from_json(text)


def test_measuring_without_a_gpu_says_so(monkeypatch):
    from rlvr_lite.planning.measure import measure

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        measure(plan("tiny", "lora", "t4"))
