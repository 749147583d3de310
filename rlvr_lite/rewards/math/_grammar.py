r"""Tokens to an expression tree, by recursive descent with a bounded depth.

Readings that differ from TeX or from a computer algebra system, because this is how answers are meant:

* ``1\frac45`` and ``1 4/5`` are mixed numbers; ``4.5e33`` is scientific notation;
* ``\frac12`` takes one digit each, ``2^10`` and ``x_10`` take the whole number;
* ``f(x)`` and ``x(t)`` are applications, ``n(n+1)`` is a product; ``d x/d t`` is one name;
* ``52_8`` is a numeral in base 8, a name of its own: it equals only the same digits in the same base;
* ``e`` and ``i`` are constants, capital and small letters differ.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from rlvr_lite.rewards.math._lexer import FUNCTIONS, Token
from rlvr_lite.rewards.math._names import STOP, Names, is_op
from rlvr_lite.rewards.math._nodes import (
    INFINITY,
    MINUS_ONE,
    E,
    I,
    Node,
    Unreadable,
    add,
    divide,
    fn,
    mul,
    negate,
    num,
    power,
    rational,
)

__all__ = ["expression"]

DEPTH = 40
_CLOSERS = {"(": ")", "[": "]", "{": "}", "lfloor": "rfloor", "lceil": "rceil"}


def expression(tokens: Sequence[Token], sign: int = 1) -> Node:
    r"""The tree of a whole token list.

    Args:
        tokens: all of them have to be read.
        sign: what ``\pm`` stands for, +1 or -1 (``\mp`` the opposite).

    Raises:
        Unreadable: the tokens are no expression, or are nested deeper than :data:`DEPTH`.
    """
    parser = _Parser(tokens, sign)
    node = parser.quotient()
    if parser.peek() is not STOP:
        raise Unreadable(f"{parser.peek().value!r} where an operator should be")
    return node


class _Parser(Names):
    def sum(self) -> Node:
        self.depth += 1
        if self.depth > DEPTH:
            raise Unreadable("nested too deeply")
        terms = [self.signed(self.term)]
        while is_op(self.peek(), "+", "-", "pm", "mp"):
            terms.append(self.signed(self.term))
        self.depth -= 1
        return add(*terms)

    def signed(self, operand: Callable[[], Node]) -> Node:
        """An operand after any number of signs."""
        negative = False
        while sign := self.accept("+", "-", "pm", "mp"):
            negative ^= {"+": False, "-": True, "pm": self.sign < 0, "mp": self.sign > 0}[sign]
        node = operand()
        return negate(node) if negative else node

    def term(self) -> Node:
        factors = [self.factor(first=True)]
        while True:
            if self.accept("*"):
                factors.append(self.signed(self.factor))
            elif self.accept("/", ":"):
                factors[-1:] = self.divided(factors[-1], self.signed(self.factor), len(factors) == 1)
            elif self.starts_factor():
                after = self.tokens[self.at - 1] == ("op", ")") and factors[-1].op != "num"
                if self.peek().kind == "num" and not (after or (factors[-1].op != "num" and is_op(self.peek(1), "^"))):
                    raise Unreadable("a number directly after a value")
                factors.append(self.factor())
            else:
                return mul(*factors)

    @staticmethod
    def divided(left: Node, right: Node, alone: bool) -> list[Node]:
        """Two factors for a quotient, or one number for that of two numbers."""
        folded = divide(left, right)
        return [folded] if alone and folded.op == "num" else [left, power(right, MINUS_ONE)]

    def starts_factor(self) -> bool:
        token = self.peek()
        if token.kind == "op":
            if token.value == "|":
                return self.bars == 0
            return token.value in ("(", "[", "{", "lfloor", "lceil", "inf")
        if token.kind == "cmd":
            return token.value not in ("over", "choose")
        return token.kind in ("num", "let", "run", "fn", "text")

    def factor(self, first: bool = False) -> Node:
        base = self.postfix(self.atom(first))
        return self.raised(base)

    def raised(self, base: Node) -> Node:
        """``base`` with its exponent, if one follows."""
        while self.accept("^"):
            braced = is_op(self.peek(), "{") and is_op(self.peek(2), "}")
            if is_op(self.peek(int(braced)), "circ", "deg"):
                self.at += 3 if braced else 1
                base = Node("deg", (base,))
                continue
            if primes := self.primes():
                base = self.named(base, primes)
                continue
            if base.op == "deg" or (base.op == "pow" and self.raw_power):
                raise Unreadable("two exponents on one base")
            exponent = self.argument(whole=True)
            base = self.postfix(power(base, exponent))
            self.raw_power = True
        self.raw_power = False
        return base

    raw_power = False

    def postfix(self, node: Node) -> Node:
        for _ in range(DEPTH):
            if self.accept("!"):
                node = fn("factorial", node)
            elif self.accept("%"):
                node = divide(node, num(100))
            elif self.accept("deg"):
                node = Node("deg", (node,))
            elif is_op(self.peek(), "'") and node.op in ("sym", "call"):
                self.next()
                node = self.named(node, "'")
            else:
                return node
        raise Unreadable("nested too deeply")

    def argument(self, whole: bool) -> Node:
        """A braced group or a single token; a number gives all its digits if ``whole``, else the first only."""
        if self.accept("{"):
            return self.group("}")
        if whole and is_op(self.peek(), "+", "-"):
            return self.signed(lambda: self.argument(whole))
        token = self.peek()
        if token.kind == "num" and not whole and len(token.value) > 1:
            if not token.value.isdigit():
                raise Unreadable("a decimal without braces as a macro's argument")
            head, rest = token.value[0], token.value[1:]
            self.tokens = [*self.tokens[: self.at], Token("num", rest), *self.tokens[self.at + 1 :]]
            return num(int(head))
        if token.kind == "run":
            self.split_run()
        return self.atom(first=False)

    def group(self, closer: str) -> Node:
        """What stands up to ``closer``, which is read too."""
        bars, self.bars = self.bars, 0
        node = self.quotient()
        self.expect(closer)
        self.bars = bars
        return node

    def quotient(self) -> Node:
        r"""A sum, or two with ``\over`` or ``\choose`` between them."""
        node = self.sum()
        if self.peek().kind == "cmd" and self.peek().value in ("over", "choose"):
            kind = self.next().value
            below = self.sum()
            node = divide(node, below) if kind == "over" else fn("binom", node, below)
        return node

    def arguments(self, closer: str) -> list[Node]:
        """Comma-separated expressions up to ``closer``."""
        bars, self.bars = self.bars, 0
        found = [self.sum()]
        while self.accept(","):
            found.append(self.sum())
        self.expect(closer)
        self.bars = bars
        return found

    def atom(self, first: bool) -> Node:
        token = self.next()
        if token.kind == "num":
            return self.number(token.value, first)
        if token.kind == "let" or (token.kind == "text" and len(token.value) == 1):
            return self.letter(token.value)
        if token.kind == "run":
            self.at -= 1
            self.split_run()
            return self.atom(first)
        if token.kind == "fn":
            return self.function(token.value)
        if token.kind == "cmd":
            return self.macro(token.value)
        if token.kind == "op":
            if token.value == "inf":
                return INFINITY
            if token.value == "|":
                self.bars += 1
                node = self.sum()
                self.bars -= 1
                self.expect("|")
                return fn("abs", node)
            if token.value in _CLOSERS:
                node = self.group(_CLOSERS[token.value])
                if token.value in ("lfloor", "lceil"):
                    return fn(token.value[1:], node)
                if node.op == "num" and token.value == "(" and is_op(self.peek(), "_"):
                    return self.based(node)
                return node
        raise Unreadable(f"{token.value!r} where a value should be" if token is not STOP else "a value is missing")

    def split_run(self) -> None:
        """Letters side by side as a product, unless they look like a word."""
        run = self.peek().value
        ordered = all(ord(b) - ord(a) == 1 for a, b in itertools.pairwise(run))
        if len(run) > 3 and not ordered and not run.isupper():
            raise Unreadable(f"the word {run!r}")
        self.tokens = [*self.tokens[: self.at], *(Token("let", c) for c in run), *self.tokens[self.at + 1 :]]

    def number(self, digits: str, first: bool) -> Node:
        value = rational(digits)
        if is_op(self.peek(), "_"):
            return self.based(value)
        if first and digits.isdigit() and not self.bars:
            return self.mixed(value)
        return value

    def mixed(self, whole: Node) -> Node:
        r"""``whole`` with a proper fraction of plain integers after it (``\frac45`` or ``4/5``) added."""
        start, tokens = self.at, self.tokens
        if self.peek().kind == "cmd" and self.peek().value == "frac":
            self.next()
            try:
                top, bottom = self.argument(whole=False), self.argument(whole=False)
            except Unreadable:
                top = bottom = whole
            if top.op == bottom.op == "num" and 0 < top.args[0] < bottom.args[0]:
                return num(whole.args[0] + top.args[0] / bottom.args[0])
        elif self.peek().kind == "num" and is_op(self.peek(1), "/") and self.peek(2).kind == "num":
            up, down = self.peek().value, self.peek(2).value
            if up.isdigit() and down.isdigit() and 0 < int(up) < int(down):
                self.at += 3
                return num(whole.args[0] + Fraction(int(up), int(down)))
        self.at, self.tokens = start, tokens
        return whole

    def function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        while True:
            if name == "log" and base is None and self.accept("_"):
                base = self.argument(whole=True)
            elif exponent is None and is_op(self.peek(), "^"):
                self.next()
                exponent = self.argument(whole=True)
            else:
                break
        if exponent is not None and exponent == num(-1) and f"arc{name}" in FUNCTIONS:
            name, exponent = f"arc{name}", None
        if is_op(self.peek(), "(", "{", "["):
            opener = self.next().value
            found = self.arguments(_CLOSERS[opener])
        elif name == "sqrt":
            found = [self.argument(whole=True)]
        else:
            found = [self.bare_argument()]
        node = _call(name, found, base)
        return power(node, exponent) if exponent is not None else node

    def bare_argument(self) -> Node:
        r"""What ``\sin 2 x`` takes: factors side by side, up to an operator or another function."""
        negative = bool(self.accept("-"))
        self.depth += 1
        if self.depth > DEPTH:
            raise Unreadable("nested too deeply")
        factors = [self.factor()]
        while self.starts_factor() and self.peek().kind not in ("fn", "num") and not is_op(self.peek(), "(", "["):
            factors.append(self.factor())
        node = mul(*factors)
        self.depth -= 1
        return negate(node) if negative else node

    def macro(self, name: str) -> Node:
        if name == "frac":
            return divide(self.argument(whole=False), self.argument(whole=False))
        if name == "binom":
            return fn("binom", self.argument(whole=False), self.argument(whole=False))
        if name == "sqrt":
            if self.accept("["):
                index = self.group("]")
                return fn("root", self.argument(whole=False), index)
            if is_op(self.peek(), "("):
                self.next()
                return power(self.group(")"), num(Fraction(1, 2)))
            return power(self.argument(whole=False), num(Fraction(1, 2)))
        if name in ("overline", "bar", "vec", "hat", "tilde", "dot", "ddot"):
            return self.accented(name)
        if name in ("angle", "triangle"):
            return self.vertices(name)
        raise Unreadable(f"\\{name} without a group around it")


def _call(name: str, found: list[Node], base: Node | None) -> Node:
    """An application; what has a formula is written by it, so that nobody else has to know the name.

    A logarithm without a base stays one: what is meant depends on the other side.
    """
    if len(found) != 1:
        raise Unreadable(f"{name} of {len(found)} values")
    (x,) = found
    match name:
        case "sqrt":
            return power(x, num(Fraction(1, 2)))
        case "cbrt":
            return fn("root", x, num(3))
        case "cis":
            return add(fn("cos", x), mul(I, fn("sin", x)))
        case "exp":
            return power(E, x)
        case "tan" | "cot":
            sine, cosine = fn("sin", x), fn("cos", x)
            return divide(sine, cosine) if name == "tan" else divide(cosine, sine)
        case "sec" | "csc":
            return power(fn("cos" if name == "sec" else "sin", x), MINUS_ONE)
        case "sinh" | "cosh" | "tanh" | "coth":
            up, down = power(E, x), power(E, negate(x))
            sinh, cosh = add(up, negate(down)), add(up, down)
            parts = {"sinh": (sinh, num(2)), "cosh": (cosh, num(2)), "tanh": (sinh, cosh), "coth": (cosh, sinh)}
            return divide(*parts[name])
        case "lg":
            return divide(fn("ln", x), fn("ln", num(10)))
        case "log" if base is not None:
            return divide(fn("ln", x), fn("ln", base))
    return fn(name, x)
