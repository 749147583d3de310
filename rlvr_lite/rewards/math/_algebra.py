r"""A normal form for expressions, which proves most equalities and inequalities without a computer algebra system.

An expression becomes a quotient of two :data:`~rlvr_lite.rewards.math._polynomial.Poly`. Two of them are equal if cross
multiplication makes the difference vanish. If nothing but rational numbers, variables, pi, i and roots of primes is in
them (:attr:`Normaliser.canonical`), a difference that does not vanish is a proof that they differ; otherwise (nested roots,
trigonometric functions, numeric exponentials) it proves nothing.

Variables stand for positive numbers where that matters: :math:`\sqrt{x^2} = x`.
"""

from __future__ import annotations

import math
from fractions import Fraction

from rlvr_lite.rewards.math._exact import BITS, TooLarge, Undefined, binomial, factorial, meter
from rlvr_lite.rewards.math._forms import ONE, Arithmetic, Form, lone, sine
from rlvr_lite.rewards.math._nodes import Node
from rlvr_lite.rewards.math._polynomial import Poly, constant, scaled, term, total

__all__ = ["Form", "Normaliser", "equal_forms", "proportional"]

_HALF = Fraction(1, 2)
_FACTORS = 2_000


class Normaliser(Arithmetic):
    """Normal forms of the expressions of one comparison."""

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
                return lone(node.args[0])
            case "const":
                if node.args[0] == "inf":
                    raise Undefined("infinite")
                return lone(node.args[0])
            case "add":
                result = self.form(node.args[0])
                for arg in node.args[1:]:
                    result = self.add(result, self.form(arg))
                return result
            case "mul":
                result = self.form(node.args[0])
                for arg in node.args[1:]:
                    result = self.multiply(result, self.form(arg))
                return result
            case "pow":
                return self.power(self.form(node.args[0]), self.form(node.args[1]))
            case "deg":
                return self.multiply(self.form(node.args[0]), Form(term(Fraction(1, 180), [("pi", Fraction(1))])))
            case "fn":
                return self._function(node.args[0], [self.form(arg) for arg in node.args[1:]])
            case "call":
                return lone(f"{node.args[0]}({','.join(self.form(arg).spell() for arg in node.args[1:])})")
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
        return lone(f"[{node!r}]")

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
            rest = self.add(first, Form(scaled(args[1].top, Fraction(-1)), args[1].bottom))
            below = self.multiply(self._function("factorial", [args[1]]), self._function("factorial", [rest]))
            return self.multiply(self._function("factorial", [first]), self.rational_power(below, Fraction(-1)))
        if name in ("tan", "cot", "sec", "csc"):
            above, under = {"tan": "sin cos", "cot": "cos sin", "sec": " cos", "csc": " sin"}[name].split(" ")
            top = self._function(above, args) if above else Form(ONE)
            return self.multiply(top, self.rational_power(self._function(under, args), Fraction(-1)))
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
        up = self.power(lone("e"), of)
        down = self.rational_power(up, Fraction(-1))
        cosh = self.add(up, down)
        sinh = self.add(up, Form(scaled(down.top, Fraction(-1)), down.bottom))
        if name in ("sinh", "cosh"):
            return self.multiply(sinh if name == "sinh" else cosh, Form(constant(_HALF)))
        above, under = (sinh, cosh) if name == "tanh" else (cosh, sinh)
        return self.multiply(above, self.rational_power(under, Fraction(-1)))

    def _root(self, of: Form, index: Form) -> Form:
        n = index.value
        if n is None or not n:
            return self.power(of, self.rational_power(index, Fraction(-1)))
        return self.rational_power(of, 1 / n)

    def _factorial(self, of: Form) -> Form:
        """``(p + c)!`` with a small whole c, as a product of linear factors and ``p!``."""
        shift = of.top.get((), Fraction(0))
        if of.bottom != ONE or shift.denominator != 1 or abs(shift) > 8:
            shift = Fraction(0)
        base = total([of.top, constant(-shift)])
        result = Form(term(Fraction(1), [(f"factorial({Form(base, of.bottom).spell()})", Fraction(1))]))
        for i in range(1, int(abs(shift)) + 1):
            factor = Form(total([base, constant(i if shift > 0 else 1 - i)]))
            result = self.multiply(result, factor if shift > 0 else self.rational_power(factor, Fraction(-1)))
        self.canonical = False
        return result

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


def _sine_of(angle: Form, name: str) -> Poly | None:
    if not angle.top:
        return constant(1 if name == "cos" else 0)
    if angle.bottom != ONE or set(angle.top) != {(("pi", Fraction(1)),)}:
        return None
    (q,) = angle.top.values()
    return sine(q + _HALF if name == "cos" else q)


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
