"""A run goes on under other limits, and on to more steps, as if it had been asked for them from the start."""

from __future__ import annotations

import functools

import pytest

import rlvr_lite
from rlvr_lite.config import RunConfig, to_json
from rlvr_lite.errors import UserError
from rlvr_lite.records import read_json, write_json
from rlvr_lite.runs import RunDirectory, source_hash
from rlvr_lite.training import Run
from rlvr_lite.training._at_once import CompletionsAtOnce
from rlvr_lite.training._folder import is_done

SMALL = {
    "prompts_per_step": 4,
    "group_size": 4,
    "eval_problems": 2,
    "eval_k": 1,
    "max_completion_length": 24,
    "progress": False,
}


def bytes_of(run: Run) -> dict[str, bytes]:
    """What must not depend on how often a run was broken off."""
    files = run.files
    paths = (files.rollouts.path, files.adapter / "manifest.json", files.evaluations / "after.jsonl", files.config)
    return {path.name: path.read_bytes() for path in paths}


def test_more_steps_train_on_to_what_a_longer_run_would_have_been(tmp_path):
    short = rlvr_lite.train("lora", steps=3, out=tmp_path / "run", **SMALL)
    assert short.summary["steps"] == 3
    longer = rlvr_lite.train("lora", steps=5, out=tmp_path / "run", **SMALL)
    whole = rlvr_lite.train("lora", steps=5, out=tmp_path / "whole", **SMALL)
    assert bytes_of(longer) == bytes_of(whole)
    assert [row["step"] for row in longer.metrics()] == [1, 2, 3, 4, 5]
    assert (longer.status, longer.summary["steps"], longer.config.steps) == (whole.status, 5, 5)
    assert longer.summary["evaluation"]["before"] == short.summary["evaluation"]["before"]
    assert longer.damage() is None
    assert read_json(longer.files.env)["asked"]["steps"] == 5
    again = rlvr_lite.train("lora", out=tmp_path / "run", **SMALL)  # not named: as many as it has
    assert again.summary == longer.summary
    with pytest.raises(UserError, match=r"5 steps.*not 4"):
        rlvr_lite.train("lora", steps=4, out=tmp_path / "run", **SMALL)


def test_a_schedule_over_all_steps_is_not_stretched(tmp_path):
    rlvr_lite.train("adalora", steps=3, out=tmp_path / "run", **SMALL)
    with pytest.raises(UserError, match="schedule"):
        rlvr_lite.train("adalora", steps=5, out=tmp_path / "run", **SMALL)


def test_limits_and_bookkeeping_may_differ(tmp_path):
    first = rlvr_lite.train("lora", steps=3, max_hours=1e-9, out=tmp_path / "run", **SMALL)
    assert first.status == "stopped"
    changed = {"max_hours": 5, "keep_checkpoints": 1, "save_steps": 1}
    run = rlvr_lite.train("lora", steps=3, out=tmp_path / "run", **SMALL | changed)
    assert run.summary["steps"] == 3
    assert (run.config.max_hours, run.config.keep_checkpoints) == (5, 1)
    assert len(list(run.files.checkpoints.iterdir())) == 1
    done = rlvr_lite.train("lora", steps=3, out=tmp_path / "run", **SMALL)
    assert done.summary == run.summary
    with pytest.raises(UserError, match="seed"):
        rlvr_lite.train("lora", steps=3, seed=1, out=tmp_path / "run", **SMALL)


def test_the_folder_of_a_run_does_not_depend_on_what_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = rlvr_lite.train("lora", steps=1, **SMALL)
    assert rlvr_lite.train("lora", steps=1, max_hours=2, **SMALL).directory == run.directory
    assert RunConfig().max_hours is None


def test_what_a_run_killed_at_its_very_start_leaves_is_not_taken_for_somebodys_files(tmp_path):
    files = RunDirectory(tmp_path)
    write_json(files.env, {"asked": {"method": "lora"}, "base": {}})
    assert not is_done(files, RunConfig(), {})
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="other files"):
        is_done(files, RunConfig(), {})


@pytest.mark.parametrize("facts", [{"asked": None}, {"asked": [1]}, {"asked": {}, "sources": 3}])
def test_what_a_run_noted_of_itself_is_damaged(tmp_path, facts):
    files = RunDirectory(tmp_path)
    files.config.write_text(to_json(RunConfig()))
    write_json(files.env, facts)
    with pytest.raises(UserError, match=r"env\.json is damaged"):
        is_done(files, RunConfig(), {})


@pytest.mark.parametrize("data", ["null", "[]", "{}", '{"completions_at_once": null}', "{"])
def test_a_number_that_was_kept_is_damaged(tmp_path, data):
    (tmp_path / "kept.json").write_text(data)
    with pytest.raises(UserError, match=r"kept\.json"):
        CompletionsAtOnce(None, tmp_path / "kept.json")


def _reward(source: str, **bound):
    """As a notebook's cell makes one."""
    exec(f"def mine(completions, **columns):\n    return [{source} for _ in completions]", bound)
    return bound["mine"]


def test_a_reward_of_the_same_name_with_another_source_is_another_run(tmp_path):
    call = functools.partial(rlvr_lite.train, "lora", steps=1, out=tmp_path / "run", **SMALL | {"eval_problems": 0})
    first = call(rewards=["accuracy", _reward("0.5")])
    again = call(rewards=["accuracy", _reward("0.5")])
    assert again.summary == first.summary
    with pytest.raises(UserError, match="mine had another source"):
        call(rewards=["accuracy", _reward("0.25")])
    assert again.summary == first.summary


def test_what_a_reward_gathers_while_it_runs_is_not_its_source():
    def make(seen):
        def mine(completions, **columns):
            seen.append(completions)
            return [1.0] * len(completions)

        return mine

    assert source_hash(make([])) == source_hash(make([1]))
