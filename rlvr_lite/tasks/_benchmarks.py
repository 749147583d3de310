"""The benchmarks known by name, one declaration each.

Revisions are commits of the data sets on the Hugging Face Hub; checksums are of the problems and answers in order, as
they stand in the files that the tests use, and are compared on every load. A licence is what the repository states that
those files come from; competition texts belong to their organisers.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlvr_lite.errors import UserError
from rlvr_lite.table import Table
from rlvr_lite.tasks._problems import problems_of
from rlvr_lite.tasks._read import from_hub, read
from rlvr_lite.tasks._stored import StoredTask, checksum_of
from rlvr_lite.tasks._task import Problem

__all__ = ["BENCHMARKS", "PAPER", "Benchmark", "PinnedTask", "list_benchmarks", "pinned"]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Where the problems of a benchmark are, and what is known about them.

    Attributes:
        title: for people.
        file: its name in the folder ``RLVR_LITE_DATA``, JSONL of {id, problem, answer}.
        repository: data set of the Hub.
        config: of that data set; ``None`` takes the default.
        split: of that data set.
        revision: commit; ``None`` takes the newest.
        problem: column of the question.
        answer: column of the answer: a text, a number, a list of one, or a solution ending in ``#### x``.
        size: problems, before exclusions.
        k: samples a problem in the paper's protocol (arXiv 2512.23165, section 2).
        licence: as the origin of the recorded problems states it.
        checksum: SHA-256 over the problems and answers, see :func:`pinned`; ``None`` where no version is recorded.
        excluded: ids that are left out, with the reason.
    """

    title: str
    file: str
    repository: str
    config: str | None = None
    split: str = "test"
    revision: str | None = None
    problem: str = "problem"
    answer: str = "answer"
    size: int
    k: int
    licence: str
    checksum: str | None
    excluded: Mapping[str, str] = field(default_factory=dict)

    @property
    def digits(self) -> int:
        """Of the numbers in the ids of its problems."""
        return max(3, len(str(self.size)))

    @property
    def local(self) -> Path | None:
        """The file in ``RLVR_LITE_DATA``, if it is there."""
        folder = os.environ.get("RLVR_LITE_DATA")
        path = Path(folder) / self.file if folder else None
        return path if path is not None and path.is_file() else None


_RELAY = "a relay problem: it asks for a T that another team member would hand over, and cannot be solved as it stands"
_RELAYS = (400, 401, 402, 403, 404, 406, 407, 408, 409, 410, 411, 506, 507, 509, 510)


def _matharena(title: str, name: str, size: int) -> Benchmark:
    """A competition as MathArena publishes it, of which no version is recorded here."""
    licence = "CC BY-NC-SA 4.0: evaluation only"
    return Benchmark(
        title=title, file=f"{name}.jsonl", repository=f"MathArena/{name}", split="train", size=size, k=32,
        licence=licence, checksum=None,
    )  # fmt: skip


#: Every stored benchmark by its name.
BENCHMARKS: Mapping[str, Benchmark] = {
    "aime24": Benchmark(
        title="AIME 2024",
        file="aime24.jsonl",
        repository="HuggingFaceH4/aime_2024",
        split="train",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        size=30,
        k=32,
        licence="MIT",
        checksum="c1d7c8309daa5d19",
    ),
    "aime25": Benchmark(
        title="AIME 2025",
        file="aime25.jsonl",
        repository="math-ai/aime25",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        size=30,
        k=32,
        licence="Apache-2.0",
        checksum="49de91c7967eede9",
    ),
    "amc23": Benchmark(
        title="AMC 12 2023",
        file="amc23.jsonl",
        repository="math-ai/amc23",
        revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        problem="question",
        size=40,
        k=32,
        licence="MIT",
        checksum="0fd621432444d281",
    ),
    "hmmt25": Benchmark(
        title="HMMT February 2025",
        file="hmmt_feb25.jsonl",
        repository="MathArena/hmmt_feb_2025",
        split="train",
        revision="6fdc4277120810ff75aa22d2d5489b91f7a262a1",
        size=30,
        k=32,
        licence="CC BY-NC-SA 4.0: evaluation only",
        checksum="810453872eb21936",
    ),
    "aime26": _matharena("AIME 2026", "aime_2026", 30),
    "hmmt26": _matharena("HMMT February 2026", "hmmt_feb_2026", 33),
    "brumo25": _matharena("BRUMO 2025", "brumo_2025", 30),
    "cmimc25": _matharena("CMIMC 2025", "cmimc_2025", 40),
    "math500": Benchmark(
        title="MATH-500",
        file="math500.jsonl",
        repository="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        size=500,
        k=4,
        licence="MIT",
        checksum="f10048a4901effb7",
    ),
    "minerva": Benchmark(
        title="Minerva Math (OCWCourses)",
        file="minerva_math.jsonl",
        repository="math-ai/minervamath",
        problem="question",
        size=272,
        k=4,
        licence="MIT; texts of MIT OpenCourseWare, CC BY-NC-SA 4.0: evaluation only",
        checksum="f4519214c4f36416",
    ),
    "gsm8k": Benchmark(
        title="GSM8K test",
        file="gsm8k_test.jsonl",
        repository="openai/gsm8k",
        config="main",
        revision="740312add88f781978c0658806c59bc2815b9866",
        problem="question",
        size=1319,
        k=4,
        licence="MIT",
        checksum="e41d3b6139c52d9e",
    ),
    "olympiadbench": Benchmark(
        title="OlympiadBench, open-ended English mathematics",
        file="olympiadbench_en.jsonl",
        repository="Hothan/OlympiadBench",
        config="OE_TO_maths_en_COMP",
        split="train",
        revision="91184b52131e7fc9455fef848035173aea8cc01a",
        problem="question",
        answer="final_answer",
        size=675,
        k=4,
        licence="MIT",
        checksum="7dd49b50a16c43b8",
        excluded={f"olympiadbench_en-{number}": _RELAY for number in _RELAYS}
        | {
            "olympiadbench_en-073": "the answer is a family of functions described in words, which no verifier can judge"
        },
    ),
}

