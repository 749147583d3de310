"""The verifier beside math-verify behind the same extractor: ``python -m tests.benchmarks.verifier``.

Prints agreement with the written cases, the golds of the benchmark files against themselves, against copies with one
small error and against themselves rewritten by sympy, hostile strings, throughput and latency. Both sides are measured
in the same run, interleaved; math-verify runs in this process with its own time limits, as TRL's accuracy reward does.

Needs the files named by RLVR_LITE_DATA (by default shared/data beside the checkout). ``--strings`` sets how many hostile
strings are tried, ``--seed`` which; ``--load 20`` only judges them twice, in peace and while twenty
processes spin.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import hashlib
import json
import logging
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st

from rlvr_lite.rewards import extract, verify, verify_batch
from rlvr_lite.rewards.math import _verifier as verifier
from rlvr_lite.rewards.math import _workers as workers
from rlvr_lite.rewards.math._grader import LIMITS, build
from rlvr_lite.rewards.math._nodes import Value
from rlvr_lite.rewards.math._structure import read
from rlvr_lite.table import Table
from tests.rewards.perturb import perturbations
from tests.rewards.strategies import completions, golds
from tests.rewards.test_answers import KINDS

DATA = Path(os.environ.get("RLVR_LITE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
Judge = Callable[[str, str], bool]


def peer(gold: str, completion: str) -> bool:
    """math-verify in this process, behind our extractor."""
    from math_verify import parse
    from math_verify import verify as equal

    answer = extract(completion).answer
    return answer is not None and bool(equal(parse(f"\\boxed{{{gold}}}"), parse(f"\\boxed{{{answer}}}")))


def ours(gold: str, completion: str) -> bool:
    """The verifier, one item at a time, with an empty cache."""
    verifier._kept.clear()
    return verify(gold, completion).correct is True


def _rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def _timed(judge: Judge, pairs: Sequence[tuple[str, str]]) -> tuple[list[bool], list[float]]:
    verdicts, seconds = [], []
    for gold, completion in pairs:
        start = time.perf_counter()
        verdicts.append(judge(gold, completion))
        seconds.append(time.perf_counter() - start)
    return verdicts, seconds


def _quantile(seconds: Sequence[float], q: float) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(q * len(seconds)))]


def agreement() -> Table:
    """The written cases, settled and judgement apart."""
    rows = _rows("verifier_cases")
    pairs = [(row["gold"], row["completion"]) for row in rows]
    table = []
    for name, judge in (("rlvr_lite", ours), ("math-verify", peer)):
        verdicts, seconds = _timed(judge, pairs)
        right = [(v == row["correct"], "(judgement)" in row["why"]) for v, row in zip(verdicts, rows, strict=True)]
        settled = [ok for ok, judgement in right if not judgement]
        open_ = [ok for ok, judgement in right if judgement]
        table.append(
            {
                "verifier": name,
                "settled cases": f"{sum(settled)}/{len(settled)}",
                "agreement": f"{100 * statistics.mean(settled):.2f} %",
                "judgement cases": f"{sum(open_)}/{len(open_)}",
                "slowest s": max(seconds),
                "over 1 s": sum(s > 1 for s in seconds),
                "total s": sum(seconds),
            }
        )
    return Table.of(table, title="Agreement with the written cases")


def benchmark_golds() -> list[str]:
    """Every distinct gold of the benchmark files."""
    files = sorted(path.stem for path in DATA.glob("*.jsonl") if path.stem != "verifier_cases")
    return list(dict.fromkeys(row["answer"] for name in files for row in _rows(name)))


def _rewritten(gold: str) -> list[str]:
    """The gold as sympy prints it, expanded, factored, over one denominator, with rational denominators."""
    import sympy

    reading = read(gold)
    if not isinstance(reading, Value) or gold.lstrip("-").isdigit() or "\\dot" in gold:
        return []
    try:
        expression = build(reading.node)
    except KeyError:  # a logarithm of unknown base
        return []
    forms = (sympy.expand, sympy.factor, sympy.together, sympy.radsimp)
    return [text for text in dict.fromkeys(sympy.latex(form(expression)) for form in forms) if text != gold]


def golds_against(seed: int) -> Table:
    """Golds equal themselves and their rewritings, and no perturbed copy."""
    found = benchmark_golds()
    kinds: dict[str, list[tuple[str, str]]] = {"equal: itself": [(gold, gold) for gold in found]}
    kinds["equal: rewritten by sympy"] = [(gold, text) for gold in found for text in _rewritten(gold)]
    for gold in found:
        for kind, changed in perturbations(gold):
            kinds.setdefault(f"wrong: {kind}", []).append((gold, changed))
    kinds["wrong: all of them"] = [pair for kind, pairs in kinds.items() if kind.startswith("wrong") for pair in pairs]
    sample = random.Random(seed)
    table = []
    for kind, pairs in kinds.items():
        want = kind.startswith("equal")
        boxed = [(gold, f"\\boxed{{{text}}}") for gold, text in pairs]
        verdicts = verify_batch(*zip(*boxed, strict=True))
        right = statistics.mean(v.correct == want for v in verdicts)
        part = boxed if len(boxed) <= 1_500 else sample.sample(boxed, 1_500)
        other = statistics.mean(v == want for v in _timed(peer, part)[0])
        unread = sum(v.how == "text" for v in verdicts)
        table.append(
            {
                "gold against": kind,
                "pairs": len(pairs),
                "rlvr_lite right": f"{100 * right:.2f} %",
                "math-verify right": f"{100 * other:.2f} %",
                "not read": unread,
            }
        )
    return Table.of(
        table, title=f"{len(found):,} golds of the benchmark files", note="math-verify on up to 1,500 of a kind"
    )


def _each(part: int, judge: Callable[[str, str], None]) -> None:
    """A thousand hostile strings with golds, the same for the same part; hypothesis remembers only within one."""
    quiet = settings(
        max_examples=100, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    batch = st.lists(st.tuples(golds, completions), min_size=10, max_size=10)

    def each(rows: list[tuple[str, str]]) -> None:
        for gold, completion in rows:
            judge(gold, completion)

    with_seed(part)(quiet(given(batch)(each)))()


def _parts(strings: int, seed: int) -> range:
    """Seeds of batches of a thousand strings; two seeds share none of them."""
    return range(seed * (strings // 1_000), (seed + 1) * (strings // 1_000))


def hostile(strings: int, seed: int) -> Table:
    """Generated strings: verdicts, time, memory, processes."""
    seconds: list[float] = []
    hows: Counter[str] = Counter()
    process = psutil.Process()
    memory: list[int] = []
    failures = 0

    def judge(gold: str, completion: str) -> None:
        nonlocal failures
        start = time.perf_counter()
        try:
            verdict = verify(gold, completion)
        except BaseException:
            failures += 1
            raise
        seconds.append(time.perf_counter() - start)
        hows[verdict.how] += 1
        failures += verifier.UNEXPECTED in verdict.reason

    for part in _parts(strings, seed):
        _each(part, judge)
        gc.collect()
        memory.append(process.memory_info().rss)
    workers.shutdown()
    left = [p for p in process.children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
    growth = (memory[-1] - memory[len(memory) // 2]) / 2**20 if len(memory) > 1 else 0.0
    row = {
        "strings": len(seconds),
        "exceptions": failures,
        "slowest s": max(seconds),
        "over the limit": sum(s > LIMITS.wall for s in seconds),
        "p50 us": 1e6 * _quantile(seconds, 0.5),
        "p99 us": 1e6 * _quantile(seconds, 0.99),
        "processes left": len(left),
        "memory of the last half MiB": f"{growth:+.1f}",
    }
    note = "decided by " + ", ".join(f"{how} {count:,}" for how, count in hows.most_common())
    return Table.of(
        [row],
        title=f"Hostile strings (limits {LIMITS.processor:g} s of processor time, {LIMITS.wall:g} s of wall time)",
        note=note,
    )


def _verdicts(strings: int, seed: int, say: Callable[[int], None]) -> list[tuple[str, bool | None, str]]:
    """What one process says of hostile strings, the written cases and the golds of the files: hash, verdict, reason."""
    said: list[tuple[str, bool | None, str]] = []
    verifier._kept.clear()

    def judge(gold: str, completion: str) -> None:
        what = hashlib.sha256(f"{gold}\0{completion}".encode(errors="surrogatepass")).hexdigest()
        verdict = verify(gold, completion)
        said.append((what, verdict.correct, verdict.reason))

    for row in _rows("verifier_cases"):
        judge(row["gold"], row["completion"])
    for gold, answer, _ in KINDS:
        judge(gold, f"\\boxed{{{answer}}}")
    for gold in benchmark_golds():
        judge(gold, f"\\boxed{{{gold}}}")
    for part in _parts(strings, seed):
        _each(part, judge)
        say(len(said))
    workers.shutdown()
    return said


_SPIN = """
import os, sys
judge = int(sys.argv[1])
for _ in range(int(sys.argv[2]) - 1):
    if not os.fork():
        break
