from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlvr_lite import bases, methods
from rlvr_lite.config import RunConfig, SamplingConfig, to_json
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import PRESETS, Evaluation, check_fingerprint, evaluate, fingerprint, fingerprint_distance
from rlvr_lite.evaluation._policies import PARITY_LIMIT
from rlvr_lite.records import write_json
from rlvr_lite.runs import RunDirectory, finish
from rlvr_lite.sampling import TransformersSampler
from tests.models import random_qwen2

PROMPTS = [[{"role": "user", "content": text}] for text in ("1+2=?", "9-4+3=?", "5+5-2+1=?")]
QUICK: dict[str, Any] = {"n": 6, "k": 3, "progress": False}


def make_run(folder: Path, method: str = "lora", *, status: str = "done", trained: float = 0.05, **config: Any) -> Path:
    """A finished run on the embedded base whose adapter was moved at random."""
    base = bases.load("tiny")
    filled = RunConfig(method=method, prompt_style="bare", precision="fp32", steps=1, learning_rate=1e-3, **config)
    adapter = methods.resolve(method, filled.adapter, base.scale)
    model = methods.attach(base.model, method, adapter, total_steps=1, seed=0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(trained * torch.randn_like(parameter))
    facts = {"fingerprint": fingerprint(model, base.tokenizer, PROMPTS, base.precision)}
    folder.mkdir(parents=True)
    methods.save(model, folder / "adapter", facts=facts)
    (folder / "config.json").write_text(to_json(filled))
    finish(RunDirectory(folder), {"status": status, "identity": "proven", "reason": ""})
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "lora", seed=3)


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def test_a_run_is_scored_on_its_own_task_with_its_own_prompts(own_run: Path) -> None:
    found = evaluate(own_run, **QUICK)
    assert list(found) == ["chain-sum:test"]
    assert found.facts["style"] == "bare"
    assert found.facts["policy"]["method"] == "lora"
    assert found.facts["parity"] == pytest.approx(0, abs=1e-6)
    assert found.directory == own_run / "eval"
    assert (own_run / "eval" / "chain-sum_test.jsonl").is_file()
    assert found.sources["chain-sum:test"]["max_completion_length"] == 56
    plain = evaluate("tiny", "chain-sum:test", **QUICK)
    assert plain.facts["style"] == "bare"
    assert plain.to_dict()["benchmarks"] != found.to_dict()["benchmarks"]