#: The six of the paper, in its order.
PAPER = ("aime24", "aime25", "amc23", "hmmt25", "math500", "minerva")


class PinnedTask(StoredTask):
    """A benchmark as a task with a test split only.

    Args:
        name: of the benchmark.
        problems: that can be solved as they stand.
        checksum: over all problems and answers, before exclusions.
        source: file or data set.
        k: samples a problem in the paper's protocol.
        excluded: ids left out, with the reason.
    """

    def __init__(
        self,
        name: str,
        problems: Sequence[Problem],
        *,
        checksum: str,
        source: str,
        k: int | None = None,
        excluded: Mapping[str, str] | None = None,
    ):
        super().__init__(name, {"test": problems}, 0)
        self.checksum, self.source, self.k, self.excluded = checksum, source, k, dict(excluded or {})


def pinned(name: str) -> PinnedTask:
    """A benchmark of :data:`BENCHMARKS`, compared with what is recorded of it.

    Raises:
        UserError: a damaged or incomplete file, or neither file nor network.
    """
    benchmark = BENCHMARKS[name]
    path, stem = benchmark.local, Path(benchmark.file).stem
    if path:
        source = benchmark.file
        problems = problems_of(read(path, source)[""], source, prefix=stem, digits=benchmark.digits)
    else:
        source = f"{benchmark.repository}@{benchmark.revision or 'newest'}"
        or_else = f", or set RLVR_LITE_DATA to a folder that holds {benchmark.file}"
        found = from_hub(benchmark.repository, benchmark.config, benchmark.split, benchmark.revision, or_else=or_else)
        problems = problems_of(
            read(found, source)[""],
            source,
            prefix=stem,
            problem=benchmark.problem,
            answer=benchmark.answer,
            digits=benchmark.digits,
            ids=False,
        )
    checksum, excluded = checksum_of(problems), dict(benchmark.excluded)
    if benchmark.checksum is None:
        if len(problems) != benchmark.size:
            raise UserError(f"{name} has {benchmark.size} problems, {source} holds {len(problems)}: fetch it anew")
    elif checksum != benchmark.checksum:
        excluded = {}
        warnings.warn(
            f"{name} from {source} is not the version recorded here (checksum {checksum}): nothing is left out, and "
            "compare it only with evaluations of the same checksum",
            stacklevel=3,
        )
    kept = [problem for problem in problems if problem.id not in excluded]
    return PinnedTask(name, kept, checksum=checksum, source=source, k=benchmark.k, excluded=excluded)


def list_benchmarks() -> Table:
    """What ``evaluate`` knows by name; generated tasks and files come besides."""
    rows = [
        {
            "benchmark": name,
            "title": benchmark.title,
            "problems": benchmark.size - len(benchmark.excluded),
            "left out": len(benchmark.excluded),
            "k in the paper": benchmark.k if name in PAPER else None,
            "licence": benchmark.licence,
            "from": "RLVR_LITE_DATA" if benchmark.local else f"Hub: {benchmark.repository}",
        }
        for name, benchmark in BENCHMARKS.items()
    ]
    note = (
        "Of those from MathArena no version is recorded here: compare evaluations of equal checksum. "
        "Besides: TASK:SPLIT of a task, such as chain-sum:test or chain-sum:ood, and NAME=FILE for your own problems."
    )
    return Table.of(rows, title="Benchmarks", note=note)
