"""One reader: whatever rows come in, the same rows are the same problems; whatever is wrong with them is one line."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
import warnings

import datasets
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_lite import tasks
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import load_problems
from rlvr_lite.tasks import Problem


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows(n, problem="problem", answer="answer"):
    return [{problem: f"What is {i} + 1?", answer: str(i + 1), "level": i % 3} for i in range(n)]


def everything(task):
    return {p.text: p.answer for split in task.splits for p in task.problems(split)}


def splits(task):
    return {split: {p.text for p in task.problems(split)} for split in task.splits}


def as_kind(kind, data, folder):
    if kind in ("csv", "tsv"):
        path = folder / f"mine.{kind}"
        pandas.DataFrame(data).to_csv(path, index=False, sep="," if kind == "csv" else "\t")
    elif kind == "parquet":
        path = folder / "mine.parquet"
        pandas.DataFrame(data).to_parquet(path)
    elif kind == "json":
        path = folder / "mine.json"
        path.write_text(json.dumps(data))
    elif kind == "jsonl":
        path = write(folder / "mine.jsonl", data)
    elif kind == "folder":
        path = folder / "saved"
        datasets.Dataset.from_list(data).save_to_disk(path)
    else:
        return {"list": data, "dataset": datasets.Dataset.from_list(data), "frame": pandas.DataFrame(data)}[kind]
    return path


KINDS = ["jsonl", "json", "csv", "tsv", "parquet", "folder", "list", "dataset", "frame"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("problem", ["problem", "question", "prompt"])
def test_every_source_gives_the_same_problems(tmp_path, kind, problem):
    data = rows(120, problem)
    expected = tasks.get(write(tmp_path / "other.jsonl", data))
    task = tasks.get(as_kind(kind, data, tmp_path))
    assert everything(task) == {r[problem]: r["answer"] for r in data}
    assert splits(task) == splits(expected)
    some = task.problems("train")[0]
    assert some.columns["level"] in (0, 1, 2)
    assert some.columns[problem] == some.prompt


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_and_a_benchmark_read_one_file_alike(tmp_path, kind):
    data = [{"question": f"q{i}", "answer": f"Adding gives \\boxed{{{i}}}"} for i in range(30)]
    source = as_kind(kind, data, tmp_path)
    if kind == "folder":
        pytest.skip("a benchmark is a file or rows")
    asked = load_problems(source).problems
    assert {p.text: p.answer for p in asked} == everything(tasks.get(source)) == {f"q{i}": str(i) for i in range(30)}


def test_texts_of_a_table_stay_as_they_are_written(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('problem,answer,note\nq1,007,1\nq2,1e3,2\nq3,NA,3\n"q4, with comma",1/2,4\n')
    assert everything(tasks.get(path)) == {"q1": "007", "q2": "1e3", "q3": "NA", "q4, with comma": "1/2"}
    assert tasks.get(path).problems("train")[0].columns["note"] in (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("cell", "gold"),
    [
        ("7", "7"),
        (" 7 ", "7"),
        (7, "7"),
        (0, "0"),
        (2.5, "2.5"),
        (27.0, "27"),
        (2**60 + 1, str(2**60 + 1)),
        (10**400, "1" + "0" * 400),
        (["3"], "3"),
        ("$\\frac12$", "\\frac12"),
        ("\\$5", "\\$5"),
        ("$x$ and $y\\$", "$x$ and $y\\$"),
        ("$x$ and $y$", "$x$ and $y$"),
        ("48/2 = 24\n48+24 = 72\n#### 72", "72"),
        ("so\n#### 1,000", "1,000"),
        ("so \\boxed{1} or rather \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
        (["1", "2"], None),
        (True, None),
        ({"a": 1}, None),
        ("so \\boxed{1", None),
        ("x ####", None),
        ("", None),
        (None, None),
    ],
)
def test_golds_are_final_answers(tmp_path, cell, gold):
    data = [{"question": "q", "answer": cell}]
    path = write(tmp_path / "x.jsonl", data)
    assert everything(tasks.get(path)) == everything(tasks.get(data)) == {"q": gold}
    if gold is None:
        with pytest.raises(UserError, match="1 of 1 problems have no answer") as caught:
            load_problems(path)
        assert "\n" not in str(caught.value)
    else:
        assert load_problems(path).problems[0].answer == gold


def test_the_splits_of_a_source_are_the_splits_and_what_it_lacks_is_cut_from_train():
    data = datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_list(rows(200)),
            "test": datasets.Dataset.from_list([{"problem": f"held out {i}", "answer": "1"} for i in range(40)]),
        }
    )
    parts = splits(tasks.get(data))
    assert parts["test"] == {f"held out {i}" for i in range(40)}
    assert 0 < len(parts["validation"]) < len(parts["train"])
    assert len(parts["train"]) + len(parts["validation"]) == 200
    alone = tasks.get(data, split="test")
    assert sum(map(len, splits(alone).values())) == 40
    whole = tasks.get({"train": rows(20), "validation": rows(30)[20:], "test": rows(40)[30:]})
    assert [len(part) for part in splits(whole).values()] == [20, 10, 10]


def test_an_own_test_set_is_taken_out_of_the_rest(tmp_path):
    data, own = rows(100), rows(110)[90:]
    for test in (own, write(tmp_path / "own.jsonl", own), datasets.Dataset.from_list(own)):
        parts = splits(tasks.get(data, test=test))
        assert parts["test"] == {row["problem"] for row in own}
        assert sum(map(len, parts.values())) == 110
        assert not parts["test"] & (parts["train"] | parts["validation"])


def test_stored_splits_are_disjoint_nested_and_shuffled_by_seed(tmp_path):
    task = tasks.get(str(write(tmp_path / "mine.jsonl", rows(300))))
    parts = list(splits(task).values())
    assert sum(map(len, parts)) == len(set.union(*parts)) == 300
    assert 0.7 < len(parts[0]) / 300 < 0.9
    assert task.problems("train", 20, seed=1) == task.problems("train", 60, seed=1)[:20]
    assert task.problems("train", seed=1) != task.problems("train", seed=2)
    with pytest.raises(UserError, match="no ood split"):
        task.problems("ood")
    with pytest.raises(UserError, match="has only"):
        task.problems("test", 301)


def test_a_row_added_moves_no_other_row_to_another_split(tmp_path):
    before = splits(tasks.get(write(tmp_path / "a.jsonl", rows(100))))
    after = splits(tasks.get(write(tmp_path / "b.jsonl", rows(101)[::-1])))
    assert all(before[split] <= after[split] for split in before)


def test_the_split_of_a_text_is_what_it_was():
    """Recorded: a study that goes on must not train on what it was scored on."""
    assert splits(tasks.get(rows(40)))["test"] == RECORDED_TEST


RECORDED_TEST = {f"What is {i} + 1?" for i in (7, 8, 19, 25, 39)}


# ---- chats -------------------------------------------------------------------------------------------------------


def chat(*turns):
    return [{"role": role, "content": content} for role, content in turns]


@pytest.mark.parametrize("kind", ["jsonl", "json", "list", "dataset", "frame", "parquet"])
def test_chats_are_kept_whole_and_told_apart_by_all_turns(tmp_path, kind):
    one = chat(("system", "Be brief."), ("user", "2+2?"), ("assistant", "4"), ("user", "And now?"))
    two = chat(("system", "Be brief."), ("user", "3+3?"), ("assistant", "6"), ("user", "And now?"))
    opened = chat(("user", "5+5?"), ("assistant", "<think>\n"))
    data = [{"prompt": c, "answer": str(i)} for i, c in enumerate((one, two, opened))]
    task = tasks.get(as_kind(kind, data, tmp_path))
    found = [p for split in task.splits for p in task.problems(split)]
    assert len(found) == 3
    for style in ("bare", "instruct"):
        assert sorted(json.dumps(task.messages(p, style)) for p in found) == sorted(map(json.dumps, (one, two, opened)))


def test_a_chat_goes_before_the_text_it_was_made_of():
    data = [{"question": "2+2?", "prompt": chat(("system", "s"), ("user", "2+2?")), "answer": "4"}]
    assert tasks.get(data).problems("train", 1)[0].prompt[0]["content"] == "s"


def test_a_lone_question_is_split_like_its_text():
    texts, chats = rows(60), [{"prompt": chat(("user", f"What is {i} + 1?")), "answer": "1"} for i in range(60)]
    assert splits(tasks.get(texts)) == splits(tasks.get(chats))


# ---- bad input ---------------------------------------------------------------------------------------------------

GOOD = [json.dumps({"problem": f"p{i}", "answer": str(i)}) for i in range(40)]


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "is empty"),
        (["", " "], "is empty"),
        ([{"text": "q", "answer": "1"}], "no problem or question or prompt column, only text, answer"),
        ([{"problem": "", "answer": "1"}], "row 1: problem is empty"),
        ([{"problem": "q", "answer": "1"}, {"answer": "1"}], "row 2: problem is empty"),
        ([*GOOD, {"question": "q", "answer": "1"}], "row 41: problem is empty.*question"),
        ([*GOOD, {"problem": [{"role": "user", "content": "q"}], "answer": "1"}], "row 41: problem is a chat"),
        ([*GOOD, {"problem": 3, "answer": "1"}], "row 41: problem is a int"),
        ([*GOOD, '{"problem": "q", "problem": "r", "answer": "1"}'], "line 41 has 'problem' twice"),
        ([*GOOD, '{"problem": "q", "answer": NaN}'], "line 41 holds NaN"),
        ([*GOOD, '{"problem": "q", "answer": -1e999}'], "line 41 holds -1e999"),
        ([*GOOD, '{"problem": "q", "answer": ' + "9" * 5000 + "}"], "line 41 holds too long a number"),
        ([*GOOD, '{"problem": "q", "x": ' + "[" * 100_000 + "]" * 100_000 + "}"], "line 41 is nested too deeply"),
        ([*GOOD, '{"problem": "' + "1" * 2**24 + '"}'], "line 41 has more than 16 MiB"),
        ([*GOOD, '{"problem": "q \\ud800", "answer": "1"}'], "line 41 holds half a character"),
        ([*GOOD, '{"problem": "q", "answer": "\\udfff"}'], "line 41 holds half a character"),
        ([{"problem": f"p{i}", "answer": "1", "id": "same"} for i in range(3)], "row 2 has the id 'same' of row 1"),
        ([{"problem": "p", "answer": "1", "id": ["a"]}], "row 1: id is a list"),
        ([{"prompt": [{"content": "x"}], "answer": "1"}], "row 1: prompt is no chat"),
        ([{"prompt": [{"role": "user", "content": ["x"]}], "answer": "1"}], "row 1: the content of a turn"),
        ([{"prompt": chat(("user", "q"), ("tool", "4")), "answer": "1"}], "ends in a tool's message"),
        ([{"prompt": chat(("system", "s")), "answer": "1"}], "ends in a system's message"),
        ([{"prompt": [], "answer": "1"}], "row 1: prompt is empty"),
        ([*GOOD, "", "{'problem'"], "line 42 is not JSON"),
        (["[1]"], "line 1 is not a JSON object"),
        (["1", "2"], "line 1 is not a JSON object"),
    ],
)
def test_bad_files_are_one_line(tmp_path, lines, says):
    path = write(tmp_path / "bad.jsonl", lines)
    for reader in (tasks.get, load_problems):
        with pytest.raises(UserError, match=says) as error:
            reader(path)
        assert "\n" not in str(error.value)
        assert "bad.jsonl" in str(error.value)


def test_a_byte_order_mark_and_windows_lines_are_read(tmp_path):
    for name, data in {
        "bom.jsonl": b"\xef\xbb\xbf" + "\n".join(GOOD).encode(),
        "crlf.jsonl": "\r\n".join(GOOD).encode(),
        "ls.jsonl": "\n".join(
            [*GOOD[:-1], json.dumps({"problem": "a\u2028b\u0085c", "answer": "1"}, ensure_ascii=False)]
        ).encode(),
        "bom.csv": b"\xef\xbb\xbfproblem,answer\r\n" + b"".join(b"p%d,%d\r\n" % (i, i) for i in range(40)),
        "bom.json": b"\xef\xbb\xbf[" + ",\r\n".join(GOOD).encode() + b"]",
    }.items():
        (tmp_path / name).write_bytes(data)
        found = everything(tasks.get(tmp_path / name))
        assert len(found) == 40
        assert found["p3"] == "3"


@pytest.mark.parametrize("suffix", tasks.SUFFIXES)
def test_what_is_no_file_is_one_line_and_does_not_wait(tmp_path, suffix):
    (tmp_path / f"dir{suffix}").mkdir()
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    (tmp_path / f"utf16{suffix}").write_bytes("\n".join(GOOD).encode("utf-16"))
    (tmp_path / f"latin{suffix}").write_bytes(b'{"problem": "\xe9", "answer": "1"}\n')
    (tmp_path / f"none{suffix}").write_bytes(b"")
    (tmp_path / f"zeros{suffix}").write_bytes(bytes(4096))
    (tmp_path / f"gzip{suffix}").write_bytes(gzip.compress("\n".join(GOOD).encode()))
    (tmp_path / f"binary{suffix}").write_bytes(bytes(range(256)) * 9)
    names = [
        tmp_path / f"{stem}{suffix}"
        for stem in ("dir", "pipe", "loop", "utf16", "latin", "none", "zeros", "gzip", "binary")
    ]
    for name in [*names, f"/dev/zero{suffix}", f"{'a' * 5000}{suffix}", f"\0{suffix}", f"x\n\x1b[31mred{suffix}"]:
        with pytest.raises(UserError) as caught:
            tasks.get(str(name))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", sorted(set(tasks.SUFFIXES) - {".parquet"}))
def test_a_line_of_a_gigabyte_is_refused_before_it_is_read(tmp_path, suffix):
    path = tmp_path / f"long{suffix}"
    path.write_text(f"{GOOD[0]}\n")
    os.truncate(path, 2**30)  # sparse
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="MiB"):
            tasks.get(path)
        assert tracemalloc.get_traced_memory()[1] < 2**27
    finally:
        tracemalloc.stop()


def test_a_column_named_twice_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("problem,answer,answer\nq,1,2\n")
    frame = pandas.DataFrame([["q", "1", "2"]], columns=["problem", "answer", "answer"])
    for source in (tmp_path / "x.csv", frame):
        with pytest.raises(UserError, match="the column answer twice"):
            tasks.get(source)


def test_a_table_with_a_row_too_wide_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("problem,answer\nq,1\nwith, a comma,2\n")
    with pytest.raises(UserError, match=r"x\.csv"):
        tasks.get(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([], "is empty"),
        ([1, 2], "row 1 is a int"),
        ({"train": rows(2), "extra": rows(3)}, "split 'extra'"),
        ({"valid": rows(2), "dev": rows(3)}, "two splits for validation"),
        ({}, "is empty"),
        (3, "a int is no task"),
        ([{"problem": "q", "answer": float("inf")}], "row 1: answer is inf"),
        ([{"problem": "q", "answer": float("nan")}], "row 1: answer is nan"),
        (datasets.Dataset.from_list(rows(3)).to_iterable_dataset(), "streamed"),
        (datasets.Dataset.from_list([{"text": "q"}]), "only text"),
        ("notes.txt", "no file that can be read"),
        ("a/b/c", "no file that can be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_bad_sources(source, says):
    with pytest.raises(UserError, match=says) as caught:
        tasks.get(source)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"answers": "gold"}, "answer"),
        ({"answer": "gold"}, "no gold column"),
        ({"problem": "text"}, "no text column"),
        ({"test": "none.jsonl"}, "does not exist"),
        ({"test": []}, "is empty"),
        ({"split": "train"}, "no split train"),
    ],
    ids=str,
)
def test_options_act_or_are_refused(options, says):
    with pytest.raises(UserError, match=says):
        tasks.get(rows(20), **options)
    with pytest.raises(UserError, match="has no options"):
        tasks.get("gsm8k", operands=4)


@pytest.mark.parametrize("name", ["nobody/nothing", "openai/gsm8k"])
def test_a_hub_name_without_network_is_one_line(name):
    with pytest.raises(UserError, match="Hugging Face Hub") as caught:
        tasks.get(name, config="main")
    assert "\n" not in str(caught.value)


def test_a_hub_data_set_comes_with_its_splits(monkeypatch):
    asked = {}

    def load_dataset(repository, config, split, revision):
        asked.update(repository=repository, config=config, split=split, revision=revision)
        parts = {"train": datasets.Dataset.from_list(rows(50)), "test": datasets.Dataset.from_list(rows(60)[50:])}
        return datasets.DatasetDict(parts) if split is None else parts[split]

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: "folder")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = tasks.get("owner/set", config="main", revision="abc")
    assert asked == {"repository": "owner/set", "config": "main", "split": None, "revision": "abc"}
    assert task.name == "owner/set"
    assert len(task.problems("test")) == 10
    assert sum(len(part) for part in splits(tasks.get("owner/set", split="test")).values()) == 10


def test_one_prompt_with_two_answers_is_said():
    data = [{"problem": "q", "answer": "1"}, {"problem": "q", "answer": "2"}]
    with pytest.warns(UserWarning, match="another answer in 1 rows"):
        assert everything(tasks.get(data)) == {"q": "1"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert everything(tasks.get([data[0], data[0]])) == {"q": "1"}


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["problem", "prompt", "answer", "id", "x"]),
            st.one_of(
                st.none(),
                st.booleans(),
                st.integers(),
                st.floats(),
                st.text(),
                st.lists(st.text(), max_size=2),
                st.lists(
                    st.dictionaries(
                        st.sampled_from(["role", "content"]), st.one_of(st.none(), st.text(), st.just("user"))
                    ),
                    max_size=3,
                ),
            ),
        ),
        max_size=5,
    )
)
def test_rows_are_problems_or_one_line(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            task = tasks.get(data)
        except UserError:
            return
    for split in task.splits:
        for problem in task.problems(split):
            assert problem.text.strip()
            assert problem.answer is None or problem.answer.strip()
            assert task.messages(problem)


# ---- registered and saved ----------------------------------------------------------------------------------------


class Even(tasks.Task):
    """Any even number is right."""

    name = "even"
    max_completion_length = 8
    splits = ("train", "validation", "test")

    def __init__(self, top: int = 9):
        self.top = top

    def problems(self, split, n=None, seed=0):
        self._check(split, n)
        return [Problem(f"{split}-{i}", f"{split}: an even number above {i}") for i in range(self.top)][:n]

    def grade(self, problems, completions):
        from rlvr_lite.rewards import Verdict

        return [Verdict(c.strip()[-1:] in tuple("02468"), c, "even", 0.0, "") for c in completions]


def test_a_registered_task_is_known_by_name_with_its_own_grading(monkeypatch):
    tasks.register("even", Even)
    tasks.register("even", Even)
    assert "even" in str(tasks.list_tasks())
    task = tasks.get("even", top=3)
    assert len(task.problems("train")) == 3
    assert not task.reads_answers
    found = load_problems("even:test", 2)
    assert [v.correct for v in found.task.grade(found.problems, ["12", "13"])] == [True, False]
    with pytest.raises(UserError, match="bottom"):
        tasks.get("even", bottom=1)
    for taken in ("even", "chain-sum", "gsm8k", "aime24", "a/b", ""):
        with pytest.raises(UserError):
            tasks.register(taken, lambda: None)


def test_what_came_in_memory_is_kept_and_found_again(tmp_path):
    data = [{"prompt": chat(("system", "s"), ("user", f"q{i}")), "answer": i, "tests": [f"f({i})"]} for i in range(50)]
    task = tasks.get(data)
    tasks.save(task, tmp_path)
    again = tasks.recall(task.name, near=tmp_path / "runs" / "lora" / "seed-0")
    assert again.name == task.name
    for split in task.splits:
        assert again.problems(split) == task.problems(split)
    path = next((tmp_path / "tasks" / task.name).glob("train.jsonl"))
    path.write_text(path.read_text().replace("q1", "q2", 1))
    with pytest.raises(UserError, match="damaged"):
        tasks.recall(task.name, near=tmp_path)
    assert tasks.get([*data[1:], data[0]]).name != task.name
    with pytest.raises(UserError, match="cannot be stored"):
        tasks.save(tasks.get([{"problem": "q", "x": object()}]), tmp_path)


def test_a_problem_without_an_answer_is_asked_for_none():
    task = tasks.get([{"problem": f"Write a haiku about {i}", "style": "haiku"} for i in range(20)])
    problem = task.problems("train", 1)[0]
    assert problem.answer is None
    assert task.messages(problem, "instruct") == [{"role": "user", "content": problem.prompt}]
    with pytest.raises(UserError, match="no answer"):
        task.grade([problem], ["x"])


def test_a_task_object_passes_through():
    task = tasks.get("chain-sum", operands=3)
    assert tasks.get(task) is task


PROSE = "because either of them may come first, or none at all {0}"


def test_a_single_readable_gold_behind_prose_is_enough():
    golds = [tasks.Problem(str(i), "q", PROSE.format(i) if i < 4 else "5") for i in range(5)]
    tasks.require_answers(golds, "rows")
    with pytest.raises(UserError, match="none of 4 golds"):
        tasks.require_answers(golds[:4], "rows")
