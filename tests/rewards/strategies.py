"""Hypothesis strategies for what a policy may put into a box: LaTeX-shaped, plain, unicode, nested, huge."""

from __future__ import annotations

from hypothesis import strategies as st

_NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.decimals(-1000, 1000, places=3).map(str),
    st.sampled_from(
        ["1e9", "4.5e33", "1e99999", "0", "9" * 400, "1,234,567", "10,\\!080", "0.\\overline{3}", "52_8", "62.5\\%"]
    ),
)
_NAMES = st.sampled_from(
    ["x", "y", "n", "k", "\\pi", "e", "i", "\\theta", "x_1", "E_{1}", "\\infty", "R", "f(x)", "\\alpha", "a_{n+1}", "t"]
)
_ODD = st.sampled_from(
    [
        "\\text{cm}", "\\text{(C)}", "\\text{or}", "\\mathbb{R}", "\\emptyset", "\\ldots", "\\frac", "\\sqrt", "^", "_", "{", "}",
        "\\{", "\\}", "\\left(", "\\right]", "&", "\\\\", "\\begin{pmatrix}", "\\end{pmatrix}", "$", "%", "'", "!", "|", "\\",
        "\\boxed{", "</think>", "<think>", "__import__('os')", "=", "<", "\\cup", "\\pm", "\\in", "\\int_0^1", "\\sum_{k=1}^{9}",
    ]
)  # fmt: skip


def _combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    templates = st.sampled_from(
        [
            "{0}+{1}", "{0}-{1}", "{0}{1}", "{0}\\cdot {1}", "\\frac{{{0}}}{{{1}}}", "{0}/{1}", "{0}^{{{1}}}", "\\sqrt{{{0}}}",
            "\\sqrt[{0}]{{{1}}}", "({0},{1})", "[{0},{1})", "\\{{{0},{1}\\}}", "{0},{1}", "{0}={1}", "{0}<{1}", "{0}\\pm {1}",
            "\\sin {0}", "\\log_{{{0}}} {1}", "|{0}|", "{0}!", "\\binom{{{0}}}{{{1}}}", "{0}\\text{{ {1}}}", "{0}\\cup {1}",
            "\\begin{{pmatrix}} {0} & {1} \\end{{pmatrix}}", "\\lfloor {0}\\rfloor", "{0}^\\circ", "\\sum_{{k=1}}^{{{0}}} {1}",
            "\\int_0^{{{0}}} {1}\\,dx", "\\text{{{0}}}", "\\left( {0} \\right)", "x={0}", "{0}\\text{{ or }}{1}", "({0})({1})",
        ]
    )  # fmt: skip
    return st.builds(lambda t, p: t.format(*p), templates, pair)


latex = st.recursive(st.one_of(_NUMBERS, _NAMES), _combine, max_leaves=10)
_noise = st.lists(st.one_of(_NUMBERS, _NAMES, _ODD), max_size=12).map("".join)
_unicode = st.text(max_size=40)
_nested = st.builds(
    lambda pair, inner, depth: pair[0] * depth + inner + pair[1] * depth,
    st.sampled_from([("(", ")"), ("{", "}"), ("\\frac{1}{1+", "}"), ("\\sqrt{", "}"), ("x^{", "}"), ("[", "]"), ("9^{", "}"),
                     ("\\text{", "}"), ("-", ""), ("\\left(", "\\right)"), ("|", "|"), ("\\sin ", ""), ("(", ""), ("((9!)", "!)")]),
    st.one_of(_NUMBERS, _NAMES),
    st.sampled_from([2, 5, 20, 41, 100, 400, 3000]),
)  # fmt: skip
_huge = st.builds(
    lambda piece, times: piece * times,
    st.one_of(_NUMBERS, _ODD, st.sampled_from(["x+", "1,", "a(b)", "+\\sqrt{7}", "x^{2}y", "\\boxed{1}", "sin", "é", "\x00", "\U0001f600"])),
    st.sampled_from([10, 100, 600, 4000, 20_000]),
)  # fmt: skip

answers = st.one_of(latex, latex, _noise, _unicode, _nested, _huge)
"""Contents of a box."""

golds = st.sampled_from(
    [
        "42", "-984", "\\frac{1}{2}", "0.5", "4.5e33", "52_8", "1,-2", "(3,4]", "(-\\infty,2)\\cup(3,\\infty)", "x=5", "\\pi",
        "\\text{Evelyn}", "\\text{(C)}", "\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "y=2x+3", "15\\mbox{ cm}^2", "1\\pm\\sqrt{19}",
        "2^{1009}", "\\frac{n(n+1)}{2}", "\\sin 2x", "(1,1),(3,2),(5,6)", "62.5\\%", "f(x)=x+1", "k\\ge 2", "1+\\sqrt{2}", "",
    ]
)  # fmt: skip

_frames = st.sampled_from(
    [
        "\\boxed{%s}",
        "\\boxed{%s}",
        "\\boxed{%s}",
        "<think>t</think> So $\\boxed{%s}$.",
        "%s",
        "\\boxed{%s",
        "<think>%s</think>\\boxed{1}",
        "\\boxed{\\boxed{%s}}",
    ]
)
completions = st.builds(lambda frame, answer: frame.replace("%s", answer), _frames, answers)
"""Whole completions: an answer in a frame that may be broken."""
