"""Shared fixtures: offline, two quiet threads, small random models, and the real files where they are at hand."""

from __future__ import annotations

import os
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "agg"

import pytest
import torch
from hypothesis import HealthCheck, settings
from packaging.requirements import Requirement

torch.set_num_threads(1)
# A busy machine draws and runs slowly, which is no failure of what is tested.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors where the newest set of versions is installed; elsewhere others' libraries may speak of it."""
    lines = (REPOSITORY / "tests" / "constraints" / "newest.txt").read_text().splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    if all(one.specifier.contains(version(one.name), prereleases=True) for one in wanted):
        config.getini("filterwarnings").insert(0, "error")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of benchmark files: RLVR_LITE_DATA, or shared/data beside the checkout."""
    path = Path(os.environ.get("RLVR_LITE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (path / "gsm8k_test.jsonl").is_file():
        pytest.skip("no benchmark files: set RLVR_LITE_DATA to the folder that holds gsm8k_test.jsonl and the others")
    return path


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of a real SmolLM2-135M-Instruct."""
    path = Path(os.environ.get("RLVR_LITE_SMOLLM2", ""))
    if not (path / "model.safetensors").is_file():
        pytest.skip("no real model: set RLVR_LITE_SMOLLM2 to a folder with SmolLM2-135M-Instruct")
    return path