while os.path.exists(f"/proc/{judge}"):
    sum(range(1_000_000))
"""


@contextlib.contextmanager
def _busy(spinners: int) -> Iterator[None]:
    """So many processes that do nothing but spin, in one session, as long as this one lives."""
    if not spinners:
        yield
        return
    with subprocess.Popen(
        [sys.executable, "-c", _SPIN, str(os.getpid()), str(spinners)], start_new_session=True
    ) as first:
        try:
            yield
        finally:
            os.killpg(first.pid, signal.SIGKILL)


def under_load(strings: int, seed: int, spinners: int) -> Table:
    """The same strings judged by one process, in peace and while others spin; both passes begin with an empty cache."""
    rows, passes = [], []
    for busy in (0, spinners):
        start, loads = time.perf_counter(), []

        def say(judged: int, busy: int = busy, loads: list[float] = loads, start: float = start) -> None:
            loads.append(os.getloadavg()[0])
            print(f"{busy}: {judged} in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)

        with _busy(busy):
            said = _verdicts(strings, seed, say)
        passes.append(said)
        rows.append(
            {
                "processes that spin": busy,
                "load": f"{statistics.median(loads):.0f}, at most {max(loads):.0f}",
                "judged": len(said),
                "of them different": len({what for what, *_ in said}),
                "right": sum(verdict is True for _, verdict, _ in said),
                "not judged": sum(verdict is None for _, verdict, _ in said),
                "of them for want of time": sum("no answer within" in reason for *_, reason in said),
                "seconds": round(time.perf_counter() - start),
            }
        )
    alone, loaded = passes
    assert [what for what, *_ in alone] == [what for what, *_ in loaded]
    apart = Counter(f"{a[1:]} then {b[1:]}" for a, b in zip(alone, loaded, strict=True) if a[1] != b[1])
    open_ = Counter(reason for _, verdict, reason in loaded if verdict is None)
    note = f"not judged: {dict(open_)}\nverdicts that are equal: {len(alone) - apart.total():,} of {len(alone):,}; others: {dict(apart) or 'none'}"
    return Table.of(rows, title="The same strings at another load", note=note)


def throughput(seed: int) -> Table:
    """Items a second on integers and on MATH-500, in rounds that alternate between the two verifiers."""
    draw = random.Random(seed)
    integers = [
        (str(n), f"So the answer is $\\boxed{{{n + (draw.random() < 0.5)}}}$.")
        for n in draw.choices(range(10**6), k=10_000)
    ]
    math500 = [row["answer"] for row in _rows("math500")]
    same = [(gold, f"Thus \\boxed{{{gold}}}.") for gold in math500]
    other = [(gold, f"Thus \\boxed{{{text}}}.") for gold in math500 for text in (_rewritten(gold) or [gold + ".0"])[:1]]
    table = []
    for name, pairs, rounds in (
        ("10,000 integers", integers, 3),
        ("MATH-500 golds", same, 3),
        ("MATH-500 golds, rewritten", other, 3),
    ):
        mine, theirs = [], []
        for _ in range(rounds):
            verifier._kept.clear()
            start = time.perf_counter()
            verify_batch(*zip(*pairs, strict=True))
            mine.append(time.perf_counter() - start)
            theirs.append(sum(_timed(peer, pairs)[1]))
        latency = _timed(ours, pairs)[1]
        peer_latency = _timed(peer, pairs)[1]
        table.append(
            {
                "workload": name,
                "rlvr_lite items/s": round(len(pairs) / statistics.median(mine)),
                "math-verify items/s": round(len(pairs) / statistics.median(theirs)),
                "ratio": statistics.median(theirs) / statistics.median(mine),
                "p50 us": 1e6 * _quantile(latency, 0.5),
                "p99 us": 1e6 * _quantile(latency, 0.99),
                "math-verify p50 us": 1e6 * _quantile(peer_latency, 0.5),
                "math-verify p99 us": 1e6 * _quantile(peer_latency, 0.99),
            }
        )
    return Table.of(table, title="Throughput and latency (median of 3 rounds, empty cache)")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", type=int, help="only judge twice, in peace and beside so many processes that spin")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    if options.load:
        print(under_load(options.strings, options.seed, options.load))
        return
    start = time.perf_counter()
    verify(r"\sin 2x", r"\boxed{2\sin x\cos x}")
    started = time.perf_counter() - start
    peer("1", r"\boxed{\frac{1}{1}}")  # both sides are loaded before the clock runs
    print(f"pool started and first worker question answered in {started:.1f} s\n")
    print(throughput(options.seed), end="\n\n", flush=True)
    print(golds_against(options.seed), end="\n\n", flush=True)
    print(agreement(), end="\n\n", flush=True)
    print(hostile(options.strings, options.seed), flush=True)  # last: hypothesis leaves hooks behind


if __name__ == "__main__":
    main()
