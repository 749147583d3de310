"""The live probe against the full analysis, and the alarm on simulated runs."""

import math
import random

import pytest
import torch

from rlvr_lite.analysis.spectrum import CollapseAlarm, SpectrumProbe, Update, compare_updates, probe_base
from rlvr_lite.errors import UserError
from tests.analysis.test_spectrum import make_factors, make_weight

SHAPES = [(64, 64), (90, 45), (25, 90)]


def make_run(size=0.05, factors=make_factors):
    return [
        Update(f"layers.{i}.q_proj", make_weight(shape, 10 * i).float(), factors(shape, size=size, seed=100 + i))
        for i, shape in enumerate(SHAPES)
    ]


def make_probe(run, **options):
    return SpectrumProbe({update.name: probe_base(update.base) for update in run}, **options)


@pytest.mark.parametrize("dense", [False, True])
def test_probe_agrees_with_the_full_analysis(dense):
    run = make_run()
    if dense:
        run = [Update(update.name, update.base, dense=update.delta()) for update in run]
    full = compare_updates({"run": run}).runs[0]
    found = make_probe(run).measure(run)
    for side in ("right", "left"):
        bins = full.bins(side)
        assert found[f"spectrum/top_{side}"] == pytest.approx(bins[0].ratio, rel=1e-4)
        assert found[f"spectrum/bottom_{side}"] == pytest.approx(bins[-1].ratio, rel=1e-4)
    norms = [matrix.relative_norm for matrix in full.matrices]
    assert found["spectrum/relative_norm"] == pytest.approx(sum(norms) / len(norms), rel=1e-5)
    assert all(type(value) is float and math.isfinite(value) for value in found.values())


def test_probe_of_a_large_weight_follows_the_top_only():
    weight = make_weight((700, 600)).float()
    run = [Update("q", weight, make_factors((700, 600)))]
    found = make_probe(run).measure(run)
    assert "spectrum/bottom_right" not in found
    exact = compare_updates({"run": run}).runs[0].bins("left")[0].ratio
    assert found["spectrum/top_left"] == pytest.approx(exact, rel=0.1)


def test_probe_at_the_start_of_a_run_where_the_update_is_zero():
    run = make_run(size=0.0)
    found = make_probe(run).measure(run)
    assert found["spectrum/relative_norm"] == 0
    assert "spectrum/top_right" not in found


def test_probe_leaves_matrices_out_that_did_not_move():
    run = make_run()
    still = Update(run[0].name, run[0].base, (torch.zeros(64, 2), torch.ones(2, 64), 1.0))
    found = make_probe(run).measure([still, *run[1:]])
    moved = make_probe(run[1:]).measure(run[1:])
    assert found["spectrum/top_right"] == pytest.approx(moved["spectrum/top_right"])


