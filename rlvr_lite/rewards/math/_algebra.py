r"""A normal form for expressions, which proves most equalities and inequalities without a computer algebra system.

An expression becomes a quotient of two :data:`~rlvr_lite.rewards.math._exact.Poly`. Two of them are equal if cross
multiplication makes the difference vanish. If nothing but rational numbers, variables, pi, i and roots of primes is in
them (:attr:`Normaliser.canonical`), a difference that does not vanish is a proof that they differ; otherwise (nested roots,
trigonometric functions, numeric exponentials) it proves nothing.

Variables stand for positive numbers where that matters: :math:`\sqrt{x^2} = x`.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

from rlvr_lite.rewards.math._exact import (
    BITS,
    PROVED,
    Poly,
    TooLarge,
    Undefined,
    binomial,
    constant,
    constant_value,
    factorial,
    factorise,
    meter,
    product,
    scaled,
    spell,
    sum_of_powers_fits,
    term,
    total,
)
from rlvr_lite.rewards.math._nodes import Node

__all__ = ["ONE", "Form", "Normaliser", "equal_forms", "proportional"]

ONE = constant(1)


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


class Normaliser:
    """Normal forms of the expressions of one comparison.

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
        return result

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

    def form(self, node: Node) -> Form:
        """The normal form.

        Raises:
            TooLarge: a cap on size or work was reached.
            Undefined: the expression has no finite value.
        """
        meter.spend(1)
        match node.op:
            case "num":
                return Form(constant(node.args[0]))
            case "const" if node.args[0] == "inf":
                raise Undefined("infinite")
            case "sym" | "const":
                return lone(node.args[0])
        forms = [self.form(arg) for arg in node.args if isinstance(arg, Node)]
        match node.op:
            case "add":
                return functools.reduce(self.add, forms)
            case "mul":
                return functools.reduce(self.multiply, forms)
            case "pow":
                return self.power(*forms)
            case "deg":
                return self.multiply(forms[0], Form(term(Fraction(1, 180), [("pi", Fraction(1))])))
            case "fn":
                return self._function(node.args[0], *forms)
        return lone(f"{node.args[0]}({','.join(form.spell() for form in forms)})")

    def _function(self, name: str, of: Form, *more: Form) -> Form:
        value, second = of.value, more[0].value if more else None
        if name == "root" and second:
            return self.rational_power(of, 1 / second)
        if name == "root":
            return self.power(of, self.rational_power(more[0], Fraction(-1)))
        if name == "ln":
            return self._logarithm(of)
        if name == "factorial" and value is not None:
            return Form(constant(factorial(value)))
        if name == "binom" and value is not None and second is not None:
            return Form(constant(binomial(value, second)))
        if value is not None and name in ("abs", "floor", "ceil"):
            return Form(constant({"abs": abs, "floor": math.floor, "ceil": math.ceil}[name](value)))  # type: ignore[operator]
        self.canonical = False
        return lone(f"{name}({','.join(form.spell() for form in (of, *more))})")

    def _logarithm(self, of: Form) -> Form:
        if not of.top:
            raise Undefined("a logarithm of zero")
        self.canonical = False
        if not of.single or next(iter(of.top.values())) < 0:
            return lone(f"ln({of.spell()})")
        ((monomial, coefficient),) = of.top.items()
        parts = [
            constant(e) if atom == "e" else term(e, [(f"ln({atom.lstrip('#')})", Fraction(1))]) for atom, e in monomial
        ]
        for part, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
            parts += [term(Fraction(sign * n), [(f"ln({p})", Fraction(1))]) for p, n in self.factors(part)]
        return Form(total(parts))


def _is_variable(atom: str) -> bool:
    return atom.isidentifier() and atom not in ("pi", "e", "i")


def lone(name: str) -> Form:
    """One atom to the power 1."""
    return Form({((name, Fraction(1)),): Fraction(1)})


def equal_forms(left: Form, right: Form, normaliser: Normaliser) -> bool:
    """Whether cross multiplication makes the difference vanish."""
    if left.bottom == right.bottom:
        return left.top == right.top
    return normaliser.product(left.top, right.bottom) == normaliser.product(right.top, left.bottom)


def proportional(left: Form, right: Form, normaliser: Normaliser) -> Fraction | None:
    """The nonzero c with ``left = c * right``; ``None`` if there is none."""
    a, b = normaliser.product(left.top, right.bottom), normaliser.product(right.top, left.bottom)
    if not a or set(a) != set(b):
        return None
    ratios = {a[monomial] / b[monomial] for monomial in a}
    return ratios.pop() if len(ratios) == 1 else None
