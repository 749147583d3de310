"""The mathematics sets that are known by name."""

import pytest

from rlvr_lite import tasks
from rlvr_lite.errors import UserError


def everything(task):
    return {p.problem: p.answer for split in task.splits for p in task.problems(split)}


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


@pytest.mark.filterwarnings("ignore:.*not the version recorded")
@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("gsm8k", {"question": "q", "answer": "steps\n#### 5"}),
        ("math", {"problem": "q", "solution": "so $\\boxed{5}$", "answer": "5"}),
        ("dapo", {"prompt": "q", "solution": "5"}),
        ("polaris", {"problem": "q", "answer": "5", "difficulty": "3/8"}),
        ("deepmath", {"question": "q", "final_answer": "5", "difficulty": 6.0, "r1_solution_1": "so 5"}),
    ],
)
def test_named_sets_read_the_columns_of_the_hub(monkeypatch, name, columns):
    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("RLVR_LITE_DATA", raising=False)
    asks = next(iter(columns))

    def load_dataset(repository, config, split, revision):
        asked = "problem" if "MATH-500" in repository else asks
        return datasets.Dataset.from_list([{**columns, asked: f"{split} {i}"} for i in range(50)])

    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: "folder")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = tasks.get(name)
    assert set(everything(task).values()) == {"5"}
    assert len(everything(task)) == (50 if tasks.NAMED[name].test is None else 100)
