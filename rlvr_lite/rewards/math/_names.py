r"""Reading names: variables with subscripts, primes and accents, applications of functions, numerals with a base."""

from __future__ import annotations

from abc import abstractmethod

from rlvr_lite.rewards.math._cursor import STOP, Cursor, is_op
from rlvr_lite.rewards.math._nodes import PI, E, I, Node, Unreadable, sym

__all__ = ["Names"]

_APPLIED = frozenset("f g h F G H phi psi P Q".split())  # noqa: SIM905


class Names(Cursor):
    """The part of the parser that reads names."""

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
        elif name not in self.bound and name in ("e", "i", "pi"):
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

    def derivative(self) -> Node | None:
        r"""``\frac{d^n y}{d x^n}`` as one name, ``None`` if it is another fraction."""
        start, parts = self.at, []
        for _ in range(2):
            if not self.accept("{"):
                break
            token = self.peek()
            if not (token.kind in ("let", "run") and token.value[0] == "d" and len(token.value) <= 2):
                break
            parts.append(self.group_text())
        if len(parts) == 2 and min(map(len, parts)) > 1:
            return sym(f"d({parts[0]}/{parts[1]})")
        self.at = start
        return None

    def group_text(self) -> str:
        """The text of the group just opened."""
        self.at -= 1
        return self.subscript().replace(",", "")

    def vertices(self, mark: str) -> Node:
        """An angle or triangle, named by its points."""
        letters = ""
        while self.peek().kind in ("let", "run"):
            letters += self.next().value
            letters += "_" + self.subscript() if self.accept("_") else ""
        if not letters:
            raise Unreadable(f"{mark} of nothing")
        return sym(f"{mark} {letters}")