def test_probe_sees_the_energy_move_to_the_top():
    weight = make_weight((60, 60))
    u, _, vh = torch.linalg.svd(weight)
    probe = SpectrumProbe({"q": probe_base(weight)})
    random_part = torch.randn(60, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def at(share):
        change = share * u[:, :6] @ vh[:6] + (1 - share) * 0.1 * random_part
        return probe.measure([Update("q", weight, dense=change)])["spectrum/top_right"]

    assert 0.5 < at(0.0) < 1.6
    assert at(0.0) < at(0.5) < at(0.9)
    assert at(1.0) == pytest.approx(10)


@pytest.mark.parametrize("dense", [False, True])
def test_probe_of_a_diverged_run_gives_no_number_and_the_alarm_says_so(dense):
    run = make_run()
    b, a, scale = run[0].factors
    broken = {"dense": math.nan * b @ a} if dense else {"factors": (math.nan * b, a, scale)}
    found = make_probe(run).measure([Update(run[0].name, run[0].base, **broken), *run[1:]])
    assert math.isnan(found["spectrum/relative_norm"])
    assert "relative_norm is not a finite number" in CollapseAlarm().see({"step": 3, **found})


def test_probe_of_vectors_follows_their_norm():
    updates = [Update(f"norm{i}", torch.full((4,), 2.0), dense=torch.tensor([0.0, 0.4, 0.0, 0.0])) for i in range(2)]
    found = SpectrumProbe({update.name: probe_base(update.base) for update in updates}).measure(updates)
    assert found["spectrum/relative_norm"] == pytest.approx(0.1)
    assert set(found) == {"spectrum/relative_norm", "spectrum/seconds"}


def test_probe_measures_when_due_and_refuses_what_it_does_not_know():
    run = make_run()
    probe = make_probe(run, every=5)
    assert [step for step in range(1, 16) if probe.due(step)] == [5, 10, 15]
    with pytest.raises(UserError, match="none of the trained modules"):
        probe.measure([Update("other", run[0].base, run[0].factors)])
    with pytest.raises(UserError):
        SpectrumProbe({}, every=0)


def simulate(
    alarm, level, steps, *, seed=0, entropy=lambda i: 0.5, length=lambda i: 100.0, cut=lambda i: 0.0, more=None
):
    """Rewards of 16 prompts of varying difficulty, 8 samples each; returns the first (step, sentence) of an alarm."""
    rng = random.Random(seed)
    for i in range(steps):
        right = 0
        for _ in range(16):
            p = 1 / (1 + math.exp(-(level(i) + rng.gauss(0, 1.5))))
            right += sum(rng.random() < p for _ in range(8))
        row = {
            "step": i,
            "reward": right / 128,
            "entropy": entropy(i) * math.exp(rng.gauss(0, 0.05)),
            "completions/mean_length": length(i) * math.exp(rng.gauss(0, 0.05)),
            "completions/clipped_ratio": cut(i),
        } | (more(i) if more else {})
        sentence = alarm.see(row)
        if sentence:
            return i, sentence
    return None


@pytest.mark.parametrize("level", [-3, -1, 0, 2])
def test_alarm_keeps_quiet_while_the_reward_only_wobbles(level):
    assert not [seed for seed in range(5) if simulate(CollapseAlarm(), lambda i: level, 200, seed=seed)]


def test_alarm_keeps_quiet_while_a_run_learns_and_answers_grow():
    """Longer answers and more entropy with a rising reward are what reasoning training often looks like."""
    for seed in range(5):
        found = simulate(
            CollapseAlarm(),
            lambda i: -2 + i / 50,
            200,
            seed=seed,
            entropy=lambda i: 0.2 + i / 100,
            length=lambda i: 50 + i * 3,
        )
        assert found is None


def test_alarm_finds_a_collapse_soon_and_says_what_it_saw():
    def level(i):
        return -1 + min(i, 60) / 30 - max(0, min(i - 80, 10))

    for seed in range(5):
        step, sentence = simulate(CollapseAlarm(), level, 200, seed=seed)
        assert 80 <= step <= 100
        assert sentence.startswith("reward fell from 0.")
        assert str(step) in sentence


def test_alarm_needs_less_of_a_fall_when_something_else_went_wrong():
    def level(i):
        return 1.0 if i < 60 else 0.0

    assert simulate(CollapseAlarm(), level, 150) is None
    _, sentence = simulate(CollapseAlarm(), level, 150, entropy=lambda i: 0.5 if i < 60 else 2.0)
    assert "entropy rose from 0.5" in sentence
    _, sentence = simulate(CollapseAlarm(), level, 150, length=lambda i: 100.0 if i < 60 else 400.0)
    assert "length rose" in sentence
    _, sentence = simulate(CollapseAlarm(), level, 150, cut=lambda i: 0.0 if i < 60 else 0.9)
    assert "cut off" in sentence
    _, sentence = simulate(
        CollapseAlarm(), level, 150, more=lambda i: {"spectrum/top_left": 1.0 if i < 60 else 4.0} if i % 10 == 0 else {}
    )
    assert "leading output directions (1.0x to 4.0x random)" in sentence


def test_alarm_finds_a_collapse_within_the_first_window():
    """As with a learning rate far too high: one step has rewards, then there is nothing but long noise."""
    lost = {"length": lambda i: 6.5 if i == 0 else 50.0, "cut": lambda i: 0.0 if i == 0 else 0.85}
    step, sentence = simulate(CollapseAlarm(), lambda i: -1.0 if i == 0 else -9.0, 40, **lost)
    assert step <= 12
    assert "first step" in sentence
    assert "length rose from" in sentence
    assert "cut off" in sentence
    large = {"more": lambda i: {"spectrum/relative_norm": 50.0} if i % 5 == 4 else {}}
    _, sentence = simulate(CollapseAlarm(), lambda i: -1.0 if i == 0 else -9.0, 40, **large)
    assert "50x as large" in sentence
    assert simulate(CollapseAlarm(), lambda i: -1.0 if i == 0 else -9.0, 40) is None  # a lucky step looks the same


def test_alarm_keeps_quiet_after_a_lucky_first_step():
    """Sixteen samples a step, 300 runs whose answers also grow: what is rare must not look like a collapse."""
    rng = random.Random(1)
    for _ in range(300):
        alarm = CollapseAlarm()
        for i in range(60):
            reward = sum(rng.random() < 0.2 for _ in range(16)) / 16
            length = 100 * (1 + i / 60) * math.exp(rng.gauss(0, 0.1))
            row = {"step": i, "reward": reward, "completions/mean_length": length, "completions/clipped_ratio": 0.1}
            assert alarm.see(row) is None


def test_alarm_on_exploding_entropy_without_a_reward_to_lose():
    found = simulate(CollapseAlarm(), lambda i: -4, 100, entropy=lambda i: 0.3 if i < 40 else 3.0)
    assert found is not None
    assert "entropy rose" in found[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, None])  # None is what JSON makes of the others
