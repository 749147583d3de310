"""Reward functions under a time limit, on the thread that trains, and what becomes of a batch when one fails."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

from rlvr_lite.deadline import time_limit
from rlvr_lite.errors import UserError
from rlvr_lite.training._parallel import Processes

__all__ = ["AsyncGuardedReward", "GuardedReward", "OnError", "failures_of", "guard"]

logger = logging.getLogger(__name__)
RewardFunction = Callable[..., Sequence[float | None]]
OnError = Literal["raise", "skip"]


def _length_problem(values: Any, count: int) -> str | None:
    if not hasattr(values, "__len__") or isinstance(values, str):
        return f"returned a {type(values).__name__} instead of a list"
    return None if len(values) == count else f"returned {len(values)} rewards for {count} completions"


def _as_number(value: Any) -> float | None:
    """A reward, or ``None`` for whatever is not a finite number."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _one_of(arguments: Mapping[str, Any], i: int, count: int) -> dict[str, Any]:
    """The arguments of a batch, cut to one sample."""
    return {k: [v[i]] if isinstance(v, list | tuple) and len(v) == count else v for k, v in arguments.items()}


class _Guarded:
    """What synchronous and asynchronous reward functions have in common.

    Attributes:
        failures: how often something went wrong, by what.
        invalid: how many completions were left without a reward.
    """

    def __init__(self, function: Callable[..., Any], limit: float | None, on_error: OnError):
        self.function = function
        self.limit = limit
        self.on_error = on_error
        plain: Any = function
        while isinstance(plain, functools.partial) and not hasattr(plain, "__name__"):
            plain = plain.func
        self.__name__ = getattr(plain, "__name__", type(plain).__name__)
        self.failures: Counter[str] = Counter()
        self.invalid = 0
        self._works = False
        self._own = {"rendered_prompts"} - _taken(function)

    def _arguments(self, completions: Sequence[Any], columns: Mapping[str, Any]) -> dict[str, Any]:
        """What the function is called with: all that TRL passes, and what only we add where it takes that."""
        return {"completions": completions, **{k: v for k, v in columns.items() if k not in self._own}}

    def _checked(self, values: Any, count: int) -> list[float | None]:
        """The rewards of a batch as numbers, counted."""
        rewards = self._numbers(values, count)
        self.invalid += sum(reward is None for reward in rewards)
        self._works = True
        return rewards

    def _numbers(self, values: Any, count: int) -> list[float | None]:
        """The rewards as numbers.

        Raises:
            UserError: another number of them than completions; or no number where ``on_error`` is ``raise``.
        """
        problem = _length_problem(values, count)
        if problem:
            raise UserError(f"reward function {self.__name__!r} {problem}: return one for each completion, in order")
        rewards = [_as_number(value) for value in values]
        odd = [v for v, r in zip(values, rewards, strict=True) if r is None and not _is_none(v)]
        if odd and self.on_error == "raise":
            raise UserError(
                f"reward function {self.__name__!r} returned {odd[0]!r}: return a finite number, or None for a "
                "completion that it cannot judge"
            )
        if odd:
            self._record("returned what is not a finite number", len(odd))
        return rewards

    def _failed(self, error: BaseException) -> UserError | BaseException:
        """What to raise for an error of the function: its own, or ours with the function's name."""
        if isinstance(error, UserError):
            return UserError(f"reward function {self.__name__!r} {error}: make it faster, or raise reward_limit")
        return error

    def _give_up(self, failed: int, count: int, done: int, problem: str) -> None:
        if not self._works and failed == min(count, 3) == done:  # three of three: it will never work
            raise UserError(f"reward function {self.__name__!r} {problem}: mend it before training")

    def _record(self, problem: str, count: int) -> None:
        if problem not in self.failures:
            logger.warning("reward function %s: %s; such samples are left out", self.__name__, problem)
        self.failures[problem] += count


