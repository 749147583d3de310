"""Quotients of polynomials with powers of anything: the arithmetic of :mod:`rlvr_lite.rewards.math._algebra`."""

from __future__ import annotations

import math
from fractions import Fraction

from rlvr_lite.rewards.math._exact import BITS, PROVED, TooLarge, Undefined, factorise, sum_of_powers_fits
from rlvr_lite.rewards.math._polynomial import Poly, constant, constant_value, product, scaled, spell, term, total

__all__ = ["ONE", "Arithmetic", "Form", "lone", "sine"]

ONE = constant(1)
_HALF = Fraction(1, 2)
#: sin(q pi) for q in [0, 1/2], as (coefficient, radicand): coefficient * sqrt(radicand).
_SINES = {
    Fraction(0): (Fraction(0), 1),
    Fraction(1, 6): (_HALF, 1),
    Fraction(1, 4): (_HALF, 2),
    Fraction(1, 3): (_HALF, 3),
    _HALF: (Fraction(1), 1),
}


class Form:
    """``top / bottom``."""

    __slots__ = ("bottom", "top")

    def __init__(self, top: Poly, bottom: Poly = ONE):
        self.top, self.bottom = top, bottom

    @property
    def value(self) -> Fraction | None:
        """The rational number that this is; ``None`` if it is none."""
        top, bottom = constant_value(self.top), constant_value(self.bottom)
        return top / bottom if top is not None and bottom else None

    @property
    def single(self) -> bool:
        """Whether this is one product."""
        return len(self.top) <= 1 and self.bottom == ONE

    def spell(self) -> str:
        """A text that equal forms mostly share."""
        return spell(self.top) if self.bottom == ONE else f"({spell(self.top)})/({spell(self.bottom)})"


