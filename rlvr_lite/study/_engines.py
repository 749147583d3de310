"""Who does the trials of a study: this process, fresh processes, or the workers of a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import uuid
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.study._design import Trial
from rlvr_lite.study._given import Given

__all__ = ["Engine", "EngineName", "alone", "check_workers", "engine"]

#: Who does the trials of a study.
EngineName = Literal["local", "process", "ray"]
#: A worker that died (killed, out of memory) is replaced so many times for one trial; its run goes on where it was.
_RETRIES = 2


class Engine(Protocol):
    """Takes trials and gives them back when they are settled.

    Attributes:
        capacity: trials under way at once.
    """

    capacity: int

    def submit(self, trial: Trial) -> None:
        """Begin a trial."""

    def finished(self) -> tuple[Trial, bool, str]:
        """Wait for a trial: it, whether it is settled (``False``: somebody else is at it), and why its worker was lost."""


@contextmanager
def engine(
    name: EngineName,
    root: Path,
    given: Given | None = None,
    *,
    workers: int | None = None,
    address: str | None = None,
) -> Iterator[Engine]:
    """An engine for the study in ``root``, of what :func:`check_workers` lets pass.

    Args:
        name: ``local`` works one trial after another here and loads the base once; ``process`` takes a fresh process for
            each, so that all memory is returned; ``ray`` one task a GPU (a core without one).
        root: of the study; for a cluster on a file system that all its machines see.
        given: the reward functions and the task that came in memory.
        workers: trials at once of ``process`` (by default one a GPU, or one without) and, without a GPU, of ``ray``.
        address: of a running Ray cluster; by default one is started on this machine, which nobody else reaches.

    Raises:
        UserError: Ray is not installed or does not start, or what was given cannot be sent to its workers.
    """
    given = given or Given()
    if name == "local":
        yield _Local(root, given)
    elif name == "process":
        made = _Processes(root, given.pack(), workers or max(1, len(_gpus())))
        try:
            yield made
        finally:
            made.close()
    else:
        with _ray(root, given.pack(), workers, address) as cluster:
            yield cluster


def check_workers(name: str, workers: int | None = None, address: str | None = None) -> None:
    """Refuse what an engine has no use for.

    Raises:
        UserError: the engine does not exist, or ``workers`` or ``address`` would be ignored.
    """
    if name not in get_args(EngineName):
        raise unknown_name("engine", name, get_args(EngineName))
    if workers is not None and workers < 1:
        raise UserError(f"workers must be at least 1, got {workers}")
    if name == "local" and (workers or 1) > 1:
        raise UserError("the engine 'local' does one run after another: take 'process' for several workers")
    if address is not None and name != "ray":
        raise UserError(f"address is of a Ray cluster, and the engine is {name!r}: take 'ray', or leave address out")
    if address is not None and workers is not None:
        raise UserError("a running cluster has its own number of workers: leave workers out")


def _gpus() -> list[str]:
    """The cards that this process may use, by the names that CUDA_VISIBLE_DEVICES has for them."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return [name.strip() for name in named.split(",")][:count] if named else [str(i) for i in range(count)]


class _Local:
    """One trial after another in this process."""

    capacity = 1

    def __init__(self, root: Path, given: Given):
        from rlvr_lite.study._work import Held

        self._root, self._given, self._held = root, given, Held()
        self._trial: Trial | None = None

    def submit(self, trial: Trial) -> None:
        self._trial = trial

    def finished(self) -> tuple[Trial, bool, str]:
        from rlvr_lite.study._work import do

        assert self._trial is not None
        trial, self._trial = self._trial, None
        return trial, do(self._root, trial, self._held, self._given), ""


def alone(root: Path, trial: Trial, given: bytes, device: str | None = None, mark: str | None = None) -> bool:
    """One trial in a process of its own, which has to see the study's folder: on another machine it may not."""
    import warnings

    if mark is not None and not (root / mark).exists():
        raise UserError(
            f"the worker on {platform.node()} does not see the study's folder {root}: put it on a file system that all "
            "machines share (out, --out)"
        )

    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    warnings.simplefilter("ignore", FutureWarning)
    from rlvr_lite.study._work import Held, do

    return do(root, trial, Held(), Given.unpack(given))


#: What the process that trials are forked from imports once.
_IMPORTS = ["rlvr_lite.study._work"]


