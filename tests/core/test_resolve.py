"""What will run: what is named wins over the configuration, the configuration over the defaults, and defaults give way."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rlvr_lite
from rlvr_lite import bases, methods, rewards, tasks
from rlvr_lite.config import RunConfig, scale_of
from rlvr_lite.errors import UserError
from rlvr_lite.planning._layouts import layout_of
from rlvr_lite.resolve import BaseFacts, check, fill, merge, reward_functions
from tests.zoo import saved

VALUES = {
    "method": st.sampled_from(["lora", "dora", "rslora"]),
    "base": st.sampled_from(["tiny", "somebody/something", "Qwen/Qwen2.5-0.5B"]),
    "task": st.sampled_from(["chain-sum", "linear-equation"]),
    "seed": st.integers(0, 3),
    "steps": st.integers(1, 100),
    "group_size": st.integers(2, 8),
    "learning_rate": st.floats(1e-6, 1),
    "rank": st.integers(1, 64),
    "eval_before": st.booleans(),
    "max_hours": st.floats(0.1, 10),
    "report_to": st.just(("tensorboard",)),
}
FIELDS = [f.name for f in dataclasses.fields(RunConfig)]


@given(st.fixed_dictionaries({}, optional=VALUES), st.fixed_dictionaries({}, optional=VALUES), st.data())
def test_named_wins_over_config_and_config_over_defaults(named, configured, data):
    config = RunConfig(**configured)
    silent = data.draw(st.sets(st.sampled_from(FIELDS))) - set(named)
    found = merge(named | dict.fromkeys(silent), config)
    for name in FIELDS:
        assert getattr(found, name) == named.get(name, getattr(config, name)), name
    assert merge({}, found) == found
    assert merge(named) == RunConfig(**named)


def test_what_the_old_method_and_task_had_is_not_put_on_the_new_ones():
    config = RunConfig(method="lora", rank=8, alpha=16, method_options={"dropout": 0.1}, task_options={"operands": 3})
    found = merge({"method": "ia3", "task": "linear-equation"}, config)
    assert (found.rank, found.alpha, found.method_options, found.task_options) == (None, None, {}, {})
    assert merge({"method": "dora"}, config).rank == 8
    sapo = RunConfig(loss="sapo", loss_options={"temperature_neg": 1.1})
    assert merge({"loss": "dapo"}, sapo).loss_options == {}
    with pytest.raises(UserError, match="rank"):
        check(merge({"method": "ia3", "rank": 4}, config))


@pytest.mark.parametrize("config", [{"steps": 3}, "paper-1.5b", 3])
def test_what_is_no_configuration_is_refused(config):
    with pytest.raises(UserError, match="config must be a RunConfig"):
        merge({}, config)


def test_an_unknown_option_offers_the_nearest():
    with pytest.raises(UserError, match="learning_rate"):
        merge({"learningrate": 1})


def test_a_method_that_changes_the_base_is_refused_what_it_cannot_do():
    with pytest.raises(UserError, match="full"):
        check(RunConfig(method="full", precision="nf4"))
    check(RunConfig(method="full", kl_coef=0.1))


# ---- names of bases -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*bases.WELL_KNOWN, "qwen2.5-0.5b", "SmolLM2-135M-Instruct"])
def test_a_name_that_plan_knows_train_knows(name, tmp_path):
    planned = rlvr_lite.plan(name.rpartition("/")[2], "lora", "H100").fit()
    assert planned.base.casefold().endswith(name.casefold())
    assert planned.base in bases.WELL_KNOWN
    with pytest.raises(UserError, match=r"Hub cannot be reached|no such model|gated") as caught:
        rlvr_lite.train(config=planned, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_comes_before_a_well_known_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen2.5-0.5B").mkdir()
    assert merge({"base": "Qwen2.5-0.5B"}).base == "Qwen2.5-0.5B"


# ---- filling --------------------------------------------------------------------------------------------------------

SCALES = st.sampled_from(["tiny", "small", "paper"])


@given(
    st.integers(1, 40),
    st.integers(2, 40),
    st.integers(1, 300),
    st.sampled_from(methods.names()),
    SCALES,
)
def test_defaults_are_fitted_to_what_is_named_and_never_refused(prompts, group, problems, method, scale):
    asked = RunConfig(method=method, prompts_per_step=prompts, group_size=group, eval_problems=problems)
    filled = fill(asked, facts=BaseFacts(scale), task=tasks.get("chain-sum"))
    assert filled.micro_batch is None or 1 <= filled.micro_batch <= prompts * group
    assert (filled.prompts_per_step, filled.group_size, filled.eval_problems) == (prompts, group, problems)
    assert filled.max_completion_length <= tasks.get("chain-sum").max_completion_length
    assert fill(filled, facts=BaseFacts(scale), task=tasks.get("chain-sum")) == filled


def test_a_smaller_step_takes_a_smaller_micro_batch_than_the_configuration_has():
    config = merge({"prompts_per_step": 1, "group_size": 2}, RunConfig(prompts_per_step=16, micro_batch=4))
    assert config.micro_batch == 2
    assert merge({"group_size": 2}, RunConfig(prompts_per_step=16, micro_batch=4)).micro_batch == 4
    asked = merge({"prompts_per_step": 1, "group_size": 2, "micro_batch": 4})
    with pytest.raises(UserError, match="micro_batch 4 exceeds the 2"):
        fill(asked, facts=BaseFacts("small"), task=None)


def test_as_many_problems_are_scored_as_the_task_has():
    few = tasks.get("chain-sum", operands=2, hi=3, cap=4)
    has = len(few.at_most("test", 100))
    assert 0 < has < 100
    facts = BaseFacts("tiny")
    assert fill(RunConfig(), facts=facts, task=few).eval_problems == has
    assert fill(RunConfig(eval_problems=0), facts=facts, task=few).eval_problems == 0


def test_a_default_rank_is_no_larger_than_the_smallest_layer():
    layout = methods.Layout({"block.q_proj": methods.Linear(64, 4)}, {}, {})
    asked = RunConfig(targets=("q_proj",))
    assert fill(asked, facts=BaseFacts("paper", layout=layout), task=None).rank == 4
    named = dataclasses.replace(asked, rank=8)  # what is named is kept, and refused where the layer is looked at
    assert fill(named, facts=BaseFacts("paper", layout=layout), task=None).rank == 8


def test_overlong_gets_the_length_of_the_run(tmp_path):
    (punish,), names = reward_functions("overlong", 100)
    assert names == ("overlong",)
    assert punish(["a"], completion_ids=[[0] * 90]) == rewards.get("overlong", 100)(["a"], completion_ids=[[0] * 90])
    run = rlvr_lite.train(
        rewards=("accuracy", "overlong"),
        steps=2,
        prompts_per_step=4,
        group_size=4,
        eval_problems=0,
        max_completion_length=20,
        out=tmp_path / "run",
        progress=False,
    )
    assert run.config.rewards == ("accuracy", "overlong")
    assert all(row["rewards"]["overlong"] == 0 for row in run.rollouts() if row["tokens"] <= 16)
    assert any(row["rewards"]["overlong"] < 0 for row in run.rollouts())


# ---- positions ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A base with 64 positions."""
    return str(saved("opt", tmp_path_factory.mktemp("short") / "base", max_position_embeddings=64))


