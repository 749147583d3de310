"""A run that is killed and started again is the run that was left alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from rlvr_lite.errors import UserError
from rlvr_lite.training import _checkpoints as checkpoints
from rlvr_lite.training._callbacks import CleanStop
from tests.training.helpers import policy, sparse, trained, trainer


def _weights(made):
    return torch.cat([t.flatten() for t in trained(made.model).values()])


def _lines(made):
    clocks = ("time", "per_second")
    return [{k: v for k, v in row.items() if not any(c in k for c in clocks)} for row in made.metrics_log.rows()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_resample": 2, "reward": sparse},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8},
        {"num_iterations": 2},  # step 3 lies inside a generation batch: its rollouts travel with the checkpoint
        {"steps_per_generation": 4, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 8},
        {"lr_scheduler_type": "linear", "warmup_steps": 2, "weight_decay": 0.1},
        {"micro_batch": 3, "beta": 0.1},
    ],
    ids=lambda options: ",".join(options) or "plain",
)
def test_resume_is_bit_equal(tmp_path, options):
    """Eight prompts, four a step: from step 3 on the second epoch is under way."""
    whole = trainer(tmp_path / "whole", max_steps=6, **options)
    whole.train()
    first = trainer(tmp_path / "broken", max_steps=6, save_strategy="steps", save_steps=3, **options)
    first.train()
    checkpoint = tmp_path / "broken" / "checkpoint-3"
    second = trainer(tmp_path / "broken", max_steps=6, **options)
    second.train(resume_from_checkpoint=str(checkpoint))
    assert torch.equal(_weights(whole), _weights(first))
    assert torch.equal(_weights(whole), _weights(second))
    assert _lines(whole) == _lines(second)
    assert whole.rollout_log.path.read_bytes() == second.rollout_log.path.read_bytes()


def test_dropout_goes_on_with_the_numbers_it_would_have_drawn(tmp_path):
    whole = trainer(tmp_path / "whole", policy(dropout=0.2), max_steps=4)
    whole.train()
    first = trainer(tmp_path / "broken", policy(dropout=0.2), max_steps=4, save_strategy="steps", save_steps=2)
    first.train()
    torch.rand(7)  # whatever the process did in between
    second = trainer(tmp_path / "broken", policy(dropout=0.2), max_steps=4)
    second.train(resume_from_checkpoint=str(tmp_path / "broken" / "checkpoint-2"))
    assert torch.equal(_weights(whole), _weights(second))


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    first = trainer(tmp_path, max_steps=2, save_strategy="steps", save_steps=1)
    first.train()
    lines = _lines(first)
    again = trainer(tmp_path, max_steps=2)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 2
    assert torch.equal(_weights(first), _weights(again))
    assert _lines(again) == lines
    assert again.gradients_seen == first.gradients_seen


def test_checkpoints_hold_no_pickle_and_are_pruned(tmp_path):
    made = trainer(tmp_path, max_steps=4, save_strategy="steps", save_steps=1, save_total_limit=2)
    made.train()
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} <= {".json", ".safetensors", ".jsonl", ".jinja"}


def test_a_torn_checkpoint_is_skipped_and_named(tmp_path, caplog):
    made = trainer(tmp_path, max_steps=3, save_strategy="steps", save_steps=1)
    made.train()
    weights = tmp_path / "checkpoint-3" / "trained.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    (tmp_path / "checkpoint-2" / "optimizer.json").unlink()
    assert checkpoints.newest_good(tmp_path) == tmp_path / "checkpoint-1"
    assert "checkpoint-3/trained.safetensors" in caplog.text
    assert "checkpoint-2/optimizer.json" in caplog.text
    again = trainer(tmp_path, max_steps=3)
    again.train(resume_from_checkpoint=True)
    assert torch.equal(_weights(made), _weights(again))


@pytest.mark.parametrize("name", ["trainer_state", "logs", "generators", "trained", "manifest"])
def test_a_named_checkpoint_that_is_damaged_is_refused_in_one_line(tmp_path, name):
    trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    file = tmp_path / "checkpoint-1" / f"{name}.json"
    again = trainer(tmp_path, max_steps=3)
    before = _weights(again)
    for data in ("null", "[]", "{}", '{"global_step": "3"}', '{"global_step"', "", None):
        file.unlink() if data is None else file.write_text(data)
        with pytest.raises(UserError) as caught:
            again.train(resume_from_checkpoint=str(file.parent))
        assert "\n" not in str(caught.value)
        assert torch.equal(_weights(again), before)
    assert checkpoints.newest_good(tmp_path) is None


@pytest.mark.parametrize(
    "data", ["null", "[]", "{}", '{"global_step": "3"}', '{"global_step": 1, "x": 2}', "[1", "", None]
)
def test_the_state_of_a_checkpoint_of_trl_that_is_damaged_is_refused_in_one_line(tmp_path, data):
    if data is not None:
        (tmp_path / "trainer_state.json").write_text(data)
    with pytest.raises(UserError) as caught:
        checkpoints.check(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_of_trl_that_are_damaged_are_refused_in_one_line(tmp_path):
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 1}')
    for data in (b"", bytes(range(256)), None):
        if data is None:
            save_file({"w": torch.tensor([1.0, float("nan")])}, folder / "adapter_model.safetensors")
        else:
            (folder / "adapter_model.safetensors").write_bytes(data)
            (folder / "optimizer.pt").write_bytes(data)
            (folder / "scheduler.pt").write_bytes(data)
            with pytest.raises(UserError, match=r"optimizer\.pt"):
                checkpoints.optimizer_and_scheduler(folder)
        with pytest.raises(UserError, match="weights in"):
            checkpoints.weights(folder)


def test_resume_without_a_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no whole checkpoint"):
        trainer(tmp_path).train(resume_from_checkpoint=True)


def test_a_checkpoint_of_another_adapter_is_refused(tmp_path):
    from rlvr_lite import methods
    from rlvr_lite.config import AdapterConfig
    from tests.models import random_qwen2

    made = trainer(tmp_path / "a", max_steps=2, save_strategy="steps", save_steps=1)
    made.train()
    other = methods.attach(random_qwen2(vocab=128), "lora", AdapterConfig(rank=8), total_steps=2, seed=0)
    with pytest.raises(UserError, match=r"size|another"):
        trainer(tmp_path / "b", other).train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-1"))


def test_a_generation_batch_missing_from_its_checkpoint_is_an_error(tmp_path):
    trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    with pytest.raises(UserError, match="rollouts of its generation batch"):
        trainer(tmp_path, max_steps=4, num_iterations=2).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.fixture
def heard():
    """The signals as an interactive shell leaves them: nohup and background jobs have some ignored, and a run keeps to that."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "interrupted by SIGTERM"),
        (signal.SIGHUP, "interrupted by SIGHUP"),
    ],
)
def test_a_signal_ends_the_step_saves_and_returns(tmp_path, heard, number, reason):
    made = trainer(tmp_path / "stopped", max_steps=6)
    stop = CleanStop(None)
    made.add_callback(stop)
    original = made.accumulate

    def interrupt(batch):
        if made.state.global_step == 2:
            signal.raise_signal(number)
        return original(batch)

    made.accumulate = interrupt
    before = signal.getsignal(number)
    with stop.listening():
        made.train()
    assert signal.getsignal(number) is before
    assert (stop.reason, made.state.global_step) == (reason, 3)
    again = trainer(tmp_path / "stopped", max_steps=6)
    again.train(resume_from_checkpoint=True)
    whole = trainer(tmp_path / "whole", max_steps=6)
    whole.train()
    assert torch.equal(_weights(whole), _weights(again))


