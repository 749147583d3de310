"""What cannot be exported as asked: one line that names the way out, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest
from safetensors import SafetensorError

import rlvr_lite
from rlvr_lite.cli import main
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import recorded_fingerprint
from rlvr_lite.exports._trained import Trained
from rlvr_lite.exports._writers import write_adapter
from rlvr_lite.runs import finish
from tests.exports.helpers import edit, failed, made_run


@pytest.fixture
def run(run_of, tmp_path):
    """A copy that a test may damage."""
    return rlvr_lite.load(shutil.copytree(run_of("lora").directory, tmp_path / "run"))


def refused(word, run, to="adapter", out=None, **options):
    with pytest.raises(UserError, match=word) as caught:
        rlvr_lite.export(run, to, out, progress=False, **options)
    assert "\n" not in str(caught.value)
    assert not [path for path in run.directory.rglob("*") if path.name.endswith(".tmp")]


@pytest.mark.parametrize(
    ("to", "options", "word"),
    [
        ("adaptor", {}, "did you mean 'adapter'"),
        ("onnx", {}, "choose one of"),
        ("merged", {"dtype": "int8"}, "unknown dtype of merged"),
        ("merged", {"dtype": "q8_0"}, "unknown dtype of merged"),
        ("gguf", {"dtype": "q4_k_m"}, "unknown dtype of gguf"),
        ("adapter", {"dtype": "bf16"}, "dtype is for merged"),
        ("adapter", {"rank": 4}, "rank is for lora"),
        ("lora", {"rank": 0}, "at least 1"),
        ("merged", {"llama_cpp": "x"}, "llama_cpp is for gguf"),
        ("merged", {"repo": "a/b"}, "are for hub"),
        ("adapter", {"dry_run": True}, "are for hub"),
        ("merged", {"form": "lora"}, "form is for hub"),
        ("hub", {"form": "loras", "repo": "a/b"}, "unknown form"),
    ],
)
def test_an_unknown_or_unfitting_wish(to, options, word, run):
    refused(word, run, to, **options)
    assert not (run.directory / "export").exists()


def test_an_existing_target_is_not_overwritten(run, tmp_path):
    folder = run.export(progress=False)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    refused("not overwritten", run)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (tmp_path / "mine").mkdir()
    refused("not overwritten", run, "merged", tmp_path / "mine")
    assert not list((tmp_path / "mine").iterdir())
    for data in ("null", '{"label"'):
        (tmp_path / "mine" / "export.json").write_text(data)
        refused(r"export\.json", run, "merged", tmp_path / "mine", wait=True)


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_a_run_that_is_not_finished(status, run):
    run.files.manifest.unlink()
    if status == "running":
        run.files.summary.unlink()
    else:
        edit(run.files.summary, status=status)
    refused(f"not finished .{status}", run, force=True)


def test_a_failed_run(run):
    refused("failed its proof", failed(run))


def forge(run, stored):
    """Write another ``rlvr_lite.json`` than the run's, with hashes that fit."""
    (run.files.adapter / "rlvr_lite.json").write_text(json.dumps(stored))
    manifest = json.loads((run.files.adapter / "manifest.json").read_text())
    manifest["files"]["rlvr_lite.json"] = rlvr_lite.records.hash_file(run.files.adapter / "rlvr_lite.json")
    (run.files.adapter / "manifest.json").write_text(json.dumps(manifest))
    finish(run.files, run.summary)


@pytest.mark.parametrize("base", [{}, None, [], "tiny"])
def test_what_a_forged_adapter_says_of_its_base(base, tmp_path):
    run = made_run(tmp_path / "run", "lora")
    forge(run, json.loads((run.files.adapter / "rlvr_lite.json").read_text()) | {"base": base})
    refused("damaged", run)


@pytest.mark.parametrize("name", ["tokens", "logits"])
@pytest.mark.parametrize("value", [None, "x", [], {"a": 1}, [{"a": {}}], [["1"]], [[1e400]], [[10**30]]])
def test_a_fingerprint_of_other_types_is_damage(name, value, run):
    stored = json.loads((run.files.adapter / "rlvr_lite.json").read_text())
    stored["facts"]["fingerprint"][name] = value
    (run.files.adapter / "rlvr_lite.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="damaged"):
        recorded_fingerprint(run.files.adapter)


@pytest.mark.parametrize("value", ["[]", "null", "5", '{"r"'])
def test_a_configuration_for_peft_that_is_none(value, run):
    path = run.files.adapter / "adapter_config.json"
    path.write_text(value)
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        write_adapter(Trained(run, None, None, None), run.directory)  # type: ignore[arg-type]


def test_a_failed_run_whose_adapter_is_not_the_policy_is_forced_all_the_same(tmp_path):
    run = made_run(tmp_path / "run", "lora")
    stored = json.loads((run.files.adapter / "rlvr_lite.json").read_text())
    stored["facts"]["fingerprint"]["logits"][0][0] += 3.0
    forge(run, stored)
    refused("not the trained one", run)
    refused("force", failed(run, "parity"))
    folder = run.export(force=True, progress=False)
    assert json.loads((folder / "export.json").read_text())["parity"] > 1e-3


def test_a_damaged_or_missing_adapter(run):
    with open(run.files.adapter / "adapter_model.safetensors", "ab") as file:
        file.write(b"x")
    refused("damaged", run)
    shutil.rmtree(run.files.adapter)
    refused("no adapter", run)


def test_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"no run|not a run"):
        rlvr_lite.export(tmp_path, progress=False)


def test_a_disk_without_space_is_noticed_before_anything_is_written(run, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    refused("GB left: free some space", run, "merged")
    assert not (run.directory / "export").exists()


FULL = "No space left on device"


@pytest.mark.parametrize(
    "error",
    [OSError(28, FULL), SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28)")],
    ids=["Python", "safetensors"],
)
def test_a_disk_that_fills_up_while_writing_leaves_nothing(error, run, monkeypatch):
    def full(*args, **options):
        raise error

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    refused("free some space", run, "merged")
    assert not (run.directory / "export").exists()


def test_a_target_that_cannot_be_made(run, tmp_path):
    (tmp_path / "file").write_text("")
    refused("cannot write in .*choose another --out", run, "adapter", tmp_path / "file" / "below")
    assert [path.name for path in tmp_path.iterdir() if path != run.directory] == ["file"]


def test_weights_too_large_for_fp16(tmp_path):
    run = made_run(tmp_path / "run", "ln_tuning", steps=10_000_000)
    refused("which fp16 cannot", run, "merged", dtype="fp16")


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_the_command_line_says_the_same_in_one_line(run, capsys):
    path = str(run.directory)
    assert "did you mean 'merged'" in error_of(capsys, "export", path, "--to", "mergd")
    assert "nowhere" in error_of(capsys, "export", "nowhere")
    assert "without a name" in error_of(capsys, "export", path, "--to", "hub")
    assert "no export" in error_of(capsys, "verify-export", path)
    assert "nowhere" in error_of(capsys, "chat", "nowhere")