def test_a_length_beyond_the_positions_is_refused_before_a_weight_is_loaded(short, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    size = {"max_completion_length": 60}
    for call in (
        lambda: rlvr_lite.train("lora", short, "chain-sum", out=tmp_path / "run", progress=False, rank=4, **size),
        lambda: rlvr_lite.plan(short, "lora", "t4", task="chain-sum", rank=4, **size),
        lambda: rlvr_lite.evaluate(short, "chain-sum:test", k=1, n=2, progress=False, **size),
    ):
        with pytest.raises(UserError, match=r"64 positions\): set max_completion_length to at most 5\d$"):
            call()
    gpt2 = str(saved("gpt2", tmp_path / "gpt2"))
    with pytest.raises(UserError, match="transposed"):
        rlvr_lite.train("dora", gpt2, "chain-sum", out=tmp_path / "run", progress=False, rank=4)
    assert not (tmp_path / "run").exists()


def test_a_default_length_is_fitted_to_the_positions(short):
    planned = rlvr_lite.plan(short, "lora", "t4", task="chain-sum", rank=4)
    assert planned.config.max_completion_length == 64 - planned.step.prompt_length
    facts = BaseFacts.ahead(planned.asked)
    assert fill(planned.config, facts=facts, task=tasks.get("chain-sum")) == planned.config


# ---- one answer -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["chain-sum", "linear-equation"])
@pytest.mark.parametrize("base", ["tiny", "Qwen2.5-0.5B", "DeepSeek-R1-Distill-Qwen-1.5B"])
def test_plan_and_train_fill_alike(base, task):
    planned = rlvr_lite.plan(base, "dora", "t4", task=task)
    layout = layout_of(planned.shape)  # train knows it too, from the model
    facts = BaseFacts(scale_of(layout.parameters), "fp16", layout)
    run = fill(merge({"base": base, "method": "dora", "task": task}), facts=facts, task=tasks.get(task))
    differs = {name for name in FIELDS if getattr(run, name) != getattr(planned.config, name)}
    assert differs <= {"micro_batch"}
    assert planned.step.prompt_length != rlvr_lite.plan(base, "dora", "t4").step.prompt_length


def test_a_plan_counts_the_prompts_of_its_task():
    task = tasks.get("chain-sum")
    tiny = bases.load("tiny")
    chats = [task.messages(problem, "bare") for problem in task.at_most("train", 1000)]
    longest = max(
        len(tiny.tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"]) for chat in chats
    )
    assert rlvr_lite.plan("tiny", task="chain-sum").step.prompt_length == longest
    assert rlvr_lite.plan("tiny", task="chain-sum", prompt_length=99).step.prompt_length == 99


def test_what_is_named_wins_in_train_compare_and_plan(tmp_path):
    config = RunConfig(
        method="dora", task="linear-equation", steps=2, prompts_per_step=2, group_size=4, eval_problems=0
    )
    run = rlvr_lite.train("lora", "tiny", "chain-sum", config=config, out=tmp_path / "run", progress=False)
    assert (run.config.method, run.config.task, run.config.steps) == ("lora", "chain-sum", 2)
    silent = rlvr_lite.train(None, None, config=config, steps=None, out=tmp_path / "silent", progress=False)
    assert (silent.config.method, silent.config.task) == ("dora", "linear-equation")
    planned = rlvr_lite.plan("tiny", "lora", "t4", config=dataclasses.replace(config, base="Qwen/Qwen2.5-0.5B"))
    assert (planned.config.base, planned.config.method, planned.config.steps) == ("tiny", "lora", 2)
