"""Configurations: what goes in comes out, and what cannot be is refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlvr_lite.config import AdapterConfig, RunConfig, SamplingConfig, from_json, to_json
from rlvr_lite.errors import UserError, unknown_name

configs = st.builds(
    RunConfig,
    method=st.sampled_from(["lora", "dora"]),
    seed=st.integers(0, 2**31),
    steps=st.none() | st.integers(1, 10**6),
    learning_rate=st.none() | st.floats(1e-9, 1e3),
    group_size=st.integers(2, 64),
    loss_options=st.dictionaries(st.text(), st.floats(0.1, 10)),
    clip_high=st.floats(0, 10),
    targets=st.none() | st.just(("q_proj", "v_proj")),
    rewards=st.just(("accuracy",)),
    task_options=st.dictionaries(st.text(), st.integers() | st.booleans() | st.text()),
    max_hours=st.none() | st.floats(0.01, 100),
)


@given(configs)
@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws as slowly
def test_json_round_trip(config):
    again = from_json(RunConfig, to_json(config))
    assert again == config
    assert to_json(again) == to_json(config)


def test_unknown_key_offers_the_nearest():
    with pytest.raises(UserError, match="learning_rate"):
        from_json(RunConfig, '{"learningrate": 1}')


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(UserError):
        from_json(RunConfig, text)


@pytest.mark.parametrize(
    "change",
    [
        {"group_size": 1},
        {"group_size": 10**9},
        {"prompts_per_step": 10**9},
        {"eval_k": 10**9},
        {"steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"temperature": 0.0},
        {"clip_low": 1.0},
        {"clip_high": -0.1},
        {"kl_coef": -1.0},
        {"rank": 0},
        {"alpha": 0.0},
        {"alpha": float("inf")},
        {"targets": ()},
        {"rewards": ()},
        {"reward_weights": (1.0, 2.0)},
        {"precision": "int8"},
        {"micro_batch": 0},
        {"eval_k": 0},
        {"max_hours": 0.0},
        {"keep_checkpoints": 0},
        {"seed": -1},
        # types
        {"steps": "40"},
        {"steps": 2.5},
        {"seed": True},
        {"group_size": 4.0},
        {"max_resample": 1.5},
        {"learning_rate": "1e-3"},
        {"learning_rate": True},
        {"kl_coef": float("inf")},
        {"clip_high": float("nan")},
        {"clip_high": 10**400},
        {"reward_weights": (-(10**400),)},
        {"eval_before": "no"},
        {"eval_before": 0},
        {"method": None},
        {"method": ["lora", "dora"]},
        {"base": 3},
        {"targets": 3},
        {"targets": ("q_proj", None)},
        {"reward_weights": "high"},
        {"task_options": 3},
        {"task_options": {"operands": {}}},
        {"task_options": {3: "operands"}},
        {"method_options": {"ratio": float("nan")}},
        {"method_options": {"ratio": 10**400}},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(change):
    with pytest.raises(UserError) as caught:
        RunConfig(**change)
    assert "\n" not in str(caught.value)
    assert any(name in str(caught.value) for name in change)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"report_to": "tensorboard"}, ("tensorboard",)),
        ({"targets": ["q_proj", "v_proj"]}, ("q_proj", "v_proj")),
        ({"targets": "q_proj, v_proj"}, ("q_proj", "v_proj")),
        ({"reward_weights": 1}, (1.0,)),
        ({"learning_rate": 1}, 1.0),
        ({"seed": np.int64(3)}, 3),
        ({"learning_rate": np.float32(0.5)}, 0.5),
        ({"eval_before": np.bool_(False)}, False),
        ({"base": Path("models") / "mine"}, str(Path("models") / "mine")),
        ({"task_options": {"operands": [3, 4]}}, {"operands": (3, 4)}),
    ],
    ids=str,
)
def test_what_means_the_same_is_kept_in_the_type_of_the_field(given, kept):
    config = RunConfig(**given)
    value = getattr(config, *given)
    assert value == kept
    assert type(value) is type(kept)
    assert from_json(RunConfig, to_json(config)) == config


anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers() | st.text())
    | st.dictionaries(st.text(), st.none() | st.text() | st.floats())
)


@given(st.sampled_from([f.name for f in dataclasses.fields(RunConfig)]), anything)
def test_a_field_holds_its_type_or_is_refused_in_one_line(name, value):
    try:
        config = RunConfig(**{name: value})
    except UserError:  # one line by its class; anything else would be a raw error
        return
    assert from_json(RunConfig, to_json(config)) == config
    kept = getattr(config, name)
    of_three = name in ("gradient_checkpointing", "rollout_copy")  # yes, no, or left to the machine
    assert isinstance(kept, bool) == isinstance(getattr(RunConfig(), name), bool) or of_three
    if isinstance(value, bool | int | float) and not isinstance(kept, tuple):
        assert kept == value


@pytest.mark.parametrize(
    "change", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"max_completion_length": 0}]
)
def test_sampling_is_checked(change):
    with pytest.raises(UserError, match=next(iter(change))):
        SamplingConfig(**change)


def test_adapter_is_part_of_the_run():
    config = RunConfig(rank=8, alpha=16, targets=("q_proj",), method_options={"ratio": 4.0})
    assert config.adapter == AdapterConfig(rank=8, alpha=16, targets=("q_proj",), options={"ratio": 4.0})


def test_configurations_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunConfig().seed = 1


def test_errors_are_one_line_whatever_is_put_in():
    assert str(UserError("two\n  lines")) == "two lines"
    assert "'lora'" in str(unknown_name("method", "lorra", ["lora", "full"]))
    assert "full, lora" in str(unknown_name("method", "zzz", ["lora", "full"]))