def test_the_same_call_gives_the_same_bytes_and_draws_nothing_anew(
    own_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(own_run, **QUICK)
    before = {path.name: path.read_bytes() for path in (own_run / "eval").iterdir()}

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr("rlvr_lite.sampling.TransformersSampler.sample", fail)
    second = evaluate(SimpleNamespace(directory=own_run), **QUICK)
    assert {path.name: path.read_bytes() for path in (own_run / "eval").iterdir()} == before
    assert Evaluation.load(own_run / "eval").to_dict() == first.to_dict() == second.to_dict()


def test_other_settings_get_a_folder_of_their_own(own_run: Path) -> None:
    evaluate(own_run, **QUICK)
    other = evaluate(own_run, **{**QUICK, "k": 2})
    assert other.directory is not None
    assert other.directory.parent == own_run / "eval"
    assert other["chain-sum:test"].k == 2
    assert evaluate(own_run, **{**QUICK, "k": 2}).directory == other.directory
    assert Evaluation.load(own_run / "eval")["chain-sum:test"].k == 3


def test_one_directory_takes_one_setting(tmp_path: Path) -> None:
    evaluate("tiny", "chain-sum:test", out=tmp_path, **QUICK)
    with pytest.raises(UserError, match="another k "):
        evaluate("tiny", "chain-sum:test", out=tmp_path, **{**QUICK, "k": 2})


@pytest.mark.parametrize(("file", "what"), [("study.json", "a study"), ("metrics.jsonl", "a run")])
def test_nothing_is_written_between_the_files_of_a_study_or_a_run(tmp_path: Path, file: str, what: str) -> None:
    for name in (file, "config.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"holds {what}: choose"):
        evaluate("tiny", "chain-sum:test", out=tmp_path, **QUICK)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("method", ["pissa", "dora", "ln_tuning", "vera"])
def test_every_kind_of_adapter_comes_back_as_it_was_trained(method: str, tmp_path: Path) -> None:
    found = evaluate(make_run(tmp_path / method, method), **{**QUICK, "n": 2, "k": 1})
    assert found.facts["parity"] == pytest.approx(0, abs=1e-5)


def test_a_policy_that_is_not_the_trained_one_is_refused(own_run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", trained=0.06)
    shutil.copy(own_run / "adapter" / "rlvr_lite.json", tmp_path / "facts.json")
    facts = json.loads((tmp_path / "facts.json").read_text())["facts"]
    base = bases.load("tiny")
    model = methods.load(base.model, other / "adapter")
    with pytest.raises(UserError, match="not the trained one"):
        check_fingerprint(model, base.tokenizer, facts["fingerprint"])
    shutil.rmtree(own_run / "adapter")
    methods.save(model, own_run / "adapter", facts=facts)
    finish(RunDirectory(own_run), {"status": "done", "identity": "proven", "reason": ""})
    with pytest.raises(UserError, match="not the trained one"):
        evaluate(own_run, **QUICK)


def test_a_small_update_that_is_missing_is_noticed_in_low_precision_too(tmp_path: Path) -> None:
    base = bases.load("tiny", "bf16")
    run = make_run(tmp_path / "run", trained=0.004)
    recorded = json.loads((run / "adapter" / "rlvr_lite.json").read_text())["facts"]["fingerprint"]
    recorded["precision"] = "bf16"
    away = fingerprint_distance(base.model, base.tokenizer, recorded)
    assert away < PARITY_LIMIT["bf16"]
    check_fingerprint(base.model, base.tokenizer, recorded)  # near enough, if one does not ask how far the base is
    with pytest.raises(UserError, match="not the trained one"):
        check_fingerprint(base.model, base.tokenizer, recorded, base_distance=away)


def test_an_adapter_changed_after_training_is_refused(own_run: Path) -> None:
    weights = own_run / "adapter" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        evaluate(own_run, **QUICK)


def test_a_pickle_beside_the_adapter_is_refused(own_run: Path) -> None:
    (own_run / "adapter" / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="pickle"):
        evaluate(own_run, **QUICK)


@pytest.mark.parametrize(("status", "words"), [("failed", "proof"), ("stopped", "not finished")])
def test_a_run_that_did_not_end_well_is_refused(own_run: Path, status: str, words: str) -> None:
    write_json(own_run / "summary.json", {"status": status, "reason": "no gradient", "identity": "failed"})
    with pytest.raises(UserError, match=words):
        evaluate(own_run, **QUICK)


def test_a_run_under_way_is_refused(own_run: Path) -> None:
    for name in ("summary.json", "manifest.json"):
        (own_run / name).unlink()
    shutil.rmtree(own_run / "adapter")
    with pytest.raises(UserError, match="not finished"):
        evaluate(own_run, **QUICK)


def test_a_base_with_an_adapter_is_the_run(own_run: Path) -> None:
    of_run = evaluate(own_run, **QUICK)
    by_hand = evaluate("tiny", "chain-sum:test", adapter=own_run / "adapter", **QUICK)
    assert by_hand["chain-sum:test"].rows() == of_run["chain-sum:test"].rows()
    base = bases.load("tiny")
    in_memory = evaluate(
        (methods.load(base.model, own_run / "adapter"), base.tokenizer), "chain-sum:test", style="bare", **QUICK
    )
    assert in_memory["chain-sum:test"].rows() == of_run["chain-sum:test"].rows()
    with pytest.raises(UserError, match="leave --adapter out"):
        evaluate(own_run, adapter=own_run / "adapter", **QUICK)


def test_an_adapter_that_peft_wrote_is_loaded(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = bases.load("tiny")
    model = get_peft_model(base.model, LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.save_pretrained(tmp_path / "adapter")
    found = evaluate("tiny", "chain-sum:test", adapter=tmp_path / "adapter", **QUICK)
    plain = evaluate("tiny", "chain-sum:test", **QUICK)
    assert found["chain-sum:test"].rows() != plain["chain-sum:test"].rows()
    with pytest.raises(UserError, match="does not exist"):
        evaluate("tiny", "chain-sum:test", adapter=tmp_path / "absent", **QUICK)
    with pytest.raises(UserError, match="no adapter"):
        evaluate("tiny", "chain-sum:test", adapter=tmp_path, **QUICK)


def test_a_base_in_memory_and_by_name_are_one(tmp_path: Path) -> None:
    by_name = evaluate("tiny", "chain-sum:test", **QUICK)
    assert (
        evaluate(bases.load("tiny"), "chain-sum:test", **QUICK)["chain-sum:test"].rows()
        == by_name["chain-sum:test"].rows()
    )


def test_two_models_in_memory_do_not_share_a_directory(tmp_path: Path) -> None:
    tokenizer = bases.load("tiny").tokenizer
    one, two = (random_qwen2(seed=seed, vocab=128) for seed in (0, 1))
    options = {**QUICK, "max_completion_length": 4, "out": tmp_path}
    evaluate((one, tokenizer), "chain-sum:test", **options)
    evaluate((one, tokenizer), "chain-sum:test", **options)
    with pytest.raises(UserError, match="another policy"):
        evaluate((two, tokenizer), "chain-sum:test", **options)


def test_presets_are_what_they_say() -> None:
    paper = PRESETS["paper"]
    assert (paper.sampling.temperature, paper.sampling.top_p, paper.sampling.max_completion_length) == (
        0.6,
        0.95,
        32_768,
    )
    assert paper.n is None
    assert paper.k is None
    greedy = evaluate("tiny", "chain-sum:test,chain-sum:ood", preset="greedy", n=4, progress=False)
    assert [list(score.metrics()) for score in greedy.values()] == [["greedy"], ["greedy"]]


def test_the_paper_preset_takes_each_benchmarks_own_k(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def score_with(
        engine: Any, problems: Any, *, name: str, k: int, sampling: SamplingConfig, greedy: bool, **_: Any
    ) -> Any:
        asked[name] = (len(problems), k, sampling.max_completion_length, sampling.temperature, greedy)
        raise StopIteration

    roomy = bases.load("tiny")
    monkeypatch.setattr(roomy.model.config, "max_position_embeddings", 40_000)
    rows = [{"problem": f"{i}+1", "answer": "1"} for i in range(5)]
    (tmp_path / "amc23.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("RLVR_LITE_DATA", str(tmp_path))
    monkeypatch.setattr("rlvr_lite.evaluation._harness.score_with", score_with)
    with pytest.raises(StopIteration), pytest.warns(UserWarning, match="checksum"):
        evaluate(roomy, "amc23", preset="paper", progress=False)
    assert asked == {"amc23": (5, 32, 32_768, 0.6, False)}


def test_a_length_that_nobody_named_fits_the_positions_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    base = bases.load("tiny")
    chats = [[{"role": "user", "content": text}] for text in ("1+2=?", "1+2+3+4=?")]
    longest = max(len(base.tokenizer.apply_chat_template(c, add_generation_prompt=True)["input_ids"]) for c in chats)
    monkeypatch.setattr(base.model.config, "max_position_embeddings", longest + 6)
    rows = [{"problem": chat[0]["content"], "answer": "3"} for chat in chats]
    found = evaluate(base, rows, style="bare", **QUICK)
    (source,) = found.sources.values()
    assert source["max_completion_length"] == 6
    assert max(sample.tokens for score in found.values() for sample in score.samples) == 6
    for named in ({"max_completion_length": 7}, {"sampling": SamplingConfig(max_completion_length=7)}):
        with pytest.raises(UserError, match="at most 6"):
            evaluate(base, rows, style="bare", **QUICK, **named)
    monkeypatch.setattr(base.model.config, "max_position_embeddings", longest)
    with pytest.raises(UserError, match="shorten the prompt"):
        evaluate(base, rows, style="bare", **QUICK)


def test_single_dials_replace_those_of_the_preset() -> None:
    found = evaluate("tiny", "chain-sum:test", temperature=0.7, top_p=0.9, **QUICK)
    assert (found.facts["sampling"]["temperature"], found.facts["sampling"]["top_p"]) == (0.7, 0.9)
    assert found.sources["chain-sum:test"]["max_completion_length"] == 56  # still the task's
    same = evaluate(
        "tiny", "chain-sum:test", sampling=SamplingConfig(temperature=0.7, top_p=0.9, max_completion_length=56), **QUICK
    )
    assert same["chain-sum:test"].rows() == found["chain-sum:test"].rows()
    assert evaluate("tiny", "chain-sum:test", **QUICK)["chain-sum:test"].rows() != found["chain-sum:test"].rows()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k must be"),
        ({"k": 4, "temperature": 0.0}, "temperature 0"),
        ({"temperature": -1.0}, "temperature must be"),
        ({"top_p": 1.5}, "top_p"),
        ({"k": 4, "preset": "greedy"}, "temperature 0"),
        ({"k": 4, "sampling": SamplingConfig(temperature=0.0)}, "temperature 0"),
        ({"preset": "papre"}, "paper"),
        ({"engine": "vlm"}, "vllm"),
        ({"benchmarks": "chain-sum:test,chain-sum:test"}, "twice"),
        ({"benchmarks": " , "}, "no benchmark"),
        ({"benchmarks": "gsm9k"}, "gsm8k"),
        ({"n": 0}, "at least one"),
        ({"run_or_model": "tinny"}, "tiny"),
        ({"run_or_model": SimpleNamespace(directory=Path("/nonexistent"))}, "does not exist"),
    ],
)
def test_bad_requests_are_one_line_errors(options: dict[str, Any], words: str) -> None:
    given = {"run_or_model": "tiny", "benchmarks": "chain-sum:test", "n": 3, "progress": False, **options}
    with pytest.raises(UserError, match=words) as caught:
        evaluate(**given)
    assert "\n" not in str(caught.value)


_CHILD = """
import sys, torch
torch.set_num_threads(1)
from rlvr_lite.evaluation import evaluate
from rlvr_lite.sampling import TransformersSampler
TransformersSampler.room = lambda self: 700  # some ten answers a batch
evaluate("tiny", "chain-sum:test", k=4, n=80, out=sys.argv[1], progress=False)
"""


def test_a_process_killed_in_the_middle_leaves_nothing_to_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    log = broken / "chain-sum_test.jsonl"
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(broken)], env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        while child.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 60):
            time.sleep(0.005)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    kept = log.read_text(encoding="utf-8")
    kept = kept[: kept.rfind("\n") + 1]
    assert 60 < kept.count("\n") < 400
    monkeypatch.setattr(TransformersSampler, "room", lambda self: 700)
    for directory in (whole, broken):
        evaluate("tiny", "chain-sum:test", k=4, n=80, out=directory, progress=False)
    assert (broken / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()
    after = log.read_text(encoding="utf-8")
    assert after.startswith(kept)
    assert sorted(after.splitlines()) == sorted((whole / log.name).read_text(encoding="utf-8").splitlines())
