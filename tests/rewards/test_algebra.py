"""Exact algebra against sympy, and numeric refutation that never refutes what is equal."""

from __future__ import annotations

from fractions import Fraction

import pytest
import sympy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlvr_lite.rewards.math._algebra import Normaliser, equal_forms
from rlvr_lite.rewards.math._exact import TooLarge, TooMuchWork, Undefined, decimal, factorise, meter
from rlvr_lite.rewards.math._grader import build
from rlvr_lite.rewards.math._grammar import expression
from rlvr_lite.rewards.math._lexer import lex
from rlvr_lite.rewards.math._nodes import Node, Unreadable, add, divide, fn, mul, num, power, sym
from rlvr_lite.rewards.math._numeric import differ
from rlvr_lite.rewards.math._scalars import same

_NUMBERS = st.builds(lambda p, q: num(Fraction(p, q)), st.integers(-12, 12), st.integers(1, 6))
_LEAVES = st.one_of(
    _NUMBERS, st.sampled_from([sym("x"), sym("y"), Node("const", ("pi",)), power(num(2), num(Fraction(1, 2)))])
)
_ALGEBRAIC = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.builds(add, inner, inner),
        st.builds(mul, inner, inner),
        st.builds(divide, inner, inner),
        st.builds(lambda base, n: power(base, num(n)), inner, st.integers(-2, 3)),
        st.builds(lambda n: power(num(n), num(Fraction(1, 2))), st.integers(0, 60)),
        st.builds(lambda n: power(num(n), num(Fraction(1, 3))), st.integers(0, 60)),
    ),
    max_leaves=6,
)
_ANY = st.recursive(
    _ALGEBRAIC,
    lambda inner: st.one_of(
        st.builds(lambda x: fn("sin", x), inner),
        st.builds(lambda x: fn("cos", x), inner),
        st.builds(lambda x: fn("ln", power(add(x, num(20)), num(2))), inner),
        st.builds(lambda x: power(num(2), x), inner),
        st.builds(add, inner, inner),
        st.builds(mul, inner, inner),
    ),
    max_leaves=4,
)


def _equal(left: Node, right: Node) -> tuple[bool, bool]:
    normaliser = Normaliser()
    try:
        result = equal_forms(normaliser.form(left), normaliser.form(right), normaliser)
    except (Undefined, TooLarge):
        assume(False)
        raise
    return result, normaliser.canonical


@settings(deadline=None)
@given(_ALGEBRAIC, _ALGEBRAIC)
def test_algebra_decides_as_sympy_does(left: Node, right: Node) -> None:
    ours, canonical = _equal(left, right)
    difference = build(left) - build(right)
    assume(not difference.has(sympy.zoo, sympy.nan, sympy.oo))
    value = difference.subs(
        {sympy.Symbol("x", real=True): sympy.Rational(7, 3), sympy.Symbol("y", real=True): sympy.Rational(11, 5)}
    )
    theirs = abs(sympy.N(value, 60)) < sympy.Float(10) ** -50
    assert not (ours and not theirs)
    if canonical:
        assert ours == bool(theirs)


@settings(deadline=None)
@given(_ANY)
def test_nothing_is_refuted_against_itself_in_another_form(node: Node) -> None:
    other = add(mul(node, num(3)), mul(num(-2), node))
    squared = power(add(node, num(1)), num(2))
    expanded = add(mul(node, node), mul(num(2), node), num(1))
    for left, right in ((node, other), (squared, expanded)):
        try:
            assert differ(left, right) is not True
            assert same(left, right).equal is not False or "no finite value" in same(left, right).reason
        except TooLarge:
            assume(False)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (r"(\sqrt2-1)^{30}", r"\frac{1}{(\sqrt2+1)^{30}}"),
        (r"\sqrt{10^{20}+1}-10^{10}", r"\frac{1}{\sqrt{10^{20}+1}+10^{10}}"),
        (r"\sin(\pi)", "0"),
        (r"10^{10}(1-\cos 10^{-6})", r"2\cdot 10^{10}\sin^2(5\cdot 10^{-7})"),
    ],
)
def test_cancellation_is_not_taken_for_a_difference(left: str, right: str) -> None:
    assert differ(expression(lex(left)), expression(lex(right))) is not True


@settings(deadline=None)
@given(st.integers(-(10**30), 10**30), st.integers(0, 12), st.booleans())
def test_decimals_are_read_as_their_value(digits: int, places: int, grouped: bool) -> None:
    value = Fraction(digits, 10**places)
    text = f"{abs(digits) // 10**places:{',' if grouped else ''}}"
    if places:
        text += f".{abs(digits) % 10**places:0{places}d}"
    text = ("-" if digits < 0 else "") + text
    sign, whole, rest = decimal(text) or ("", "", "")
    assert Fraction(int(whole + rest or "0"), 10 ** len(rest)) * (-1 if sign else 1) == value
    node = expression(lex(text))
    assert node == num(value) or (node.op, *node.args) == ("mul", num(-1), num(-value))


@settings(deadline=None)
@given(st.integers(1, 10**9))
def test_factors_multiply_to_the_number(n: int) -> None:
    product = 1
    for factor, exponent in factorise(n):
        product *= factor**exponent
    assert product == n


def test_work_is_metered() -> None:
    long = expression(lex("+".join(rf"\frac{{1}}{{{n}+x}}" for n in range(60))))
    with pytest.raises(TooMuchWork), meter.limited(1_000):
        Normaliser().form(long)
    with meter.limited(1_000):
        Normaliser().form(expression(lex("x^2+1")))


@pytest.mark.parametrize(
    "text", ["(" * 60 + "1" + ")" * 60, r"\sqrt{" * 60 + "2" + "}" * 60, "--" * 500 + "1", "x" * 1999, "1" + "!" * 1500]
)
def test_depth_is_bounded_or_harmless(text: str) -> None:
    try:
        node = expression(lex(text))
    except Unreadable:
        return
    assert same(node, node).equal is True
