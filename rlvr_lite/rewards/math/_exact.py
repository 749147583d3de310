r"""Exact arithmetic that cannot blow up: sizes are estimated before anything is computed.

A :data:`Poly` maps monomials to rational coefficients; a monomial is a sorted tuple of (atom, exponent). Atoms are
texts: ``x`` a variable, ``#7`` a prime under a root (:math:`7^{1/2}`) or a power too large to write out, ``pi``, ``e``,
``i``, and whole sub-expressions in brackets. Roots of distinct primes are linearly independent over the rationals
(Besicovitch 1940), so a nonzero :data:`Poly` of such atoms, variables and pi is really not zero.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

__all__ = [
    "BITS", "PROVED", "Monomial", "Poly", "TooLarge", "TooMuchWork", "Undefined", "binomial", "check", "constant",
    "constant_value", "decimal", "factorial", "factorise", "meter", "product", "scaled", "spell", "sum_of_powers_fits",
    "term", "total",
]  # fmt: skip


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
        """Take ``steps`` off; :class:`TooMuchWork` if nothing is left."""
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
    """``value``, if it is small enough to be computed with; else :class:`TooLarge`."""
    if value.numerator.bit_length() > BITS or value.denominator.bit_length() > BITS:
        raise TooLarge("a number of more than 6,000 digits")
    return value


def factorial(n: Fraction) -> int:
    """n!; :class:`Undefined` for what is no natural number, :class:`TooLarge` for large n."""
    if n.denominator != 1 or n < 0:
        raise Undefined("a factorial of a negative number or fraction")
    if n > _FACTORIAL:
        raise TooLarge("a huge factorial")
    return math.factorial(int(n))


def binomial(n: Fraction, k: Fraction) -> int:
    """n over k; :class:`Undefined` for a negative n or what is no integer, :class:`TooLarge` for a large value."""
    if n.denominator != 1 or k.denominator != 1 or n < 0:
        raise Undefined("a binomial coefficient of these arguments")
    if k < 0 or k > n:
        return 0
    steps = min(k, n - k)
    if steps > _FACTORIAL or steps * n.numerator.bit_length() > BITS:
        raise TooLarge("a huge binomial coefficient")
    return math.comb(int(n), int(k))


@lru_cache(maxsize=4096)
def factorise(n: int) -> tuple[tuple[int, int], ...]:
    """Factors of n > 0 with exponents: primes up to 1,000, then a cofactor, unless that is a square or cube.

    Equal numbers have equal factorisations; the cofactor need not be prime.

    >>> factorise(360), factorise(1009**2)
    (((2, 3), (3, 2), (5, 1)), ((1009, 2),))
    """
    found = []
    for p in (2, *range(3, _TRIAL, 2)):
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


Monomial: TypeAlias = tuple[tuple[str, Fraction], ...]
Poly: TypeAlias = dict[Monomial, Fraction]

_TERMS = 400
_FOLD = 4_096


def constant(value: Fraction | int) -> Poly:
    """A number."""
    value = Fraction(value)
    return {(): value} if value else {}


def constant_value(poly: Poly) -> Fraction | None:
    """The number that ``poly`` is; ``None`` if it is none."""
    if not poly:
        return Fraction(0)
    return poly.get(()) if len(poly) == 1 else None


def term(coefficient: Fraction, atoms: Iterable[tuple[str, Fraction]]) -> Poly:
    """One product, with powers of ``i`` and of primes brought to their normal range."""
    powers: dict[str, Fraction] = {}
    for atom, exponent in atoms:
        powers[atom] = powers.get(atom, Fraction(0)) + exponent
    for atom, exponent in list(powers.items()):
        if atom == "i" and exponent.denominator == 1:
            quarter = exponent.numerator % 4
            coefficient = -coefficient if quarter >= 2 else coefficient
            powers[atom] = Fraction(quarter % 2)
        elif atom[0] == "#":
            coefficient, powers[atom] = _fold(int(atom[1:]), exponent, coefficient)
        elif atom.startswith("(-1)^") and exponent.denominator == 1:
            powers[atom] = Fraction(exponent.numerator % 2)
    if not coefficient:
        return {}
    return {tuple(sorted((atom, e) for atom, e in powers.items() if e)): check(coefficient)}


def _fold(prime: int, exponent: Fraction, coefficient: Fraction) -> tuple[Fraction, Fraction]:
    """Move the whole part of a prime's exponent into the coefficient, or, where that is huge, the other way."""
    whole = exponent.numerator // exponent.denominator
    if abs(whole) * prime.bit_length() <= _FOLD:
        return coefficient * Fraction(prime) ** whole, exponent - whole
    for part, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
        while part and part % prime == 0:
            part //= prime
            coefficient = coefficient / prime if sign > 0 else coefficient * prime
            exponent += sign
    return coefficient, exponent


def total(polys: Iterable[Poly]) -> Poly:
    """Their sum."""
    found: Poly = {}
    for poly in polys:
        for monomial, coefficient in poly.items():
            value = found.get(monomial, Fraction(0)) + coefficient
            if value:
                found[monomial] = check(value)
            else:
                found.pop(monomial, None)
    if len(found) > _TERMS:
        raise TooLarge("an expression with too many terms")
    return found


def product(left: Poly, right: Poly) -> Poly:
    """Their product."""
    atoms = len(next(iter(left), ())) + len(next(iter(right), ()))
    meter.spend(len(left) * len(right) * (4 + atoms) // 4)
    return total(term(_multiplied(a, b), (*first, *second)) for first, a in left.items() for second, b in right.items())


def _multiplied(a: Fraction, b: Fraction) -> Fraction:
    if a.numerator.bit_length() + b.numerator.bit_length() > 2 * BITS:
        raise TooLarge("a number of more than 6,000 digits")
    return a * b


def scaled(poly: Poly, factor: Fraction) -> Poly:
    """``factor * poly``."""
    return {monomial: check(coefficient * factor) for monomial, coefficient in poly.items()} if factor else {}


def spell(poly: Poly) -> str:
    """A text that is the same for the same polynomial (numbers in hexadecimal, which has no limit on its length)."""
    terms = ((poly[m].numerator, poly[m].denominator, m) for m in sorted(poly))
    return "+".join(f"{p:x}/{q:x}*" + "*".join(f"{a}^{e}" for a, e in m) for p, q, m in terms) or "0"
