"""Which method for my problem: data sets, rows and reward functions of one's own in a comparison."""

from __future__ import annotations

import functools
import json
import linecache
import threading

import pytest
from datasets import Dataset

import rlvr_lite
from rlvr_lite import tasks
from rlvr_lite.errors import UserError
from rlvr_lite.runs import source_hash
from rlvr_lite.study import Study
from rlvr_lite.study._given import Given, take_functions

ROWS = [
    {"question": f"{a}+{b}+{c}=?", "answer": str(a + b + c), "want": a + b + c}
    for a in range(1, 5)
    for b in range(1, 5)
    for c in range(1, 5)
]
SMALL = {
    "steps": 1,
    "prompts_per_step": 2,
    "group_size": 4,
    "max_completion_length": 10,
    "eval_problems": 3,
    "eval_k": 2,
    "progress": False,
    "seeds": 2,
    "tune": "none",
}


def by_length(completions, want, **columns):
    assert all(isinstance(number, int) for number in want)
    texts = [completion[0]["content"] for completion in completions]
    return [(len(text) + text.count("1") + 2 * text.count("=")) / 10 for text in texts]


def test_a_data_set_and_a_reward_of_ones_own_are_compared(tmp_path):
    out = tmp_path / "study"
    size = SMALL | {"steps": 4, "max_completion_length": 24}
    study = rlvr_lite.compare(["lora", "ia3"], task=Dataset.from_list(ROWS), rewards=[by_length], out=out, **size)
    assert not any(row.problem for row in study.rows.values()), [row.problem for row in study.rows.values()]
    assert study.design.shared.rewards == ("by_length",)
    assert list(study.design.sources) == ["by_length"]
    assert len(list(out.rglob("task.json"))) == 1  # stored once, not by every run
    assert tasks.recall(study.design.shared.task, near=out).problems("test") == tasks.get(ROWS).problems("test")
    for row in study.rows.values():
        for run in row.runs.values():
            lines = (run.directory / "eval" / "after.jsonl").read_text().splitlines()
            assert all(json.loads(line)["how"] == "reward" for line in lines)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
    again = rlvr_lite.compare(["lora", "ia3"], task=ROWS, rewards=[by_length], out=out, **size)
    assert str(again.leaderboard) == str(study.leaderboard)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")} == before
    assert str(Study.load(out).leaderboard) == str(study.leaderboard)


def test_other_data_or_another_reward_is_another_study(tmp_path, monkeypatch):
    out = tmp_path / "study"
    monkeypatch.setattr("rlvr_lite.study._conduct._work", lambda *_: None)
    rlvr_lite.compare(["lora"], task=ROWS, rewards=[by_length], out=out, **SMALL)
    with pytest.raises(UserError, match="task = "):
        rlvr_lite.compare(["lora"], task=ROWS[1:], rewards=[by_length], out=out, **SMALL)

    def other():
        def by_length(completions, **columns):
            return [0.0 for _ in completions]

        return by_length

    with pytest.raises(UserError, match="by_length had another source"):
        rlvr_lite.compare(["lora"], task=ROWS, rewards=[other()], out=out, **SMALL)
    rlvr_lite.compare({"long": {"method": "lora", "rewards": [by_length]}}, task=ROWS, out=tmp_path / "row", **SMALL)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rewards": ["accuraccy"]}, "accuracy"),
        ({"task": [{"problem": f"q{i}"} for i in range(60)]}, "have no answer"),
        ({"task": []}, "is empty"),
        ({"task": 3}, "no task"),
        ({"rewards": [by_length, lambda completions, **_: [], lambda completions, **_: []]}, "two rewards are called"),
    ],
    ids=["name", "gold", "empty", "kind", "twice"],
)
def test_what_cannot_be_compared_is_one_line_and_nothing_is_written(tmp_path, change, says):
    with pytest.raises(UserError, match=says) as caught:
        rlvr_lite.compare(["lora"], out=tmp_path / "study", **{"task": ROWS} | SMALL | change)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("engine", ["process", "ray"])
