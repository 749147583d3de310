"""Reward functions in TRL's signature."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.errors import UserError
from rlvr_lite.rewards import accuracy, combine, format, get, overlong


def _chat(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_accuracy_reads_texts_and_chats_alike() -> None:
    texts = [r"\boxed{1}", r"\boxed{2}", "1", r"<think>\boxed{1}"]
    columns = {"answer": ["1"] * 4, "prompts": ["p"] * 4, "completion_ids": [[1]] * 4, "trainer_state": None}
    assert accuracy(completions=texts, **columns) == [1.0, 0.0, 0.0, 0.0]
    assert accuracy(completions=[_chat(text) for text in texts], **columns) == [1.0, 0.0, 0.0, 0.0]


def test_chat_contents_may_come_in_parts_and_the_last_message_counts() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed"}, {"type": "text", "text": "{1}"}]}]
    tool = [*_chat(r"\boxed{2}"), {"role": "tool", "content": "x"}, *_chat(r"\boxed{1}")]
    assert accuracy([parts, tool, [], None, [{"role": "assistant", "content": None}]], answer=["1"] * 5) == [
        1,
        1,
        0,
        0,
        0,
    ]


def test_format_rewards_a_readable_form_whatever_the_answer() -> None:
    texts = [r"<think>a</think>\boxed{wrong}", r"<think>\boxed{1}", r"\boxed{1", "1", r"\boxed{}"]
    assert format(texts) == [1.0, 0.0, 0.0, 0.0, 0.0]


@settings(deadline=None)
@given(st.integers(1, 500), st.data())
def test_overlong_is_the_formula_of_dapo(longest: int, data: st.DataObject) -> None:
    margin = data.draw(st.integers(1, longest))
    length = data.draw(st.integers(0, 600))
    if length <= longest - margin:
        expected = 0.0
    elif length <= longest:
        expected = ((longest - margin) - length) / margin
    else:
        expected = -1.0
    assert overlong(longest, margin)(["x"], completion_ids=[[0] * length]) == [pytest.approx(expected)]


def test_overlong_needs_lengths() -> None:
    with pytest.raises(UserError, match="max_completion_length"):
        get("overlong")
    with pytest.raises(UserError, match="completion_ids"):
        get("overlong", max_completion_length=10)(["a"])
    with pytest.raises(UserError, match="margin"):
        overlong(10, 11)


def test_get_knows_the_names_and_offers_the_nearest() -> None:
    assert get("accuracy") is accuracy
    assert get("format") is format
    assert get("overlong", 10).__name__ == "overlong"
    with pytest.raises(UserError, match="accuracy"):
        get("acuracy")


def test_combine_weighs_and_leaves_out_none() -> None:
    def mine(completions: list[str], **_: object) -> list[float | None]:
        return [None, 2.0]

    both = combine(["accuracy", mine], [1.0, 0.5])
    assert both([r"\boxed{1}", r"\boxed{1}"], answer=["1", "1"]) == [1.0, 2.0]
    assert combine([mine])(["a", "b"]) == [None, 2.0]
    assert both.__name__ == "accuracy+mine"
    with pytest.raises(UserError, match="weights"):
        combine(["accuracy"], [1.0, 2.0])
    with pytest.raises(UserError, match="at least one"):
        combine([])


def test_rewards_of_trl_plug_in_beside_ours() -> None:
    from trl.rewards import get_soft_overlong_punishment, think_format_reward

    longest = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    together = combine([longest, think_format_reward, "accuracy"])
    ids = [[0] * 90, [0] * 10]
    chats = [_chat("<think>a</think>\n\\boxed{1}"), _chat(r"\boxed{1}")]
    assert together(chats, completion_ids=ids, answer=["1", "1"]) == [pytest.approx(-0.5 + 1 + 1), pytest.approx(1.0)]
    mine = overlong(100, 20)
    lengths = [[0] * n for n in range(0, 130, 7)]
    assert mine(["x"] * len(lengths), completion_ids=lengths) == pytest.approx(longest(completion_ids=lengths))


def test_the_prompt_decides_whether_a_completion_begins_with_thinking() -> None:
    texts, prompts = [r"\boxed{1}", r"</think>\boxed{1}", r"\boxed{1}"], ["Q<think>", "Q<think>", "Q"]
    assert accuracy(texts, answer=["1"] * 3, prompts=prompts) == [0.0, 1.0, 1.0]
    assert format(texts, prompts=prompts) == [0.0, 1.0, 1.0]


def test_accuracy_has_no_opinion_without_a_readable_gold() -> None:
    assert accuracy([r"\boxed{1}"], answer=["3 apples or 4 apples if it rains"]) == [None]


def test_a_fallback_is_named_or_refused() -> None:
    assert get("accuracy", fallback="answer is")(["The answer is 5."], answer=["5"]) == [1.0]
    with pytest.raises(UserError, match="fallback"):
        get("format", fallback="answer is")
