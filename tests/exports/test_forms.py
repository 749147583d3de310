"""What is exported is the trained policy: read by others' loaders, compared logit by logit, and trained further."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import rlvr_lite
from rlvr_lite import bases, exports, methods
from rlvr_lite.errors import UserError
from rlvr_lite.records import damage
from tests.exports.helpers import FOURTEEN, about, failed, made_run, random_base

TOKENS = torch.arange(40).reshape(2, 20) + 8
EXACT = {"lora", "rank1", "rslora", "lora_plus", "lora_fa", "adalora", "miss", "pissa", "milora", "vera"}
QUICK = ("lora", "dora", "full", "ln_tuning")
each_method = pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in methods.names()]
)


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=TOKENS).logits.double()


def policy(run):
    """The trained policy by the methods room alone."""
    return methods.load(bases.load(run.config.base, run.config.precision).model, run.files.adapter)


def with_peft(folder, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PeftModel.from_pretrained(bases.load("tiny", "fp32").model, str(folder), **options)


def apart(first, second):
    return float((logits(first) - logits(second)).abs().max())


def effect(run):
    return apart(policy(run), bases.load("tiny", "fp32").model)


# The adapter in PEFT's format


@each_method
@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_plain_peft_loads_the_adapter_on_the_public_base(method, run_of, exported):
    if method == "full":
        with pytest.raises(UserError, match="merged"):
            exported(method, "adapter")
        return
    run = run_of(method)
    assert effect(run) > 1e-2
    if method == "boft":  # whose factors PEFT drops but for one where it cannot compile for a GPU
        with pytest.raises(UserError, match=r"boft_R.*to merged"):
            exported(method, "adapter")
        return
    assert apart(with_peft(exported(method, "adapter")), policy(run)) < 1e-4


def test_the_adapter_names_its_base_and_not_a_path_of_this_machine(exported):
    config = json.loads((exported("lora", "adapter") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny"


@pytest.mark.parametrize("method", ["lora", "pissa", pytest.param("adalora", marks=pytest.mark.slow)])
def test_an_exported_adapter_trains_on(method, run_of, exported):
    base = bases.load("tiny", "fp32").model
    model = methods.load(base, exported(method, "adapter"), trainable=True)
    assert apart(model, policy(run_of(method))) == 0
    trains_on(model, methods.optimizer(model, method, 1e-2))


def trains_on(model, optimizer=None):
    """Five steps on one batch lower its loss."""
    chosen = optimizer or torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(5):
        loss = model.train()(input_ids=TOKENS, labels=TOKENS).loss
        loss.backward()
        chosen.step()
        chosen.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# Any method as a plain LoRA


@each_method
def test_every_method_as_a_plain_lora(method, run_of, exported):
    if method == "ln_tuning":
        with pytest.raises(UserError, match="adapter or merged"):
            exported(method, "lora")
        return
    folder, run = exported(method, "lora"), run_of(method)
    facts = about(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["lora_alpha"] == config["r"] == facts["rank"]
    assert not config["use_dora"]
    assert not config["use_rslora"]
    tensors = load_file(folder / "adapter_model.safetensors")
    assert {name.split(".")[-2] for name in tensors} == {"lora_A", "lora_B"}
    assert all(t.shape[0 if ".lora_A." in name else 1] == facts["rank"] for name, t in tensors.items())
    away = apart(with_peft(folder), policy(run))
    if method in EXACT:
        assert facts["exact"]
        assert away < 1e-4
    assert facts["exact"] or 0 < facts["error"] < 1
    assert facts["exact"] or any("lost" in note for note in facts["notes"])
    if method == "full":  # the head, tied to the embeddings, is most of what full moved; the report says so
        assert any("embeddings" in note for note in facts["notes"])
    else:
        assert away < 0.9 * effect(run)


def test_a_lora_that_was_only_copied_keeps_its_bytes(run_of, exported):
    """alpha / r = 2 is folded into B, a power of two."""
    first = load_file(run_of("lora").files.adapter / "adapter_model.safetensors")
    second = load_file(exported("lora", "lora") / "adapter_model.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor * (2.0 if ".lora_B." in name else 1.0))


def test_a_smaller_rank_loses_what_it_says(run_of, tmp_path):
    run = run_of("pissa")
    errors = [about(run.export("lora", tmp_path / str(r), rank=r, progress=False))["error"] for r in (2, 8)]
    assert errors[0] > errors[1] > 0
    model = with_peft(tmp_path / "8")
    square = missed = 0.0
    trained = {update.name: update.delta() for update in methods.updates(policy(run))}
    for name, delta in trained.items():
        layer = model.get_submodule(f"base_model.model.{name}")
        held = layer.get_delta_weight("default").double()
        square, missed = square + float(delta.square().sum()), missed + float((delta - held).square().sum())
    assert (missed / square) ** 0.5 == pytest.approx(errors[1], rel=1e-4)


def test_an_exported_lora_trains_on_by_both_ways(exported):
    folder = exported("dora", "lora")
    trains_on(methods.load(bases.load("tiny", "fp32").model, folder, trainable=True))
    trains_on(with_peft(folder, is_trainable=True))


# A merged model


@each_method
def test_the_merged_model_is_the_policy_in_fp32(method, run_of, exported):
    folder = exported(method, "merged", dtype="fp32")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert apart(model, policy(run_of(method))) < 1e-4
    assert not [path for path in folder.iterdir() if "adapter" in path.name]


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("bf16", torch.bfloat16), pytest.param("fp16", torch.float16, marks=pytest.mark.slow)]
)
def test_sixteen_bits_lose_only_the_rounding_of_the_weights(dtype, torch_dtype, run_of, exported):
    """The update is merged in fp32 and rounded once, so every weight is the rounded true one."""
    stored = load_file(exported("dora", "merged", dtype=dtype) / "model.safetensors")
    base = bases.load("tiny", "fp32").model
    for update in methods.updates(policy(run_of("dora"))):
        true = base.get_parameter(f"{update.name}.weight").double() + update.delta()
        held = stored[f"{update.name}.weight"]
        assert held.dtype == torch_dtype
        ulp = true.abs() * 2.0 ** (-8 if dtype == "bf16" else -11) + 2.0**-24
        assert bool(((held.double() - true).abs() <= ulp).all())


def test_a_merged_model_brings_tokenizer_template_and_end(exported, run_of):
    folder = exported("dora", "merged")
    base = bases.load("tiny", "fp32")
    ours = base.tokenizer
    theirs = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "1+2=?"}]
    assert theirs.apply_chat_template(chat, tokenize=False) == ours.apply_chat_template(chat, tokenize=False)
    assert theirs("1+2=?")["input_ids"] == ours("1+2=?")["input_ids"]
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == list(base.eos_ids)


def test_the_lost_effect_is_measured_and_a_small_update_is_warned_of(tmp_path, run_of, exported):
    small = about(made_run(tmp_path / "run", "lora", steps=0.3).export("merged", progress=False))
    large = about(exported("lora", "merged", dtype="fp32"))

    def lost(facts):
        return (facts["measured"]["kl"] / facts["effect"]["kl"]) ** 0.5

    assert lost(small) > 0.1
    assert any(note.startswith("warning") and "fp32" in note for note in small["notes"])
    assert lost(large) < 1e-3
    assert not large["notes"]


def test_a_merged_model_is_a_base_to_train_on(exported):
    found = bases.load(str(exported("dora", "merged")), "fp32")
    model = methods.attach(found.model, "lora", rlvr_lite.AdapterConfig(rank=4), total_steps=5, seed=0)
    trains_on(model, methods.optimizer(model, "lora", 1e-2))


@pytest.mark.slow
def test_a_real_run_goes_home_and_every_form_trains_on_with_rewards(tmp_path):
    small = {"steps": 3, "prompts_per_step": 4, "group_size": 4, "eval_problems": 4, "eval_k": 2}
    small |= {"max_completion_length": 24, "progress": False}
    run = rlvr_lite.train("dora", out=tmp_path / "run", **small)
    for to in ("adapter", "lora", "merged", "gguf"):
        assert rlvr_lite.verify_export(run.export(to, tmp_path / to, progress=False)).proven
    again = rlvr_lite.train("lora", str(tmp_path / "merged"), out=tmp_path / "again", **small)
    assert again.status == "done"
    assert rlvr_lite.verify_export(again.export("merged", tmp_path / "twice", progress=False)).proven
    before, after = run.summary["evaluation"]["after"], again.summary["evaluation"]["before"]
    assert before["greedy"]["value"] == pytest.approx(after["greedy"]["value"], abs=0.26)  # one of four, by rounding


# Bases in other precisions


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in FOURTEEN if name != "full"])
def test_merging_on_a_4_bit_base_stands_on_the_dequantised_weights(method, tmp_path):
    run = made_run(tmp_path / "run", method, precision="nf4")
    model = AutoModelForCausalLM.from_pretrained(
        run.export("merged", dtype="fp32", progress=False), dtype=torch.float32
    )
    assert "quantization_config" not in model.config.to_dict()
    assert apart(model, policy(run)) < 1e-3
    assert apart(model, policy(run)) < 0.05 * apart(policy(run), bases.load("tiny", "nf4").model)


@pytest.mark.parametrize(
    "precision", ["nf4", pytest.param("bf16", marks=pytest.mark.slow), pytest.param("fp16", marks=pytest.mark.slow)]
)
def test_every_form_on_a_base_in_low_precision(precision, tmp_path):
    run = made_run(tmp_path / "run", "dora", precision=precision)
    for to in ("adapter", "merged"):
        folder = run.export(to, progress=False, **({"dtype": "fp32"} if to == "merged" else {}))
        facts = about(folder)
        assert facts["measured"]["relative"] < 1e-5
        assert facts["effect"]["relative"] > 1e-3
        assert facts["base"]["precision"] == precision
        assert exports.verify_export(folder).proven


@pytest.mark.slow
def test_a_residual_rounded_to_16_bits_is_told_from_an_adapter_on_the_whole_base(tmp_path):
    run = made_run(tmp_path / "run", "pissa:residual", precision="bf16")
    adapter = about(run.export("adapter", progress=False))
    merged = about(run.export("merged", dtype="fp32", progress=False))
    assert any("residual" in note for note in adapter["notes"])
    assert adapter["measured"]["logits"] > 1e-3 > merged["measured"]["logits"]


# Other bases, and every file accounted for


def test_untied_and_sharded(tmp_path, monkeypatch):
    base = random_base(tmp_path / "base", tied=False)
    monkeypatch.setattr("rlvr_lite.exports._writers._SHARD", "100KB")
    run = made_run(tmp_path / "run", "lora", str(base))
    folder = run.export("merged", dtype="fp32", progress=False)
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert apart(AutoModelForCausalLM.from_pretrained(folder), policy(run)) < 1e-4


@pytest.mark.parametrize("to", ["adapter", "lora", "merged"])
def test_every_export_is_whole_and_says_where_it_is_from(to, run_of, exported):
    folder, run = exported("dora", to), run_of("dora")
    assert damage(folder) is None
    facts = about(folder)
    assert (facts["form"], facts["method"], facts["failed"]) == (to, "dora", "")
    assert facts["base"]["hash"] == methods.base_hash(bases.load("tiny", "fp32").model)
    assert facts["config"]["learning_rate"] == run.config.learning_rate
    assert {"torch", "rlvr-lite", "peft"} <= facts["versions"].keys()
    assert facts["run"]["identity"] == "proven"
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".safetensors", ".md", ".jinja"}


def test_a_failed_run_is_refused_unless_forced_and_then_marked(tmp_path):
    run = failed(made_run(tmp_path / "run", "lora"))
    with pytest.raises(UserError, match="force"):
        run.export("adapter", progress=False)
    assert not (tmp_path / "run" / "export").exists()
    folder = run.export("adapter", force=True, progress=False)
    assert "never had a gradient" in about(folder)["failed"]
    assert "failed its proof" in (folder / "README.md").read_text()
