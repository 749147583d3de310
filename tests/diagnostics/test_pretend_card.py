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
#: One of each kind of layer, optimizer, penalty, file and base that a whole life treats apart.
METHODS = ("lora", "dora", "adalora", "vera", "full", "lora_fa")
EXPORTED = ("full", "lora_fa")
#: Differ in their layers only, which training, proof and loading back go through.
TRAINED = ("miss", "pissa", "oft", "ia3", "ln_tuning")
#: Of a step of two groups with prompts of two lengths, rollout included: 24 decoded tokens have two looks of the host.
MOST_WAITS = 120
#: By one source line, but where each layer's norm is looked at once a step.
MOST_OF_A_LINE = 4
LAYERS = 21
#: Words of what is said of a machine, and where a run goes on; ``None`` where it is refused.
MACHINES = {
    "no driver": (("no driver",), "cpu"),
    "old driver": (("470.57", "11.4", "12.8"), "cpu"),
    "P100": (("6.0", "7.5"), None),
    "in use": (("9.0 of 12.0 GiB", "process 7"), "Pretend card 0"),
    "in use from outside of the container": (("8.0 of 12.0 GiB", "container"), "Pretend card 0"),
    "forked": (("spawn",), None),
    "bitsandbytes": (("CUDA 14.0",), None),
}
#: CUDA_VISIBLE_DEVICES, and the card that is used.
VISIBLE = {"None": "Pretend card 0", "1": "Pretend card 1", "0,7": "Pretend card 0", "": None, "first": None}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("life")
    command = [sys.executable, "-m", "tests.pretend_life", str(out), *METHODS, "only", *TRAINED]
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
    assert method not in EXPORTED or any(name.endswith(".safetensors") for name in life["exported"])


@pytest.mark.parametrize("method", TRAINED)
def test_a_run_with_other_layers_trains_and_is_loaded_back(found, method):
    run = found["trained"][method]
    assert (run["device"], run["status"], run["precision"], run["steps"]) == ("cuda:0", "done", "bf16", [1, 2])


@pytest.mark.parametrize("method", METHODS + TRAINED)
def test_waits_of_a_step_are_bounded(found, method):
    waits = (found["lives"] | found["trained"])[method]["waits"]
    assert sum(waits.values()) <= MOST_WAITS, waits
    layers = {where: count for where, count in waits.items() if "methods/_fast_dora.py" in where}
    assert sum(layers.values()) == (LAYERS if method == "dora" else 0)
    assert max(count for where, count in waits.items() if where not in layers) <= MOST_OF_A_LINE, waits


def test_the_check_up_runs_on_a_card_of_7_5(found):
    checks = found["checks"]
    assert {name: said for name, said in checks.items() if said[0] != "ok"} == {}
    assert "7.5" in checks["card"][1]
    assert "recovered" in checks["out of memory"][1]


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_in_the_way_is_one_line_in_a_run_and_the_same_in_the_check_up(found, machine):
    words, device = MACHINES[machine]
    said = found["machines"][machine]
    (line,) = said["said"] if device else [said["refused"]]
    assert said["doctor"] == [line]
    assert "\n" not in line
    assert not [word for word in words if word not in line]
    assert (said["device"], said["written"]) == (device, False)


@pytest.mark.parametrize("value", VISIBLE)
def test_the_cards_that_the_user_left_are_those_that_are_used(found, value):
    card, said = VISIBLE[value], found["visible"][value]
    assert (said["device"], said["planned"]) == (card or "cpu", card)
    assert said["said"] == said["doctor"]
    assert len(said["said"]) == (card is None)
    assert card is not None or f"CUDA_VISIBLE_DEVICES={value!r}" in said["said"][0]


def test_a_base_on_the_cpu_is_trained_there_beside_a_card(found):
    assert found["base on the CPU"] == ["done", "fp32"]


def test_a_first_step_without_signal_is_one_in_fp16_too(found):
    assert found["no signal in fp16"] == ["done", "fp16"]


def test_decoding_steps_are_replayed_from_graphs(found):
    assert found["graphs"] > 3 * 24  # of 24 tokens a rollout in three steps, all but the first of each shape
