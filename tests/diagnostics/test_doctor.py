"""The check-up finds what is wrong, goes on after it, and shows itself everywhere."""

from __future__ import annotations

import contextlib
import json
import re
from importlib.metadata import version

import pytest
import torch

import rlvr_lite
from rlvr_lite import bases, cli, diagnostics, grpo, host, methods, sampling
from rlvr_lite.diagnostics import check_names
from rlvr_lite.errors import UserError
from tests.core.test_host import IN_THE_WAY

NUMBERS = ("NF4 products", "gradients", "decoding", "rollouts", "sampled and scored")


def verdicts(*only: str) -> dict[str, str]:
    return {check.name: check.verdict for check in rlvr_lite.doctor(only=only, progress=False).checks}


def test_the_numbers_of_this_machine_are_right():
    found = verdicts(*NUMBERS)
    assert tuple(found) == NUMBERS
    assert set(found.values()) == {"ok"}


def test_what_needs_a_card_is_skipped_without_one():
    found = verdicts("card", "fp16", "8-bit", "attention", "out of memory")
    assert len(found) == 6
    if not torch.cuda.is_available():
        assert set(found.values()) == {"skipped"}


def test_a_check_that_breaks_leaves_the_others_alone(monkeypatch):
    def broken(model):
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")

    monkeypatch.setattr(bases, "check_decode", broken)
    found = rlvr_lite.doctor(only=("decoding", "rollouts"), progress=False)
    first, second = found.checks
    assert first.verdict == "failed"
    assert first.figure == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert first.remedy
    assert second.verdict == "ok"
    assert not found.passed


def test_gradients_that_packing_changes_are_found(monkeypatch):
    hidden = grpo.Packer.hidden
    monkeypatch.setattr(grpo.Packer, "hidden", lambda self, *batch: hidden(self, *batch) * 1.01)
    assert verdicts("gradients") == {"gradients": "failed"}


def test_rollouts_that_depend_on_the_batch_are_found(monkeypatch):
    rollout = sampling.rollout

    def other(model, ids, mask, **options):
        keys = [key + (len(ids) > 1) for key in options.pop("row_keys")]
        return rollout(model, ids, mask, row_keys=keys, **options)

    monkeypatch.setattr(sampling, "rollout", other)
    assert verdicts("rollouts") == {"rollouts": "failed"}


@pytest.mark.parametrize(("facts", "about", "fatal", "words"), IN_THE_WAY)
def test_what_stands_in_the_way_is_one_line_here_and_where_a_run_loads_its_base(
    facts, about, fatal, words, monkeypatch, caplog
):
    for module in (host, diagnostics._doctor):
        monkeypatch.setattr(module, "this_host", lambda: facts)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    found = rlvr_lite.doctor(only=("driver", "card", "bitsandbytes"), progress=False)
    (failed,) = (check for check in found.checks if check.verdict == "failed")
    said = f"{failed.figure}: {failed.remedy}"
    assert "\n" not in said
    assert all(word in said for word in words)
    monkeypatch.setattr(host, "_SAID", set())
    refused = fatal and (facts.cards or facts.forked)
    with pytest.raises(UserError, match=re.escape(said)) if refused else contextlib.nullcontext():
        bases.load("tiny", "nf4" if about == "bitsandbytes" else "fp32")
    told = [record.getMessage() for record in caplog.records if record.name == "rlvr_lite.host"]
    assert told == ([] if refused else [said])


@pytest.mark.slow
def test_a_method_that_is_not_itself_is_found(monkeypatch):
    attach = methods.attach

    def other(model, name, *rest, **options):
        return attach(model, "rslora" if name == "lora" else name, *rest, **options)

    monkeypatch.setattr(methods, "attach", other)
    (check,) = rlvr_lite.doctor(only=("methods",), progress=False).checks
    assert check.verdict == "failed"
    assert f"{len(methods.names()) - 1} of {len(methods.names())} proven" in check.figure
    assert "lora (" in check.figure


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bytes_and_a_plan_is_what_is_held():
    found = rlvr_lite.doctor(only=("kill", "plan", "other", "tokens", "launches", "paper"), progress=False)
    assert found.passed, str(found)
    assert [check.name for check in found.checks if check.verdict == "skipped"] == []
    figure = {check.name: check.figure for check in found.checks}
    assert "the same bytes" in figure["kill and resume"]
    assert "an estimate" in figure["paper's recipe"]


def test_it_shows_itself(capsys):
    found = rlvr_lite.doctor(only=("versions", "memory"), progress=False)
    for name in ("versions", "memory"):
        assert name in str(found)
        assert name in found._repr_html_()
    assert repr(found).startswith("Diagnosis(2 ok, 0 failed")
    assert "\n" not in repr(found)
    assert f"torch {version('torch')}" in found.report
    assert json.loads(found.to_json())["checks"][1]["name"] == "memory"
    assert list(found.to_pandas()["verdict"]) == [check.verdict for check in found.checks]


def test_the_command_prints_json_and_ends_with_a_status(capsys, monkeypatch):
    cli.main(["doctor", "memory", "disk", "--json", "-q"])
    said = json.loads(capsys.readouterr().out)
    assert said["passed"]
    monkeypatch.setattr(diagnostics._machine, "_LEAST_DISK", 2**60)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "disk", "-q"])
    assert ended.value.code == 1
    assert "--out on another disk" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_check_is_refused():
    with pytest.raises(UserError, match="gradients"):
        rlvr_lite.doctor(only=("gradient checks",))
    assert len(set(check_names())) == len(check_names())
