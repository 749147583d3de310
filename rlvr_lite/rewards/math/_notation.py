r"""One spelling for text that prints the same: unicode, spacing, delimiter sizes, display variants of macros.

Nothing here knows mathematics; every function is linear in the length of the text.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["fold", "plain", "word_set", "words"]

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau",
    "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma", "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda",
    "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega", "ϕ": "phi", "ℏ": "hbar",
}  # fmt: skip
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ",
    "∙": r"\cdot ", "∗": "*", "√": r"\sqrt ", "∛": r"\sqrt[3]", "∞": r"\infty ", "±": r"\pm ", "∓": r"\mp ",
    "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ",
    "∩": r"\cap ", "∖": r"\setminus ", "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "°": r"^\circ ", "º": r"^\circ ", "′": "'", "’": "'",
    "⁄": "/", "∕": "/", "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
    "⌉": r"\rceil ", "∠": r"\angle ", "△": r"\triangle ", "→": r"\to ", "…": r"\ldots ", "∑": r"\sum ",
    "∏": r"\prod ", "∫": r"\int ", "∧": r"\land ", "∨": r"\lor ", "％": "%",
    "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}",
    "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
    "\u2009": r"\,", "\u202f": r"\,",
}  # fmt: skip
_INVISIBLE = [0x00AD, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]
_SPACES = [0x00A0, *range(0x2000, 0x2009), 0x200A, 0x205F, 0x3000]
_TABLE: dict[int, str | None] = {
    **{ord(char): f"\\{name} " for char, name in _GREEK.items()},
    **{ord(char): text for char, text in _SIGNS.items()},
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != 0xFF05},  # full-width ASCII
    **dict.fromkeys(_INVISIBLE),
    **dict.fromkeys(_SPACES, " "),
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LOWERED_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")

_DELIMITERS = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?|middle)(?![A-Za-z])\s*\.?(?=[\s(){}\[\]|.\\<>/]|$)")
_STYLES = re.compile(
    r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|mathstrut|strut|rm|bf|it|sf|tt|bfseries|itshape|normalsize"
    r"|large|Large|huge|small|tiny|noindent|centering|protect|allowbreak|nobreak)(?![A-Za-z])"
)
_VARIANTS = re.compile(r"\\([dtc])(frac|binom)(?![A-Za-z])")
_SPACING = re.compile(r"(?:\s|~|(?<!\\)\\[ \t\r\n;:>]|\\q?quad|\\(?:en|thin)?space(?![A-Za-z]))+")
_MODULE = re.compile(r"\b(?:np|numpy|math|cmath|sympy|sp)\.(?=[A-Za-z])")
_DOLLARS = re.compile(r"(?<!\\)(?:\$|\\[()\[\]])")
_TRAILING = " \t\r\n.,;"
_SINGLE_MACRO = re.compile(r"(?<!\\)\\[A-Za-z]")
_DOUBLED = re.compile(r"\\\\[A-Za-z]")
_DOUBLED_FRACTION = re.compile(r"(?<!\\)\\\\(?=[dtc]?frac|sqrt)")
_COLOUR = re.compile(r"\\(?:text)?color\s*\{[^{}]*\}")
_ORDINAL = re.compile(
    r"(?<=\d)\s*(?:\^?\s*\{?\s*\\(?:text|textrm|mathrm|mbox)\s*\{\s*(?:st|nd|rd|th)\b\s*(\}\s*\}?|(?=[ A-Za-z]))|(?:st|nd|rd|th)\b)"
)
_SCALE = re.compile(r"\^\s*\{?\s*\\circ\s*\}?\s*(?:\\(?:text|mathrm|textrm)\s*\{\s*([FC])\s*\}|([FC])(?![A-Za-z]))")
_AXIS = re.compile(
    r"\\(?:hat|vec|mathbf|boldsymbol|bm)\s*(?:\{\s*(?:\\(?:mathbf|boldsymbol|bm|hat|vec)\s*\{?)?)?\s*(?:\\([ij])math|([ijk]))"
    r"(?![A-Za-z])\s*\}?\s*\}?"
)
_LEAD = re.compile(
    r"(?:\\text(?:bf)?\s*\{\s*)?(?:the\s+)?(?:final\s+)?answer\s*(?::|is:?\s|\s(?=[\\\d(-]))\s*(?:\})?", re.IGNORECASE
)


def fold(text: str) -> str:
    r"""One spelling of characters and layout: unicode to TeX, no delimiter sizes, no dollars, single spaces.

    >>> fold("$\\left( \\dfrac12,\\; π² \\right)$")
    '( \\frac12, \\pi ^{2} )'
    """
    if not text.isascii():
        text = _RAISED_RUN.sub(lambda run: "^{" + run.group().translate(_RAISED) + "}", text)
        text = _LOWERED_RUN.sub(lambda run: "_{" + run.group().translate(_LOWERED) + "}", text)
        text = text.translate(_TABLE)
    if "\\\\" in text and _DOUBLED.search(text) and not _SINGLE_MACRO.search(text):
        text = text.replace("\\\\", "\\")  # escaped twice, as in JSON
    text = _DOUBLED_FRACTION.sub(r"\\", text)
    if "\\" in text:
        text = _COLOUR.sub("", text)
        if any("i" not in axis for axis in _AXIS.findall(text)):  # a bold i alone is the imaginary unit
            text = _AXIS.sub(lambda axis: f"\\axis{axis[1] or axis[2]} ", text)
        text = _SCALE.sub(lambda scale: f" \\text{{deg{scale[1] or scale[2]}}}", text)
        text = _DELIMITERS.sub("", text)
        text = _STYLES.sub(" ", text)
        text = _VARIANTS.sub(r"\\\2", text)
    if "$" in text or "\\(" in text or "\\[" in text:
        text = _DOLLARS.sub(" ", text)
    if "." in text:
        text = _MODULE.sub("", text)
    if lead := _LEAD.match(text):
        inside = lead[0].startswith("\\") and not lead[0].rstrip().endswith("}")
        text = ("\\text{" if inside else "") + text[lead.end() :]
    text = _ORDINAL.sub(lambda end: " " if not end[0].lstrip(" ^{").startswith("\\") or end[1] else " \\text{", text)
    return _SPACING.sub(" ", text).strip().rstrip("\\ ")


_LOOSE_SPACE = re.compile(r"(?<![A-Za-z0-9.]) | (?![A-Za-z0-9.])")


@lru_cache(maxsize=512)
def plain(text: str) -> str:
    r"""The folded text without spaces that separate nothing and without closing punctuation.

    >>> plain(r"\left[ -2 , 7 \right].")
    '[-2,7]'
    """
    return _LOOSE_SPACE.sub("", fold(text)).rstrip(_TRAILING)


_TEXT_MACRO = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|normal|up)?|math(?:rm|bf|it|sf|tt)|[mhf]box|boxed|operatorname|emph|underline|bm|boldsymbol)"
    r"(?![A-Za-z])"
)
_NOT_WORD = re.compile(r"[^\w+\-*/^=<>|!%\\]+")
_ARTICLES = {"a", "an", "the"}


@lru_cache(maxsize=512)
def words(text: str) -> str:
    r"""What a reader sees of a text answer: no text macros, braces or articles, in lower case.

    >>> words(r"\textbf{(C)}"), words(r"\text{an Ellipse}")
    ('c', 'ellipse')
    """
    seen = _NOT_WORD.sub(" ", _TEXT_MACRO.sub(" ", fold(text)).casefold()).split()
    return " ".join(word for word in seen if word not in _ARTICLES) or " ".join(seen)


def word_set(text: str) -> frozenset[str]:
    """The words of a text, for tables."""
    return frozenset(text.split())
