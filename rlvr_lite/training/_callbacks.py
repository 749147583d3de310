"""What happens around a step: the progress bar and clean stops."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

from rlvr_lite import methods
from rlvr_lite.progress import bar, duration
from rlvr_lite.runs import STOPS
from rlvr_lite.training._parallel import Processes

__all__ = ["Bar", "CleanStop", "Follow"]

_SHOWN_GAP = 1e-3  # nats a token between sampler and scorer: above what rounding in fp32 does
_SAVE_SECONDS = 600.0  # a disconnect costs at most this much work


class Bar(TrainerCallback):
    """A progress bar with reward, accuracy, length, share of groups without variance and tokens a second."""

    def __init__(self, label: str):
        self.label = label
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._bar = bar(total=state.max_steps, initial=state.global_step, desc=self.label, unit="step")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if self._bar is None or not logs or "reward" not in logs:
            return
        self._bar.n = state.global_step
        shown = {"reward": f"{logs['reward']:.2f}"}
        if logs.get("rewards/accuracy/mean") is not None:
            shown["accuracy"] = f"{logs['rewards/accuracy/mean']:.0%}"
        shown["tokens"] = f"{logs['completions/mean_length']:.0f}"
        shown["zero-adv"] = f"{logs['frac_reward_zero_std']:.0%}"
        shown["tok/s"] = f"{logs['tokens/per_second']:.0f}"
        if logs.get("sampling/sampling_logp_difference/mean", 0) > _SHOWN_GAP:
            shown["gap"] = f"{logs['sampling/sampling_logp_difference/mean']:.3f}"
        self._bar.set_postfix(shown)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class CleanStop(TrainerCallback):
    """Ends a run between two steps, saved: after ``max_hours``, on Ctrl-C, on a notebook's stop button.

    Also saves every ten minutes, so that a disconnect costs little.

    Attributes:
        reason: why the run was stopped early; empty if it was not.
    """

    def __init__(self, max_hours: float | None, processes: Processes | None = None):
        self.processes = processes or Processes()
        self.limit = None if max_hours is None else max_hours * 3600
        self.reason = ""
        self._began = self._saved = time.monotonic()
        self._longest = 0.0
        self._step_began = self._began
        self._interrupted = ""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """The first SIGINT, SIGTERM or SIGHUP inside asks for a stop after the step; a second one breaks off at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.getsignal(number) for number in STOPS.values()}
        previous = {number: known for number, known in previous.items() if known is not signal.SIG_IGN}  # as of nohup

        def ask(number: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
            self._interrupted = next(reason for reason, stop in STOPS.items() if stop == number)
            if self.processes.main:
                tqdm.write(f"{self._interrupted}: stopping after this step, saved; once more to stop at once")

        for number in previous:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, known in previous.items():
                signal.signal(number, known)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = self._saved = time.monotonic()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        self._longest = max(self._longest, now - self._step_began)
        if now - self._saved > _SAVE_SECONDS:
            control.should_save, self._saved = True, now
        if state.global_step >= state.max_steps:
            control.should_save = True
            self.reason = next(filter(None, self.processes.gather(self._interrupted)), "")  # what is left can wait
            return
        over = self.limit is not None and now - self._began + self._longest > self.limit
        said = self.processes.gather((self._interrupted, over))  # or one would stop and the others wait for it
        if any(interrupted for interrupted, _ in said):
            self.reason = next(interrupted for interrupted, _ in said if interrupted)
        elif self.limit is not None and any(late for _, late in said):
            self.reason = f"max_hours ({duration(self.limit)}) reached"
        if self.reason:
            control.should_save = control.should_training_stop = True


class Follow(TrainerCallback):
    """Carries the moments of transformers' loop to the trainer that has no hook of its own for them."""

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.enter_generation_batch(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.sync_ref_model and state.global_step % args.ref_model_sync_steps == 0:
            self.trainer.reference.mix(args.ref_model_mixup_alpha)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.note_gradients()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        methods.moved(self.trainer.model)
        if self.trainer.overflowed:  # a fused optimizer hides from accelerate that the scaler skipped it
            self.trainer.optimizer._is_overflow = True
        elif self.trainer.method is not None:
            methods.after_backward(self.trainer.model, self.trainer.method, state.global_step + 1)
