"""The audit lists what another reader and numeric evaluation see differently."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr_lite.commands import verify
from rlvr_lite.errors import UserError
from rlvr_lite.rewards import audit


def _row(gold: str, answer: str, **more: object) -> dict[str, object]:
    return {"answer": gold, "completion": f"\\boxed{{{answer}}}", **more}


def test_right_verdicts_are_not_listed() -> None:
    rows = [
        _row("42", "42"),
        _row("42", "43"),
        _row("1/2", "0.5", rewards={"accuracy": 1.0}),
        _row("4.5e33", r"4.5\times 10^{33}"),
        _row(r"\sin 2x", r"2\sin x\cos x"),
        _row("(2,\\infty)", "(3,\\infty)"),
        _row("x^2-1", "(x-1)^2"),
        _row(r"\text{Evelyn}", "Evelyn"),
        {"answer": "5", "completion": "no box"},
    ]
    table = audit(rows)
    assert len(table) == 0, table
    assert "9 completions" in table.note


@pytest.mark.parametrize(
    ("gold", "answer", "recorded"),
    [
        ("42", "42", False),
        ("42", "41", True),
        (r"\frac{1}{2}", "0.5", False),
        (r"x^2-1", "(x-1)(x+1)", False),
        (r"\sqrt{2}", "1.414", True),
        (r"\{1,2\}", "2,1", False),
    ],
)
def test_false_verdicts_on_record_are_found(gold: str, answer: str, recorded: bool) -> None:
    rows = [_row(gold, answer, rewards={"accuracy": float(recorded)})] * 3 + [_row("7", "7", correct=True)]
    (row,) = audit(rows)
    assert (row["gold"], row["answer"], row["times"]) == (gold, answer, 3)
    assert row["verdict"] == ("correct" if recorded else "wrong")
    assert row["second opinion"] == ("wrong" if recorded else "correct")


def test_what_cannot_be_evaluated_has_no_second_opinion() -> None:
    table = audit([_row(r"\text{Evelyn}", "Navin"), _row("5", r"x \text{ is good}")])
    assert len(table) == 0
    assert "2 without a second opinion" in table.note


def test_an_empty_run_is_an_empty_table_and_columns_are_checked() -> None:
    assert len(audit([])) == 0
    with pytest.raises(UserError, match="rollout 2"):
        audit([_row("1", "1"), {"completion": "x"}])


def test_golds_that_cannot_be_read_are_listed_with_their_kind() -> None:
    table = audit([_row("3 apples or 4 if it rains", "5"), _row("5", "6", correct=True), _row("7", "7", correct=False)])
    assert sorted(row["kind"] for row in table) == ["accepted here only", "gold cannot be read", "not accepted here"]


def test_the_command_audits_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"gold": "5", "completion": "\\\\boxed{5}", "correct": false}\n')
    verify(audit=path)
    assert "not accepted here" in " ".join(capsys.readouterr().out.split())
