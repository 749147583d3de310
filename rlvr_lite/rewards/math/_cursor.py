"""A place in a list of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from rlvr_lite.rewards.math._lexer import Token
from rlvr_lite.rewards.math._nodes import Unreadable

__all__ = ["STOP", "Cursor", "is_op"]

STOP = Token("end", "")


def is_op(token: Token, *values: str) -> bool:
    """Whether the token is one of these operators."""
    return token.kind == "op" and token.value in values


class Cursor:
    """Reads tokens one by one. ``sign`` is what a plus-minus stands for, ``bars`` counts open absolute values."""

    def __init__(self, tokens: Sequence[Token], sign: int):
        self.tokens, self.sign = tokens, sign
        self.at = self.depth = self.bars = 0
        self.bound: list[str] = []

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
