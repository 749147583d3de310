"""Problems and rewards of one's own: what is trained is what is scored, and every column reaches the rewards."""

from __future__ import annotations

import functools
import json

import pytest
from datasets import Dataset, DatasetDict

import rlvr_lite
from rlvr_lite import rewards, tasks
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.rewards import Verdict
from rlvr_lite.sampling import Completion
from rlvr_lite.tasks import Problem
from rlvr_lite.training import Objective
from rlvr_lite.training._grading import dataset

SMALL = {
    "steps": 2,
    "prompts_per_step": 2,
    "group_size": 4,
    "max_completion_length": 12,
    "eval_problems": 3,
    "eval_k": 2,
    "progress": False,
}
ROWS = [{"problem": f"{i}+{i + 1}=?", "answer": 2 * i + 1, "tests": [f"f() == {i}"], "level": i % 3} for i in range(60)]


def length(completions, **columns):
    return [float(len(completion[0]["content"])) for completion in completions]


def test_every_column_reaches_a_reward_unchanged_in_training_and_in_evaluation(tmp_path):
    seen = []

    def reads(completions, prompts, completion_ids, tests, answer, level, id, **columns):
        seen.append((list(tests), list(answer), list(level), list(id)))
        assert len(completions) == len(prompts) == len(completion_ids) == len(tests)
        assert all(isinstance(ids, list) and ids for ids in completion_ids)
        return [float(len(c[0]["content"]) + n) for c, n in zip(completions, level, strict=True)]

    run = rlvr_lite.train("lora", "tiny", ROWS, rewards=[reads], out=tmp_path / "run", **SMALL)
    assert run.status == "done"
    for tests, answers, levels, ids in seen:
        for test, answer, level, id in zip(tests, answers, levels, ids, strict=True):
            number = int(id.rpartition("-")[2])
            assert (test, answer, level) == ([f"f() == {number}"], 2 * number + 1, number % 3)
    score = run.summary["evaluation"]["after"]
    assert score["scored_on"] == "reward"
    assert score["avg@2"]["value"] >= 1  # mean lengths, not accuracies
    assert not {name for name in score if name.startswith(("pass@", "maj@"))}
    samples = [json.loads(line) for line in (run.directory / "eval" / "after.jsonl").read_text().splitlines()]
    assert all(sample["reward"] >= len(sample["completion"]) for sample in samples)
    assert "avg@2" in str(run.accuracy())


def test_problems_without_a_gold_train_on_an_own_reward_and_are_refused_by_accuracy(tmp_path):
    data = Dataset.from_list([{"problem": f"{i}+1=?"} for i in range(60)])
    run = rlvr_lite.train("lora", "tiny", data, rewards=[length], out=tmp_path / "run", **SMALL)
    assert run.status == "done"
    for given in (["accuracy"], [rewards.accuracy, length]):
        with pytest.raises(UserError, match=r"of .* problems have no answer.*no answer column, only problem") as caught:
            rlvr_lite.train("lora", "tiny", data, rewards=given, out=tmp_path / "no", **SMALL)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "no").exists()


def test_some_golds_that_cannot_be_read_are_counted_and_named(tmp_path):
    data = [row | ({"answer": ["1", "2"]} if i % 20 == 0 else {}) for i, row in enumerate(ROWS)]
    with pytest.raises(UserError, match=r"have no answer.*dataset-000.*answer is a list"):
        rlvr_lite.train("lora", "tiny", data, out=tmp_path / "no", **SMALL)
    assert not (tmp_path / "no").exists()


def test_a_run_keeps_its_data_and_is_another_with_other_data(tmp_path):
    both = {"rewards": ["accuracy", length]}
    run = rlvr_lite.train("lora", "tiny", ROWS, out=tmp_path / "run", **SMALL, **both)
    task = run.config.task
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    found = rlvr_lite.evaluate(moved, k=1, n=3, progress=False)
    (score,) = found.values()
    asked = {problem.id for problem in tasks.get(ROWS).problems("test")}
    assert set(score.ids) <= asked
    assert task == tasks.get(ROWS).name
    with pytest.raises(UserError, match="task = "):
        rlvr_lite.train("lora", "tiny", ROWS[1:], out=moved, **SMALL, **both)


def test_an_own_test_set_is_what_is_scored(tmp_path):
    own = [{"problem": f"{i}+{i}=?", "answer": str(2 * i)} for i in range(40, 45)]
    splits = DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(own)})
    options = SMALL | {"eval_problems": 5, "steps": 1}
    for name, given in {
        "splits": {"task": splits},
        "rows": {"task": ROWS, "task_options": {"test": own}},
    }.items():
        run = rlvr_lite.train("lora", "tiny", **given, out=tmp_path / name, **options)
        lines = (run.directory / "eval" / "after.jsonl").read_text().splitlines()
        assert len({json.loads(line)["id"] for line in lines}) == 5
        assert all("test" in json.loads(line)["id"] for line in lines)


