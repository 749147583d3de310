"""What a run on disk is: whether it may be built upon, and which file of it is not what it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rlvr_lite import evaluate, load
from rlvr_lite.commands._show import show
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.records import read_json
from rlvr_lite.runs import RunRecord, finish
from rlvr_lite.study import Study
from rlvr_lite.study._store import Store
from rlvr_lite.training._folder import is_done
from tests.exports.helpers import made_run
from tests.study.fake import make_design, make_study


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return made_run(tmp_path_factory.mktemp("runs") / "lora").directory


@pytest.fixture
def run(made, tmp_path) -> RunRecord:
    return RunRecord.open(shutil.copytree(made, tmp_path / "run"))


def test_a_whole_run_passes_the_gate_and_says_what_it_is(run):
    assert run.gate() is run
    assert (run.status, run.doubt, run.damage(), run.settled) == ("done", "", None, True)
    assert run.config.method == run.adapter["method"] == "lora"
    assert run.env["base"]["hash"] == run.adapter["base"]["hash"]


def test_it_can_be_moved(run, tmp_path):
    assert RunRecord.open(shutil.move(run.directory, tmp_path / "elsewhere")).gate().damage() is None


@pytest.mark.parametrize("harm", ["flip", "half", "empty", "null", "gone"])
@pytest.mark.parametrize("name", ["config.json", "env.json", "summary.json", "manifest.json", "adapter/manifest.json"])
def test_harm_to_any_file_of_the_proof_is_one_line(run, name, harm):
    path, data = run.directory / name, (run.directory / name).read_bytes()
    harmed = bytearray(data)
    harmed[len(data) // 2] ^= 1
    path.write_bytes(
        {"flip": bytes(harmed), "half": data[: len(data) // 2], "empty": b"", "null": b"null"}.get(harm, b"")
    )
    if harm == "gone":
        path.unlink()
    with pytest.raises(UserError) as caught:
        RunRecord.open(run.directory).gate()
    assert "\n" not in str(caught.value)


def test_whatever_the_manifest_lists_and_is_gone_is_named(run):
    for name in read_json(run.files.manifest)["files"]:
        kept = (run.directory / name).read_bytes()
        (run.directory / name).unlink()
        if name == "config.json":
            with pytest.raises(UserError, match=r"no config\.json"):
                load(run.directory)
        else:
            found = load(run.directory)
            assert (found.status == "damaged") is (name == "summary.json")
            assert f"{name} is missing" in str(found)
            assert f"{name} is missing" in found._repr_html_()
            with pytest.raises(UserError, match=r"is damaged \(.*\): copy or train it again"):
                found.gate()
            with pytest.raises(UserError, match=f"{name} is missing.*copy it again, or delete it"):
                is_done(found.files, RunConfig(), {})
        (run.directory / name).write_bytes(kept)
    assert run.gate().status == "done"


def _others(stored: Any, depth: int = 2) -> Iterator[Any]:
    """The same with one value of another type or gone, at any place of the first levels."""
    yield from (None, "x", [], {}, -1, [1], {"a": 1})
    if isinstance(stored, dict) and depth:
        for name, value in stored.items():
            yield {other: stored[other] for other in stored if other != name}
            yield from ({**stored, name: other} for other in _others(value, depth - 1))


def _shown(path: Path) -> None:
    found = load(path)
    assert "Traceback" not in str(found) + found._repr_html_()


@pytest.mark.parametrize("name", ["config.json", "env.json", "summary.json", "manifest.json"])
def test_other_types_in_a_run_are_shown_or_one_line(run, name):
    path = run.directory / name
    for other in _others(read_json(path)):
        path.write_text(json.dumps(other))
        with suppress(UserError):
            _shown(run.directory)


def test_other_types_in_a_study_are_shown_or_one_line(tmp_path):
    study = make_study(tmp_path / "study", make_design(["lora"]), until=0)
    path = study.directory / "study.json"
    for other in _others(read_json(path), depth=1):
        path.write_text(json.dumps(other))
        with suppress(UserError):
            _shown(study.directory)


def test_rows_of_other_types_are_one_line(run, capsys):
    (run.directory / "metrics.jsonl").write_text('{"reward": 1.0}\n')
    (run.directory / "rollouts.jsonl").write_text('{"step": 1}\n')
    found = load(run.directory)
    for ask in (found.plot, lambda: show(run.directory, samples=1)):
        with pytest.raises(UserError, match="damaged"):
            ask()
    (run.directory / "rollouts.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"rollouts\.jsonl is damaged"):
        found.rollouts(step=1)


@pytest.mark.parametrize("config", ["null", "[]", "{}"])
def test_a_run_whose_configuration_is_lost_is_not_taken_for_a_model(run, config):
    (run.directory / "metrics.jsonl").write_text("")
    (run.directory / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"config\.json"):
        evaluate(str(run.directory), "chain-sum:test", n=1, k=1)


def test_a_run_whose_manifest_was_not_written_is_not_finished(run):
    run.files.manifest.unlink()
    assert not run.settled
    assert "repeat the call" in (run.damage() or "")


def test_a_failed_run_passes_only_by_force(run):
    finish(run.files, run.summary | {"status": "failed", "reason": "a tensor never had a gradient"})
    with pytest.raises(UserError, match="never had a gradient"):
        run.gate()
    assert run.gate(force=True).doubt == "a tensor never had a gradient"


def test_a_damaged_run_of_a_study_is_named_and_the_others_are_shown(tmp_path):
    make_study(tmp_path, make_design(("lora", "dora"), tune="none", seeds=(0,)))
    study = Study.load(tmp_path)
    store, (trial,) = Store(tmp_path), [t for t in study.trials if t.variant == "dora" and t.stage == "final"]
    log = store.path(trial) / "eval" / "after.jsonl"
    log.write_bytes(log.read_bytes().replace(b"true", b"True", 1).replace(b"false", b"true ", 1))
    assert store.state(trial) == "failed"
    assert "eval/after.jsonl" in store.reason(trial)
    assert "lora" in str(Study.load(tmp_path).leaderboard)


def test_a_base_whose_answers_are_damaged_is_named(tmp_path):
    make_study(tmp_path, make_design(("lora", "dora"), tune="none", seeds=(0,)))
    (tmp_path / "base-seed-0" / "eval" / "before.jsonl").write_text("")
    study = Study.load(tmp_path)
    assert study.base is None
    for said in (str(study), study.to_markdown(), study.report().read_text()):
        assert "before.jsonl" in said


@pytest.mark.parametrize("name", ["summary.json", "manifest.json"])
def test_a_base_whose_outcome_is_gone_keeps_its_row(tmp_path, name):
    make_study(tmp_path, make_design(("lora", "dora"), tune="none", seeds=(0, 1)))
    (tmp_path / "base-seed-1" / name).unlink()
    study = Study.load(tmp_path)
    (row,) = (row for row in study.leaderboard if row["row"] == "untrained base")
    said = "summary.json is missing" if name == "summary.json" else "1 of 2 seeds done"
    assert said in row["verdict"]
    assert study.base_problem in study.report().read_text()


def test_what_is_stopped_claims_nothing(run):
    finish(run.files, run.summary | {"status": "stopped", "reason": "interrupted"})
    assert not run.settled
    assert not run.files.manifest.exists()
    assert read_json(run.files.summary)["status"] == "stopped"
    with pytest.raises(UserError, match="not finished"):
        run.gate(force=True)
