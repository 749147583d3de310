"""The trainer stands on TRL's own class and configuration, also where Unsloth has put its own into ``trl``."""

import dataclasses
import importlib.util
import inspect
import sys

import pytest
import trl

from rlvr_lite.errors import UserError
from rlvr_lite.training import GRPOTrainer, _stock
from rlvr_lite.training._supported import refuse_unsupported


@pytest.fixture
def again(monkeypatch):
    """The module as it is made in a process where ``trl`` was rewritten before it was imported."""
    for name in ("GRPOTrainer", "GRPOConfig"):
        other = type(f"Unsloth{name}", (getattr(trl, name),), {"__module__": f"Unsloth{name}"})
        monkeypatch.setattr(trl, name, other)
    for name in ("trl.trainer._stock_grpo_config", "trl.trainer._stock_grpo_trainer"):
        monkeypatch.setitem(sys.modules, name, None)  # gone again afterwards
    spec = importlib.util.spec_from_file_location("stock_again", _stock.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_untouched_trl_is_taken_as_it_is():
    assert _stock.GRPOTrainer is trl.GRPOTrainer
    assert _stock.GRPOConfig is trl.GRPOConfig
    assert issubclass(GRPOTrainer, trl.GRPOTrainer)


def test_a_rewritten_trl_is_read_from_its_source_again(again, tmp_path):
    assert not again.GRPOTrainer.__name__.startswith("Unsloth")
    assert inspect.getsource(again.GRPOTrainer) == inspect.getsource(_stock.GRPOTrainer)
    ours, theirs = (
        c(output_dir=str(tmp_path), use_cpu=True, bf16=False) for c in (again.GRPOConfig, _stock.GRPOConfig)
    )
    different = {f.name for f in dataclasses.fields(ours) if getattr(ours, f.name) != getattr(theirs, f.name)}
    assert different <= {"accelerator_config", "logging_dir", "run_name"}  # objects, and the time of day


def test_a_configuration_of_unsloth_is_refused(again, tmp_path):
    with pytest.raises(UserError, match=r"take rlvr_lite\.training\.GRPOConfig instead") as error:
        refuse_unsupported(trl.GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False))
    assert "\n" not in str(error.value)
