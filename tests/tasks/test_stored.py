import json

import pytest

from rlvr_lite import tasks
from rlvr_lite.errors import UserError


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows(n, problem="problem", answer="answer"):
    return [{problem: f"What is {i} + 1?", answer: str(i + 1)} for i in range(n)]


def everything(task):
    return {p.problem: p.answer for split in task.splits for p in task.problems(split)}


@pytest.mark.parametrize("problem", ["problem", "question", "prompt"])
def test_a_file_and_a_dataset_give_the_same_problems(tmp_path, problem):
    datasets = pytest.importorskip("datasets")
    data = rows(200, problem)
    from_file = tasks.get(write(tmp_path / "mine.jsonl", data))
    from_dataset = tasks.get(datasets.Dataset.from_list(data))
    assert from_file.name == "mine"
    assert everything(from_file) == everything(from_dataset) == {r[problem]: r["answer"] for r in data}
    for split in ("train", "validation", "test"):
        assert {p.problem for p in from_file.problems(split)} == {p.problem for p in from_dataset.problems(split)}


def test_stored_splits_are_disjoint_nested_and_shuffled_by_seed(tmp_path):
    task = tasks.get(str(write(tmp_path / "mine.jsonl", rows(300))))
    assert task.splits == ("train", "validation", "test")
    parts = [{p.problem for p in task.problems(split)} for split in task.splits]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 300
    assert 0.7 < len(parts[0]) / 300 < 0.9
    assert task.problems("train", 20, seed=1) == task.problems("train", 60, seed=1)[:20]
    assert task.problems("train", seed=1) != task.problems("train", seed=2)
    with pytest.raises(UserError, match="no ood split"):
        task.problems("ood")
    with pytest.raises(UserError, match="has only"):
        task.problems("test", 301)


def test_a_row_added_moves_no_other_row_to_another_split(tmp_path):
    before = tasks.get(write(tmp_path / "a.jsonl", rows(100)))
    after = tasks.get(write(tmp_path / "b.jsonl", rows(101)[::-1]))
    for split in before.splits:
        assert {p.problem for p in before.problems(split)} <= {p.problem for p in after.problems(split)}


@pytest.mark.parametrize(
    ("cell", "gold"),
    [
        ("7", "7"),
        (" 7 ", "7"),
        (7, "7"),
        (0, "0"),
        (2.5, "2.5"),
        ("48/2 = 24\n48+24 = 72\n#### 72", "72"),
        ("so \\boxed{1} or rather \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\frac{1}{2}", "\\frac{1}{2}"),
    ],
)
def test_golds_are_final_answers(tmp_path, cell, gold):
    task = tasks.get(write(tmp_path / "x.jsonl", [{"question": "q", "answer": cell}]))
    assert everything(task) == {"q": gold}


def test_chats_other_column_names_ids_and_repeats(tmp_path):
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q1"}]
    data = [{"prompt": chat, "gold": "1", "id": "first"}, {"prompt": "q2", "gold": "2"}, {"prompt": "q2", "gold": "9"}]
    task = tasks.get(write(tmp_path / "x.jsonl", data), answer="gold")
    assert everything(task) == {"q1": "1", "q2": "2"}
    assert {p.id for split in task.splits for p in task.problems(split)} == {"first", "x-00001"}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "is empty"),
        ([{"problem": "q", "solution": "1"}], "no answer column, only problem, solution"),
        ([{"text": "q", "answer": "1"}], "no problem or question or prompt column, only text, answer"),
        ([{"problem": "q", "answer": "1"}, {"problem": "r", "answer": " "}], "row 2: answer is empty"),
        ([{"problem": "q", "answer": None}], "row 1: answer is empty"),
        ([{"problem": "q", "answer": "so \\boxed{1"}], "row 1: answer is empty"),
        ([{"problem": "q", "answer": ["1"]}], "row 1: answer is a list"),
        ([{"problem": "q", "answer": True}], "row 1: answer is a bool"),
        ([{"problem": "", "answer": "1"}], "row 1: problem is empty"),
        ([{"problem": "q", "answer": "1"}, {"answer": "1"}], "row 2: problem is empty"),
        ([{"problem": "q", "answer": "1"}, "", "{'problem'"], "line 3 is not JSON"),
        (["[1]"], "line 1 is not a JSON object"),
    ],
)
def test_bad_files_are_one_line(tmp_path, lines, says):
    with pytest.raises(UserError, match=says) as error:
        tasks.get(write(tmp_path / "bad.jsonl", lines))
    assert "\n" not in str(error.value)
    assert "bad.jsonl" in str(error.value)


def test_other_bad_sources(tmp_path):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(UserError, match="does not exist"):
        tasks.get(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match=r"not a \.jsonl file"):
        tasks.get(tmp_path / "table.csv")
    with pytest.raises(UserError, match="no answer column, only problem"):
        tasks.get(datasets.Dataset.from_list([{"problem": "q"}]))
    with pytest.raises(UserError, match=r"dataset\['train'\]"):
        tasks.get(datasets.DatasetDict({"train": datasets.Dataset.from_list(rows(2))}))
    with pytest.raises(UserError, match="has no options"):
        tasks.get("gsm8k", operands=4)


def test_a_task_object_passes_through():
    task = tasks.get("chain-sum", operands=3)
    assert tasks.get(task) is task


@pytest.mark.data
@pytest.mark.parametrize(("name", "rows"), [("gsm8k", 2000), ("math", 2000), ("dapo", 2000)])
def test_named_sets_load_from_the_folder(data_dir, monkeypatch, name, rows):
    monkeypatch.setenv("RLVR_LITE_DATA", str(data_dir))
    task = tasks.get(name)
    parts = {split: {p.problem for p in task.problems(split)} for split in task.splits}
    assert list(parts) == ["train", "validation", "test"]
    assert len(set.union(*parts.values())) == sum(map(len, parts.values()))
    test = {"gsm8k": 1319, "math": 500}.get(name)
    assert len(parts["test"]) == (test or len(parts["test"])) > 100
    assert sum(map(len, parts.values())) == rows + (test or 0)
    chat = task.messages(task.problems("train", 1)[0], "instruct")
    assert len(chat) == 1
    assert "\\boxed{}" in chat[0]["content"]


def test_named_sets_without_folder_or_network_name_both_ways_out(tmp_path, monkeypatch):
    monkeypatch.setenv("RLVR_LITE_DATA", str(tmp_path))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="connect to the Hugging Face Hub, or set RLVR_LITE_DATA"):
        tasks.get("gsm8k")


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("gsm8k", {"question": "q", "answer": "steps\n#### 5"}),
        ("math", {"problem": "q", "solution": "so $\\boxed{5}$", "answer": "5"}),
        ("dapo", {"prompt": "q", "solution": "5"}),
    ],
)
def test_named_sets_read_the_columns_of_the_hub(monkeypatch, name, columns):
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("RLVR_LITE_DATA", raising=False)
    asks = next(iter(columns))

    def load_dataset(repository, config, split):
        return datasets.Dataset.from_list([{**columns, asks: f"{split} {i}"} for i in range(50)])

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: "folder")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = tasks.get(name)
    assert set(everything(task).values()) == {"5"}
    assert len(everything(task)) == (50 if name == "dapo" else 100)
