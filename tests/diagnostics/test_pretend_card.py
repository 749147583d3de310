"""A whole life on a pretend card: nothing mixes devices, and the host waits for the card no more often than it has to."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tests.docs.reader import REPOSITORY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real card"),
]
METHODS = ("lora", "dora", "adalora", "miss", "vera", "pissa", "oft", "full", "ia3", "ln_tuning", "lora_fa")
#: Of a step of two groups, rollout included: 24 decoded tokens have two looks of the host.
MOST_WAITS = 100
#: By one source line, but where each layer's norm is looked at once a step.
MOST_OF_A_LINE = 4
LAYERS = 21


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("life")
    command = [sys.executable, "-m", "tests.pretend_life", str(out), *METHODS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("method", METHODS)
def test_a_run_trains_resumes_is_scored_and_exported(found, method):
    life = found["lives"][method]
    assert found["device"] == "cuda:0"
    assert life["device"] == ("cuda:1" if method == METHODS[-1] else "cuda:0")
    assert (life["status"], life["precision"]) == ("done", "bf16")
    assert life["steps"] == [1, 2, 3]
    assert life["scored"] == "Evaluation"
    assert life["spectrum"] == "Spectrum"
    assert any(name.endswith(".safetensors") for name in life["exported"])


@pytest.mark.parametrize("method", METHODS)
def test_waits_of_a_step_are_bounded(found, method):
    waits = found["lives"][method]["waits"]
    assert sum(waits.values()) <= MOST_WAITS, waits
    layers = {where: count for where, count in waits.items() if "methods/_fast_dora.py" in where}
    assert sum(layers.values()) == (LAYERS if method == "dora" else 0)
    assert max(count for where, count in waits.items() if where not in layers) <= MOST_OF_A_LINE, waits


def test_the_check_up_runs_on_a_card_of_7_5(found):
    checks = found["checks"]
    assert {name: said for name, said in checks.items() if said[0] != "ok"} == {}
    assert "7.5" in checks["card"][1]
    assert "recovered" in checks["out of memory"][1]


def test_decoding_steps_are_replayed_from_graphs(found):
    assert found["graphs"] > 3 * 24  # of 24 tokens a rollout in four steps, all but the first of each shape
