"""A whole run on the embedded base: what it writes, what it proves, what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from datasets import Dataset

import rlvr_lite
from rlvr_lite import bases, methods, records, tasks
from rlvr_lite.errors import UserError
from rlvr_lite.training import Run
from rlvr_lite.training._folder import default_directory

SMALL = {
    "steps": 3,
    "prompts_per_step": 4,
    "group_size": 4,
    "eval_problems": 4,
    "eval_k": 2,
    "max_completion_length": 24,
    "progress": False,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return rlvr_lite.train("dora", out=tmp_path_factory.mktemp("runs") / "dora", **SMALL)


def test_a_run_directory_can_be_read_by_a_person(run):
    assert run.status == "done"
    files = {path.relative_to(run.directory).as_posix() for path in run.directory.rglob("*") if path.is_file()}
    expected = {"config.json", "env.json", "metrics.jsonl", "rollouts.jsonl", "identity.json", "summary.json"}
    expected |= {
        "adapter/adapter_model.safetensors",
        "adapter/adapter_config.json",
        "eval/before.jsonl",
        "eval/after.json",
    }
    assert expected <= files
    assert {Path(name).suffix for name in files} == {".json", ".jsonl", ".safetensors", ".jinja"}
    assert len(run.metrics()) == 3
    assert len(run.rollouts()) == 3 * 16
    assert len(run.rollouts(step=2)) == 16


def test_full_fine_tuning_holds_fp32_and_computes_in_the_dtype_of_the_base(tmp_path):
    products = set()

    def note(module, args, out):
        if torch.is_grad_enabled() and isinstance(module, torch.nn.Linear):
            products.add((module.weight.dtype, out.dtype))

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        done = rlvr_lite.train("full", precision="bf16", out=tmp_path / "full", **SMALL | {"steps": 1})
    finally:
        handle.remove()
    assert done.status == "done"
    assert products == {(torch.float32, torch.bfloat16)}


def test_full_fine_tuning_with_a_kl_term_compares_with_the_base_it_began_with(tmp_path):
    found = [
        rlvr_lite.train("full", kl_coef=kl, learning_rate=1e-3, out=tmp_path / str(kl), **SMALL | {"steps": 2})
        for kl in (0.0, 10.0)
    ]
    assert [run.status for run in found] == ["done", "done"]
    first, second = (row["kl"] for row in found[1].metrics() if "kl" in row)
    assert abs(first) < 1e-6 < 1e-4 < second
    free, held = ([path.read_bytes() for path in sorted(run.directory.rglob("*.safetensors"))] for run in found)
    assert len(free) == len(held) > 0
    assert free != held


def test_the_summary_says_what_happened(run):
    summary = run.summary
    assert summary["identity"] == "proven"
    assert 0 <= summary["parity"] <= 1e-5
    assert summary["steps"] == 3
    assert summary["learning_rate"] == methods.learning_rate("dora", "tiny").value
    identity = records.read_json(run.files.identity)
    assert summary["trainable_parameters"] == identity["trainable_parameters"] == identity["expected_parameters"]
    assert identity["with_gradient"] == 1.0
    for when in ("before", "after"):
        score = summary["evaluation"][when]
        for metric in ("greedy", "avg@2", "pass@2"):
            assert 0 <= score[metric]["low"] <= score[metric]["value"] <= score[metric]["high"] <= 1
    assert {"load", "train", "step"} <= summary["seconds"].keys()
    assert summary["peak_memory_bytes"] > 0
    assert summary["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_every_open_field_of_the_configuration_is_filled(run):
    config = run.config
    assert (config.rank, config.alpha, config.precision, config.prompt_style) == (16, 32, "fp32", "bare")
    assert None not in (config.learning_rate, config.steps, config.warmup_steps, config.targets)


def test_a_run_shows_itself(run, tmp_path):
    assert "dora on chain-sum" in str(run)
    assert re.search(r"greedy.*\[", str(run))
    assert "<table>" in run._repr_html_()
    run.plot().savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    assert str(rlvr_lite.load(run.directory)) == str(run)


def test_the_same_call_returns_the_finished_run(run):
    before = {path: path.stat().st_mtime_ns for path in run.directory.rglob("*")}
    again = rlvr_lite.train("dora", out=run.directory, **SMALL)
    assert again == run
    assert before == {path: path.stat().st_mtime_ns for path in run.directory.rglob("*")}


def test_the_same_call_does_not_return_a_finished_run_that_was_changed(run, tmp_path):
    folder = shutil.copytree(run.directory, tmp_path / "copy")
    summary = folder / "summary.json"
    summary.write_text(summary.read_text().replace('"steps": 3', '"steps": 4'))
    with pytest.raises(UserError, match=r"damaged \(.*summary\.json"):
        rlvr_lite.train("dora", out=folder, **SMALL)


def test_a_directory_of_another_run_is_refused(run):
    with pytest.raises(UserError, match="seed = 0, not 1"):
        rlvr_lite.train("dora", out=run.directory, seed=1, **SMALL)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path, run):
    same = rlvr_lite.train("dora", out=tmp_path / "same", **SMALL)
    other = rlvr_lite.train("dora", out=tmp_path / "other", seed=1, **SMALL)

    def rollouts(r):
        return r.files.rollouts.path.read_bytes()

    def weights(r):
        return (r.files.adapter / "adapter_model.safetensors").read_bytes()

    assert rollouts(same) == rollouts(run) != rollouts(other)
    assert weights(same) == weights(run) != weights(other)


def test_evaluating_a_run_scores_the_trained_policy(run):
    found = run.evaluate("chain-sum:test", n=4, k=2, progress=False)
    again = run.evaluate("chain-sum:test", n=4, k=2, progress=False)
    assert found["chain-sum:test"].rows() == again["chain-sum:test"].rows()


def test_a_run_that_is_not_what_its_label_says_fails(tmp_path, monkeypatch):
    original = methods.attach

    def frozen(model, name, adapter, **options):
        attached = original(model, name, adapter, **options)
        for parameter_name, parameter in attached.named_parameters():
            if "lora_A" in parameter_name:
                parameter.requires_grad_(False)
        return attached

    monkeypatch.setattr(methods, "attach", frozen)
    run = rlvr_lite.train("lora", out=tmp_path / "run", **SMALL)
    assert run.status == "failed"
    assert run.summary["identity"].startswith("failed")
    with pytest.raises(UserError, match="failed its proof"):
        run.evaluate("chain-sum:test", n=2, k=1, progress=False)


def test_a_saved_adapter_that_is_not_the_policy_fails(tmp_path, monkeypatch):
    original = methods.save

    def rounded(model, directory, *, facts):
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data = parameter.data * 1.5
        original(model, directory, facts=facts)

    monkeypatch.setattr(methods, "save", rounded)
    run = rlvr_lite.train("lora", out=tmp_path / "run", **SMALL | {"learning_rate": 0.05})
    assert run.status == "failed"
    assert "not the trained one" in run.summary["reason"]


def test_your_own_problems_and_reward(tmp_path):
    rows = [{"problem": f"{a}+{b}=?", "answer": str(a + b)} for a in range(1, 10) for b in range(1, 10)]

    async def short(completions, **_):  # TRL awaits such functions
        return [-float(len(chat[0]["content"])) for chat in completions]

    run = rlvr_lite.train(
        "lora", "tiny", Dataset.from_list(rows), out=tmp_path / "run", rewards=["accuracy", short], **SMALL
    )
    assert run.status == "done"
    assert run.config.rewards == ("accuracy", "short")
    row = run.rollouts()[0]
    assert row["reward"] == pytest.approx(row["rewards"]["accuracy"] + row["rewards"]["short"])


def test_a_jsonl_file_is_a_task(tmp_path):
    path = tmp_path / "mine.jsonl"
    problems = rlvr_lite.tasks.get("chain-sum").problems("train", 300)
    path.write_text("".join(json.dumps({"question": p.problem, "answer": p.answer}) + "\n" for p in problems))
    run = rlvr_lite.train("lora", "tiny", str(path), out=tmp_path / "run", **SMALL)
    assert run.status == "done"


def test_evaluation_can_be_left_out(tmp_path):
    run = rlvr_lite.train("lora", out=tmp_path / "run", **SMALL | {"eval_problems": 0})
    assert run.status == "done"
    assert run.summary["evaluation"] == {}
    assert "done" in str(run)


def test_a_stopped_run_goes_on(tmp_path):
    first = rlvr_lite.train("lora", out=tmp_path / "run", max_hours=1e-9, **SMALL)
    assert first.status == "stopped"
    assert "max_hours" in first.summary["reason"]
    for _ in range(2):
        again = rlvr_lite.train("lora", out=tmp_path / "run", max_hours=1e-9, **SMALL)
    whole = rlvr_lite.train("lora", out=tmp_path / "whole", **SMALL)
    assert again.status == "done"
    assert again.files.rollouts.path.read_bytes() == whole.files.rollouts.path.read_bytes()


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"method": "lorra"}, "lora"),
        ({"base": "tinny"}, "tiny"),
        ({"task": "chain-sums"}, "chain-sum"),
        ({"group_size": 1}, "at least 2"),
        ({"task": "missing.jsonl"}, "missing.jsonl"),
        ({"base": "nobody/nothing"}, "network|folder"),
        ({"rewards": ["accuraccy"]}, "accuracy"),
        ({"rank": 4096}, "rank"),
        ({"targets": ("nothing",)}, "nothing"),
        ({"method": "full", "rank": 4}, "rank"),
        ({"method": "full", "precision": "nf4"}, "4-bit"),
        ({"loss": "dapoo"}, "did you mean 'dapo'"),
        ({"loss": "sapo", "loss_options": {"temperature": 1.0}}, "temperature_pos"),
        ({"loss": "dapo", "loss_options": {"delta": -1}}, "positive"),
        ({"micro_batch": 1000}, "micro_batch"),
        ({"learning_rat": 1.0}, "learning_rate"),
        ({"task_options": {"operand": 3}}, "operands"),
        ({"method_options": {"nothing": 1}}, "nothing"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_and_nothing_is_written(tmp_path, change, advice):
    out = tmp_path / "run"
    with pytest.raises(UserError, match=advice) as caught:
        rlvr_lite.train(**{"out": out} | SMALL | change)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_directory_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("do not touch")
    with pytest.raises(UserError, match="other files"):
        rlvr_lite.train(out=tmp_path, **SMALL)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_no_space_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, "fsync", full)
    with pytest.raises(UserError, match="No space"):
        rlvr_lite.train(out=tmp_path / "run", **SMALL)


def test_default_directories_differ_with_what_is_run():
    from rlvr_lite.config import RunConfig

    names = {default_directory(RunConfig(**c)) for c in ({}, {"seed": 1}, {"rank": 8}, {"method": "dora"})}
    assert len(names) == 4
    assert default_directory(RunConfig()) == default_directory(RunConfig())


def test_a_run_without_any_signal_fails_and_says_why(tmp_path):
    run = rlvr_lite.train("lora", task="linear-equation", out=tmp_path / "run", **SMALL)
    assert run.status == "failed"
    assert "two different rewards" in run.summary["reason"]


def test_one_loaded_base_serves_runs_that_end_as_if_each_had_its_own(tmp_path):
    base = bases.load("tiny")
    before = {name: tensor.clone() for name, tensor in base.model.state_dict().items()}
    for method in ("dora", "ln_tuning", "pissa:residual", "lora"):
        shared = rlvr_lite.train(method, base, out=tmp_path / method / "shared", **SMALL)
        alone = rlvr_lite.train(method, out=tmp_path / method / "alone", **SMALL)
        assert not hasattr(base.model, "peft_config")
        assert (shared.files.adapter / "manifest.json").read_bytes() == (
            alone.files.adapter / "manifest.json"
        ).read_bytes()
        assert all(torch.equal(before[name], tensor) for name, tensor in base.model.state_dict().items())


def test_the_score_before_is_left_out_and_the_split_is_chosen_on_request(tmp_path):
    run = rlvr_lite.train("lora", out=tmp_path / "run", **SMALL | {"eval_before": False, "eval_split": "validation"})
    assert set(run.summary["evaluation"]) == {"after"}
    asked = {row["id"] for row in records.read_jsonl(run.files.evaluations / "after.jsonl")}
    assert asked <= {problem.id for problem in tasks.get("chain-sum").problems("validation")}


def test_a_loaded_base_of_another_precision_is_refused(tmp_path):
    with pytest.raises(UserError, match="fp32, not bf16"):
        rlvr_lite.train("lora", bases.load("tiny"), out=tmp_path / "run", precision="bf16", progress=False)
