import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite import tasks
from rlvr_lite.errors import UserError
from rlvr_lite.tasks import draw_chain

FAMILIES = ("chain-sum", "linear-equation")


def value(question: str) -> int:
    """A chain's value, read from its text by Python itself."""
    return eval(question.removesuffix("=?"))


@pytest.mark.parametrize("name", FAMILIES)
def test_splits_never_share_a_question_whatever_the_seeds(name):
    task = tasks.get(name)
    seen: dict[str, str] = {}
    for split in tasks.SPLITS:
        for seed in range(3):
            for problem in task.problems(split, 150, seed):
                assert seen.setdefault(problem.problem, split) == split


def test_a_question_held_out_by_one_setting_is_held_out_by_every_other():
    few, wide = tasks.get("chain-sum", operands=2), tasks.get("chain-sum", operands="2,3", hi=12)
    held_out = {p.problem for p in few.problems("test")} | {p.problem for p in few.problems("validation")}
    assert held_out
    assert not held_out & {p.problem for p in wide.problems("train", 600)}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("split", tasks.SPLITS)
def test_draws_are_deterministic_distinct_and_nested(name, split):
    task = tasks.get(name)
    long = task.problems(split, 120, seed=3)
    assert tasks.get(name).problems(split, 120, seed=3) == long
    assert task.problems(split, 50, seed=3) == long[:50]
    assert task.problems(split, 0) == []
    assert len({p.problem for p in long}) == len({p.id for p in long}) == 120
    assert task.problems(split, 120, seed=4) != long


def test_known_problems_stay_what_they_are():
    # a change here changes every published figure: bump the version and say so
    assert [p.problem for p in tasks.get("chain-sum").problems("test", 3)] == [
        "4+8+5-3+3=?",
        "5-2-3+1=?",
        "3+6+9+8=?",
    ]


@given(seed=st.integers(0, 10**6), operands=st.integers(2, 8), hi=st.integers(1, 30), room=st.integers(0, 80))
@settings(max_examples=60, deadline=None)
def test_every_chain_obeys_its_dials_and_its_answer_is_right(seed, operands, hi, room):
    chain = draw_chain(random.Random(seed), operands, hi, hi + room)
    assert len(chain.numbers) == operands
    assert all(1 <= n <= hi for n in chain.numbers)
    assert all(0 <= t <= hi + room for t in chain.totals)
    assert value(chain.question) == chain.totals[-1]


def test_ood_is_longer_than_anything_trained_on():
    task = tasks.get("chain-sum")
    lengths = {s: {1 + sum(c in "+-" for c in p.problem) for p in task.problems(s, 100)} for s in tasks.SPLITS}
    assert lengths["train"] == lengths["validation"] == lengths["test"] == {4, 5}
    assert lengths["ood"] == {6, 7}
    assert all(value(p.problem) == int(p.answer) for s in tasks.SPLITS for p in task.problems(s, 100))


@pytest.mark.parametrize("split", ["train", "ood"])
def test_equations_are_solved_by_their_answer_alone(split):
    for problem in tasks.get("linear-equation").problems(split, 100):
        left, right = problem.problem.removeprefix("Solve for x: ").replace("x", "*x").split("=")
        solutions = [x for x in range(-50, 51) if eval(left, {"x": x}) == eval(right, {"x": x})]
        assert solutions == [int(problem.answer)]
        assert ("x" in right) == (split == "ood")


def test_a_small_space_is_drawn_whole_and_not_beyond():
    task = tasks.get("chain-sum", operands=2)
    whole = task.problems("test")
    assert set(whole) == set(task.problems("test", len(whole), seed=5))
    with pytest.raises(UserError, match=f"only {len(whole)} test problems"):
        task.problems("test", len(whole) + 1)


def test_the_steps_of_the_longest_chain_fit_in_the_completion():
    task = tasks.get("chain-sum", operands=6, hi=30)
    for problem in task.problems("ood", 200):
        text, total = "", None
        for number, operator in zip(
            problem.problem.removesuffix("=?").replace("-", "+").split("+"),
            [""] + [c for c in problem.problem if c in "+-"],
            strict=True,
        ):
            before = total
            total = int(number) if total is None else total + int(operator + number)
            text += f"{before}{operator}{number}={total}\n" if before is not None else ""
        assert len(text) + len("[") + len(problem.answer) + len("}|") <= task.max_completion_length
    assert tasks.get("chain-sum").max_completion_length == 56


@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_end_with_the_question_and_show_nothing_held_out(name):
    task = tasks.get(name)
    problem = task.problems("test", 1)[0]
    assert task.messages(problem, "bare") == [{"role": "user", "content": problem.problem}]
    chat = task.messages(problem, "instruct")
    assert chat[-1] == {"role": "user", "content": problem.problem}
    assert task.instruction in chat[0]["content"]
    assert [m["role"] for m in chat] == ["user", "assistant"] * 2 + ["user"]
    assert task.messages(problem.problem, "instruct") == chat
    for asked, answered in task.examples:
        assert task.split_of(asked) == "train"
        assert "\\boxed{" in answered


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tasks.get("chain-sums"), "did you mean 'chain-sum'"),
        (lambda: tasks.get("chain-sum", operand=4), "did you mean 'operands'"),
        (lambda: tasks.get("chain-sum", operands=1), "operands must be whole numbers of at least 2"),
        (lambda: tasks.get("chain-sum", operands="4,five"), "operands must be"),
        (lambda: tasks.get("chain-sum", operands=4.5), "operands must be"),
        (lambda: tasks.get("chain-sum", hi="3,4"), "hi takes one whole number"),
        (lambda: tasks.get("chain-sum", hi=200), r"cap \(99\) must be at least hi"),
        (lambda: tasks.get("chain-sum").problems("tests"), "did you mean 'test'"),
        (lambda: tasks.get("chain-sum").problems("test", -1), "cannot draw -1"),
        (lambda: tasks.get("chain-sum").messages("1+1=?", "chatty"), "unknown prompt style"),
    ],
)
def test_mistakes_are_one_line_that_names_the_fix(call, says):
    with pytest.raises(UserError, match=says) as error:
        call()
    assert "\n" not in str(error.value)


def test_tasks_are_listed_without_torch():
    code = "import sys; from rlvr_lite import tasks; print(tasks.list_tasks()); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for name in (*FAMILIES, *tasks.NAMED):
        assert name in result.stdout