@pytest.mark.parametrize("key", ["entropy", "spectrum/relative_norm"])
def test_alarm_names_what_is_not_a_number(key, value):
    alarm = CollapseAlarm()
    assert alarm.see({"step": 1, "reward": 0.5, "entropy": 0.1}) is None
    assert alarm.see({"step": 2, "reward": 0.5, key: value}) == f"{key} is not a finite number at step 2"


@pytest.mark.parametrize("value", [math.nan, None])
def test_alarm_passes_over_steps_without_a_valid_reward(value):
    alarm = CollapseAlarm(window=5)
    said = [alarm.see({"step": i, "reward": 0.6 if i < 20 else 0.1 if i % 2 else value}) for i in range(40)]
    assert not any(said[:20])
    assert any(said)


def test_alarm_works_on_negative_rewards():
    alarm = CollapseAlarm(window=5)
    assert not any(alarm.see({"reward": -0.5 + 0.01 * (i % 2)}) for i in range(50))
    assert any(alarm.see({"reward": -1.0}) for _ in range(10))


def test_alarm_replayed_after_a_resume_says_the_same():
    rng = random.Random(0)
    rows = [{"step": i, "reward": (0.6 if i < 40 else 0.05) + rng.gauss(0, 0.05)} for i in range(60)]
    whole, resumed = CollapseAlarm(), CollapseAlarm()
    straight = [whole.see(row) for row in rows]
    for row in rows[:45]:
        resumed.see(row)
    assert [resumed.see(row) for row in rows[45:]] == straight[45:]
    assert any(straight)


def test_alarm_ignores_evaluation_rows():
    alarm = CollapseAlarm(window=3)
    assert [alarm.see({"eval_reward": 0.1}) for _ in range(5)] == [None] * 5
    with pytest.raises(UserError):
        CollapseAlarm(window=1)