def test_few_problems_to_score_on_are_said(tmp_path):
    run = rlvr_lite.train("lora", "tiny", ROWS, out=tmp_path / "run", **SMALL)
    said = json.loads((run.directory / "preflight.json").read_text())["warnings"]
    assert any("only 3 problems to score on" in warning for warning in said)
    run = rlvr_lite.train("lora", "tiny", out=tmp_path / "none", **SMALL | {"eval_problems": 0})
    said = json.loads((run.directory / "preflight.json").read_text())["warnings"]
    assert not any("score on" in warning for warning in said)


class Shout(tasks.Task):
    """Right is what holds a digit; there are no golds."""

    name = "shout"
    max_completion_length = 12
    splits = ("train", "validation", "test")

    def problems(self, split, n=None, seed=0):
        self._check(split, n)
        return [Problem(f"{split}-{i}", f"{i}+{len(split)}=?") for i in range(40)][:n]

    def grade(self, problems, completions):
        assert all(isinstance(problem, Problem) for problem in problems)
        return [Verdict(any(c.isdigit() for c in text), text, "shout", 0.0, "") for text in completions]


def test_a_task_with_its_own_grading_is_trained_and_scored_by_it(tmp_path):
    run = rlvr_lite.train("lora", "tiny", Shout(), out=tmp_path / "run", **SMALL)
    rows = run.rollouts()
    assert rows
    assert all(row["rewards"]["accuracy"] == any(c.isdigit() for c in row["completion"]) for row in rows)
    samples = [json.loads(line) for line in (run.directory / "eval" / "after.jsonl").read_text().splitlines()]
    assert all(sample["how"] == "shout" for sample in samples)


def test_overlong_knows_the_length_of_the_run(tmp_path):
    run = rlvr_lite.train("lora", rewards=("accuracy", "overlong"), out=tmp_path / "run", **SMALL)
    assert run.status == "done"
    assert any(row["rewards"]["overlong"] < 0 for row in run.rollouts())
    alone = rlvr_lite.train("lora", rewards=("overlong",), out=tmp_path / "alone", **SMALL)
    assert -1 <= alone.summary["evaluation"]["after"]["avg@2"]["value"] <= 0


def test_the_weights_of_rewards_are_those_of_the_score():
    task = tasks.get(ROWS)
    config = RunConfig(rewards=("length", "one"), reward_weights=(0.5, 2.0), max_completion_length=8)

    async def one(completions, **columns):
        return [1.0] * len(completions)

    drawn = [Completion("12345678", 3, False, (1, 2, 3))] * 2
    problems = task.problems("test", 2)
    assert Objective.of([length, one], config, task).grade()(problems, drawn) == [6.0, 6.0]
    assert Objective.of([functools.partial(length), one], config, task).grade()(problems, drawn) == [6.0, 6.0]


def test_rows_that_lack_a_column_and_columns_of_two_kinds():
    rows = [{"problem": f"q{i}", "answer": "1", **({"hint": "x"} if i % 2 else {})} for i in range(20)]
    assert set(dataset(tasks.get(rows), "bare")["hint"]) == {None, "x"}
    mixed = [{"problem": f"q{i}", "answer": i if i % 2 else str(i)} for i in range(20)]
    assert set(dataset(tasks.get(mixed), "bare")["answer"]) <= {str(i) for i in range(20)}
    with pytest.raises(UserError, match="the column hint holds values of several kinds"):
        dataset(tasks.get([row | {"hint": i if i % 2 else "x"} for i, row in enumerate(rows)]), "bare")
    with pytest.raises(UserError, match="a column is called prompts"):
        Objective.of(["accuracy"], RunConfig(), tasks.get([row | {"prompts": 1} for row in rows]))


def test_a_gold_column_of_another_name_is_what_accuracy_reads():
    rows = [{"problem": f"q{i}", "gold": f"so #### {i}", "answer": "a sentence"} for i in range(20)]
    task = tasks.get(rows, answer="gold")
    data = dataset(task, "bare")
    assert all(row["answer"] == row["gold"].removeprefix("so #### ") for row in data)
    (graded,) = Objective.of(["accuracy"], RunConfig(), task).functions
    right = [f"\\boxed{{{row['answer']}}}" for row in data]
    assert graded(completions=right, id=data["id"]) == [1.0] * len(data)
