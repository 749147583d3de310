"""Problems with one checkable answer each, the splits they come in, and the prompts that ask them."""

from rlvr_lite.tasks._chain_sum import ChainSum
from rlvr_lite.tasks._generated import GeneratedTask
from rlvr_lite.tasks._linear_equation import LinearEquation
from rlvr_lite.tasks._registry import get, list_tasks
from rlvr_lite.tasks._stored import StoredTask
from rlvr_lite.tasks._task import SPLITS, Problem, Task

__all__ = [
    "SPLITS",
    "ChainSum",
    "GeneratedTask",
    "LinearEquation",
    "Problem",
    "StoredTask",
    "Task",
    "get",
    "list_tasks",
]
