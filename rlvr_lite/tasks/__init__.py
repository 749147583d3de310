"""Problems, the splits they come in, the prompts that ask them, and what grades an answer."""

from rlvr_lite.tasks._benchmarks import BENCHMARKS, PAPER, Benchmark, PinnedTask, list_benchmarks, pinned
from rlvr_lite.tasks._chain_sum import Chain, ChainSum, draw_chain
from rlvr_lite.tasks._generated import GeneratedTask
from rlvr_lite.tasks._linear_equation import LinearEquation
from rlvr_lite.tasks._named import NAMED
from rlvr_lite.tasks._problems import require_answers
from rlvr_lite.tasks._read import SUFFIXES, is_source
from rlvr_lite.tasks._registry import get, list_tasks, register
from rlvr_lite.tasks._saved import kept, recall, save
from rlvr_lite.tasks._stored import StoredTask, checksum_of, problems_in
from rlvr_lite.tasks._task import SPLITS, Problem, Task

__all__ = [
    "BENCHMARKS",
    "NAMED",
    "PAPER",
    "SPLITS",
    "SUFFIXES",
    "Benchmark",
    "Chain",
    "ChainSum",
    "GeneratedTask",
    "LinearEquation",
    "PinnedTask",
    "Problem",
    "StoredTask",
    "Task",
    "checksum_of",
    "draw_chain",
    "get",
    "is_source",
    "kept",
    "list_benchmarks",
    "list_tasks",
    "pinned",
    "problems_in",
    "recall",
    "register",
    "require_answers",
    "save",
]
