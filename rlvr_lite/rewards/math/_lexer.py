r"""Text to tokens: LaTeX as models write it, and the plain ASCII that they write just as often.

A token is ``(kind, value)``. Kinds: ``num`` (the digits as written, grouping removed), ``let`` (a variable or Greek
letter), ``run`` (two or more letters side by side), ``text`` (words in a text macro), ``cmd`` (a macro with arguments),
``fn`` (a function's name), ``sep`` ("or", "and"), ``unit`` (currency), ``set``, ``begin``, ``end``, and ``op`` for
everything that is punctuation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rlvr_lite.rewards.math._nodes import Unreadable
from rlvr_lite.rewards.math._notation import fold, word_set

__all__ = ["AXES", "FUNCTIONS", "LONGEST", "Token", "lex"]

LONGEST = 2_000
"""Texts longer than this, in characters, are compared as text only."""


class Token(NamedTuple):
    """A kind and the text it stands for."""

    kind: str
    value: str


FUNCTIONS = word_set("""sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth ln log lg exp sqrt cbrt abs
floor ceil cis""")
_FUNCTION_ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot", "arctg": "arctan",
    "cosec": "csc", "ceiling": "ceil", "Log": "log", "Ln": "ln", "Sin": "sin", "Cos": "cos",
}  # fmt: skip
_GREEK = word_set("""alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau
upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Upsilon Phi Psi Omega ell hbar""")
_OPERATORS = {
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "pm": "pm", "mp": "mp", "le": "<=", "leq": "<=",
    "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">", "ne": "!=", "neq": "!=",
    "equiv": "=", "in": "in", "cup": "cup", "cap": "cap", "setminus": "minus", "backslash": "minus", "to": "to",
    "rightarrow": "to", "mid": "mid", "vert": "|", "lvert": "|", "rvert": "|", "langle": "(", "rangle": ")",
    "lparen": "(", "rparen": ")", "lbrack": "[", "rbrack": "]", "lbrace": "{{", "rbrace": "}}", "colon": ":",
    "lfloor": "lfloor", "rfloor": "rfloor", "lceil": "lceil", "rceil": "rceil", "circ": "circ", "degree": "deg",
    "prime": "'", "approx": "approx", "simeq": "approx", "infty": "inf", "emptyset": "empty", "varnothing": "empty",
    "ldots": "dots", "dots": "dots", "cdots": "dots",
}  # fmt: skip
_SEPARATORS = {"lor": "or", "vee": "or", "land": "and", "wedge": "and"}
_TEXTS = word_set("""text textbf textit textrm texttt textsf textnormal textup mbox hbox mathrm mathbf mathit mathsf mathtt mathcal
boldsymbol bm operatorname emph underline boxed fbox mathop mathord""")
_ARGUMENTS = word_set("""frac sqrt binom choose over max min overline bar vec hat tilde dot ddot angle triangle""")
AXES = ("axisi", "axisj", "axisk")
"""Unit vectors, as :func:`~rlvr_lite.rewards.math._notation.fold` writes them."""
_CURRENCY = {"$": "dollar", "€": "euro", "£": "pound", "¥": "yen", "¢": "cent", "₹": "rupee"}

_GROUPED = re.compile(r"\d{1,3}(?:(?:\{,\}|, ?\\! ?|\\[,!] ?)\d{3})+(?!\d)")
_COMMAS = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d|,\d)")
_NUMBER = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![.\d]*[A-Za-z^_({]))?")
_FRACTION = re.compile(r"\.\d+")
_EXPONENT = re.compile(r"[eE][+-]?\d+(?![.\d]*[A-Za-z^_({])")
_REPEATING = re.compile(r" ?\\(?:overline|bar|dot)(?: ?\{ ?(\d+) ?\}| ?(\d))")
_LETTERS = re.compile(r"[A-Za-z]+")
_DERIVATIVE = re.compile(r" ?\{ ?(d(?:[^{}]|\{[^{}]*\})*[^{} ] ?)\} ?\{ ?(d ?[A-Za-z](?:[^{}]|\{[^{}]*\})*)\}")
_MACRO = re.compile(r"\\([A-Za-z]+) ?|\\(.)")
_TIMES_TEN = re.compile(r" ?[xX] ?(?=10 ?(?:\^|\*\*))")
_WORDS = re.compile(r"[A-Za-z][A-Za-z ./^*0-9'(){}:-]*|\([A-Za-z]\)|[A-Za-z]")
_PAIRS = {"<=": "<=", ">=": ">=", "=<": "<=", "**": "^", "==": "=", "->": "to", "!=": "!="}
_SINGLE = frozenset("+-*/^_(){}[]|,;:=<>!'&%")


def lex(text: str) -> list[Token]:
    r"""The tokens of a text.

    >>> [token.value for token in lex(r"3\times 10^{4} \text{ cm}")]
    ['3', '*', '10', '^', '{', '4', '}', 'cm']

    Raises:
        Unreadable: a character or macro that means nothing here, or a text longer than :data:`LONGEST`.
    """
    if len(text) > LONGEST:
        raise Unreadable(f"longer than {LONGEST:,} characters")
    tokens: list[Token] = []
    _lex(fold(text), tokens, 0)
    return tokens


def _lex(text: str, tokens: list[Token], splices: int) -> None:
    if splices > 8:
        raise Unreadable("text macros nested too deeply")
    at, depth = 0, 0
    while at < len(text):
        char = text[at]
        if char == " ":
            at += 1
        elif char.isascii() and (char.isdigit() or (char == "." and _NUMBER.match(text, at))):
            at = _number(text, at, tokens, depth)
        elif char.isascii() and char.isalpha():
            run = _LETTERS.match(text, at)
            assert run is not None
            _letters(run.group(), tokens)
            at = run.end()
        elif char == "\\":
            at, depth = _macro(text, at, tokens, depth, splices)
        elif text[at : at + 2] in _PAIRS and not (char == "!" and text[at + 1 : at + 3] == "=="):
            tokens.append(Token("op", _PAIRS[text[at : at + 2]]))
            at += 2
        elif char in _SINGLE:
            depth += (char in "([") - (char in ")]")
            tokens.append(Token("op", char))
            at += 1
        elif char in _CURRENCY:
            tokens.append(Token("unit", _CURRENCY[char]))
            at += 1
        elif char == "." and at == len(text) - 1:
            at += 1
        else:
            raise Unreadable(f"the character {char!r}")


def _number(text: str, at: int, tokens: list[Token], depth: int) -> int:
    adjacent_comma = at > 0 and text[at - 1] == ","
    grouped = _GROUPED.match(text, at)
    if grouped is None and depth == 0 and not adjacent_comma:
        grouped = _COMMAS.match(text, at)
    if grouped is not None:
        digits, end = re.sub(r"\D", "", grouped.group()), grouped.end()
        for tail in (_FRACTION, _EXPONENT):
            if more := tail.match(text, end):
                digits, end = digits + more.group(), more.end()
    else:
        plain = _NUMBER.match(text, at)
        assert plain is not None
        digits, end = plain.group(), plain.end()
    if "." in digits and (repeating := _REPEATING.match(text, end)):
        digits += f"({repeating.group(1) or repeating.group(2)})"
        end = repeating.end()
    tokens.append(Token("num", digits))
    if times := _TIMES_TEN.match(text, end):
        tokens.append(Token("op", "*"))
        end = times.end()
    return end


def _letters(run: str, tokens: list[Token]) -> None:
    if run in FUNCTIONS or run in _FUNCTION_ALIASES:
        tokens.append(Token("fn", _FUNCTION_ALIASES.get(run, run)))
    elif run in ("or", "and"):
        tokens.append(Token("sep", run))
    elif run == "pi" or run in ("theta", "alpha", "beta"):
        tokens.append(Token("let", run))
    elif run in ("infinity", "infty", "Infinity", "oo", "inf"):
        tokens.append(Token("op", "inf"))
    elif run.lower() in ("yes", "no", "odd", "all", "none") and not (run.isupper() and tokens[-1:] == [("op", "{")]):
        tokens.append(Token("text", run))
    else:
        tokens.append(Token("let" if len(run) == 1 else "run", run))


def _macro(text: str, at: int, tokens: list[Token], depth: int, splices: int) -> tuple[int, int]:
    macro = _MACRO.match(text, at)
    if macro is None:
        raise Unreadable("a backslash at the end")
    name, sign, end = macro.group(1), macro.group(2), macro.end()
    if sign is not None:
        if sign in "{}":
            tokens.append(Token("op", sign * 2))
            return end, depth + (1 if sign == "{" else -1)
        if sign in ",!":
            return end, depth
        known = {"\\": Token("op", "row"), "%": Token("op", "%"), "$": Token("unit", "dollar"), "|": Token("op", "|")}
        if sign not in known:
            raise Unreadable(f"\\{sign}")
        tokens.append(known[sign])
    elif name in _TEXTS:
        return _text(name, text, end, tokens, splices), depth
    elif name in _OPERATORS:
        value = _OPERATORS[name]
        tokens.append(Token("op", value))
        depth += (value in ("(", "[", "{{")) - (value in (")", "]", "}}"))
    elif name in _SEPARATORS:
        tokens.append(Token("sep", _SEPARATORS[name]))
    elif (name in FUNCTIONS and name != "sqrt") or name in _FUNCTION_ALIASES:
        tokens.append(Token("fn", _FUNCTION_ALIASES.get(name, name)))
    elif name == "frac" and (derivative := _DERIVATIVE.match(text, end)):
        tokens.append(Token("let", re.sub("[ {}]", "", f"{derivative[1]}/{derivative[2]}")))
        end = derivative.end()
    elif name in _ARGUMENTS:
        tokens.append(Token("cmd", name))
    elif name == "pi" or name in _GREEK or name in AXES:
        tokens.append(Token("let", name))
    elif name in ("mathbb", "begin", "end"):
        content, end = _argument(text, end)
        kind = "set" if name == "mathbb" else name
        tokens.append(Token(kind, content.strip().rstrip("*")))
    elif name in ("R", "Z", "N", "Q", "C"):
        tokens.append(Token("set", name))
    elif name in ("odot", "perp", "parallel", "star", "dagger", "top"):
        tokens.append(Token("let", name))
    else:
        raise Unreadable(f"the macro \\{name}")
    return end, depth


def _argument(text: str, at: int) -> tuple[str, int]:
    """The braced group (or single character) at ``at``, and where it ends."""
    if at < len(text) and text[at] == " ":
        at += 1
    if at >= len(text):
        return "", at
    if text[at] != "{":
        single = _MACRO.match(text, at) if text[at] == "\\" else None
        end = single.end() if single else at + 1
        return text[at:end], end
    depth = 0
    for end in range(at, len(text)):
        if text[end] in "{}" and text[end - 1] != "\\":
            depth += 1 if text[end] == "{" else -1
            if depth == 0:
                return text[at + 1 : end], end + 1
    raise Unreadable("a brace that is never closed")


def _text(name: str, text: str, at: int, tokens: list[Token], splices: int) -> int:
    content, end = _argument(text, at)
    content = content.replace("\\,", " ").replace("\\!", "").strip()
    bare = content.strip(" .,;:")
    if not bare:
        return end
    if bare.lstrip("\\") in _CURRENCY:
        tokens.append(Token("unit", _CURRENCY[bare.lstrip("\\")]))
        return end
    if bare.casefold() in ("or", "and"):
        tokens.append(Token("sep", bare.casefold()))
    elif bare in FUNCTIONS or bare in _FUNCTION_ALIASES:
        tokens.append(Token("fn", _FUNCTION_ALIASES.get(bare, bare)))
    elif len(bare) == 1 and bare.isascii() and bare.isalpha():
        upright = name in ("text", "mbox", "hbox", "mathrm", "textrm") and bare not in "eid"
        tokens.append(Token("text" if upright else "let", bare))
    elif _WORDS.fullmatch(bare):
        tokens.append(Token("text", bare))
    else:
        inner: list[Token] = []
        _lex(content, inner, splices + 1)
        tokens += [Token("op", "{"), *inner, Token("op", "}")] if name != "boxed" else inner
    return end
