"""The policy before and after, side by side: in Python, in a notebook, and typed into a terminal."""

from __future__ import annotations

import io

import pytest

import rlvr_lite
from rlvr_lite import bases, conversation
from rlvr_lite.cli import main
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.sampling import TransformersSampler
from tests.exports.helpers import failed, made_run


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """A run that has gone so far that its answers differ."""
    return made_run(tmp_path_factory.mktemp("runs") / "far", "lora", steps=40)


@pytest.fixture(scope="module")
def talk(moved):
    return rlvr_lite.chat(moved)


QUESTION = "4+8+5-3+3=?"


def alone(model, tokenizer):
    greedy = SamplingConfig(temperature=0, max_completion_length=24)
    prompt = [{"role": "user", "content": QUESTION}]
    return TransformersSampler(model, tokenizer).sample([prompt], 1, greedy, [0]).texts[0]


def test_both_answers_are_those_of_base_and_policy(talk, moved):
    reply = talk.ask(QUESTION)
    base = bases.load("tiny", "fp32")
    assert reply.before.text == alone(base.model, base.tokenizer)
    from tests.exports.test_forms import policy

    assert reply.after.text == alone(policy(moved), base.tokenizer)
    assert reply.before.text != reply.after.text
    assert talk.ask(QUESTION) == reply


def test_full_fine_tuning_has_a_before_too(tmp_path):
    run = made_run(tmp_path / "run", "full", steps=40)
    base = bases.load("tiny", "fp32")
    reply = run.chat(QUESTION)
    assert reply.before.text == alone(base.model, base.tokenizer) != reply.after.text


def test_the_conversation_says_how_to_go_on(talk):
    assert "ask(" in repr(talk)


def test_a_reply_shows_itself_in_terminal_and_notebook(talk, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    reply = talk.ask(QUESTION)
    lines = str(reply).splitlines()
    assert "before training" in lines[0]
    assert "after training" in lines[0]
    assert len({line.index("│") for line in lines}) == 1
    assert max(map(len, lines)) <= 80
    page = reply._repr_html_()
    assert page.count("<td") == 2
    wild = conversation.Reply("<script>", reply.before, reply.after)._repr_html_()
    assert "<script>" not in wild


def test_long_answers_are_wrapped_and_cut_ones_marked():
    from rlvr_lite.sampling import Completion

    long, short = Completion("word " * 60, 60, True), Completion("a\nb", 3, False)
    lines = str(conversation.Reply("?", long, short)).splitlines()
    assert len(lines) > 4
    assert any("(cut)" in line for line in lines)


def test_temperature_draws_and_a_seed_repeats(moved):
    first, second = (rlvr_lite.chat(moved, temperature=1.0, seed=3) for _ in range(2))
    answers = [first.ask(QUESTION) for _ in range(4)]
    assert len({reply.after.text for reply in answers}) > 1
    assert [second.ask(QUESTION) for _ in range(4)] == answers


def test_questions_from_a_list(talk, capsys):
    talk.talk(["1+2=?", "  ", "3+4=?", "quit", "5+6=?"])
    assert capsys.readouterr().out.count("before training") == 2


@pytest.mark.parametrize("end", ["exit\n", "\n", ""])
def test_a_conversation_in_the_terminal(end, moved, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{QUESTION}\n1+2=?\n{end}"))
    main(["chat", str(moved.directory)])
    said = capsys.readouterr().out
    assert said.count("after training") == 2
    assert "lora on tiny" in said


def test_an_empty_question_and_runs_that_cannot_be_asked(talk, tmp_path):
    with pytest.raises(UserError, match="empty"):
        talk.ask("  ")
    run = failed(made_run(tmp_path / "run", "lora"))
    with pytest.raises(UserError, match="failed its proof"):
        rlvr_lite.chat(run)
    assert rlvr_lite.chat(run, "1+2=?", force=True).after.text


def test_export_and_verify_from_the_command_line(moved, tmp_path, capsys):
    out = tmp_path / "out"
    main(["export", str(moved.directory), "--to", "merged", "--dtype", "fp16", "--out", str(out)])
    assert "KL to the trained policy" in capsys.readouterr().out
    main(["verify-export", str(out)])
    assert "proven" in capsys.readouterr().out
    (out / "README.md").write_text("changed")
    with pytest.raises(SystemExit):
        main(["verify-export", str(out)])
    assert "README.md" in capsys.readouterr().err
