"""Doing one trial of a study, in whatever process."""

from __future__ import annotations

from pathlib import Path

import torch

from rlvr_lite import bases, resolve, tasks
from rlvr_lite.config import Option, RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.records import make_folder
from rlvr_lite.runs import STOPS, Busy, RunDirectory, finish
from rlvr_lite.study._design import Trial
from rlvr_lite.study._given import Given
from rlvr_lite.study._lease import lease
from rlvr_lite.study._store import Store
from rlvr_lite.training import Objective, accuracy, threads, train

__all__ = ["Held", "Interrupted", "do"]


class Interrupted(KeyboardInterrupt):
    """The user stopped a run; it is saved, and the study with it."""


class Held:
    """The base that serves all runs of one process, loaded when it is first needed."""

    def __init__(self) -> None:
        self._base: bases.Base | None = None
        self._asked: tuple[str, str, str, str | None, dict[str, Option]] | None = None

    def of(self, config: RunConfig) -> bases.Base:
        """The base of a run; another one than before takes its place."""
        kwargs = dict(config.chat_template_kwargs)
        asked = (config.base, config.precision, config.backend, config.revision, kwargs)
        if self._base is None or asked != self._asked:
            self.drop()
            self._base = bases.load_for(config)
            self._asked = asked
        return self._base

    def drop(self) -> None:
        """Forget it, because a run that broke off may have left its adapter on it."""
        self._base = self._asked = None


def do(root: Path, trial: Trial, held: Held, given: Given | None = None) -> bool:
    """Do a trial, or note why it cannot be done.

    Returns:
        Whether the trial is settled; ``False`` if somebody else is at it.

    Raises:
        Interrupted: the user asked to stop.
    """
    store, given = Store(root), given or Given()
    with lease(store.lease(trial)) as mine:
        if not mine:
            return False
        if store.state(trial) != "open":
            return True
        try:
            if trial.stage == "base":
                _score_base(store, trial, held, given)
                return True
            run = train(
                task=given.in_memory(trial.config, root),
                config=trial.config,
                base=held.of(trial.config),
                out=store.path(trial),
                rewards=given.rewards(trial.config),
                progress=False,
            )
        except Busy:
            return False
        except Exception as error:  # whatever breaks one row, the others go on
            held.drop()
            store.fail(trial, error)
            return True
        if run.status == "stopped" and run.reason in STOPS:
            raise Interrupted(run.reason)
        if run.status == "stopped":  # at its time limit, or because it collapsed
            store.fail(trial, f"stopped: {run.summary['reason']}")
        return True


def _score_base(store: Store, trial: Trial, held: Held, given: Given) -> None:
    """The untrained base, scored as every run's policy is."""
    out, config = store.path(trial), trial.config
    base = held.of(config)
    task = given.in_memory(config, store.root) or tasks.get(config.task, **config.task_options)
    filled = resolve.fill(config, facts=resolve.BaseFacts.of(base), task=task)
    if not task.at_most(config.eval_split, 1):
        raise UserError(f"task {task.name} has no {config.eval_split} problems: give it more rows")
    objective = Objective.of(given.rewards(config), filled, task)
    make_folder(out / "eval")
    with threads(1 if base.scale == "tiny" else torch.get_num_threads()):
        log = out / "eval" / "before.jsonl"
        found = accuracy(base.model, base.tokenizer, objective, name="before", log=log)
    finish(RunDirectory(out), {"status": "done", "reason": "", "evaluation": {"before": found.to_dict()}})
