from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import Sample, Score, rescore
from rlvr_lite.evaluation._scoring import score_with
from rlvr_lite.tasks import Problem
from tests.evaluation.fakes import PROBLEMS, FakeSampler, ask

SAMPLING = SamplingConfig(temperature=0.8, max_completion_length=8)


def run(engine: Any = None, problems: Any = PROBLEMS, **options: Any) -> Score:
    options = {"messages": ask, "k": 4, "sampling": SAMPLING, **options}
    return score_with(engine or FakeSampler(), problems, **options)


def text(result: Score) -> str:
    return json.dumps([result.to_dict(outcomes=True), result.rows()])


def test_the_numbers_are_those_of_the_samples() -> None:
    result = run()
    facts = result.to_dict()
    assert facts["problems"] == 12
    assert facts["greedy"]["value"] == 0.5
    right = {p.id: [s for s in result.samples if s.id == p.id and s.index >= 0 and s.correct] for p in PROBLEMS}
    assert facts["avg@4"]["value"] == pytest.approx(np.mean([len(r) / 4 for r in right.values()]))
    assert facts["pass@4"]["value"] == pytest.approx(np.mean([bool(r) for r in right.values()]))
    drawn = [s for s in result.samples if s.index >= 0]
    assert facts["mean_tokens"] == pytest.approx(np.mean([s.tokens for s in drawn]))
    assert facts["truncated"] == pytest.approx(np.mean([s.truncated for s in drawn]))
    for metric in ("greedy", "avg@4", "pass@4", "maj@4"):
        assert facts[metric]["low"] <= facts[metric]["value"] <= facts[metric]["high"]


def test_order_number_and_batching_of_problems_change_nothing() -> None:
    whole = text(run())
    shuffled = PROBLEMS.copy()
    random.Random(0).shuffle(shuffled)
    assert text(run(problems=shuffled)) == whole
    for room in (1, 40, 10_000):
        assert text(run(FakeSampler(room=room))) == whole
    part = run(problems=PROBLEMS[3:5])
    assert part.rows() == [row for row in run().rows() if row["id"] in ("p03", "p04")]


def test_more_samples_begin_with_the_same_ones() -> None:
    few, many = run(k=2), run(k=6)
    assert few.correct is not None
    assert many.correct is not None
    np.testing.assert_array_equal(few.correct, many.correct[:, :2])


def test_another_seed_draws_other_answers() -> None:
    assert text(run(seed=1)) != text(run())


@pytest.mark.parametrize("batches", range(5))
def test_a_killed_evaluation_continues_where_it_stopped(tmp_path: Path, batches: int) -> None:
    unbroken = FakeSampler()
    whole, log = run(unbroken, log=tmp_path / "a.jsonl"), tmp_path / "b.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(FakeSampler(die_after=batches), log=log)
    before = log.read_text() if log.exists() else ""
    log.write_text(before + '{"id": "p0')  # the kill tore a line
    engine = FakeSampler(room=10**6)
    assert text(run(engine, log=log)) == text(whole)
    assert engine.largest <= unbroken.largest  # the memory of another day must not change the batches
    assert log.read_text().startswith(before)
    lines = [(row["id"], row["index"]) for row in map(json.loads, log.read_text().splitlines())]
    assert len(lines) == len(set(lines)) == 60
    assert text(Score.read(log, "score")) == text(whole)
    again = FakeSampler()
    assert text(run(again, log=log)) == text(whole)
    assert not again.drawn


def test_a_log_is_continued_whatever_the_order_of_the_problems(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    whole = run(log=log)
    again = FakeSampler()
    assert text(run(again, problems=PROBLEMS[::-1], log=log)) == text(whole)
    assert not again.drawn


def test_a_batch_written_in_part_is_completed(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    whole = run(log=log)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:-7]))
    assert text(run(log=log)) == text(whole)
    assert sorted(log.read_text().splitlines()) == sorted(line.strip() for line in lines)