def test_a_second_interrupt_breaks_off_at_once(tmp_path, heard):
    made = trainer(tmp_path, max_steps=6)
    stop = CleanStop(None)
    made.add_callback(stop)

    def impatient(batch):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    made.accumulate = impatient
    with pytest.raises(KeyboardInterrupt), stop.listening():
        made.train()


def test_a_run_ends_saved_within_its_time_limit(tmp_path):
    made = trainer(tmp_path, max_steps=50)
    stop = CleanStop(max_hours=1e-9)
    made.add_callback(stop)
    made.train()
    assert made.state.global_step == 1
    assert "max_hours" in stop.reason
    assert checkpoints.newest_good(tmp_path) is not None


def test_checkpoints_of_a_script_with_peft_load_with_peft(tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    from tests.models import random_qwen2

    model = get_peft_model(random_qwen2(vocab=128), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    made = trainer(tmp_path, model, method=None, max_steps=2, save_strategy="steps", save_steps=1)
    made.train()
    again = PeftModel.from_pretrained(random_qwen2(vocab=128), tmp_path / "checkpoint-2")
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(made.model.eval()(tokens).logits, again.eval()(tokens).logits)


def _kill(out, trials, seed):
    command = [sys.executable, "-m", "tests.training.killed", str(out), str(trials), str(seed)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(out, ignore_errors=True)
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
def test_killed_runs_end_with_the_same_bytes(tmp_path):
    found = _kill(tmp_path / "out", 2, seed=1)
    assert (found["killed"], found["equal"]) == (2, 2), found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_dozen_killed_runs_end_with_the_same_bytes(tmp_path):  # tests/benchmarks/faults.py kills fifty
    found = _kill(tmp_path / "out", 12, seed=0)
    assert (found["killed"], found["equal"]) == (12, 12), found


def _harm(path, how):
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        lines = data.rstrip(b"\n").rfind(b"\n")
        path.write_bytes(
            {"torn": data[:-1], "zeros": data[:lines] + bytes(len(data) - lines), "line": data[: lines + 1]}[how]
        )


@pytest.mark.parametrize("how", ["torn", "zeros", "line"])
@pytest.mark.parametrize("name", ["metrics_log", "rollout_log"])
def test_a_log_that_lost_its_tail_goes_on_from_the_checkpoint_that_it_reaches(tmp_path, name, how):
    whole = trainer(tmp_path / "whole", max_steps=6)
    whole.train()
    first = trainer(tmp_path / "cut", max_steps=6, save_strategy="steps", save_steps=2)
    first.train()
    (tmp_path / "cut" / "checkpoint-6" / "manifest.json").unlink()
    getattr(first, name).cut(
        checkpoints.read(tmp_path / "cut" / "checkpoint-4", "logs")[name.split("_")[0].replace("rollout", "rollouts")]
    )
    _harm(getattr(first, name).path, how)
    second = trainer(tmp_path / "cut", max_steps=6)
    assert second.newest_checkpoint() == tmp_path / "cut" / "checkpoint-2"
    second.train(resume_from_checkpoint=True)
    assert torch.equal(_weights(whole), _weights(second))
    assert _lines(whole) == _lines(second)
    assert whole.rollout_log.path.read_bytes() == second.rollout_log.path.read_bytes()
    assert not second.lost


def test_logs_that_are_gone_are_rebuilt_or_begin_anew_and_the_run_says_so(tmp_path):
    first = trainer(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    first.train()
    lines = _lines(first)
    (tmp_path / "checkpoint-4" / "manifest.json").unlink()
    _harm(first.metrics_log.path, "gone")
    _harm(first.rollout_log.path, "gone")
    second = trainer(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    second.train(resume_from_checkpoint=True)
    assert torch.equal(_weights(first), _weights(second))
    assert _lines(second) == lines
    assert {row["step"] for row in second.rollout_log.rows()} == {3, 4}
    assert "rollouts.jsonl" in second.lost[0]
    third = trainer(tmp_path, max_steps=4)
    third.train(resume_from_checkpoint=True)
    assert list(third.lost) == list(second.lost)


def test_a_second_signal_ends_at_once(tmp_path):
    stop = CleanStop(None)
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM


def test_what_is_ignored_stays_ignored_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with CleanStop(None).listening():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
