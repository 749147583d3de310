"""While a run goes on: where in the base's spectrum its update lies, and an alarm for a policy that collapses."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from rlvr_lite import methods
from rlvr_lite.analysis.spectrum import CollapseAlarm, ProbeBase, SpectrumProbe, Update, probe_base
from rlvr_lite.training._callbacks import CleanStop

__all__ = ["Collapsed", "SpectrumWatch", "collapse"]

logger = logging.getLogger(__name__)


class Collapsed(Exception):
    """Nothing is left to do: the run that is continued had collapsed before it was stopped."""


def collapse(rows: Iterable[Mapping[str, Any]]) -> str:
    """What the alarm says first on these rows of ``metrics.jsonl``; empty if it keeps quiet."""
    alarm = CollapseAlarm()
    return next((said for row in rows if (said := alarm.see(row))), "")


class SpectrumWatch(TrainerCallback):
    """Writes measures of the update into the metrics, and tells or stops a run whose policy collapses.

    The measures follow from the weights, the alarm from the logged rows, which a resumed run shows it again: no state
    of either is stored, and neither draws a random number.

    Args:
        trainer: whose ``model`` has a method attached; made before a checkpoint is loaded into it.
        stop: takes the reason when the run is stopped.
        every: steps between two measurements; 0 measures nothing.
        stops: whether a collapse stops the run, saved, or is only told.
    """

    def __init__(self, trainer: Any, stop: CleanStop, *, every: int, stops: bool):
        self.trainer, self.stop, self.stops = trainer, stop, stops
        self._trains_base = methods.get(trainer.method).trains_base
        self._alarm, self._seen = CollapseAlarm(), ""
        self._start: dict[str, Tensor] = {}
        self._probe = self._prepare(every) if every else None

    def _prepare(self, every: int) -> SpectrumProbe:
        """Decompose the base's weights, one at a time."""
        matrices: dict[str, ProbeBase] = {}
        vectors: dict[str, ProbeBase] = {}
        for update in self._updates():
            weight = update.weight()
            (vectors if weight.ndim == 1 else matrices)[update.name] = probe_base(weight)
            if self._trains_base:  # and keeps none
                self._start[update.name] = weight.to("cpu", copy=True)
        if not matrices:
            logger.warning(
                "%s trains vectors, which have no singular directions: spectrum_steps follows their relative norm only",
                self.trainer.method,
            )
        return SpectrumProbe(matrices or vectors, every)

    def _updates(self) -> Iterator[Update]:
        model = self.trainer.model
        if not self._trains_base:
            yield from methods.updates(model)
            return
        for update in methods.updates(model, model):
            before, now = self._start.get(update.name), update.base
            if before is None:
                yield update
            else:
                assert isinstance(now, Tensor)
                yield Update(update.name, before, dense=functools.partial(_minus, now, before))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Show the alarm the steps before a resume."""
        for row in self.trainer.metrics_log.rows():
            self._seen = self._seen or self._alarm.see(row) or ""
        if self._seen and self.stops:
            self.stop.reason = self._seen
            raise Collapsed

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure where due, in time for the log of this step."""
        if self._probe is not None and self._probe.due(state.global_step):
            for name, value in self._probe.measure(self._updates()).items():
                self.trainer._metrics["train"][name].append(value)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show the alarm this step."""
        said = self._alarm.see({**(logs or {}), "step": state.global_step})
        if not said or self._seen:
            return
        self._seen = said
        if self.stops and state.global_step < state.max_steps:
            self.stop.reason = self.stop.reason or said
            control.should_save = control.should_training_stop = True
        else:
            logger.warning("%s", said)


def _minus(now: Tensor, before: Tensor) -> Tensor:
    return now.detach().to(before.device).double() - before.double()
