"""Advantages: TRL's numbers, invalid samples, and groups without a signal."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.grpo import group_advantages, live_groups, select_groups

REWARD = st.sampled_from([0.0, 0.1, 1 / 3, 1.0, 2.5, float("nan")])


def rewards_of(groups: list[list[float]]) -> torch.Tensor:
    return torch.tensor(groups, dtype=torch.float32)


@st.composite
def reward_groups(draw: st.DrawFn) -> torch.Tensor:
    size = draw(st.integers(2, 6))
    return rewards_of(draw(st.lists(st.lists(REWARD, min_size=size, max_size=size), min_size=1, max_size=5)))


def trl_advantages(rewards: torch.Tensor, scale: str) -> torch.Tensor:
    """The arithmetic of TRL 1.16's _generate_and_score_completions for one reward function."""
    from trl.trainer.utils import nanstd

    flat, size = rewards.flatten(), rewards.shape[1]
    mean = torch.nanmean(rewards, 1).repeat_interleave(size)
    std = nanstd(flat).expand_as(flat) if scale == "batch" else nanstd(rewards, dim=1).repeat_interleave(size)
    advantages = flat - mean
    if scale != "none":
        advantages = advantages / (std + 1e-4)
    return torch.nan_to_num(advantages, nan=0.0).view_as(rewards)


@given(reward_groups(), st.sampled_from(["group", "batch", "none"]))
@settings(max_examples=60, deadline=None)
def test_same_numbers_as_trl(rewards: torch.Tensor, scale: str) -> None:
    ours = group_advantages(rewards, scale=scale)  # type: ignore[arg-type]
    theirs = trl_advantages(rewards, scale)
    live = live_groups(rewards)
    torch.testing.assert_close(ours[live], theirs[live], rtol=1e-5, atol=1e-6)
    assert theirs[~live].abs().max().item() < 1e-2 if (~live).any() else True  # rounding only
    assert (ours[~live] == 0).all()


@given(reward_groups())
@settings(max_examples=60, deadline=None)
def test_leave_one_out_is_the_mean_of_the_others(rewards: torch.Tensor) -> None:
    found = group_advantages(rewards, scale="none", leave_one_out=True)
    for group, row in enumerate(rewards.tolist()):
        for i, reward in enumerate(row):
            others = [r for j, r in enumerate(row) if j != i and r == r]
            expected = 0.0 if reward != reward or not others else reward - sum(others) / len(others)
            assert found[group, i].item() == pytest.approx(expected, abs=1e-5)


def test_invalid_samples_change_nothing_for_the_others() -> None:
    with_invalid = group_advantages(rewards_of([[1, float("nan"), 0, 0]]))
    without = group_advantages(rewards_of([[1, 0, 0]]))
    assert with_invalid[0, 1] == 0
    torch.testing.assert_close(with_invalid[0, [0, 2, 3]], without[0])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("value", [0.1, 1 / 3, 123.456])
def test_a_constant_group_is_exactly_zero(scale: str, value: float) -> None:
    rewards = rewards_of([[value] * 7, [0, 1, 0, 0, 0, 0, 0]])
    advantages = group_advantages(rewards, scale=scale)  # type: ignore[arg-type]
    assert (advantages[0] == 0).all()
    assert (advantages[1] != 0).all()


def test_half_precision_rewards_are_scored_in_single() -> None:
    advantages = group_advantages(rewards_of([[1, 0, 0, 0]]).half())
    assert advantages.dtype == torch.float32


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match="prompts, group"):
        group_advantages(torch.zeros(4))
    with pytest.raises(ValueError, match="median"):
        group_advantages(torch.zeros(2, 2), scale="median")  # type: ignore[arg-type]


@given(reward_groups(), st.integers(1, 6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_selection_keeps_live_groups_in_order(rewards: torch.Tensor, want: int, fill: bool) -> None:
    chosen, live = select_groups(rewards, want, fill=fill), live_groups(rewards)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    first_live = live.nonzero().squeeze(-1)[:want].tolist()
    assert set(first_live) <= set(chosen.tolist())
    if fill:
        assert len(chosen) == min(want, len(rewards))
    else:
        assert chosen.tolist() == first_live