def _surround(environment: dict[str, str]) -> None:
    """The environment of the caller: a fork has that of the first study."""
    os.environ.clear()
    os.environ.update(environment)


class _Processes:
    """A fresh process a trial, each on the next free GPU."""

    def __init__(self, root: Path, given: bytes, capacity: int):
        from pebble import ProcessPool

        self.capacity, self._root, self._given = capacity, root, given
        gpus = _gpus()
        # without a GPU from a process that has the imports, which are most of a short trial; CUDA's driver outlives no fork
        forked = not gpus and "forkserver" in multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if forked else "spawn")
        if forked:
            multiprocessing.set_forkserver_preload(_IMPORTS)
        self._pool = ProcessPool(
            max_workers=capacity, max_tasks=1, context=context, initializer=_surround, initargs=[dict(os.environ)]
        )
        self._free = [gpus[i % len(gpus)] if gpus else None for i in range(capacity)]
        self._flying: dict[Future[bool], tuple[Trial, str | None, int]] = {}

    def submit(self, trial: Trial) -> None:
        self._start(trial, self._free.pop(), 0)

    def _start(self, trial: Trial, device: str | None, tries: int) -> None:
        self._flying[self._pool.schedule(alone, (self._root, trial, self._given, device))] = (trial, device, tries)

    def finished(self) -> tuple[Trial, bool, str]:
        from pebble import ProcessExpired

        while True:
            done = next(iter(wait(self._flying, return_when=FIRST_COMPLETED).done))
            trial, device, tries = self._flying.pop(done)
            try:
                settled, lost = done.result(), ""
            except ProcessExpired as error:
                if tries < _RETRIES:
                    self._start(trial, device, tries + 1)
                    continue
                settled, lost = (
                    True,
                    f"its process died {tries + 1} times (exit status {error.exitcode}): out of memory?",
                )
            self._free.append(device)
            return trial, settled, lost

    def close(self) -> None:
        """End the workers; runs that are under way go on with the next call."""
        self._pool.stop()
        self._pool.join()


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray takes orders from whoever reaches it: what is begun in here listens to this machine alone.

    On Windows and macOS that is Ray's default; elsewhere the variable which says so is read once, at its import.
    """
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _ray(root: Path, given: bytes, workers: int | None, address: str | None) -> Iterator[Engine]:
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "the ray engine needs Ray: pip install 'rlvr-lite[ray]', or use the engine 'process'"
        ) from error
    started = not ray.is_initialized()
    if started:
        own = not (address or os.environ.get("RAY_ADDRESS"))  # which Ray reads where no address is given
        options: dict[str, Any] = {"address": address} if address else {"num_cpus": workers, "include_dashboard": False}
        try:
            with _on_loopback() if own else nullcontext():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
        except Exception as error:  # of many types, among them Exception itself
            said = " ".join(str(error).split())
            raise UserError(
                f"Ray cannot be {'started' if own else 'reached'} ({said}); the engine 'process' needs none"
            ) from error
    mark = root / f".seen-{uuid.uuid4().hex}"
    try:
        mark.touch()
        yield _Ray(ray, root, given, mark.name)
    finally:
        mark.unlink(missing_ok=True)
        if started:
            ray.shutdown()


class _Ray:
    """One task a GPU of a Ray cluster; a lost worker's task is run again elsewhere."""

    def __init__(self, ray: Any, root: Path, given: bytes, mark: str):
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        self.capacity = gpus or max(1, int(resources.get("CPU", 1)))
        self._ray, self._root, self._given, self._mark = ray, root.resolve(), given, mark
        self._task = ray.remote(num_gpus=1 if gpus else 0, num_cpus=1, max_calls=1, max_retries=_RETRIES)(alone)
        self._flying: dict[Any, Trial] = {}

    def submit(self, trial: Trial) -> None:
        self._flying[self._task.remote(self._root, trial, self._given, None, self._mark)] = trial

    def finished(self) -> tuple[Trial, bool, str]:
        done = self._ray.wait(list(self._flying), num_returns=1)[0][0]
        trial = self._flying.pop(done)
        try:
            return trial, bool(self._ray.get(done)), ""
        except UserError as error:  # Ray's own type of it holds the worker's traceback
            raise UserError(str(getattr(error, "cause", error))) from error
        except self._ray.exceptions.WorkerCrashedError:
            return trial, True, f"its worker died {_RETRIES + 1} times: out of memory?"