@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("k", {"k": 5}),
        ("seed", {"seed": 3}),
        ("greedy", {"greedy": False}),
        ("sampling", {"sampling": SamplingConfig(temperature=0.7, max_completion_length=8)}),
        ("problems", {"problems": PROBLEMS[:-1]}),
        ("prompts", {"messages": lambda p: [{"role": "user", "content": f"Please! {p.problem}"}]}),
        ("policy", {"facts": {"policy": "another"}}),
    ],
)
def test_a_log_of_another_setting_is_refused_and_left_alone(tmp_path: Path, word: str, change: dict[str, Any]) -> None:
    log = tmp_path / "a.jsonl"
    run(log=log, facts={"policy": "this"})
    before = log.read_bytes()
    with pytest.raises(UserError, match=f"another {word} "):
        run(log=log, **{"facts": {"policy": "this"}, **change})
    assert log.read_bytes() == before


def test_a_log_without_its_facts_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    run(log=log)
    log.with_suffix(".config.json").unlink()
    with pytest.raises(UserError, match="config"):
        run(log=log)


def test_a_log_whose_facts_are_damaged_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    run(log=log)
    for data in ("null", "[]", '{"facts": []}', '{"facts": null}', '{"facts"', ""):
        log.with_suffix(".config.json").write_text(data)
        with pytest.raises(UserError, match="config"):
            run(log=log)


def test_running_out_of_memory_halves_the_batch_and_changes_nothing() -> None:
    class Small(FakeSampler):
        def sample(self, prompts: Any, k: int, *rest: Any) -> Any:
            if len(prompts) * k > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().sample(prompts, k, *rest)

    assert text(run(Small(room=10**6))) == text(run())


def test_one_answer_too_large_for_memory_is_a_users_error() -> None:
    class None_(FakeSampler):
        def sample(self, *rest: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="max_completion_length"):
        run(None_())


def test_temperature_zero_takes_the_greedy_answer_alone() -> None:
    result = run(k=1, sampling=SamplingConfig(temperature=0.0, max_completion_length=8), greedy=False)
    assert result.k == 0
    assert list(result.metrics()) == ["greedy"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 0}, "k must be"),
        ({"k": 4, "sampling": SamplingConfig(temperature=0.0)}, "temperature"),
        ({"problems": []}, "no problems"),
        ({"problems": [PROBLEMS[0], PROBLEMS[0]]}, "twice"),
        ({"problems": [Problem("a", "1+1", " ")]}, "no answer"),
        ({"problems": [Problem("a", "", "2")]}, "no text"),
    ],
)
def test_bad_requests_are_one_line_errors(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        run(**change)
    assert "\n" not in str(caught.value)


def test_the_score_comes_back_from_its_json() -> None:
    result = run()
    facts = json.loads(json.dumps(result.to_dict(outcomes=True)))
    assert Score.from_dict("score", facts).to_dict(outcomes=True) == facts
    with pytest.raises(UserError):
        Score.from_dict("score", {"problems": 3})


def test_a_hole_in_the_samples_is_noticed() -> None:
    samples = list(run().samples)
    with pytest.raises(UserError, match="incomplete"):
        Score.of("x", samples[:-1])
    with pytest.raises(UserError, match="twice"):
        Score.of("x", [*samples, samples[0]])


def test_progress_tells_the_running_accuracy() -> None:
    told: list[tuple[int, int, float]] = []
    result = run(progress=lambda *now: told.append(now))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][:2] == (60, 60)
    assert told[-1][2] == pytest.approx(np.mean([s.correct for s in result.samples]))


def test_the_bar_shows_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    run(progress=True)
    assert "% right" in capsys.readouterr().err


def test_a_file_that_is_no_log_of_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "a"}\n')
    with pytest.raises(UserError, match="samples"):
        Score.read(path)


def test_a_file_of_samples_judged_again_gives_the_same_bytes(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    whole = run(log=log)
    once, twice = (rescore(log, PROBLEMS, "score") for _ in range(2))
    assert text(once) == text(twice) == text(whole)
    moved = [Problem(p.id, p.problem, "-9") for p in PROBLEMS]
    assert text(rescore(log, moved)) != text(whole)
    with pytest.raises(UserError, match="p11"):
        rescore(log, PROBLEMS[:-1])


def test_samples_are_plain_rows() -> None:
    row = run().rows()[0]
    assert Sample(**row).to_dict() == row