class Arithmetic:
    """Sums, products and powers of forms.

    Attributes:
        canonical: whether every form made so far is unique for its value.
        huge: whether a number was met that is too large to be written out.
    """

    def __init__(self) -> None:
        self.canonical = True
        self.huge = False
        self._compound: dict[str, Poly] = {}

    def add(self, left: Form, right: Form) -> Form:
        """The sum."""
        if left.bottom == right.bottom:
            return self.quotient(total([left.top, right.top]), left.bottom)
        top = total([self.product(left.top, right.bottom), self.product(right.top, left.bottom)])
        return self.quotient(top, self.product(left.bottom, right.bottom))

    def multiply(self, left: Form, right: Form) -> Form:
        """The product."""
        return self.quotient(self.product(left.top, right.top), self.product(left.bottom, right.bottom))

    def product(self, left: Poly, right: Poly) -> Poly:
        """Their product, multiplied out."""
        if left == ONE or right == ONE:
            return right if left == ONE else left
        return self._expanded(product(left, right))

    def _expanded(self, poly: Poly) -> Poly:
        """Multiply out compound atoms whose exponents have become whole and positive."""
        for monomial in poly:
            for atom, exponent in monomial:
                if atom in self._compound and exponent >= 1:
                    whole = exponent.numerator // exponent.denominator
                    rest = [(a, e) for a, e in monomial if a != atom] + [(atom, exponent - whole)]
                    others = {m: c for m, c in poly.items() if m != monomial}
                    power = ONE
                    if not sum_of_powers_fits(len(self._compound[atom]), whole):
                        return poly
                    for _ in range(whole):
                        power = product(power, self._compound[atom])
                    return self._expanded(total([others, product(term(poly[monomial], rest), power)]))
        return poly

    def quotient(self, top: Poly, bottom: Poly) -> Form:
        """``top / bottom``, with a single product below moved up."""
        if not bottom:
            raise Undefined("division by zero")
        if len(bottom) == 1 and bottom != ONE:
            ((monomial, coefficient),) = bottom.items()
            inverse = term(1 / coefficient, [(atom, -e) for atom, e in monomial])
            return Form(self.product(top, inverse))
        return Form(top, bottom)

    def power(self, base: Form, exponent: Form) -> Form:
        """``base ** exponent``."""
        q = exponent.value
        if q is not None:
            return self.rational_power(base, q)
        if not base.top:
            raise Undefined("a power of zero")
        if exponent.bottom != ONE:
            return self._opaque_power(base, exponent)
        result = Form(ONE)
        for monomial, coefficient in exponent.top.items():
            part = (
                self.rational_power(base, coefficient)
                if not monomial
                else self._symbolic_power(base, spell({monomial: Fraction(1)}), coefficient)
            )
            result = self.multiply(result, part)
        if any(m and not any(_is_variable(atom) for atom, _ in m) for m in exponent.top):
            self.canonical = False  # a number such as 2^sqrt(2) or e^(i pi / 3)
            self.huge |= any(atom[0] == "#" and abs(e) > 64 for m in exponent.top for atom, e in m)
            if base.top == term(Fraction(1), [("e", Fraction(1))]):
                return self._on_circle(exponent) or result
        return result

    def _on_circle(self, exponent: Form) -> Form | None:
        r"""``e^{i q \pi}`` in Cartesian form where that is a root of small order."""
        if set(exponent.top) != {(("i", Fraction(1)), ("pi", Fraction(1)))}:
            return None
        (angle,) = exponent.top.values()
        real, imaginary = sine(angle + _HALF), sine(angle)
        if real is None or imaginary is None:
            return None
        return Form(total([real, product(imaginary, term(Fraction(1), [("i", Fraction(1))]))]))

    def _symbolic_power(self, base: Form, exponent: str, times: Fraction) -> Form:
        """``base ** (times * exponent)`` with the exponent a text: each factor of the base becomes an atom."""
        if not base.single:
            return self._opaque_power(base, exponent, times)
        ((monomial, coefficient),) = base.top.items()
        atoms: list[tuple[str, Fraction]] = []
        if coefficient < 0 or any(atom == "i" for atom, _ in monomial):
            self.canonical = False
        if coefficient < 0:
            atoms.append((f"(-1)^({exponent})", times))
        for part, sign in ((abs(coefficient.numerator), 1), (coefficient.denominator, -1)):
            atoms += [(f"{p}^({exponent})", sign * times * n) for p, n in self.factors(part)]
        atoms += [(f"{atom.lstrip('#')}^({exponent})", times * e) for atom, e in monomial]
        return Form(term(Fraction(1), atoms))

    def _opaque_power(self, base: Form, exponent: Form | str, times: Fraction = Fraction(1)) -> Form:
        self.canonical = False
        text = exponent if isinstance(exponent, str) else exponent.spell()
        return Form(term(Fraction(1), [(f"({base.spell()})^({text})", times)]))

    def rational_power(self, base: Form, q: Fraction) -> Form:
        """``base ** q``."""
        if max(q.numerator.bit_length(), q.denominator.bit_length()) > 64:
            raise TooLarge("an exponent of more than 19 digits")
        if not base.top:
            if q <= 0:
                raise Undefined("zero to a power that is not positive")
            return base
        if q < 0:
            base, q = self.quotient(base.bottom, base.top), -q
        if not q:
            return Form(ONE)
        top, bottom = self._poly_power(base.top, q), self._poly_power(base.bottom, q)
        return self.quotient(top, bottom)

    def _poly_power(self, poly: Poly, q: Fraction) -> Poly:
        if poly == ONE or q == 1:
            return poly
        if len(poly) == 1:
            ((monomial, coefficient),) = poly.items()
            return self._term_power(monomial, coefficient, q)
        whole = q.numerator // q.denominator
        if q.denominator == 1 and sum_of_powers_fits(len(poly), whole):
            result = poly
            for _ in range(whole - 1):
                result = self.product(result, poly)
            return result
        content = Fraction(
            math.gcd(*(c.numerator for c in poly.values())), math.lcm(*(c.denominator for c in poly.values()))
        )
        primitive = scaled(poly, 1 / content)
        self.canonical = False
        atom = f"[{spell(primitive)}]"
        self._compound[atom] = primitive
        return self.product(self._term_power((), content, q), term(Fraction(1), [(atom, q)]))

    def _term_power(self, monomial: tuple[tuple[str, Fraction], ...], coefficient: Fraction, q: Fraction) -> Poly:
        atoms = [(atom, e * q) for atom, e in monomial]
        if not q.denominator % 2 and all(e.denominator == 1 for atom, e in atoms if _is_variable(atom)):
            odd = {a for (a, e), (_, power) in zip(monomial, atoms, strict=True) if not e % 2 and power % 2}
            odd = {atom for atom in odd if _is_variable(atom)}  # the root of x^2 is |x|
            self.canonical &= not odd
            atoms = [(f"abs({atom})" if atom in odd else atom, e) for atom, e in atoms]
        if q.denominator != 1 and any(atom == "i" for atom, _ in monomial):
            self.canonical = False
        sign = Fraction(1)
        if coefficient < 0:
            if q.denominator == 1:
                sign = Fraction(-1) if q.numerator % 2 else Fraction(1)
            elif q.denominator == 2:
                atoms.append(("i", Fraction(q.numerator)))
            elif q.denominator % 2:
                sign = Fraction(-1) if q.numerator % 2 else Fraction(1)  # the real root
                self.canonical = False
            else:
                self.canonical = False
                atoms.append(("(-1)", q))
        for part, direction in ((abs(coefficient.numerator), 1), (coefficient.denominator, -1)):
            if q.denominator == 1 and part.bit_length() * q.numerator <= BITS // 2:
                sign *= Fraction(part**q.numerator) ** direction
            else:
                atoms += [(f"#{p}", direction * n * q) for p, n in self.factors(part)]
        self.huge |= any(atom[0] == "#" and abs(e) > 64 for atom, e in atoms)
        return term(sign, atoms)

    def factors(self, n: int) -> tuple[tuple[int, int], ...]:
        """:func:`factorise`, of numbers that are not too large."""
        if n.bit_length() > 1_000:
            raise TooLarge("a root or logarithm of a huge number")
        factors = factorise(n)
        if any(factor > PROVED for factor, _ in factors):
            self.canonical = False  # it may have factors in common with another such number
        return factors


def _is_variable(atom: str) -> bool:
    return atom.isidentifier() and atom not in ("pi", "e", "i")


def lone(name: str) -> Form:
    """One atom to the power 1."""
    return Form({((name, Fraction(1)),): Fraction(1)})


def sine(q: Fraction) -> Poly | None:
    """sin(q pi), where it is a rational times a square root; ``None`` elsewhere."""
    q %= 2
    sign = Fraction(-1) if q > 1 else Fraction(1)
    q %= 1
    found = _SINES.get(min(q, 1 - q))
    if found is None:
        return None
    coefficient, radicand = found
    return term(sign * coefficient, [(f"#{radicand}", _HALF)] if radicand > 1 else [])
