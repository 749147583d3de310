"""Configurations: what goes in comes out, and what cannot be is refused in one line."""

from __future__ import annotations

import dataclasses

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
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(change):
    with pytest.raises(UserError) as caught:
        RunConfig(**change)
    assert "\n" not in str(caught.value)
    assert any(name in str(caught.value) for name in [*change, "full"])


@pytest.mark.parametrize(
    "change", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": -1}, {"max_new_tokens": 0}]
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