class GuardedReward(_Guarded):
    """A reward function with a time limit, called on the thread that trains.

    With ``on_error="raise"`` its exceptions are the caller's, as in TRL. With ``"skip"`` a batch that raises or takes
    too long is repeated sample by sample, and samples that fail again get ``None`` (no reward, left out of the group);
    rewards that depend on the whole batch are then those of single samples. On the very first batch a function that
    fails for every sample raises all the same, because it will never work. A wrong number of rewards always raises.

    Args:
        function: in TRL's signature, ``(prompts, completions, completion_ids, **columns) -> list[float | None]``.
        limit: seconds a batch may take; ``None`` for no limit.
        on_error: ``raise`` or ``skip``.
    """

    def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One reward a completion, ``None`` where there is none."""
        arguments = self._arguments(completions, columns)
        try:
            with time_limit(self.limit):
                values = self.function(**arguments)
        except Exception as error:
            if self.on_error == "raise":
                raise self._failed(error) from error.__cause__
            values = self._one_by_one(arguments, len(completions), _told(error))
        return self._checked(values, len(completions))

    def _one_by_one(self, arguments: Mapping[str, Any], count: int, problem: str) -> list[Any]:
        limit = None if self.limit is None else max(1.0, self.limit / count)
        values: list[Any] = []
        failed = 0
        for i in range(count):
            try:
                with time_limit(limit):
                    value = self.function(**_one_of(arguments, i, count))
            except Exception as error:
                failed += 1
                values.append(None)
                self._record(_told(error), 1)
                self._give_up(failed, count, i + 1, problem)
            else:
                values.append(self._numbers(value, 1)[0])
        return values


class AsyncGuardedReward(_Guarded):
    """As :class:`GuardedReward`, for a coroutine function; TRL awaits all of them together in an event loop."""

    async def __call__(self, completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """One reward a completion, ``None`` where there is none."""
        arguments = self._arguments(completions, columns)
        try:
            values = await self._awaited(self.function(**arguments), self.limit)
        except Exception as error:
            if self.on_error == "raise":
                raise self._failed(error) from error.__cause__
            values = await self._one_by_one(arguments, len(completions), _told(error))
        return self._checked(values, len(completions))

    @staticmethod
    async def _awaited(call: Awaitable[Any], limit: float | None) -> Any:
        try:
            return await asyncio.wait_for(call, limit)
        except TimeoutError:
            raise UserError(f"did not return within {limit:g} s") from None

    async def _one_by_one(self, arguments: Mapping[str, Any], count: int, problem: str) -> list[Any]:
        limit = None if self.limit is None else max(1.0, self.limit / count)
        calls = [self._awaited(self.function(**_one_of(arguments, i, count)), limit) for i in range(count)]
        values: list[Any] = []
        failed = 0
        for i, value in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            if isinstance(value, Exception):
                failed += 1
                self._record(_told(value), 1)
                self._give_up(failed, count, i + 1, problem)
                values.append(None)
            elif isinstance(value, BaseException):
                raise value
            else:
                values.append(self._numbers(value, 1)[0])
        return values


def _taken(function: Any) -> set[str]:
    """The keywords that a function names; what only we pass is all taken by one that takes any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set()
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return {p.name for p in parameters} | ({"rendered_prompts"} if anything else set())


def _is_none(value: Any) -> bool:
    """Whether a function says that it gives no reward: ``None``, or NaN as in TRL."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _told(error: BaseException) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def guard(functions: Sequence[Any], limit: float | None, on_error: OnError) -> list[Any]:
    """Guard every function; reward models and their names pass unchanged, TRL handles those itself."""
    return [_guarded(f, limit, on_error) if callable(f) and not hasattr(f, "forward") else f for f in functions]


def _guarded(function: Any, limit: float | None, on_error: OnError) -> _Guarded:
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    waits = inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(type(plain).__call__)
    return (AsyncGuardedReward if waits else GuardedReward)(function, limit, on_error)


def failures_of(functions: Sequence[Any], processes: Processes) -> dict[str, dict[str, int]]:
    """How often each guarded function failed, by what went wrong, at all processes together."""
    own = [(f.__name__, f.failures) for f in functions if isinstance(f, _Guarded)]
    total: dict[str, Counter[str]] = {}
    for part in processes.gather(own):
        for name, failures in part:
            total.setdefault(name, Counter()).update(failures)
    return {name: dict(failures) for name, failures in total.items() if failures}
