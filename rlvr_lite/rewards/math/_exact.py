"""Exact arithmetic on Python integers that cannot blow up: sizes are estimated before anything is computed."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache

__all__ = [
    "BITS",
    "TooLarge",
    "Undefined",
    "binomial",
    "check",
    "decimal",
    "factorial",
    "factorise",
    "meter",
    "sum_of_powers_fits",
]

BITS = 20_000
"""No number with more bits than this in numerator or denominator is ever computed."""

STEPS = 12_000
"""Steps of arithmetic (a node visited, two terms multiplied) that one verdict may take in this process."""

_FACTORIAL = 1_500
_TRIAL = 1_000
PROVED = _TRIAL**2
"""Factors that :func:`factorise` finds up to here are prime."""


class TooLarge(Exception):
    """The exact value needs more room or time than a verdict may cost."""


class TooMuchWork(Exception):
    """One verdict has used up what it may cost in this process."""


class _Meter(threading.local):
    """Steps of arithmetic that may still be taken in this thread; endless outside of :meth:`limited`."""

    left = math.inf

    @contextmanager
    def limited(self, steps: int = STEPS) -> Iterator[None]:
        """Let the body take so many steps."""
        self.left = steps
        try:
            yield
        finally:
            self.left = math.inf

    def spend(self, steps: int) -> None:
        """Take ``steps`` off.

        Raises:
            TooMuchWork: nothing is left.
        """
        self.left -= steps
        if self.left < 0:
            raise TooMuchWork("too much arithmetic")


meter = _Meter()


class Undefined(Exception):
    """The expression has no finite value, such as a division by zero."""


_DECIMAL = re.compile(r"([+-]?)(\d+|\d{1,3}(?:,\d{3})+)(?:\.(\d*))?|([+-]?)\.(\d+)")


def decimal(text: str) -> tuple[str, str, str] | None:
    """Sign, integer digits and fraction digits of a plain decimal; ``None`` for anything else.

    Works on the digits as text, so that its cost is linear in their number.

    >>> decimal("+1,000.50"), decimal("-0"), decimal("1,2")
    (('', '1000', '5'), ('', '', ''), None)
    """
    match = _DECIMAL.fullmatch(text) if text.isascii() else None
    if match is None:
        return None
    sign, whole, fraction, bare_sign, bare = match.groups()
    digits = (whole or "").replace(",", "").lstrip("0")
    rest = (fraction or bare or "").rstrip("0")
    negative = (sign or bare_sign) == "-" and (digits or rest)
    return ("-" if negative else "", digits, rest)


def check(value: Fraction) -> Fraction:
    """``value``, if it is small enough to be computed with.

    Raises:
        TooLarge: it is not.
    """
    if value.numerator.bit_length() > BITS or value.denominator.bit_length() > BITS:
        raise TooLarge("a number of more than 6,000 digits")
    return value


def factorial(n: Fraction) -> int:
    """n!

    Raises:
        Undefined: n is negative or no integer.
        TooLarge: n is large.
    """
    if n.denominator != 1 or n < 0:
        raise Undefined("a factorial of a negative number or fraction")
    if n > _FACTORIAL:
        raise TooLarge("a huge factorial")
    return math.factorial(int(n))


def binomial(n: Fraction, k: Fraction) -> int:
    """n over k, for integers.

    Raises:
        Undefined: n is negative, or one is no integer.
        TooLarge: the value is.
    """
    if n.denominator != 1 or k.denominator != 1 or n < 0:
        raise Undefined("a binomial coefficient of these arguments")
    if k < 0 or k > n:
        return 0
    steps = min(k, n - k)
    if steps > _FACTORIAL or steps * n.numerator.bit_length() > BITS:
        raise TooLarge("a huge binomial coefficient")
    return math.comb(int(n), int(k))


@lru_cache(maxsize=1)
def _primes() -> tuple[int, ...]:
    sieve = bytearray([1]) * (_TRIAL + 1)
    for p in range(2, math.isqrt(_TRIAL) + 1):
        if sieve[p]:
            sieve[p * p :: p] = bytes(len(sieve[p * p :: p]))
    return tuple(p for p in range(2, _TRIAL + 1) if sieve[p])


@lru_cache(maxsize=4096)
def factorise(n: int) -> tuple[tuple[int, int], ...]:
    """Factors of n > 0 with exponents: primes up to 1,000, then a cofactor, unless that is a square or cube.

    Equal numbers have equal factorisations; the cofactor need not be prime.

    >>> factorise(360), factorise(1009**2)
    (((2, 3), (3, 2), (5, 1)), ((1009, 2),))
    """
    found = []
    for p in _primes():
        if p * p > n:
            break
        count = 0
        while n % p == 0:
            n, count = n // p, count + 1
        if count:
            found.append((p, count))
    if n > 1:
        root = math.isqrt(n)
        cube = round(n ** (1 / 3)) if n.bit_length() < 150 else 0
        if root * root == n:
            found.append((root, 2))
        elif cube and cube**3 == n:
            found.append((cube, 3))
        else:
            found.append((n, 1))
    return tuple(found)


def sum_of_powers_fits(terms: int, exponent: int) -> bool:
    """Whether a sum of ``terms`` terms may be multiplied out to this power."""
    return exponent <= 24 and math.comb(exponent + terms - 1, terms - 1) <= 200
