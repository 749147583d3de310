r"""A place in a list of tokens, and the names that are read there: subscripts, primes, accents, applications, bases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from rlvr_lite.rewards.math._lexer import Token
from rlvr_lite.rewards.math._nodes import PI, E, I, Node, Unreadable, sym

__all__ = ["STOP", "Names", "is_op"]

STOP = Token("end", "")
_APPLIED = frozenset(["f", "g", "h", "F", "G", "H", "phi", "psi", "P", "Q"])


def is_op(token: Token, *values: str) -> bool:
    """Whether the token is one of these operators."""
    return token.kind == "op" and token.value in values


class Names:
    """Reads tokens one by one. ``sign`` is what a plus-minus stands for, ``bars`` counts open absolute values."""

    def __init__(self, tokens: Sequence[Token], sign: int):
        self.tokens, self.sign = tokens, sign
        self.at = self.depth = self.bars = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token here, or ``ahead`` places on; :data:`STOP` after the end."""
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else STOP

    def next(self) -> Token:
        """The token here, read."""
        token = self.peek()
        self.at += 1
        return token

    def accept(self, *values: str) -> str | None:
        """Read one of these operators if it stands here."""
        if is_op(self.peek(), *values):
            return self.next().value
        return None

    def expect(self, value: str) -> None:
        """Read this operator, which has to stand here."""
        if not self.accept(value):
            raise Unreadable(f"expected {value!r}, found {self.peek().value!r}")

    def subscript(self) -> str:
        """The text of a subscript, braces dropped."""
        if not self.accept("{"):
            token = self.next()
            if token.kind not in ("num", "let", "text", "run") and not is_op(token, "*", "+", "-"):
                raise Unreadable("a subscript is missing")
            return token.value
        depth = 1
        parts: list[str] = []
        while True:
            token = self.next()
            if token is STOP:
                raise Unreadable("a brace that is never closed")
            depth += is_op(token, "{") - is_op(token, "}")
            if not depth:
                return ",".join(parts)
            if not is_op(token, "{", "}"):
                parts.append(token.value)

    @abstractmethod
    def arguments(self, closer: str) -> list[Node]:
        """Comma-separated expressions up to ``closer``."""

    def primes(self) -> str:
        """Primes after a caret, bare or braced."""
        start, marks = self.at, ""
        braced = bool(self.accept("{"))
        while self.accept("'"):
            marks += "'"
        if marks and (not braced or self.accept("}")):
            return marks
        self.at = start
        return ""

    def named(self, base: Node, mark: str) -> Node:
        """A variable or function with a prime."""
        if base.op == "sym":
            return sym(base.args[0] + mark)
        if base.op == "call":
            return Node("call", (base.args[0] + mark, *base.args[1:]))
        raise Unreadable("a prime on something without a name")

    def based(self, value: Node) -> Node:
        """A numeral with its base as a subscript."""
        self.expect("_")
        base = self.subscript()
        if value.args[0].denominator != 1:
            raise Unreadable("a base on a number that is no integer")
        if base in ("10", "ten"):
            return value
        return sym(f"{value.args[0]}_{base}")

    def letter(self, name: str) -> Node:
        """A variable, constant or application that begins with this letter."""
        if is_op(self.peek(), "_"):
            self.next()
            name = f"{name}_{self.subscript()}"
        elif name in ("e", "i", "pi"):
            return {"e": E, "i": I, "pi": PI}[name]
        return self.applied(name)

    def applied(self, name: str) -> Node:
        """``name``, or its application if what stands in parentheses after it cannot be a factor."""
        marks = 0
        while is_op(self.peek(marks), "'"):
            marks += 1
        braced = is_op(self.peek(marks), "{") and is_op(self.peek(marks + 1), "(")  # sympy prints f{\left(x \right)}
        marks += braced
        if not is_op(self.peek(marks), "("):
            return sym(name)
        inside, after = self.peek(marks + 1), self.peek(marks + 2)
        single = inside.kind in ("num", "let") and is_op(after, ")") and inside.value != name
        comma, depth, ahead = False, 0, marks
        while (token := self.peek(ahead)) is not STOP:
            depth += is_op(token, "(", "[", "{{") - is_op(token, ")", "]", "}}")
            comma |= depth == 1 and is_op(token, ",")
            if not depth:
                break
            ahead += 1
        if not (name.split("_")[0] in _APPLIED or single or comma or braced):
            return sym(name)
        self.at += marks + 1
        found = Node("call", (name + "'" * (marks - braced), *self.arguments(")")))
        if braced:
            self.expect("}")
        return found

    def accented(self, mark: str) -> Node:
        """A name under a bar, dot or arrow."""
        braced = self.accept("{")
        token = self.next()
        if token.kind not in ("let", "run", "text") or (braced and not is_op(self.peek(), "}")):
            raise Unreadable(f"\\{mark} on something without a name")
        if braced:
            self.next()
        name = f"{mark} {token.value}"
        if self.accept("_"):
            name += f"_{self.subscript()}"
        return self.applied(name)

    def vertices(self, mark: str) -> Node:
        """An angle or triangle, named by its points."""
        letters = ""
        while self.peek().kind in ("let", "run"):
            letters += self.next().value
            letters += "_" + self.subscript() if self.accept("_") else ""
        if not letters:
            raise Unreadable(f"{mark} of nothing")
        return sym(f"{mark} {letters}")
