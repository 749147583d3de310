"""Saving and resuming: the trainer's hooks for checkpoints, without a pickle anywhere."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import TrainOutput

from rlvr_lite.errors import UserError
from rlvr_lite.records import JsonLines, make_folder
from rlvr_lite.training import _checkpoints as checkpoints
from rlvr_lite.training._generation_batch import fields_of
from rlvr_lite.training._only_writer import alone_in
from rlvr_lite.training._parallel import Processes
from rlvr_lite.training._policy import attached, load_trained_state, load_weights, trained_state
from rlvr_lite.training._stock import GRPOTrainer

if TYPE_CHECKING:
    from rlvr_lite.grpo import RolloutBatch

__all__ = ["Resumable"]

logger = logging.getLogger(__name__)


class Resumable(GRPOTrainer):
    """TRL's trainer with checkpoints that are atomic, complete and made of JSON and safetensors.

    Attributes:
        metrics_log: a line a logged step; its position is part of a checkpoint.
        rollout_log: a line a completion, or ``None``.
        generation_steps: micro-steps that share their rollouts.
        gradients_seen: names of trained tensors that have had a gradient.
        overflowed: whether the gradient at hand did in fp16, so that its step is skipped.
        lost: what is missing in the logs, in words, because the files were damaged while nothing ran.
        processes: those that share this run; the main one writes.
    """

    model: Any
    control: Any
    optimizer: Any
    lr_scheduler: Any
    train_dataset: Any
    processing_class: Any
    hub_model_id: Any
    reference: Any
    eval_dataset: Any
    num_generations_eval: int
    epsilon_high: float
    metrics_log: JsonLines
    rollout_log: JsonLines | None
    generation_steps: int
    gradients_seen: set[str]
    overflowed: bool = False
    lost: Sequence[str] = ()
    processes: Processes
    _generation_batch: RolloutBatch | None
    _restored: dict[str, Any] | None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As TRL, and a line of ``metrics.jsonl``."""
        super().log(logs, start_time)
        row = {"step": self.state.global_step, **{k: _finite(v) for k, v in logs.items()}}
        if self.is_in_train and "train_runtime" not in logs and self.processes.main:
            self.metrics_log.append(row)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """One directory, written whole or not at all, of JSON and safetensors; all processes are the same but for it."""
        if not self.processes.main:
            return
        folder = Path(self._get_output_dir(trial=trial))
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                self.state.stateful_callbacks[type(callback).__name__] = callback.state()
        state: dict[str, Any] = {
            "gradients_seen": sorted(self.gradients_seen),
            "lost": list(self.lost),
            "generators": checkpoints.generator_states(),
            "logs": {
                "metrics": self.metrics_log.position,
                "rollouts": self.rollout_log.position if self.rollout_log else 0,
            },
        }
        if self.args.save_only_model:
            state = {}
        else:
            state |= {"optimizer": self.optimizer.state_dict(), "scheduler": self.lr_scheduler.state_dict()}
        if attached(self.model):  # anything else is written as transformers or PEFT load it
            state["trained"] = trained_state(self.model)
        if self.accelerator.scaler is not None and not self.args.save_only_model:
            state["scaler"] = self.accelerator.scaler.state_dict()
        if self.args.sync_ref_model and not self.args.save_only_model:
            state["reference"] = self.reference.copy
        if not self.args.save_only_model and self._step % self.generation_steps and self._generation_batch is not None:
            state["generation_batch"] = {"step": self._step, "rollouts": fields_of(self._generation_batch)}
        text = json.dumps(dataclasses.asdict(self.state), indent=2, sort_keys=True) + "\n"
        for log in self._log_files().values():
            log.sync()  # what a checkpoint counts on is on the disk before it
        target = folder / f"checkpoint-{self.state.global_step}"
        checkpoints.write(target, state, text, policy=self._write_policy)
        if self.args.push_to_hub:
            self.create_model_card(model_name=(self.hub_model_id or folder.name).split("/")[-1])
            self._push_from_checkpoint(str(target))
        if self.args.save_total_limit:
            checkpoints.prune(folder, self.args.save_total_limit)

    def _write_policy(self, folder: Path) -> None:
        """Adapter or model as PEFT or transformers load them, and the tokenizer; an attached method has its own format."""
        if any(getattr(type(self), name) is not getattr(Trainer, name) for name in ("save_model", "_save")):
            self.save_model(str(folder), _internal_call=True)  # a subclass has its own way
            (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle
            return
        if not attached(self.model):
            options = {"save_embedding_layers": False} if hasattr(self.model, "peft_config") else {}
            self.model.save_pretrained(str(folder), **options)
        self.processing_class.save_pretrained(str(folder))

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As in TRL; ``True`` resumes from the newest whole checkpoint of ``output_dir``.

        Raises:
            UserError: there is no such checkpoint, it is damaged, or somebody else trains in ``output_dir``.
        """
        with alone_in(Path(self.args.output_dir), self.processes):
            return self._train_alone(resume_from_checkpoint, *args, **kwargs)

    def _train_alone(self, resume_from_checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.newest_checkpoint()
            if resume_from_checkpoint is None:
                raise UserError(
                    f"{self.args.output_dir} has no whole checkpoint: call train() without resume_from_checkpoint"
                )
        if resume_from_checkpoint:
            checkpoints.check(Path(resume_from_checkpoint))
            resume_from_checkpoint = str(resume_from_checkpoint)
            if self._is_last(Path(resume_from_checkpoint)):  # transformers would go on one step too far
                return TrainOutput(self.state.global_step, 0.0, {})
        else:
            self.lost = ()
            self._cut_logs({"metrics": 0, "rollouts": 0})
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def newest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint whose logs are whole, or the newest whole one if no checkpoint's are."""
        return checkpoints.newest_good(Path(self.args.output_dir), self._logs_reach)

    def _logs_reach(self, checkpoint: Path) -> bool:
        positions = checkpoints.read(checkpoint, "logs")
        return positions is None or all(
            log.whole(positions[name]) == positions[name] for name, log in self._log_files().items()
        )

    def _log_files(self) -> dict[str, JsonLines]:
        logs = {"metrics": self.metrics_log, "rollouts": self.rollout_log}
        return {name: log for name, log in logs.items() if log is not None}

    def _is_last(self, checkpoint: Path) -> bool:
        """Whether the run ended with this checkpoint; then everything is put back and nothing is left to do."""
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if self.args.max_steps <= 0 or state.global_step < self.args.max_steps:
            return False
        self.state = state
        self._load_from_checkpoint(str(checkpoint))
        if self.optimizer is not None and self.lr_scheduler is not None and (checkpoint / "optimizer.json").exists():
            self._load_optimizer_and_scheduler(str(checkpoint))  # the proof tells the rates at which training ended
        else:
            self._restore_record(checkpoint)
        return True

    def _restore_record(self, checkpoint: Path) -> None:
        self.gradients_seen = set(checkpoints.read(checkpoint, "gradients_seen") or ())
        self.lost = checkpoints.read(checkpoint, "lost") or ()
        positions = checkpoints.read(checkpoint, "logs")
        if positions is not None and checkpoint.resolve().parent == Path(self.args.output_dir).resolve():
            self._cut_logs(positions, checkpoint)  # those of another folder, or of TRL, say nothing of the logs here

    def _cut_logs(self, positions: dict[str, int], checkpoint: Path | None = None) -> None:
        """The logs as they were at a checkpoint; what is missing of them is rebuilt where it can be, else said."""
        if not self.processes.main:
            return
        make_folder(self.metrics_log.path.parent)
        for name, log in self._log_files().items():
            whole = log.whole(positions[name])
            log.cut(whole)
            if whole < positions[name] and checkpoint is not None:
                self._mend(name, log, checkpoint)

    def _mend(self, name: str, log: JsonLines, checkpoint: Path) -> None:
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if name == "metrics":  # transformers keeps them too
            log.cut(0)
            log.append(*({"step": row["step"], **{k: _finite(v) for k, v in row.items()}} for row in state.log_history))
            return
        after = max((row.get("step", 0) for row in log.rows()), default=0)
        said = f"{log.path.name} was damaged: it lacks completions of the steps {after or 1} to {state.global_step}"
        self.lost = (*self.lost, said)
        logger.warning("%s", said)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        trained = checkpoints.read(folder, "trained")
        if trained is not None:
            load_trained_state(self.model, trained)
        elif attached(self.model):
            raise UserError(f"{folder} holds no state of an attached method: load its adapter with PEFT, or start anew")
        else:
            load_weights(self.model, checkpoints.weights(folder))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        optimizer, scheduler = checkpoints.optimizer_and_scheduler(folder)
        try:
            self.optimizer.load_state_dict(optimizer)
        except ValueError as error:
            raise UserError(
                f"the optimizer of {folder} is another one ({error}): resume with the same settings"
            ) from None
        self.lr_scheduler.load_state_dict(scheduler)
        if self.args.sync_ref_model:
            self.reference.copy = checkpoints.read(folder, "reference") or self.reference.copy
        self._restored = checkpoints.read(folder, "generation_batch")
        self._restore_record(folder)

    def _load_scaler(self, checkpoint: str | None) -> None:
        state = checkpoints.read(Path(checkpoint), "scaler") if checkpoint else None
        if state is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        states = checkpoints.read(Path(checkpoint), "generators") if checkpoint is not None else None
        if states is not None:
            checkpoints.restore_generators(states)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