def test_what_cannot_be_sent_to_a_worker_is_said_before_anything_is_written(tmp_path, engine):
    lock = threading.Lock()

    def locked(completions, **columns):
        with lock:
            return [0.0] * len(completions)

    with pytest.raises(UserError, match=r"reward function 'locked' cannot be sent.*'local'") as caught:
        rlvr_lite.compare(["lora"], task=ROWS, rewards=[locked], engine=engine, out=tmp_path / "study", **SMALL)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["process", "ray"])
def test_functions_reach_other_processes_by_value(tmp_path, engine):
    if engine == "ray":
        pytest.importorskip("ray")
    bonus = 0.25

    def own(completions, want, **columns):
        return [bonus + value for value in by_length(completions, want)]

    study = rlvr_lite.compare(
        ["lora"],
        task=ROWS,
        rewards=[own],
        engine=engine,
        workers=1,
        out=tmp_path / "study",
        **SMALL | {"seeds": 1, "steps": 4, "max_completion_length": 24},
    )
    assert not any(row.problem for row in study.rows.values()), study.leaderboard
    here = rlvr_lite.compare(
        ["lora"],
        task=ROWS,
        rewards=[own],
        out=tmp_path / "here",
        **SMALL | {"seeds": 1, "steps": 4, "max_completion_length": 24},
    )
    assert str(here.leaderboard) == str(study.leaderboard)


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    from rlvr_lite.study._engines import alone

    with pytest.raises(UserError, match=r"does not see the study's folder .*: put it on a file system") as caught:
        alone(tmp_path / "elsewhere", None, Given().pack(), mark=".seen-1")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "elsewhere").exists()


class Bonus:
    def __init__(self, bonus):
        self.bonus = bonus

    def __call__(self, completions, **columns):
        return [self.bonus] * len(completions)


def test_the_hash_of_a_function_is_that_of_what_it_does():
    def make(number):
        def f(completions, scale=number, **columns):
            return [number * scale] * len(completions)

        return f

    assert source_hash(make(1)) == source_hash(make(1)) != source_hash(make(2))
    assert source_hash(Bonus(1)) == source_hash(Bonus(1)) != source_hash(Bonus(2))
    assert source_hash(functools.partial(by_length, scale=1)) != source_hash(functools.partial(by_length, scale=2))
    typed: dict = {}
    exec("def a(x): return x + 1\ndef b(x): return x + 2\ndef c(x): return x + 1", typed)
    assert source_hash(typed["a"]) == source_hash(typed["c"]) != source_hash(typed["b"])


def test_what_is_packed_is_unpacked():
    found: dict = {}
    number = 3
    names = take_functions(["accuracy", by_length, lambda completions, **_: [number]], found)
    assert names == ["accuracy", "by_length", "<lambda>"]
    given = Given.unpack(Given(found).pack())
    assert given.functions["<lambda>"]([]) == [3]
    assert given.rewards(rlvr_lite.RunConfig(rewards=tuple(names)))[0] == "accuracy"


def test_a_worker_hashes_a_notebooks_function_as_the_notebook_does(monkeypatch):
    text = ["def mine(completions, **columns):\n", "    return [1.0] * len(completions)\n"]
    monkeypatch.setitem(linecache.cache, "<cell 1>", (60, None, text, "<cell 1>"))
    cell: dict = {"__name__": "__main__"}
    exec(compile("".join(text), "<cell 1>", "exec"), cell)
    expected, packed = source_hash(cell["mine"]), Given({"mine": cell["mine"]}).pack()
    monkeypatch.delitem(linecache.cache, "<cell 1>")
    assert source_hash(cell["mine"]) != expected
    assert source_hash(Given.unpack(packed).functions["mine"]) == expected
