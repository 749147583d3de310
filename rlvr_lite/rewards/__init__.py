r"""The answer verifier and the reward functions.

**What is the final answer.** The content of the last ``\boxed{...}`` after the thinking; boxes side by side are one list.
Thinking that is not closed (also if the prompt opened it), a box that is cut off, empty or absent is a wrong answer, and
:attr:`Verdict.reason` says which. Text around the box is not read, unless the fallback "answer is" is asked for. Of a gold
with work before it, what follows ``####`` or stands in its box counts.

**What is equal.** The same value, however it is written:

* order and repetition: a set or list of solutions in any order, but each as often; a tuple, matrix or interval in order, with
  its ends. Named coordinates go by their names: ``y = 3, x = 2`` is (2, 3);
* a name may be there or not (``x =``, ``f(2) =``, ``AB =``, ``m + n =``) but must not contradict the gold's. What is left to
  be solved is no answer: ``2x = 10`` and ``2^x = 5`` are not 5. The constant of integration has any name;
* a known unit, a counted noun, a degree or currency sign, a modulus may be there or not, but must not contradict;
  ``25%`` is 25, or a bare gold up to 1 that is its hundredth;
* a decimal gold of three digits, or two after the point, is equal to the exact value that rounds to it: 8/3 for 2.6667;
* an inequality in one variable is its interval, an equation its nonzero multiples, an option its letter with or without its
  text, a yes with its sentence a yes, ``\varnothing`` no solution; words are compared without regard to case.

**What is never equal.** A rounded value of an exact gold (0.333 for 1/3); one of several solutions, several candidates for
one value; a number followed by words that change it or that are not known ("5 thirds", "5 out of 6", "5 hours 30
minutes"); another unit, base (``14_5``), bracket, order of coordinates; ``\sqrt{x^2}`` for x; prose.

**What is not judged** (``correct=None``, no part of the advantage): answers against a gold that cannot be read (see
:func:`unreadable_golds`), and comparisons that ran out of processor time, memory or wall time.

**Stages**, cheapest first, named in :attr:`Verdict.how`: ``string``, ``number``, ``text``, ``structure``, ``algebra``
(exact, in this process), ``numeric`` (refuted at sample points), ``math-verify`` (in a worker process: identities that need
a computer algebra system, and, without words in it, notation that only math-verify's parser reads).

**Threat note.** A completion is written by a policy that is paid for fooling this verifier, and is treated as hostile.

What an answer *cannot* do:

* run anything: no ``eval``, no ``exec``, no ``sympify`` or ``parse_expr`` of text anywhere; only trees made by
  our own reader, or by math-verify's LaTeX grammar from short answers without words, reach sympy, in a worker;
* hang or exhaust the trainer: only the last 32,768 characters are searched, answers over 8,192 characters are refused
  and over 2,000 compared as text only; extraction and reading are linear up to small factors, nesting is capped; sizes
  are estimated before arithmetic (``9^{9^{9^9}}`` is never expanded), and the arithmetic of one verdict is metered;
* hang or exhaust a worker: a question is answered in a process of its own, in at most 800,000 calls of Python functions
  (running out of them is a wrong answer, on every machine alike), 8 s of processor time, 60 s and 2 GiB of memory
  (running out of these is no verdict, ``correct=None``, which is not cached and left out of the advantage);
* change other verdicts: order and length of a batch are kept, nothing is raised, only ``(gold, answer)`` decides;
* be accepted by hedging: lists, intervals or identities that contain the value, free variables, and instructions to the
  grader are wrong answers.

What an answer *can* do: reach the right value by wrong reasoning, which no answer check sees; be right and refused, where
neither reader knows its notation or sympy does not find an identity in time; make its batch slower, by up to 8 s of
processor time a distinct answer and worker. Where processes are forbidden the comparison runs in a thread, with the same
number of calls, but a single long call into C code then ends only by itself, and memory has no cap.

The written cases of the tests are our own: all of them right says that this policy is kept, not that it is right.
"""

from rlvr_lite.rewards._functions import RewardFunction, accuracy, combine, format, get, overlong, text_of
from rlvr_lite.rewards.math._extract import extract, thinking_open
from rlvr_lite.rewards.math._second_opinion import audit
from rlvr_lite.rewards.math._verifier import Verdict, explain, unreadable_golds, verify, verify_batch

__all__ = [
    "RewardFunction", "Verdict", "accuracy", "audit", "combine", "explain", "extract", "format", "get", "overlong",
    "text_of", "thinking_open", "unreadable_golds", "verify", "verify_batch",
]  # fmt: skip
