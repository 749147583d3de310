"""The mathematics sets that are known by name and trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rlvr_lite.tasks._benchmarks import pinned
from rlvr_lite.tasks._problems import problems_of
from rlvr_lite.tasks._read import from_hub, read
from rlvr_lite.tasks._stored import StoredTask, complete
from rlvr_lite.tasks._task import Problem

__all__ = ["NAMED", "named"]


@dataclass(frozen=True)
class _Source:
    """Where the train problems are: a file of the data folder, or a data set of the Hub."""

    file: str
    repository: str
    config: str | None
    problem: str
    answer: str

    def problems(self) -> list[Problem]:
        folder = os.environ.get("RLVR_LITE_DATA")
        if folder and (path := Path(folder) / self.file).is_file():
            return problems_of(read(path, self.file)[""], self.file, prefix=path.stem)
        or_else = f", or set RLVR_LITE_DATA to a folder that holds {self.file}"
        rows = read(from_hub(self.repository, self.config, "train", or_else=or_else), self.repository)[""]
        name = self.repository
        return problems_of(
            rows, name, prefix=name.rpartition("/")[2], problem=self.problem, answer=self.answer, ids=False
        )


@dataclass(frozen=True)
class _Named:
    """A set: what it is about, its train problems, the benchmark that is its test split, how long answers get, its licence."""

    about: str
    train: _Source
    test: str | None
    max_completion_length: int
    licence: str


#: The mathematics sets known by name.
NAMED: Mapping[str, _Named] = {
    "gsm8k": _Named(
        "grade-school word problems",
        _Source("gsm8k_train_2000.jsonl", "openai/gsm8k", "main", "question", "answer"),
        "gsm8k",
        512,
        "MIT",
    ),
    "math": _Named(
        "competition mathematics (MATH); test is MATH-500",
        _Source("math_train_int_2000.jsonl", "DigitalLearningGmbH/MATH-lighteval", "default", "problem", "solution"),
        "math500",
        1024,
        "MIT",
    ),
    "dapo": _Named(
        "competition mathematics with whole-number answers (DAPO-Math)",
        _Source("dapo_math_2000.jsonl", "open-r1/DAPO-Math-17k-Processed", "en", "prompt", "solution"),
        None,
        2048,
        "Apache-2.0",
    ),
    "polaris": _Named(
        "competition mathematics, graded by a 7B model's pass rate (Polaris-53K)",
        _Source("polaris_53k.jsonl", "POLARIS-Project/Polaris-Dataset-53K", None, "problem", "answer"),
        None,
        4096,
        "Apache-2.0",
    ),
    "deepmath": _Named(
        "hard mathematics, decontaminated (DeepMath-103K; a download of 2 GB)",
        _Source("deepmath_103k.jsonl", "zwhe99/DeepMath-103K", None, "question", "final_answer"),
        None,
        4096,
        "MIT",
    ),
}


def named(name: str) -> StoredTask:
    """One of :data:`NAMED`, from the folder RLVR_LITE_DATA where it has the file, else from the Hub.

    The test split of ``gsm8k`` and ``math`` is the benchmark, of the others a tenth of their rows, by hash.
    """
    entry = NAMED[name]
    splits = {"train": entry.train.problems()}
    if entry.test is not None:
        splits["test"] = list(pinned(entry.test).stored("test"))
    return StoredTask(name, complete(splits), entry.max_completion_length)
