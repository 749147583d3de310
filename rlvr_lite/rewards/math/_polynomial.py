r"""Sums of products of powers, the form in which two expressions that are equal look equal.

A :data:`Poly` maps monomials to rational coefficients; a monomial is a sorted tuple of (atom, exponent). Atoms are
texts: ``x`` a variable, ``#7`` a prime under a root (:math:`7^{1/2}`) or a power too large to write out, ``pi``, ``e``,
``i``, and whole sub-expressions in brackets. Roots of distinct primes are linearly independent over the rationals
(Besicovitch 1940), so a nonzero :data:`Poly` of such atoms, variables and pi is really not zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import TypeAlias

from rlvr_lite.rewards.math._exact import BITS, TooLarge, check, meter

__all__ = ["Monomial", "Poly", "constant", "constant_value", "product", "scaled", "spell", "term", "total"]

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
