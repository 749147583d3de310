"""The value of a numeral."""

from __future__ import annotations

from fractions import Fraction

from rlvr_lite.rewards.math._nodes import Node, Unreadable, mul, num, power

__all__ = ["rational"]

_BIG_EXPONENT = 300


def rational(digits: str) -> Node:
    """The value of digits as the lexer leaves them: ``12``, ``.5``, ``4.5e33``, ``0.1(6)``.

    >>> rational("0.1(6)")
    Node(op='num', args=(Fraction(1, 6),))

    Raises:
        Unreadable: the exponent has more than 20 digits.
    """
    digits, _, repeating = digits.partition("(")
    mantissa, _, exponent = digits.lower().partition("e")
    value = Fraction(mantissa.rstrip(".") or "0")
    if repeating:
        block = repeating.rstrip(")")
        places = len(mantissa.partition(".")[2])
        value += Fraction(int(block), (10 ** len(block) - 1) * 10**places)
    if not exponent:
        return num(value)
    if len(exponent) > 20:
        raise Unreadable("an exponent of more than 20 digits")
    shift = int(exponent)
    if abs(shift) > _BIG_EXPONENT:
        return mul(num(value), power(num(10), num(shift)))
    return num(value * Fraction(10) ** shift)
