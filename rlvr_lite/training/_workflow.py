"""A whole run: base, adapter, accuracy before, training, proof, accuracy after, summary; each stage resumable.

A killed run started again with the same call goes on where it was: stages that left their file are not repeated, and
training continues from the newest whole checkpoint, bit for bit on a CPU.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import statistics
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import torch
import transformers
from torch.optim.lr_scheduler import LambdaLR

from rlvr_lite import bases, evaluation, methods, resolve, tasks
from rlvr_lite.config import RunConfig, to_json
from rlvr_lite.errors import UserError
from rlvr_lite.host import describe, versions
from rlvr_lite.options import RunOptions, with_options
from rlvr_lite.records import JsonLines, make_folder, read_json, write_json, write_text
from rlvr_lite.runs import RunDirectory, RunRecord, finish
from rlvr_lite.training._accuracy import accuracy
from rlvr_lite.training._arguments import arguments
from rlvr_lite.training._at_once import engine_share, rollout_copy
from rlvr_lite.training._callbacks import Bar, CleanStop
from rlvr_lite.training._engine import without_engine
from rlvr_lite.training._environment import peak_memory_bytes, reset_peak_memory, threads
from rlvr_lite.training._folder import default_directory, go_on, is_done, with_steps_of
from rlvr_lite.training._grading import REWARD_SECONDS, Objective, dataset
from rlvr_lite.training._guard import failures_of
from rlvr_lite.training._only_writer import only_writer
from rlvr_lite.training._parallel import Processes, connect
from rlvr_lite.training._preflight import preflight
from rlvr_lite.training._proof import prove_identity
from rlvr_lite.training._run import Run
from rlvr_lite.training._spectrum import Collapsed, SpectrumWatch, collapse
from rlvr_lite.training._trainer import GRPOTrainer
from rlvr_lite.typed import checked

__all__ = ["train"]

_PARITY_PROMPTS = 8
#: What a trial of all the stages takes where nothing is named.
_SMOKE = {"steps": 1, "prompts_per_step": 2, "group_size": 4, "eval_problems": 4, "eval_k": 2}


@with_options()
@checked
def train(
    method: str | None = None,
    base: str | Path | bases.Base | None = None,
    task: Any = None,
    *,
    config: RunConfig | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    wait: bool = False,
    smoke: bool = False,
    **overrides: Unpack[RunOptions],
) -> Run:
    """Train one adapter with verifiable rewards, prove what was trained, and score it before and after.

    Calling it again with the same arguments continues a run that was stopped or killed, and returns one that is done.
    More ``steps`` train on; ``max_hours``, ``keep_checkpoints``, ``save_steps`` and ``report_to`` may differ each time.

    Args:
        method: a name of ``rlvr_lite.list_methods()``; by default that of ``config``, else lora.
        base: ``tiny``, a Hub model id or a local model directory; or a loaded base, which is left as it was, so that
            one serves many runs (``full`` loads its own). By default that of ``config``, else tiny.
        task: a name of ``rlvr_lite.list_tasks()``; the path of a JSONL, JSON, CSV or Parquet file; ``owner/name`` of a
            data set on the Hub; a data set, data frame or list of dicts with a prompt column and, for the reward
            ``accuracy``, an answer column; or a ``Task``. By default that of ``config``, else chain-sum.
        config: what holds where nothing is named, instead of the defaults.
        out: the run's directory; ``None`` takes one under ``runs/`` named after what is run.
        progress: show progress bars.
        wait: if another process trains in that directory, wait until it is done instead of refusing.
        smoke: only try whether all of it works: what is not named is small (1 step of 2 prompts x 4 completions, 4 problems),
            and a run too short to prove what it trained ends ``done`` with the identity "not proven: too few steps".
        **overrides: any field of ``RunConfig``; ``None`` is not named.

    Returns:
        The run, whose ``status`` is ``done``, ``stopped`` (time limit or interrupt) or ``failed`` (a proof failed).

    Raises:
        UserError: something cannot be done as asked; nothing was written.
    """
    start = config if isinstance(config, RunConfig) else RunConfig()
    rewards = start.rewards if overrides.get("rewards") is None else overrides["rewards"]
    held = base if isinstance(base, bases.Base) else None
    named: dict[str, Any] = {"method": method, "base": held.name if held else base, "task": task, **overrides}
    if smoke:
        named |= {name: value for name, value in _SMOKE.items() if overrides.get(name) is None}
    usual = {} if isinstance(task, tasks.Task) else start.task_options  # which went into making a task
    options, chosen = overrides.get("task_options") or usual, None
    if not isinstance(task, str | Path | None) or any(map(tasks.is_source, options.values())):
        chosen = tasks.get(start.task if task is None else task, **options)
        named |= {"task": chosen.name, "task_options": {}}  # whoever reads the configuration finds the copy by its name
    functions, names = resolve.reward_functions(rewards)
    asked = resolve.merge(named | {"rewards": names}, config)
    chosen = chosen or tasks.get(asked.task, **asked.task_options)
    sources = resolve.sources(dict(zip(names, functions, strict=True)), chosen)
    resolve.check(asked)
    methods.check_optim(asked.optim)
    processes = connect()
    directory = RunDirectory(Path(out) if out is not None else default_directory(asked))
    if is_done(directory, asked, sources):  # also where nothing can be written
        return Run(directory.root)
    with only_writer(directory, processes, wait):
        done = is_done(directory, asked, sources)
        processes.wait()  # before the main one writes there
        if done:
            return Run(directory.root)
        reset_peak_memory()
        asked = with_steps_of(directory, asked)
        stages = _Stages(
            asked, directory, chosen, rewards, sources, progress and processes.main, held, processes, smoke
        )
        with threads(1 if stages.loaded.scale == "tiny" else torch.get_num_threads()), warnings.catch_warnings():
            # transformers 5.18 gave it a new name, which TRL and older versions of itself do not know
            warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)
            try:
                return stages.go()
            finally:
                stages.release()


class _Stages:
    """The stages of one run, in order; each leaves a file by which a restart knows it."""

    def __init__(
        self,
        asked: RunConfig,
        files: RunDirectory,
        task: tasks.Task,
        rewards: Any,
        sources: Mapping[str, str],
        progress: bool,
        held: bases.Base | None,
        processes: Processes,
        smoke: bool,
    ):
        self.smoke = smoke
        self.asked, self.files, self.task, self.progress = asked, files, task, progress
        self.sources, self.processes = sources, processes
        self.held = None if methods.get(asked.method).writes_base else held
        self.attached: Any = None
        self.seconds: dict[str, float] = {}
        self.invalid: dict[str, dict[str, int]] = {}
        if not task.at_most("train", 1):
            raise UserError(f"task {task.name} has no train problems: give it more rows")
        resolve.eval_problems(asked, task)  # before the base is loaded, where there are none
        if self.held is None:  # what cannot be done is said before a weight is loaded
            self._filled(resolve.BaseFacts.ahead(asked))
        started = time.perf_counter()
        self.loaded = self._load_base()
        self.seconds["load"] = time.perf_counter() - started
        self.facts = resolve.BaseFacts.of(self.loaded)  # before it carries an adapter
        self.config = self._filled(self.facts)
        self.objective = Objective.of(rewards, self.config, task)

    def _filled(self, facts: resolve.BaseFacts) -> RunConfig:
        config = resolve.fill(self.asked, facts=facts, task=self.task)
        assert facts.layout is not None
        methods.check_fits(config.method, config.adapter, facts.layout)
        engine_share(config, facts)
        return config

    def _load_base(self) -> bases.Base:
        asked, held = self.asked, self.held
        if held is not None:
            if asked.precision not in ("auto", held.precision):
                raise UserError(f"the loaded base is in {held.precision}, not {asked.precision}: load another")
            return held
        return bases.load_for(asked)

    def go(self) -> Run:
        """Run every stage that is still to be done."""
        if self.processes.main:
            self._begin()
            if self.config.eval_before:
                self._score("before", self.loaded.model)
        transformers.set_seed(self.config.seed)
        self.processes.wait()
        model, trainer, stop, finished = self._train()
        if not self.processes.main:  # what is left is done by one
            self.processes.wait()
            return Run(self.files.root)
        run = self._finish(model, trainer, stop, finished)
        self.processes.wait()
        return run

    def _finish(self, model: Any, trainer: GRPOTrainer, stop: CleanStop, finished: bool) -> Run:
        """Proof, adapter, score and summary."""
        if not finished:
            return self._end("stopped", stop.reason or "interrupted", trainer)
        failures, short = prove_identity(trainer, model, self.config, self.files)
        if short and not self.smoke:
            failures.append(short)
        identity = "failed: " + "; ".join(failures) if failures else f"not proven: {short}" if short else "proven"
        self._save(model)
        steps = trainer.state.global_step
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        del model
        trainer.release()
        saved, parity, problem = self._reload()
        failures += [problem] if problem else []
        self._score("after", saved)
        seen = [said for look in (collapse, without_engine) if (said := look(self.files.metrics.rows()))]
        status, reason = "failed" if failures else "done", "; ".join(failures + seen)
        return self._end(status, reason, trainer, steps=steps, count=count, identity=identity, parity=parity)

    def _save(self, model: Any) -> None:
        """The adapter, with what the trained policy answers, so that every later reader can check it is this one."""
        config, tokenizer = self.config, self.loaded.tokenizer
        problems = self.task.at_most("test", _PARITY_PROMPTS)
        prompts = [self.task.messages(problem, config.prompt_style or "instruct") for problem in problems]
        facts = {
            "base": config.base,
            "revision": self.loaded.revision,
            "precision": config.precision,
            "fingerprint": evaluation.fingerprint(model, tokenizer, prompts, config.precision),
        }
        methods.save(model, self.files.adapter, facts=facts)

    def _reload(self) -> tuple[Any, float | None, str]:
        """The saved adapter on a fresh base, how far it is from the trained policy, and what speaks against it."""
        self.loaded = self._fresh_base()
        saved = self.attached = methods.load(self.loaded.model, self.files.adapter)
        recorded = RunRecord(self.files.root).adapter["facts"]["fingerprint"]
        try:
            return saved, evaluation.check_fingerprint(saved, self.loaded.tokenizer, recorded), ""
        except UserError as error:
            return saved, None, str(error)

    def _fresh_base(self) -> bases.Base:
        """The base once more, so that what is scored is what was saved."""
        self.release()
        del self.loaded
        gc.collect()
        torch.cuda.empty_cache()
        return self._load_base()

    def release(self) -> None:
        """Give a base that was handed in back as it was."""
        attached, self.attached = self.attached, None
        if self.held is not None and attached is not None:
            base: Any = methods.detach(attached)
            base.gradient_checkpointing_disable()
            base.eval()

    def _begin(self) -> None:
        """Write what is run, unless a run that goes on has done so."""
        if self.files.config.exists():
            go_on(self.files, self.asked, self.config)
            return
        loaded = self.loaded
        base = {"name": loaded.name, "revision": loaded.revision, "hash": methods.base_hash(loaded.model)}
        facts = {"asked": json.loads(to_json(self.asked)), "sources": self.sources, "base": base, **describe()}
        write_json(self.files.env, facts)
        if isinstance(self.task, tasks.StoredTask) and self.task.in_memory:
            tasks.save(self.task, self.files.root)
        write_text(self.files.config, to_json(self.config))

    # ---- accuracy ---------------------------------------------------------------------------------------------

    def _score(self, when: str, model: Any) -> None:
        config, target = self.config, self.files.evaluations / f"{when}.json"
        if not config.eval_problems or target.exists():
            return
        make_folder(target.parent)
        started = time.perf_counter()
        log = self.files.evaluations / f"{when}.jsonl"
        score = accuracy(model, self.loaded.tokenizer, self.objective, name=when, log=log, progress=self.progress)
        JsonLines(log).sync()  # before the file that says it is whole
        write_json(target, score.to_dict() | {"seconds": time.perf_counter() - started})

    def _scores(self) -> dict[str, Any]:
        paths = {when: self.files.evaluations / f"{when}.json" for when in ("before", "after")}
        return {when: read_json(path) for when, path in paths.items() if path.exists()}

    # ---- training ---------------------------------------------------------------------------------------------

    def _train(self) -> tuple[Any, GRPOTrainer, CleanStop, bool]:
        config = self.config
        assert config.steps is not None
        model = self.attached = methods.attach(
            self.loaded.model, config.method, config.adapter, total_steps=config.steps, seed=config.seed
        )
        trainer = self._trainer(model)
        stop = CleanStop(config.max_hours, self.processes)
        trainer.add_callback(stop)
        trainer.add_callback(SpectrumWatch(trainer, stop, every=config.spectrum_steps, stops=config.stop_on_collapse))
        bar = Bar(config.method)
        if self.progress:
            trainer.add_callback(bar)
        resume = trainer.newest_checkpoint()
        if not self.files.preflight.exists():
            self._look_ahead(trainer)
        try:
            with stop.listening():
                trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        except (KeyboardInterrupt, Collapsed):
            stop.reason = stop.reason or "interrupted"
        finally:
            bar.close()
        self.invalid = failures_of(trainer.guards, self.processes)
        return model, trainer, stop, not stop.reason and trainer.state.global_step >= config.steps

    def _look_ahead(self, trainer: GRPOTrainer) -> None:
        reads = self.objective.graded and self.task.reads_answers
        found = preflight(trainer, scored_on=self.config.eval_problems or None, reads_boxes=reads)
        if self.processes.main:
            write_json(self.files.preflight, dataclasses.asdict(found) | {"warnings": found.warnings()})
        if self.progress:
            print(found)

    def _trainer(self, model: Any) -> GRPOTrainer:
        config = self.config
        assert config.learning_rate is not None
        assert config.warmup_steps is not None
        rate, eight_bit = config.learning_rate, config.optim == "paged_adamw_8bit"
        optimizer = methods.optimizer(model, config.method, rate, config.weight_decay, eight_bit=eight_bit)
        folder, share = make_folder(self.files.checkpoints), engine_share(config, self.facts)
        warmup = max(1, config.warmup_steps)
        scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup))  # no step is lost to a rate of zero
        trainer = GRPOTrainer(
            model,
            list(self.objective.functions),
            arguments(config, self.loaded.compute_dtype, self.loaded.device, folder, self.processes.count, share),
            dataset(self.task, config.prompt_style or "instruct"),
            processing_class=self.loaded.tokenizer,
            optimizers=(optimizer, scheduler),
            method=config.method,
            loss_options=config.loss_options,
            max_resample=config.max_resample,
            completions_at_once=resolve.completions_at_once(config, self.facts),
            rollout_copy=rollout_copy(config, self.facts, self.loaded.backend),
            sampler_correction=config.sampler_correction,
            sampler_gap_limit=config.sampler_gap_limit,
            micro_batch=config.micro_batch,
            on_reward_error="skip",
            reward_limit=REWARD_SECONDS,
            log_directory=self.files.root,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    # ---- proof and summary ------------------------------------------------------------------------------------

    def _end(
        self,
        status: str,
        reason: str,
        trainer: GRPOTrainer,
        *,
        steps: int | None = None,
        count: int | None = None,
        identity: str = "open",
        parity: float | None = None,
    ) -> Run:
        config = self.config
        times = [row["step_time"] for row in self.files.metrics.rows() if "step_time" in row]
        scores = self._scores()
        self.seconds |= {f"evaluate {when}": score["seconds"] for when, score in scores.items()}
        summary = {
            "status": status,
            "reason": reason,
            "method": config.method,
            "base": config.base,
            "task": config.task,
            "seed": config.seed,
            "steps": trainer.state.global_step if steps is None else steps,
            "learning_rate": config.learning_rate,
            "trainable_parameters": count if count is not None else _trained_count(trainer.model),
            "evaluation": scores,
            "identity": identity,
            "lost": list(trainer.lost),
            "parity": parity,
            "seconds": {k: round(v, 3) for k, v in self.seconds.items()}
            | ({"train": round(sum(times), 3), "step": round(statistics.median(times), 4)} if times else {}),
            "peak_memory_bytes": peak_memory_bytes(),
            "invalid_rewards": self.invalid,
            "versions": versions(),
        }
        finish(self.files, summary)
        return Run(self.files.root)


def _trained_count(model: Any) -> int:
    return 0 if model is None else sum(p.numel() for p in model.parameters() if p.requires_grad)
