"""Reward functions that may raise, hang or return nonsense, without taking the run with them."""

from __future__ import annotations

import inspect
import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlvr_lite.errors import UserError
from rlvr_lite.training.parallel import Processes

__all__ = ["GuardedReward", "failures_of", "guard"]

logger = logging.getLogger(__name__)
RewardFunction = Callable[..., Sequence[float | None]]


class _Overrun(Exception):
    """A reward function took longer than it may."""


def _call(function: RewardFunction, limit: float, arguments: Mapping[str, Any]) -> Any:
    """Call in a daemon thread, so that a function that never returns is left behind after ``limit`` seconds."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(function(**arguments))
        except BaseException as error:  # whatever a user's function raises is his sample's verdict
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True, name=f"reward-{function!r}")
    thread.start()
    thread.join(limit)
    if failure:
        raise failure[0]
    if not outcome:
        raise _Overrun(f"did not return within {limit:g} s")
    return outcome[0]


def _as_number(value: Any) -> float | None:
    """A reward, or ``None`` for whatever is not a finite number."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


class GuardedReward:
    """A reward function whose failures cost a sample, not the run.

    A batch call that raises, hangs or has the wrong length is repeated sample by sample; samples that fail again get
    ``None`` (an invalid reward, left out of its group). On the very first batch a function that fails for every
    sample raises instead, because it will never work.

    Args:
        function: in TRL's signature, ``(prompts, completions, completion_ids, **columns) -> list[float | None]``.
        limit: seconds a batch may take.
    """

    def __init__(self, function: RewardFunction, limit: float):
        self.function = function
        self.limit = limit
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.failures: Counter[str] = Counter()
        self.invalid = 0
        self._works = False

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One reward a completion, ``None`` where there is none."""
        count = len(completions)
        arguments = {"completions": completions, **columns}
        values: Sequence[Any] | None
        try:
            values = _call(self.function, self.limit, arguments)
            problem = self._length_problem(values, count)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            values, problem = None, f"{type(error).__name__}: {error}"
        if problem:
            values = self._one_by_one(arguments, count, problem)
        assert values is not None
        rewards = [_as_number(value) for value in values]
        bad = sum(given is not None and reward is None for given, reward in zip(values, rewards, strict=True))
        if bad:
            self._record("returned what is not a finite number", bad)
        self.invalid += sum(reward is None for reward in rewards)
        self._works = True
        return rewards

    @staticmethod
    def _length_problem(values: Any, count: int) -> str | None:
        if not hasattr(values, "__len__") or isinstance(values, str):
            return f"returned a {type(values).__name__} instead of a list"
        return None if len(values) == count else f"returned {len(values)} rewards for {count} completions"

    def _one_by_one(self, arguments: Mapping[str, Any], count: int, problem: str) -> list[Any]:
        limit = max(1.0, self.limit / count)
        values: list[Any] = []
        failed = 0
        for i in range(count):
            single = {k: [v[i]] if isinstance(v, list | tuple) and len(v) == count else v for k, v in arguments.items()}
            try:
                value = _call(self.function, limit, single)
                if self._length_problem(value, 1):
                    raise ValueError(self._length_problem(value, 1))
                values.append(value[0])
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failed += 1
                values.append(None)
                self._record(f"{type(error).__name__}: {error}", 1)
                if not self._works and failed == min(count, 3) == i + 1:  # three of three: it will never work
                    raise UserError(f"reward function {self.__name__!r} {problem}: mend it before training") from error
        return values

    def _record(self, problem: str, count: int) -> None:
        if problem not in self.failures:
            logger.warning("reward function %s: %s; such samples are left out", self.__name__, problem)
        self.failures[problem] += count


def guard(functions: Sequence[Any], limit: float) -> list[Any]:
    """Guard every plain function; models and coroutines pass unchanged, TRL handles those itself."""
    return [
        GuardedReward(f, limit)
        if callable(f) and not hasattr(f, "forward") and not inspect.iscoroutinefunction(f)
        else f
        for f in functions
    ]


def failures_of(functions: Sequence[Any], processes: Processes) -> dict[str, dict[str, int]]:
    """How often each guarded function failed, by what went wrong, at all processes together."""
    own = [(f.__name__, f.failures) for f in functions if isinstance(f, GuardedReward)]
    total: dict[str, Counter[str]] = {}
    for part in processes.gather(own):
        for name, failures in part:
            total.setdefault(name, Counter()).update(failures)
    return {name: dict(failures) for name, failures in total.items() if failures}
