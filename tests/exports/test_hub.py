"""Pushing: never without a name, with the environment's token only, and with a card that says everything."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from types import SimpleNamespace

import pytest

import rlvr_lite
from rlvr_lite.errors import UserError
from rlvr_lite.exports import _hub as hub
from rlvr_lite.exports._model_card import card
from rlvr_lite.records import damage, hash_file
from tests.exports.helpers import failed, made_run


class FakeHub:
    """Stands for huggingface_hub.HfApi, and remembers what it was asked."""

    def __init__(self, error=None):
        self.calls, self.error, self.files = [], error, {}

    def create_repo(self, **options):
        if self.error:
            raise self.error
        self.calls.append(("create_repo", options))

    def upload_folder(self, **options):
        self.calls.append(("upload_folder", options))
        kept = [path for path in options["folder_path"].rglob("*") if path.is_file()]
        self.files |= {path.name: path.read_bytes() for path in kept}

    def model_info(self, name, revision):
        assert (name, revision) == ("owner/model", "abc")
        return SimpleNamespace(card_data={"license": "mit"})


@pytest.fixture
def fake(monkeypatch):
    made = FakeHub()
    tokens = []
    monkeypatch.setattr(hub, "_api", lambda token: tokens.append(token) or made)
    monkeypatch.setenv("HF_TOKEN", "secret-of-the-environment")
    made.tokens = tokens
    return made


def test_a_push_makes_a_private_repository_and_brings_every_file(run_of, fake, tmp_path, capsys):
    folder = rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo="me/my-adapter")
    assert fake.tokens == ["secret-of-the-environment"]
    assert [name for name, _ in fake.calls] == ["create_repo", "upload_folder"]
    assert all(options["repo_id"] == "me/my-adapter" for _, options in fake.calls)
    assert fake.calls[0][1]["private"] is True
    assert set(fake.files) == {path.name for path in folder.iterdir()}
    assert fake.files["README.md"].decode() == (folder / "README.md").read_text()
    assert damage(folder) is None
    assert "pushed" in capsys.readouterr().out


def test_the_real_client_takes_what_the_stand_in_took(run_of, fake, tmp_path):
    from huggingface_hub import HfApi

    rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo="me/x", progress=False)
    for name, options in fake.calls:
        assert options.keys() <= inspect.signature(getattr(HfApi, name)).parameters.keys()
    assert "token" in inspect.signature(HfApi).parameters
    assert {"repo_id", "revision"} <= inspect.signature(HfApi.model_info).parameters.keys()


def test_the_licence_of_a_hub_base_is_asked_for_and_what_is_pushed_still_proves_itself(exported, fake, tmp_path):
    folder = shutil.copytree(exported("lora", "adapter"), tmp_path / "out")
    facts = facts_of(folder)
    facts["base"] |= {"name": "owner/model", "revision": "abc"}
    (folder / "export.json").write_text(json.dumps(facts))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["export.json"] = hash_file(folder / "export.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    hub.push(folder, "me/x", public=False, dry_run=False, progress=False)
    assert "license: mit" in fake.files["README.md"].decode()
    assert damage(folder) is None
    assert json.loads(fake.files["manifest.json"])["files"]["README.md"] == hash_file(folder / "README.md")


def test_public_only_when_asked_for_and_any_form(run_of, fake, tmp_path):
    rlvr_lite.export(run_of("dora"), "hub", tmp_path / "out", repo="me/x", public=True, form="lora", rank=4)
    assert fake.calls[0][1]["private"] is False
    assert json.loads(fake.files["export.json"])["label"] == "lora-r4"


def test_a_dry_run_shows_the_card_and_touches_nothing(run_of, fake, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    folder = rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo="me/x", dry_run=True)
    shown = capsys.readouterr().out
    assert (folder / "README.md").read_text() in shown
    assert "adapter_model.safetensors" in shown
    assert "not pushed" in shown
    assert not fake.calls
    assert not fake.tokens
    monkeypatch.setenv("HF_TOKEN", "x")
    assert rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo="me/x") == folder  # what was shown is pushed
    assert fake.calls


def test_another_export_in_the_way_is_not_pushed(run_of, fake, tmp_path):
    rlvr_lite.export(run_of("lora"), "adapter", tmp_path / "out", progress=False)
    for run, options in ((run_of("dora"), {}), (run_of("lora"), {"form": "lora"})):
        with pytest.raises(UserError, match="not overwritten"):
            rlvr_lite.export(run, "hub", tmp_path / "out", repo="me/x", **options)
    (tmp_path / "out" / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="damaged"):
        rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo="me/x")
    assert not fake.calls


@pytest.mark.parametrize("repo", [None, "", "adapter", "a/b/c", "a b/c", "/x", "../x", "https://x/y"])
def test_without_an_owner_and_a_name_nothing_is_pushed(repo, run_of, fake, tmp_path):
    with pytest.raises(UserError, match="name"):
        rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo=repo)
    assert not fake.calls
    assert not (tmp_path / "out").exists()


def test_the_token_comes_from_the_environment_only(run_of, fake, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text("of-a-login")
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    with pytest.raises(UserError, match="HF_TOKEN"):
        rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo="me/x")
    assert not fake.tokens


def test_a_hub_that_refuses_is_one_line_without_the_token(run_of, fake, tmp_path):
    fake.error = RuntimeError("403 Forbidden\nmore")
    with pytest.raises(UserError, match="403 Forbidden") as caught:
        rlvr_lite.export(run_of("lora"), "hub", tmp_path / "out", repo="me/x")
    assert "secret" not in str(caught.value)


# The card


def facts_of(folder):
    return json.loads((folder / "export.json").read_text())


@pytest.mark.parametrize("to", ["adapter", "lora", "merged"])
def test_the_card_says_what_when_how_and_under_which_licence(to, exported, run_of):
    text = (exported("dora", to) / "README.md").read_text()
    head = text.split("---")[1]
    assert "license: apache-2.0" in head
    assert f"library_name: {'transformers' if to == 'merged' else 'peft'}" in head
    assert "tags: [rlvr, grpo, rlvr-lite, dora]" in head
    assert "2402.09353" in text
    assert re.search(r"\| greedy \| 0\.500 \[0\.400, 0\.600\]", text)
    assert "Identity" in text
    assert "Parity" in text
    assert f"| learning_rate | {run_of('dora').config.learning_rate} |" in text
    assert "Apache-2.0" in text
    assert "base_model" not in head  # the embedded base is not on the Hub
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    compile(code, "card", "exec")


@pytest.mark.parametrize("to", ["adapter", "merged"])
def test_the_code_of_the_card_loads_the_policy(to, exported, run_of):
    from tests.exports.test_forms import apart, policy

    folder = exported("lora", to, **({"dtype": "fp32"} if to == "merged" else {}))
    text = (folder / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1).replace("PATH_OR_NAME", str(folder))
    names: dict = {}
    exec(code, names)
    assert apart(names["model"], policy(run_of("lora"))) < 1e-4


def test_the_card_of_a_hub_base_pins_its_revision_and_quantisation(exported):
    facts = facts_of(exported("dora", "adapter"))
    facts["base"] |= {"name": "owner/model", "revision": "abc123", "precision": "nf4"}
    facts["config"]["task"] = "gsm8k"
    text = card(facts)
    assert "base_model: owner/model" in text
    assert "base_model_relation: adapter" in text
    assert "revision='abc123'" in text
    assert "load_in_4bit=True" in text
    assert "Base: not known here" in text
    assert "Training data (`gsm8k`): MIT" in text
    assert "license: mit" in card(facts, licence="mit")
    compile(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), "card", "exec")


def test_a_path_of_this_machine_stays_out_of_the_card(exported):
    facts = facts_of(exported("dora", "adapter"))
    facts["base"] |= {"name": "/home/somebody/secret-folder/model-7b", "revision": None}
    facts["config"]["task"] = "mine.jsonl"
    text = card(facts)
    assert "/home" not in text
    assert "model-7b" in text
    assert "not known here" in text


def test_a_failed_run_is_marked_at_the_top(tmp_path):
    run = failed(made_run(tmp_path / "run", "lora"))
    text = (run.export(force=True, progress=False) / "README.md").read_text()
    assert text.index("failed its proof") < text.index("## ")
