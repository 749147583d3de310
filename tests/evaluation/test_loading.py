from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest

from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import BENCHMARKS, PAPER, list_benchmarks, load_problems
from rlvr_lite.tasks import Problem, checksum_of

RECORDED = [name for name, benchmark in BENCHMARKS.items() if benchmark.checksum]


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    rows = [{"id": f"q{i}", "problem": f"What is {i}+1?", "answer": i + 1, "note": "x"} for i in range(20)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.data
@pytest.mark.parametrize("name", RECORDED)
def test_the_real_files_are_the_recorded_ones(name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_LITE_DATA", str(data_dir))
    found, benchmark = load_problems(name), BENCHMARKS[name]  # another checksum would warn, and warnings are errors
    assert found.checksum == benchmark.checksum
    assert len(found.problems) == benchmark.size - len(benchmark.excluded)
    ids = {problem.id for problem in found.problems}
    assert len(ids) == len(found.problems)
    assert not ids & set(benchmark.excluded)
    lines = (data_dir / benchmark.file).read_text(encoding="utf-8").splitlines()
    assert set(benchmark.excluded) <= {json.loads(line)["id"] for line in lines}
    assert found.k == benchmark.k


@pytest.mark.data
@pytest.mark.parametrize("name", RECORDED)
def test_the_hub_gives_the_same_problems_under_the_same_ids(
    name: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = BENCHMARKS[name]
    local = [json.loads(line) for line in (data_dir / benchmark.file).read_text(encoding="utf-8").splitlines()]
    written = {
        "gsm8k": lambda a: f"Some steps <<1+1=2>>.\n#### {a}",
        "olympiadbench": lambda a: [f"${a}$"],
        "amc23": float,
    }.get(name, lambda a: a)
    rows = [
        {benchmark.problem: r["problem"], benchmark.answer: written(r["answer"]), "id": 60 + i}
        for i, r in enumerate(local)
    ]
    asked: dict[str, Any] = {}

    def load_dataset(path: str, config: str | None, **options: Any) -> datasets.Dataset:
        asked.update(options, path=path, config=config)
        return datasets.Dataset.from_list(rows)

    monkeypatch.delenv("RLVR_LITE_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: "folder")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    from_hub = load_problems(name)
    assert asked == {
        "path": benchmark.repository,
        "config": benchmark.config,
        "split": benchmark.split,
        "revision": benchmark.revision,
    }
    monkeypatch.setenv("RLVR_LITE_DATA", str(data_dir))
    assert from_hub.problems == load_problems(name).problems


@pytest.mark.data
def test_a_changed_benchmark_is_noticed(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (data_dir / "olympiadbench_en.jsonl").read_text(encoding="utf-8")
    (tmp_path / "olympiadbench_en.jsonl").write_text(
        text.replace('"answer": "2"', '"answer": "3"', 1), encoding="utf-8"
    )
    monkeypatch.setenv("RLVR_LITE_DATA", str(tmp_path))
    with pytest.warns(UserWarning, match="checksum"):
        found = load_problems("olympiadbench")
    assert len(found.problems) == BENCHMARKS["olympiadbench"].size
    assert not found.excluded


def test_without_network_and_file_both_ways_out_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLVR_LITE_DATA", raising=False)

    def load_dataset(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as caught:
        load_problems("aime24")
    assert "RLVR_LITE_DATA" in str(caught.value)
    assert "Hub" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_papers_protocol_is_declared() -> None:
    assert [(name, BENCHMARKS[name].size, BENCHMARKS[name].k) for name in PAPER] == [
        ("aime24", 30, 32),
        ("aime25", 30, 32),
        ("amc23", 40, 32),
        ("hmmt25", 30, 32),
        ("math500", 500, 4),
        ("minerva", 272, 4),
    ]
    assert len(list_benchmarks()) == len(BENCHMARKS)


def test_a_file_of_ones_own_is_a_benchmark(mine: Path) -> None:
    found = load_problems(f"drill={mine}")
    assert found.name == "drill"
    assert found.problems[3] == Problem("q3", "What is 3+1?", "4", found.problems[3].columns)
    assert found.problems[3].columns["note"] == "x"
    assert load_problems(str(mine)).name == "mine"
    assert found.task.messages(found.problems[0], "bare") == [{"role": "user", "content": "What is 0+1?"}]
    assert "boxed" in found.task.messages(found.problems[0], "instruct")[0]["content"]


def test_a_part_is_always_the_same_part_of_a_larger_one(mine: Path) -> None:
    five, eight = load_problems(str(mine), 5).problems, load_problems(str(mine), 8).problems
    assert five == load_problems(str(mine), 5).problems
    assert set(five) <= set(eight)
    assert list(five) != list(load_problems(str(mine)).problems[:5])
    assert len(load_problems(str(mine), 99).problems) == 20
    assert load_problems(str(mine), 5).checksum == load_problems(str(mine)).checksum


@pytest.mark.parametrize("split", ["test", "ood"])
def test_generated_tasks_have_a_split_to_name(split: str) -> None:
    found = load_problems(f"chain-sum:{split}", 12)
    assert found.name == f"chain-sum:{split}"
    assert len(found.problems) == 12
    assert found.max_completion_length == found.task.max_completion_length
    longer = load_problems(f"chain-sum:{split}", 12, task_options={"chain-sum": {"operands": 3}})
    assert longer.problems != found.problems


def test_the_ood_split_is_harder_and_another() -> None:
    test, ood = load_problems("chain-sum:test", 40).problems, load_problems("chain-sum:ood", 40).problems
    assert not {p.problem for p in test} & {p.problem for p in ood}
    assert sum(len(p.problem) for p in ood) > sum(len(p.problem) for p in test)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [{"id": "a", "problem": "1+1", "answer": "2"}, {"id": "a", "problem": "2+2", "answer": "4"}],
            "the id 'a' of row 1",
        ),
        ([{"problem": "1+1", "answer": ""}], "no answer"),
        ([{"problem": "1+1", "answer": None}], "no answer"),
        ([{"problem": "1+1", "answer": ["2", "3"]}], "no answer"),
        ([{"problem": " ", "answer": "2"}], "problem is empty"),
        ([{"problem": 5, "answer": "2"}], "not text"),
        ([{"text": "1+1", "answer": "2"}], "no problem or question or prompt column"),
        ([{"problem": "1+1"}], "no answer column"),
        ([], "empty"),
    ],
)
def test_bad_files_are_one_line_errors(rows: list[dict[str, Any]], words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=words) as caught:
        load_problems(f"x={path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("aime42", "aime24"),
        ("chain-sum:exam", "chain-sum"),
        ("x=absent.jsonl", "does not exist"),
        ("nope:test", "task"),
    ],
)
def test_unknown_names_offer_known_ones(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_problems(spec)


def test_a_benchmark_has_problems(mine: Path) -> None:
    with pytest.raises(UserError, match="at least one"):
        load_problems(str(mine), 0)


def test_the_checksum_sees_order_and_answers() -> None:
    a, b = Problem("1", "x", "1"), Problem("2", "y", "2")
    assert checksum_of([a, b]) == checksum_of([Problem("9", " x ", "1"), b])
    assert len({checksum_of(p) for p in ([a, b], [b, a], [a], [a, Problem("2", "y", "3")])}) == 4


def test_rows_without_ids_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "plain.jsonl"
    path.write_text('{"problem": "1+1", "answer": "2"}\n{"problem": "1+2", "answer": "3"}\n')
    assert [p.id for p in load_problems(str(path)).problems] == ["plain-00000", "plain-00001"]
    shutil.copy(path, tmp_path / "other.jsonl")
    assert load_problems(str(tmp_path / "other.jsonl")).checksum == load_problems(str(path)).checksum


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in RECORDED])
def test_a_competition_without_a_recorded_version_is_whole_and_has_a_checksum(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = BENCHMARKS[name]
    # as MathArena's cards give the columns: AIME's answers are whole numbers, the others' LaTeX
    answers = [i if name == "aime26" else rf"\frac{{{i}}}{{7}}" for i in range(benchmark.size)]
    rows = [
        {"problem_idx": i + 1, "answer": a, "problem": f"Find $x$ of {i}."} for i, a in enumerate(answers)
    ]  # problem_type is left out, as AIME has none

    def load_dataset(path: str, config: str | None, **options: Any) -> datasets.Dataset:
        assert (path, options["split"]) == (benchmark.repository, "train")
        return datasets.Dataset.from_list(rows)

    monkeypatch.delenv("RLVR_LITE_DATA", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *a, **k: "folder")
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = load_problems(name)
    assert [problem.answer for problem in found.problems] == [str(answer) for answer in answers]
    assert (found.checksum, found.k) == (checksum_of(found.problems), 32)
    rows.pop()
    with pytest.raises(UserError, match=f"has {benchmark.size} problems"):
        load_problems(name)
