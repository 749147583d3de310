"""Answers as models write them: which are the gold in other words, and which are not."""

from __future__ import annotations

import pytest

from rlvr_lite.rewards import verify

RIGHT = [
    ("1,-2", r"x = 1, -2"),
    ("-2,1", r"x=-2 \text{ or } x=1"),
    ("-2,1", r"x \in \{-2, 1\}"),
    ("-2,1", r"-2 \text{ and } 1"),
    ("3, 5, 7", r"3,\ 5,\ 7"),
    (r"1 \pm \sqrt{19}", r"x = 1 \pm \sqrt{19}"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{\sqrt{3}}{3} \approx 0.577"),
    ("1.6", r"\approx 1.6"),
    ("1.6", r"x \approx 1.6"),
    ("113", r"100 + 13 = 113"),
    ("113", r"n = 100 + 13 = 113"),
    (r"\frac{1}{2}", r"\frac{1}{2} \text{ or } 0.5"),
    (r"\frac{1}{2}", r"P(A) = \frac12"),
    ("5", r"\text{Area} = 5"),
    ("5", r"S_{10} = 5"),
    ("5", r"\angle ABC = 5^\circ"),
    ("5", r"\text{The answer is } 5"),
    ("5", r"5 \text{ apples}"),
    ("60", r"60\%"),
    (r"62.5\%", "62.5"),
    (r"62.5\%", r"62.5 \text{ percent}"),
    ("5000000", r"5 \text{ million}"),
    (r"\$32,\!348", r"32,348 \text{ dollars}"),
    (r"36\pi", r"36\pi \, \text{cm}^3"),
    (r"15\mbox{ cm}^2", r"15 \text{ square centimeters}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(r,\theta) = \left(3, \dfrac{\pi}{2}\right)"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\left(-\frac13, \frac23\right)"),
    (r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", r"\mathbf{v} = \begin{bmatrix} -\frac13 \\ \frac23 \end{bmatrix}"),
    (r"(0,9) \cup (9,36)", r"0 < x < 9 \text{ or } 9 < x < 36"),
    (r"k \geqslant 2", r"[2, \infty)"),
    ("(1,3)", r"x > 1 \text{ and } x < 3"),
    (r"(-\infty,2)\cup(2,\infty)", r"x \ne 2"),
    ("f(x)=2 x", "2x"),
    ("f(x)=2 x", "f(x) = x + x"),
    (r"2,-\log _{10} 250", r"2, -\log 250"),
    (r"\ln 2", r"\log 2"),
    (r"I(0) e^{-\frac{t}{R C}}", r"I(0)\,e^{-t/(RC)}"),
    (r"m \frac{d v}{d t}+b v=f", r"f - bv = m\frac{dv}{dt}"),
    (r"\frac{1}{2a}(\exp{a*t} - \exp{-a*t})", r"\frac{\sinh(at)}{a}"),
    ("MR=SRMC", "SRMC = MR"),
    ("52_8", r"52_{\text{8}}"),
    ("0.1666", "0.16660"),
    (r"\frac{1}{6}", r"0.1\overline{6}"),
    (r"\text{odd}", "odd"),
    ("odd", r"\text{Odd}"),
    (r"\sqrt{4\pi G \rho r^2}", r"2r\sqrt{\pi G\rho}"),
    (r"2^{10^{30}}", r"2^{10^{30}}"),
    (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
    (r"\frac{1}{3}", r"\int_0^1 x^2\,dx"),
    ("e", r"\lim_{n\to\infty} (1+\frac1n)^n"),
    ("6", r"\operatorname{lcm}(2,3)"),
    ("(x,y)=(6,5)", "(6,5)"),
    (r"|x-3|", r"\left|3-x\right|"),
    (r"t(0,4]", "(0,4]"),
    ("27", "m + n = 27"),
    ("110", "100m+n=110"),
    (r"\sqrt{1022117}", r"\sqrt{1009}\sqrt{1013}"),
    ("104.5", "104.5^\\circ"),
]
WRONG = [
    (r"\frac{1}{2}", r"\frac{1}{2} \text{ or } 0.6"),
    ("113", "113 = 114"),
    ("5", r"x = 5 = 6"),
    ("5", "x + 3 = 5"),
    ("10", "2x = 10"),
    (r"\sqrt{1022117}", r"\sqrt{1009}\sqrt{1019}"),
    ("5", r"5 \text{ is not right}"),
    ("5", r"5 \text{ million}"),
    ("60", r"0.6\%"),
    (r"62.5\%", "6.25"),
    ("x=5", "y=5"),
    ("(1,3)", r"x > 1 \text{ or } x < 3"),
    (r"k \geqslant 2", r"(2, \infty)"),
    ("f(x)=2 x", "g(x) = 2x"),
    ("MR=SRMC", "RM=CSMR"),
    ("3R^2", "3r^2"),
    ("6m", "6"),
    ("E_{1},E_{2}", "E_{1},E_{3}"),
    (r"\frac{1}{m} t", r"\frac{1}{m}"),
    (r"\frac{1}{3} E_{1}+\frac{2}{3} E_{2}", r"\frac{2}{3}"),
    (r"\hbar \omega(v+1 / 2)-\frac{E_{0}^{2} e^{2}}{2 m \omega^{2}}", "2"),
    ("f(x)=a x+b, where b is an arbitrary integer", "0"),
    (r"\log_2 3", r"\log 3"),
    ("I(0)", "0"),
    (r"\frac{7}{20}", r"\frac{7}{2}0"),
    ("23", r"2 3"),
    ("-2,-2", "-2"),
    ("16,3,1,1", "16,3,1"),
    ("1,-2", "1,-2,3"),
    ("1,-2", "1"),
    ("1,-2", "1,2"),
    (r"\{1,-2\}", r"\{1,-2,3\}"),
    (r"15\mbox{ cm}^2", r"15\text{ m}^2"),
    (r"5.4 \text{ cents}", r"5.4\text{ dollars}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}"),
    ("(1,2)", "1,2,3"),
    ("(1,2)", r"\{1,2\}"),
    (r"\{1,2\}", "(1,2)"),
    ("[1,2]", "(1,2)"),
    (r"\sin 2x", r"2\sin x"),
    (r"1", r"1+10^{-40}\sin 1"),
    (r"\frac{1}{3}", r"\int_0^1 x^3\,dx"),
    ("5", r"\sin^2 x + 4 + \cos^2 x"),
    (r"\frac{3}{4}", "3 4"),
    ("y = 2x + 3", r"y \le 2x + 3"),
    ("", "5"),
    ("", ""),
    ("", "."),
    (" ", "$$"),
]


@pytest.mark.parametrize(("gold", "answer"), RIGHT)
def test_accepts_the_gold_in_other_words(gold: str, answer: str) -> None:
    verdict = verify(gold, f"\\boxed{{{answer}}}")
    assert verdict.correct, verdict
    assert verdict.extracted == answer


@pytest.mark.parametrize(("gold", "answer"), WRONG)
def test_rejects_what_is_not_the_gold(gold: str, answer: str) -> None:
    verdict = verify(gold, f"\\boxed{{{answer}}}")
    assert not verdict.correct, verdict
    assert verdict.reason
