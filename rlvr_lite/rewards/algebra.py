r"""A normal form for expressions, which proves most equalities and inequalities without a computer algebra system.

An expression becomes a quotient of two :data:`~rlvr_lite.rewards.polynomial.Poly`. Two of them are equal if cross
multiplication makes the difference vanish. If nothing but rational numbers, variables, pi, i and roots of primes is in
them (:attr:`Form.canonical`), a difference that does not vanish is a proof that they differ; otherwise (nested roots,
trigonometric functions, numeric exponentials) it proves nothing.

Variables stand for positive numbers where that matters: :math:`\sqrt{x^2} = x`.
"""

from __future__ import annotations

import math
from fractions import Fraction

from rlvr_lite.rewards.exact import BITS, TooLarge, Undefined, binomial, factorial, factorise, meter, sum_of_powers_fits
from rlvr_lite.rewards.nodes import Node
from rlvr_lite.rewards.polynomial import Poly, constant, constant_value, product, scaled, spell, term, total

__all__ = ["Form", "Normaliser", "equal_forms", "proportional"]

_ONE = constant(1)
_HALF = Fraction(1, 2)
_FACTORS = 2_000
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

    def __init__(self, top: Poly, bottom: Poly = _ONE):
        self.top, self.bottom = top, bottom

    @property
    def value(self) -> Fraction | None:
        """The rational number that this is; ``None`` if it is none."""
        top, bottom = constant_value(self.top), constant_value(self.bottom)
        return top / bottom if top is not None and bottom else None

    @property
    def single(self) -> bool:
        """Whether this is one product."""
        return len(self.top) <= 1 and self.bottom == _ONE

    def spell(self) -> str:
        """A text that equal forms mostly share."""
        return spell(self.top) if self.bottom == _ONE else f"({spell(self.top)})/({spell(self.bottom)})"


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
            case "sym":
                return _atom(node.args[0])
            case "const":
                if node.args[0] == "inf":
                    raise Undefined("infinite")
                return _atom(node.args[0])
            case "add":
                result = self.form(node.args[0])
                for arg in node.args[1:]:
                    result = self._add(result, self.form(arg))
                return result
            case "mul":
                result = self.form(node.args[0])
                for arg in node.args[1:]:
                    result = self._multiply(result, self.form(arg))
                return result
            case "pow":
                return self._power(self.form(node.args[0]), self.form(node.args[1]))
            case "deg":
                return self._multiply(self.form(node.args[0]), Form(term(Fraction(1, 180), [("pi", Fraction(1))])))
            case "fn":
                return self._function(node.args[0], [self.form(arg) for arg in node.args[1:]])
            case "call":
                return _atom(f"{node.args[0]}({','.join(self.form(arg).spell() for arg in node.args[1:])})")
            case _:
                self.canonical = False
                return self._series(node)

    def _series(self, node: Node) -> Form:
        """A sum, product, integral or limit stays as it is written."""
        kind, _, _, low, high = node.args
        if kind == "prod" and low.op == "num":
            last = self.form(high).value
            if last is not None and last - low.args[0] > _FACTORS:
                raise TooLarge("a product of very many factors")
        return _atom(f"[{node!r}]")

    def _add(self, left: Form, right: Form) -> Form:
        if left.bottom == right.bottom:
            return self._form(total([left.top, right.top]), left.bottom)
        top = total([self.product(left.top, right.bottom), self.product(right.top, left.bottom)])
        return self._form(top, self.product(left.bottom, right.bottom))

    def _multiply(self, left: Form, right: Form) -> Form:
        return self._form(self.product(left.top, right.top), self.product(left.bottom, right.bottom))

    def product(self, left: Poly, right: Poly) -> Poly:
        """Their product, multiplied out."""
        if left == _ONE or right == _ONE:
            return right if left == _ONE else left
        return self._expanded(product(left, right))

    def _expanded(self, poly: Poly) -> Poly:
        """Multiply out compound atoms whose exponents have become whole and positive."""
        for monomial in poly:
            for atom, exponent in monomial:
                if atom in self._compound and exponent >= 1:
                    whole = exponent.numerator // exponent.denominator
                    rest = [(a, e) for a, e in monomial if a != atom] + [(atom, exponent - whole)]
                    others = {m: c for m, c in poly.items() if m != monomial}
                    power = _ONE
                    if not sum_of_powers_fits(len(self._compound[atom]), whole):
                        return poly
                    for _ in range(whole):
                        power = product(power, self._compound[atom])
                    return self._expanded(total([others, product(term(poly[monomial], rest), power)]))
        return poly

    def _form(self, top: Poly, bottom: Poly) -> Form:
        if not bottom:
            raise Undefined("division by zero")
        if len(bottom) == 1 and bottom != _ONE:
            ((monomial, coefficient),) = bottom.items()
            inverse = term(1 / coefficient, [(atom, -e) for atom, e in monomial])
            return Form(self.product(top, inverse))
        return Form(top, bottom)

    def _power(self, base: Form, exponent: Form) -> Form:
        q = exponent.value
        if q is not None:
            return self._rational_power(base, q)
        if not base.top:
            raise Undefined("a power of zero")
        if exponent.bottom != _ONE:
            return self._opaque_power(base, exponent)
        result = Form(_ONE)
        for monomial, coefficient in exponent.top.items():
            part = (
                self._rational_power(base, coefficient)
                if not monomial
                else self._symbolic_power(base, spell({monomial: Fraction(1)}), coefficient)
            )
            result = self._multiply(result, part)
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
        cosine, sine = _sine(angle + _HALF), _sine(angle)
        if cosine is None or sine is None:
            return None
        return Form(total([cosine, product(sine, term(Fraction(1), [("i", Fraction(1))]))]))

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
            atoms += [(f"{p}^({exponent})", sign * times * n) for p, n in _factors(part)]
        atoms += [(f"{atom}^({exponent})", times * e) for atom, e in monomial]
        return Form(term(Fraction(1), atoms))

    def _opaque_power(self, base: Form, exponent: Form | str, times: Fraction = Fraction(1)) -> Form:
        self.canonical = False
        text = exponent if isinstance(exponent, str) else exponent.spell()
        return Form(term(Fraction(1), [(f"({base.spell()})^({text})", times)]))

    def _rational_power(self, base: Form, q: Fraction) -> Form:
        if max(q.numerator.bit_length(), q.denominator.bit_length()) > 64:
            raise TooLarge("an exponent of more than 19 digits")
        if not base.top:
            if q <= 0:
                raise Undefined("zero to a power that is not positive")
            return base
        if q < 0:
            base, q = self._form(base.bottom, base.top), -q
        if not q:
            return Form(_ONE)
        top, bottom = self._poly_power(base.top, q), self._poly_power(base.bottom, q)
        return self._form(top, bottom)

    def _poly_power(self, poly: Poly, q: Fraction) -> Poly:
        if poly == _ONE or q == 1:
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
                atoms += [(f"#{p}", direction * n * q) for p, n in _factors(part)]
        self.huge |= any(atom[0] == "#" and abs(e) > 64 for atom, e in atoms)
        return term(sign, atoms)

    def _function(self, name: str, args: list[Form]) -> Form:
        first, value = args[0], args[0].value
        if name == "root":
            return self._root(first, args[1])
        if name == "factorial":
            return Form(constant(factorial(value))) if value is not None else self._factorial(first)
        if name == "binom":
            lower = args[1].value
            if value is not None and lower is not None:
                return Form(constant(binomial(value, lower)))
            rest = self._add(first, Form(scaled(args[1].top, Fraction(-1)), args[1].bottom))
            below = self._multiply(self._function("factorial", [args[1]]), self._function("factorial", [rest]))
            return self._multiply(self._function("factorial", [first]), self._rational_power(below, Fraction(-1)))
        if name in ("tan", "cot", "sec", "csc"):
            above, under = {"tan": "sin cos", "cot": "cos sin", "sec": " cos", "csc": " sin"}[name].split(" ")
            top = self._function(above, args) if above else Form(_ONE)
            return self._multiply(top, self._rational_power(self._function(under, args), Fraction(-1)))
        if name in ("sinh", "cosh", "tanh", "coth"):
            return self._hyperbolic(name, first)
        if name == "ln":
            return self._logarithm(first)
        if name in ("sin", "cos"):
            exact = _sine_of(first, name)
            if exact is not None:
                return Form(exact)
        if value is not None and name in ("abs", "floor", "ceil"):
            whole = {"abs": abs, "floor": math.floor, "ceil": math.ceil}[name](value)  # type: ignore[operator]
            return Form(constant(whole))
        values = [arg.value for arg in args]
        if name in ("max", "min") and all(v is not None for v in values):
            return Form(constant((max if name == "max" else min)(v for v in values if v is not None)))
        if name in ("gcd", "lcm") and all(v is not None and v.denominator == 1 for v in values):
            if math.prod(v.numerator.bit_length() for v in values if v) > BITS:
                raise TooLarge("a huge common multiple")
            return Form(constant((math.gcd if name == "gcd" else math.lcm)(*(int(v) for v in values if v is not None))))
        self.canonical = False
        sign = Fraction(1)
        if name in ("sin", "arcsin", "arctan", "cos", "abs") and first.top:
            leading = first.top[min(first.top)]
            if leading < 0:
                first = Form(scaled(first.top, Fraction(-1)), first.bottom)
                sign = Fraction(1) if name in ("cos", "abs") else Fraction(-1)
        spelled = [first.spell(), *(arg.spell() for arg in args[1:])]
        return Form(term(sign, [(f"{name}({','.join(sorted(spelled))})", Fraction(1))]))

    def _hyperbolic(self, name: str, of: Form) -> Form:
        up = self._power(_atom("e"), of)
        down = self._rational_power(up, Fraction(-1))
        cosh = self._add(up, down)
        sinh = self._add(up, Form(scaled(down.top, Fraction(-1)), down.bottom))
        if name in ("sinh", "cosh"):
            return self._multiply(sinh if name == "sinh" else cosh, Form(constant(_HALF)))
        above, under = (sinh, cosh) if name == "tanh" else (cosh, sinh)
        return self._multiply(above, self._rational_power(under, Fraction(-1)))

    def _root(self, of: Form, index: Form) -> Form:
        n = index.value
        if n is None or not n:
            return self._power(of, self._rational_power(index, Fraction(-1)))
        return self._rational_power(of, 1 / n)

    def _factorial(self, of: Form) -> Form:
        """``(p + c)!`` with a small whole c, as a product of linear factors and ``p!``."""
        shift = of.top.get((), Fraction(0))
        if of.bottom != _ONE or shift.denominator != 1 or abs(shift) > 8:
            shift = Fraction(0)
        base = total([of.top, constant(-shift)])
        result = Form(term(Fraction(1), [(f"factorial({Form(base, of.bottom).spell()})", Fraction(1))]))
        for i in range(1, int(abs(shift)) + 1):
            factor = Form(total([base, constant(i if shift > 0 else 1 - i)]))
            result = self._multiply(result, factor if shift > 0 else self._rational_power(factor, Fraction(-1)))
        self.canonical = False
        return result

    def _logarithm(self, of: Form) -> Form:
        if not of.top:
            raise Undefined("a logarithm of zero")
        self.canonical = False
        if not of.single or next(iter(of.top.values())) < 0:
            return _atom(f"ln({of.spell()})")
        ((monomial, coefficient),) = of.top.items()
        parts = [
            constant(e) if atom == "e" else term(e, [(f"ln({atom.lstrip('#')})", Fraction(1))]) for atom, e in monomial
        ]
        for part, sign in ((coefficient.numerator, 1), (coefficient.denominator, -1)):
            parts += [term(Fraction(sign * n), [(f"ln({p})", Fraction(1))]) for p, n in _factors(part)]
        return Form(total(parts))


def _is_variable(atom: str) -> bool:
    return atom.isidentifier() and atom not in ("pi", "e", "i")


def _atom(name: str) -> Form:
    return Form({((name, Fraction(1)),): Fraction(1)})


def _factors(n: int) -> tuple[tuple[int, int], ...]:
    if n.bit_length() > 1_000:
        raise TooLarge("a root or logarithm of a huge number")
    return factorise(n)


def _sine(q: Fraction) -> Poly | None:
    """sin(q pi), where it is a rational times a square root; ``None`` elsewhere."""
    q %= 2
    sign = Fraction(-1) if q > 1 else Fraction(1)
    q %= 1
    found = _SINES.get(min(q, 1 - q))
    if found is None:
        return None
    coefficient, radicand = found
    return term(sign * coefficient, [(f"#{radicand}", _HALF)] if radicand > 1 else [])


def _sine_of(angle: Form, name: str) -> Poly | None:
    if not angle.top:
        return constant(1 if name == "cos" else 0)
    if angle.bottom != _ONE or set(angle.top) != {(("pi", Fraction(1)),)}:
        return None
    (q,) = angle.top.values()
    return _sine(q + _HALF if name == "cos" else q)


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
