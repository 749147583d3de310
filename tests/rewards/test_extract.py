r"""The answer is the last ``\boxed{}`` after the last ``</think>``, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite.rewards import extract
from rlvr_lite.rewards.math._extract import ANSWER, TAIL, THINKING


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"<think>\boxed{41}</think> So \boxed{42}.", "42"),
        (r"no tags: \boxed{42}", "42"),
        (r"opened in the prompt </think> \boxed{42}", "42"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{ 42 }", "42"),
        (r"\boxed {42}", "42"),
        ("\\boxed\n{42}", "42"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{a \} b}", r"a \} b"),
        (r"\boxed{\boxed{56}}", r"\boxed{56}"),
        (r"\boxed{1, \boxed{2}}", r"1, \boxed{2}"),
        (r"\boxed{never closed, then \boxed{42}", "42"),
        (r"\boxed{1} \boxedx{2}", "1"),
        (r"<THINK>\boxed{1}</THINK>", "1"),
        (r"<think>a</think><think>b</think>\boxed{3}", "3"),
        (r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ],
)
def test_finds_the_last_box(completion: str, answer: str) -> None:
    assert extract(completion).answer == answer


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        (r"<think>\boxed{42}", "never closed"),
        (r"<think>a</think>\boxed{42}<think>wait", "never closed"),
        (r"<think>\boxed{42}</think> done", "no \\boxed{} after the thinking"),
        (r"\boxed{42}</think>", "no \\boxed{} after the thinking"),
        ("the answer is 42 #### 42", "no \\boxed{} in the completion"),
        (r"\boxed{42", "cut off"),
        (r"\boxed{41} \boxed{42", "cut off"),
        (r"\boxed{7}\boxed{}", "empty"),
        (r"\boxed{  }", "empty"),
        (r"\boxed{1} in \boxed form", "no braces"),
        (r"\boxed{</think>42}", "no \\boxed{}"),
        ("", "no \\boxed{}"),
        ("\\boxed{" + "1" * (ANSWER + 1) + "}", "longer than"),
        ("\\boxed{42}" + "x" * TAIL, "no \\boxed{}"),
    ],
)
def test_says_why_there_is_no_answer(completion: str, reason: str) -> None:
    found = extract(completion)
    assert found.answer is None
    assert reason in found.reason


@pytest.mark.parametrize("depth", [1, 100, 10_000])
def test_depth_needs_no_recursion(depth: int) -> None:
    inside = "{" * depth + "5" + "}" * depth
    found = extract(f"\\boxed{{{inside}}}")
    assert found.answer == (inside if len(inside) <= ANSWER else None)
    assert extract("\\boxed{" * depth + "5" + "}" * depth).answer is not None or depth == 10_000


@settings(deadline=None)
@given(st.text(), st.text(alphabet=st.characters(exclude_characters="{}\\<"), min_size=1).filter(lambda t: t.strip()))
def test_text_around_the_box_does_not_matter(around: str, answer: str) -> None:
    around = around.replace("\\boxed", "").replace("think>", "").replace("{", "").replace("}", "")
    assert extract(f"{around} \\boxed{{{answer}}} {around}").answer == answer.strip()


@settings(deadline=None)
@given(st.text(alphabet=r"\{}boxed</think>1 ", max_size=60))
def test_never_raises_and_never_returns_unbalanced_braces(completion: str) -> None:
    answer = extract(completion).answer
    if answer is not None:
        bare = answer.replace("\\\\", "").replace("\\{", "").replace("\\}", "")
        assert bare.count("{") == bare.count("}")
        assert answer.strip()


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (r"$\boxed{1}$, $\boxed{-2}$ and $\boxed{3}$", "1, -2, 3"),
        (r"\[\boxed{1},\quad\boxed{2}\]", "1, 2"),
        (r"$\boxed{1} \text{ or } \boxed{2}$", "1, 2"),
        ("$\\boxed{5}$\n\n$\\boxed{5}$", "5"),
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"$\boxed{1} = \boxed{2}$", "2"),
        (r"\boxed{1} \boxed{}", None),
    ],
)
def test_boxes_side_by_side_are_one_list(completion: str, answer: str | None) -> None:
    assert extract(completion).answer == answer


@pytest.mark.parametrize(
    "prompt", ["<|Assistant|><think>\n", [{"role": "assistant", "content": "<think>"}], "a[THINK]"]
)
def test_thinking_that_the_prompt_opened_has_to_be_closed(prompt: object) -> None:
    assert extract(r"\boxed{1}", prompt).answer is None
    assert extract(r"so</think>\boxed{1}", prompt).answer == "1"
    assert extract(r"\boxed{1}", "<think></think>").answer == "1"
    assert extract(r"\boxed{1}", [{"role": "user", "content": "<think>"}]).answer == "1"


@pytest.mark.parametrize(("opening", "closing"), THINKING)
def test_every_mark_of_thinking(opening: str, closing: str) -> None:
    assert extract(rf"{opening}\boxed{{1}}").answer is None
    assert extract(rf"{opening}\boxed{{1}}{closing}\boxed{{2}}").answer == "2"


def test_only_the_final_channel_answers() -> None:
    analysis = r"<|channel|>analysis<|message|>\boxed{1}"
    assert extract(analysis).answer is None
    assert extract(rf"{analysis}<|end|><|start|>assistant<|channel|>final<|message|>\boxed{{2}}").answer == "2"
    assert extract(r"\boxed{1}", "<|start|>assistant<|channel|>analysis<|message|>").answer is None
