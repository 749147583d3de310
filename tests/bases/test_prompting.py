"""Prompts begin and end as the tokenizer and its template have it, and what they leave out is added and said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from rlvr_lite import bases, evaluation, sampling
from rlvr_lite.bases import EMBEDDED
from rlvr_lite.errors import UserError
from tests.zoo import saved

CHAT = [{"role": "user", "content": "2+2="}]
THINKING = (
    "{% macro turn(m) %}{{ m['content'] }}{% if enable_thinking is defined and not enable_thinking %}!{% endif %}{% endmacro %}"
    "{% for m in messages %}{{ turn(m) + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{% if enable_thinking %}<think>{% endif %}{{ suffix }}{% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved("llama", tmp_path / "base")


def with_template(folder: Path, template: str | None) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    if template is None:
        (folder / "chat_template.jinja").unlink(missing_ok=True)


def with_bos(folder: Path) -> int:
    """A tokenizer that begins every text with a token, as Llama's does, and a base without a chat template."""
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    name = tokenizer.convert_ids_to_tokens(110)
    tokenizer.bos_token, tokenizer.chat_template = name, None
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{name} $A", special_tokens=[(name, 110)])
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    return 110


def test_plain_text_begins_as_the_tokenizer_begins_it(folder: Path) -> None:
    bos = with_bos(folder)
    tokenizer = bases.load(str(folder)).tokenizer
    own = tokenizer("2+2=")["input_ids"]
    assert own[0] == bos
    assert sampling.encode(tokenizer, ["2+2="])[0].tolist() == [own]


def test_a_base_without_a_template_gets_one_that_begins_alike(folder: Path) -> None:
    bos = with_bos(folder)
    tokenizer = bases.load(str(folder)).tokenizer
    ids = sampling.encode(tokenizer, [CHAT])[0][0].tolist()
    assert ids[0] == bos
    assert ids.count(bos) == 1
    assert ids == tokenizer("2+2=\n\n")["input_ids"]


def test_a_tokenizer_that_adds_nothing_stays_as_it_is(folder: Path) -> None:
    tokenizer = bases.load(str(folder)).tokenizer
    assert sampling.encode(tokenizer, ["2+2="])[0].tolist() == [
        tokenizer("2+2=", add_special_tokens=False)["input_ids"]
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "2+2=<|end|>"),
        ({"enable_thinking": False}, "2+2=!<|end|>"),
        ({"enable_thinking": True}, "2+2=<|end|><think>"),
        ({"suffix": 'it\'s "so"'}, '2+2=<|end|>it\'s "so"'),
    ],
)
def test_variables_of_the_template_reach_every_prompt(folder: Path, values: dict[str, Any], expected: str) -> None:
    with_template(folder, THINKING)
    tokenizer = bases.load(str(folder), chat_template_kwargs=values).tokenizer
    assert sampling.render(tokenizer, CHAT) == expected


def test_a_variable_that_the_template_does_not_read_is_refused(folder: Path) -> None:
    with_template(folder, THINKING)
    with pytest.raises(UserError, match=r"reads no 'enable_thinkin' \(it reads enable_thinking, suffix\)"):
        bases.load(str(folder), chat_template_kwargs={"enable_thinkin": False})


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.popen('touch taken').read() }}", "SecurityError"),
        ("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}", "SecurityError"),
        ("{% for i in range(1000000000) %}x{% endfor %}", "OverflowError: Range too big"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ raise_exception('no\nred \x1b[31mturns') }}", "no red turns"),
        ("{{ messages[7].content }}", "UndefinedError"),
        ("{{ messages[0]['content'] + 3 }}", "TypeError"),
    ],
)
def test_a_strangers_template_runs_nothing_and_fails_in_one_line(
    folder: Path, template: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with_template(folder, template)
    tokenizer = bases.load(str(folder)).tokenizer
    with pytest.raises(UserError, match=says) as said:
        sampling.render(tokenizer, CHAT)
    assert str(said.value).isprintable()
    assert not (folder / "taken").exists()


def test_a_template_without_an_end_is_broken_off(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loops = "".join(f"{{% for {name} in range(99999) %}}" for name in "abcd") + "{% endfor %}" * 4
    monkeypatch.setattr("rlvr_lite.bases._prompting._LONGEST_RENDERING", 0.2)
    with_template(folder, loops)
    with pytest.raises(UserError, match="template of this base did not return"):
        bases.load(str(folder))
    with_template(folder, "{% if 'stop' in messages[-1].content %}" + loops + "{% endif %}{{ messages[-1].content }}")
    tokenizer = bases.load(str(folder)).tokenizer
    assert sampling.render(tokenizer, [{"role": "user", "content": "go"}]) == "go"
    with pytest.raises(UserError, match="did not return"):  # it came to an end before, and loops now
        sampling.render(tokenizer, [{"role": "user", "content": "stop"}])


def test_a_template_that_is_none_is_refused(folder: Path) -> None:
    with_template(folder, "{% for m in messages %}")
    with pytest.raises(UserError, match="cannot be read"):
        bases.load(str(folder))


def test_an_end_of_turn_that_is_no_end_token_is_added_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
    token = tokenizer.convert_ids_to_tokens(110)
    with_template(folder, "{% for m in messages %}{{ m['content'] + '" + token + "\n' }}{% endfor %}")
    base = bases.load(str(folder))
    assert base.eos_ids == (1, 110) == sampling.eos_ids(base.model, base.tokenizer)
    assert [record for record in caplog.records if token in record.getMessage()]


def test_all_end_tokens_of_the_generation_config_count(folder: Path) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 110, 120], "pad_token_id": 0}))
    assert bases.load(str(folder)).eos_ids == (1, 110, 120)


def test_an_evaluation_asks_in_the_template_it_is_told(folder: Path, tmp_path: Path) -> None:
    with_template(
        folder, "{{ messages[0]['content'] }}{% if not enable_thinking %}{{ raise_exception('closed') }}{% endif %}"
    )
    rows = [{"id": str(i), "problem": f"{i}+2=", "answer": str(i + 2)} for i in range(2)]
    ask = {"k": 1, "max_completion_length": 2, "style": "bare", "progress": False}
    with pytest.raises(Exception, match="closed"):
        evaluation.evaluate(str(folder), rows, **ask)
    found = evaluation.evaluate(str(folder), rows, chat_template_kwargs={"enable_thinking": True}, **ask)
    assert found.facts["policy"]["chat_template_kwargs"] == {"enable_thinking": True}
    with pytest.raises(UserError, match="chat_template_kwargs"):
        evaluation.evaluate(bases.load(str(folder)), rows, chat_template_kwargs={"enable_thinking": True}, **ask)
