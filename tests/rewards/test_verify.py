"""What a verdict promises: the policy's cases, order and length, one answer whatever the way it is asked."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from rlvr_lite.errors import UserError
from rlvr_lite.rewards import explain, verify, verify_batch
from rlvr_lite.rewards.math import _verifier as verifier
from rlvr_lite.rewards.math._structure import read
from tests.rewards.perturb import perturbations
from tests.rewards.strategies import completions, golds

HOWS = {"extract", "string", "number", "text", "structure", "algebra", "numeric", "math-verify"}


def _rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def benchmark_golds(data_dir: Path) -> list[str]:
    files = sorted(path for path in data_dir.glob("*.jsonl") if path.stem != "verifier_cases")
    assert len(files) >= 9
    return list(dict.fromkeys(row["answer"] for path in files for row in _rows(path)))


@pytest.mark.data
def test_agrees_with_the_written_cases(data_dir: Path) -> None:
    rows = _rows(data_dir / "verifier_cases.jsonl")
    verdicts = verify_batch([row["gold"] for row in rows], [row["completion"] for row in rows])
    settled = [(row, v) for row, v in zip(rows, verdicts, strict=True) if "(judgement)" not in row["why"]]
    wrong = [(row["gold"][:60], v.extracted, v.how, row["why"]) for row, v in settled if v.correct != row["correct"]]
    assert len(settled) > 450
    assert wrong == []
    assert {v.how for v in verdicts} <= HOWS
    assert all(v.reason for v in verdicts if not v.correct)


@pytest.mark.data
def test_every_benchmark_gold_equals_itself(benchmark_golds: list[str]) -> None:
    verdicts = verify_batch(benchmark_golds, [f"\\boxed{{{gold}}}" for gold in benchmark_golds])
    assert [v.extracted for v in verdicts if not v.correct] == []


@pytest.mark.data
def test_perturbed_golds_are_rejected_because_they_were_read(benchmark_golds: list[str]) -> None:
    pairs = [(gold, changed) for gold in benchmark_golds for _, changed in perturbations(gold)]
    verdicts = verify_batch([gold for gold, _ in pairs], [f"\\boxed{{{changed}}}" for _, changed in pairs])
    assert len(pairs) > 3_000
    accepted = [pair for pair, v in zip(pairs, verdicts, strict=True) if v.correct]
    assert accepted == []
    unread = [pair for pair, v in zip(pairs, verdicts, strict=True) if v.how in ("text", "extract")]
    assert len(unread) <= 0.005 * len(pairs), unread


@pytest.mark.data
def test_nearly_every_benchmark_gold_can_be_read(benchmark_golds: list[str]) -> None:
    unread = [gold for gold in benchmark_golds if isinstance(read(gold), Exception)]
    assert all(gold.startswith("\\text") or "where" in gold for gold in unread), unread


@pytest.mark.parametrize(
    ("gold", "answer", "how"),
    [
        ("42", None, "extract"),
        (r"\frac{1}{2}", r"\frac{1}{2}", "string"),
        ("1000", "1,000.0", "number"),
        ("4.5e33", r"45\times 10^{32}", "number"),
        (r"\text{East}", "east", "text"),
        ("(1,2)", "(1, 2, 3)", "structure"),
        (r"\sqrt{8}", r"2\sqrt{2}", "algebra"),
        (r"\sin 2x", r"2\sin x", "numeric"),
        (r"\sin 2x", r"2\sin x\cos x", "math-verify"),
    ],
)
def test_the_cheapest_stage_that_can_decide_does(gold: str, answer: str | None, how: str) -> None:
    assert verify(gold, "no box" if answer is None else f"\\boxed{{{answer}}}").how == how


def test_order_and_length_are_kept_with_repeats_and_slow_items() -> None:
    items = [
        ("1", "1", True),
        (r"\sin 2x", r"2\sin x\cos x", True),
        ("2", "1", False),
        (r"\cos 2x", r"1-2\sin^2 x", True),
    ]
    items = [items[(7 * i) % 4] for i in range(100)]
    verdicts = verify_batch([gold for gold, _, _ in items], [f"\\boxed{{{answer}}}" for _, answer, _ in items])
    assert [v.correct for v in verdicts] == [correct for _, _, correct in items]
    assert [v.extracted for v in verdicts] == [answer for _, answer, _ in items]


def test_an_empty_batch_is_empty_and_unequal_lengths_are_refused() -> None:
    assert verify_batch([], []) == []
    with pytest.raises(UserError, match="give one each"):
        verify_batch(["1"], [])


@pytest.mark.parametrize("completion", [None, 5, ["\\boxed{5}"], b"\\boxed{5}"])
def test_what_is_not_text_is_a_wrong_answer(completion: object) -> None:
    assert not verify("5", completion).correct  # type: ignore[arg-type]


@pytest.mark.parametrize(("gold", "correct"), [(5, True), (5.0, True), (6, False), (None, False)])
def test_golds_may_be_numbers(gold: object, correct: bool) -> None:
    assert verify(gold, "\\boxed{5}").correct is correct  # type: ignore[arg-type]


def test_the_verdict_is_the_same_in_another_thread() -> None:
    pairs = [("42", r"\boxed{42}"), (r"1+\sqrt{2}", r"\boxed{\sqrt{3+2\sqrt{2}}}"), (r"\cot x", r"\boxed{\tan x}")]
    found: list[list[bool]] = []

    def work() -> None:
        found.append([v.correct for v in verify_batch(*zip(*pairs, strict=True))])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[True, True, False]] * 4


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^{9}}}",
        "9^{9^{9^{9^{9^{0.006}}}}}",
        "(10^{10})!",
        "((9!)!)!",
        r"\binom{10^{12}}{5\cdot 10^{11}}",
        r"\prod_{k=1}^{10^9} k",
        "(x+1)^{1000000}",
        "(a+b+c+d+e+f+g+h)^{300}",
        r"\sin(10^{10^{10}})",
        r"\sqrt[E_{1}]{1e99999}",
        r"\text{or}\text{or}",
        r"\int_0^{10^{10}} e^{e^{x}}\,dx",
        "x^{" * 400 + "}" * 400,
        "(" * 3000 + "5" + ")" * 3000,
        "1e99999999999999999999999",
        "+".join(rf"\frac{{1}}{{{n}+x}}" for n in range(100)),
    ],
)
def test_bombs_are_refused_without_a_worker(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "ask", lambda *_: pytest.fail("a worker was asked"))
    verdict = verify("5", f"\\boxed{{{answer}}}")
    assert not verdict.correct
    assert verifier.UNEXPECTED not in verdict.reason


def test_bombs_equal_themselves() -> None:
    for bomb in ("9^{9^{9^{9}}}", "(10^{10})!", "1" * 5000):
        assert verify(bomb, f"\\boxed{{{bomb}}}").correct
    assert not verify("1" * 5000, "\\boxed{" + "1" * 4999 + "2}").correct


@pytest.mark.parametrize("depth", [0, 500])
def test_a_deep_call_stack_changes_nothing(depth: int) -> None:
    if depth:
        return test_a_deep_call_stack_changes_nothing(depth - 1)
    assert verify(r"\frac{1}{2}", r"\boxed{\frac{\frac{1}{3}}{\frac{2}{3}}}").correct
    return None


def _check(rows: list[tuple[str, str]]) -> None:
    verdicts = verify_batch([gold for gold, _ in rows], [completion for _, completion in rows])
    assert len(verdicts) == len(rows)
    for (gold, completion), v in zip(rows, verdicts, strict=True):
        assert v.correct in (True, False) or v.reason.startswith("not judged")
        assert v.how in HOWS
        assert v.reason or v.correct
        assert verifier.UNEXPECTED not in v.reason, (gold, completion[:200], v)
        assert v.extracted is None or v.extracted in completion
        assert not (v.correct and (v.extracted is None or not gold.strip()))


_BATCH = st.lists(st.tuples(golds, completions), min_size=10, max_size=10)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(_BATCH)
def test_any_text_gets_a_verdict(rows: list[tuple[str, str]]) -> None:
    _check(rows)


def test_what_breaks_the_second_reader_is_wrong_and_not_left_out():
    matrix = r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"
    found = verify(matrix, r"\boxed{0.0000.0000.0000.0000.0000.0000.0000.0000.0000.000}")
    assert found.correct is False


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(5))
def test_thousands_of_texts_get_a_verdict(part: int) -> None:  # tests/benchmarks/verifier.py takes a hundred thousand
    quiet = {"database": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}
    seed(part)(settings(max_examples=500, deadline=None, **quiet)(given(_BATCH)(_check)))()  # type: ignore[arg-type]


@settings(deadline=None)
@given(completions)
def test_an_answer_equals_itself(completion: str) -> None:
    verdict = verify("1", completion)
    if (
        verdict.extracted is not None and "\\boxed" not in verdict.extracted
    ):  # a gold with a box in it is what the box holds
        assert verify(verdict.extracted, f"\\boxed{{{verdict.extracted}}}").correct


def test_explain_is_one_line_for_a_bare_answer_and_for_a_completion() -> None:
    assert explain("1/2", "0.5").startswith("correct")
    assert explain("1/2", r"so \boxed{0.6}").startswith("wrong")
    assert "never closed" in explain("1/2", r"<think>\boxed{0.5}")
    assert "\n" not in explain("1/2", "0.5\n\n" + "x" * 500)


def test_importing_the_room_loads_nothing_heavy() -> None:
    heavy = "{'sympy', 'math_verify', 'torch', 'pebble', 'numpy', 'transformers', 'trl'}"
    code = f"import sys, rlvr_lite.rewards; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
