r"""The answer verifier and the reward functions.

**What counts.** The answer is the content of the last ``\boxed{...}`` after the last ``</think>``. A think block that is
not closed, a box that is cut off, empty or absent is a wrong answer, and :attr:`Verdict.reason` says which. Text around
the box is not read. The answer is compared with the gold by value: order does not matter in a set or list of solutions
and does in a tuple or matrix, interval ends matter, multiplicity matters, a rounded value of an exact gold is wrong,
several candidates for one value are wrong. A label (``x =``), unit, degree or currency sign may be absent but must not
contradict; a percentage equals its decimal; e-notation is a power of ten; numerals in different bases differ; words are
compared without regard to case.

**Stages**, cheapest first, named in :attr:`Verdict.how`: ``string``, ``number``, ``text``, ``structure``, ``algebra``
(exact, in this process), ``numeric`` (refuted at sample points), ``math-verify`` (in a worker process).

**Threat note.** A completion is written by a policy that is paid for fooling this verifier, and is treated as hostile.

What an answer *cannot* do:

* run anything: no ``eval``, no ``exec``, no ``sympify`` or ``parse_expr`` of text anywhere; only a tree of numbers, names
  and known operators, made by our own reader, reaches sympy, and only in a worker;
* hang or exhaust the trainer: only the last 32,768 characters are searched, answers over 8,192 characters are refused
  and over 2,000 compared as text only; extraction and reading are linear up to small factors, nesting is capped; sizes
  are estimated before arithmetic (``9^{9^{9^9}}`` is never expanded), and the arithmetic of one verdict is metered;
* hang or exhaust a worker: a question is answered in a process of its own, in at most 800,000 calls of Python functions
  (running out of them is a wrong answer, on every machine alike), 8 s of processor time, 60 s and 2 GiB of memory
  (running out of these is no verdict, ``correct=None``, which is not cached and left out of the advantage);
* change other verdicts: order and length of a batch are kept, nothing is raised, and results are cached by
  ``(gold, answer)`` only;
* be accepted by hedging: lists, intervals or identities that contain the value, free variables, and instructions to the
  grader are wrong answers.

What an answer *can* do: reach the right value by wrong reasoning, which no answer check sees; be right and refused, when
it is written in notation that the reader does not know or needs an identity that sympy does not find in time; and make
its batch slower, by up to 8 s of processor time a distinct answer and worker. Where processes are forbidden the comparison
runs in a thread, with the same number of calls, but a single long call into C code then ends only by itself, and memory
has no cap.
"""

from rlvr_lite.rewards.functions import RewardFunction, accuracy, combine, format, get, overlong
from rlvr_lite.rewards.math.second_opinion import audit
from rlvr_lite.rewards.math.verdict import Verdict
from rlvr_lite.rewards.math.verifier import explain, verify, verify_batch

__all__ = [
    "RewardFunction",
    "Verdict",
    "accuracy",
    "audit",
    "combine",
    "explain",
    "format",
    "get",
    "overlong",
    "verify",
    "verify_batch",
]
