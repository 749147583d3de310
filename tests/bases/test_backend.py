import subprocess
import sys
import types

import pytest
import torch

from rlvr_lite import bases
from rlvr_lite.bases import _backend, import_unsloth
from rlvr_lite.bases._backend import claim
from rlvr_lite.errors import UserError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


@pytest.fixture
def fresh(monkeypatch):
    """No base loaded yet, and no Unsloth."""
    monkeypatch.setattr(_backend, "_claimed", None)
    for name in [name for name in sys.modules if name.split(".")[0] == "unsloth"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def unsloth(fresh, monkeypatch):
    """Something that looks like Unsloth, imported in time."""
    module = types.ModuleType("unsloth")
    module.DEVICE_TYPE = "cuda"
    monkeypatch.setitem(sys.modules, "unsloth", module)
    monkeypatch.setattr(_backend, "_began", lambda package: 0.0)
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    return module


def test_transformers_is_what_auto_takes(fresh):
    assert claim("auto") == claim("transformers") == "transformers"
    assert bases.load("tiny").backend == "transformers"


def test_auto_takes_unsloth_where_it_was_imported(unsloth):
    assert claim("auto") == claim("unsloth") == "unsloth"


def test_unsloth_without_a_gpu_is_one_line(fresh):
    with pytest.raises(UserError, match="needs a CUDA GPU, and PyTorch finds none: leave --backend out") as error:
        bases.load("tiny", backend="unsloth")
    assert "\n" not in str(error.value)
    assert bases.load("tiny").backend == "transformers"  # a refusal binds the process to nothing


def test_unsloth_that_is_not_installed(fresh, monkeypatch):
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'rlvr-lite\[unsloth\]'"):
        claim("unsloth")


def test_unsloth_after_transformers_is_too_late(fresh, monkeypatch):
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(UserError, match="must be imported before transformers, and is not: start Python anew"):
        claim("unsloth")
    assert "unsloth" not in sys.modules


def test_unsloth_imported_late_by_hand_is_noticed(fresh, monkeypatch):
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    monkeypatch.setitem(sys.modules, "unsloth", types.ModuleType("unsloth"))
    with pytest.raises(UserError, match="was imported after transformers, which it could not patch in time"):
        import_unsloth()


@pytest.mark.parametrize("device", ["cpu", "mlx", None])
def test_unsloth_on_something_else_than_a_card(unsloth, device):
    unsloth.DEVICE_TYPE = device
    with pytest.raises(UserError, match=f"Unsloth runs on {device}"):
        claim("unsloth")


def test_one_backend_a_process(unsloth, monkeypatch):
    claim("unsloth")
    with pytest.raises(UserError, match="has loaded a base with unsloth, and transformers cannot share a process"):
        claim("transformers")
    monkeypatch.setattr(_backend, "_claimed", "transformers")
    with pytest.raises(UserError, match="has loaded a base with transformers, and unsloth cannot share a process"):
        claim("unsloth")


def test_transformers_beside_an_imported_unsloth(unsloth):
    with pytest.raises(UserError, match="has rewritten classes of transformers and PEFT"):
        claim("transformers")


def test_what_must_come_first_loads_nothing_heavy():
    code = (
        "import rlvr_lite.bases._backend, rlvr_lite.bases, sys; "
        "print(*sorted(m for m in ('torch', 'transformers', 'peft', 'trl') if m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
