"""GRPO on one GPU or several: TRL's trainer with its sampling, scoring, batching and checkpoints replaced.

``trl.GRPOTrainer`` and transformers keep the configuration, optimizer, scheduler, mixed precision, callbacks and
logging. The hooks replaced here have been stable over many releases: ``_prepare_inputs``, ``training_step``,
``_compute_loss``, ``get_train_dataloader``, ``create_optimizer``, and those for saving and loading.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import IterableDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import speed_metrics

from rlvr_lite import grpo, methods, sampling
from rlvr_lite.config import SAMPLER_GAP_LIMIT
from rlvr_lite.errors import UserError
from rlvr_lite.records import JsonLines
from rlvr_lite.training import _engine as engine
from rlvr_lite.training import _supported as supported
from rlvr_lite.training._arguments import optimizer_of, stay_on
from rlvr_lite.training._at_once import CompletionsAtOnce, sampler_of
from rlvr_lite.training._callbacks import Follow
from rlvr_lite.training._collect import Collector, GenerationBatch
from rlvr_lite.training._generation_batch import micro_steps, on_device
from rlvr_lite.training._guard import OnError, guard
from rlvr_lite.training._objective import Objective
from rlvr_lite.training._order import PromptOrder
from rlvr_lite.training._parallel import Processes
from rlvr_lite.training._policy import (
    Reference,
    changes_the_base,
    drop_fused_head,
    new_gradients,
    plain,
    restore_precision,
    trained_values,
)
from rlvr_lite.training._rollout_func import RolloutFunction
from rlvr_lite.training._scoring import MicroBatchStats
from rlvr_lite.training._stock import GRPOConfig
from rlvr_lite.training._stream import Stream

__all__ = ["GRPOTrainer"]


class GRPOTrainer(Objective):
    """Drop-in for ``trl.GRPOTrainer`` with exact savings, dynamic sampling and exact resume.

    Takes the arguments of TRL's class, in its order. A setting of ``GRPOConfig``, an argument or an overridden method
    that is not honoured raises a ``UserError``. Besides TRL's losses ``loss_type`` may be any of
    ``rlvr_lite.grpo.losses``, such as ``"gspo"``. What top_p, top_k and min_p leave out of sampling is left out of the
    loss, which TRL takes over all tokens. Prompts follow ``f(seed, step)`` and every completion draws from a generator
    of its own, so a run resumed from any checkpoint continues bit for bit on a CPU.

    Under ``accelerate launch`` each process samples, scores and differentiates a share of a generation batch.
    Generators, advantages and row weights follow the whole batch, and gradients are added up, not averaged: any number
    of processes takes the steps of one with the whole batch, up to rounding. ``per_device_train_batch_size`` counts
    completions a process, as in TRL; bnpo's local batch is the micro-step of all. The main process writes the files.

    Args:
        model: as in TRL; a model from ``rlvr_lite.methods.attach`` keeps its adapters in fp32.
        reward_funcs: as in TRL; they run on the thread that trains, coroutine functions together in an event loop.
        args: a ``trl.GRPOConfig``, or a subclass with fields of its own.
        train_dataset, eval_dataset: as in TRL, also streams, and dictionaries of evaluation sets.
        processing_class: the tokenizer.
        reward_processing_classes, callbacks, optimizers, quantization_config, peft_config, rollout_func: as in TRL.
        tools, environment_factory: refused.
        method: name of the attached method, for its optimizer and its rank schedule; ``None`` takes AdamW.
        loss_options: the loss's own options, over the fields of ``args`` in which TRL has some of them.
        max_resample: rounds of fresh prompts for groups without variance (DAPO's dynamic sampling).
        micro_batch: completions a backward pass; ``None`` takes a micro-step at once. A pass that runs out of memory
            is halved and repeated in either case.
        on_reward_error: ``raise`` lets an exception of a reward function end the run, as in TRL; ``skip`` costs only
            the completions it fails for. A wrong number of rewards always raises.
        reward_limit: seconds a reward function may take for a batch; ``None`` for no limit, as in TRL.
        log_rollouts: write every completion to ``rollouts.jsonl`` beside ``metrics.jsonl``.
        log_directory: where these logs stand; ``None`` takes ``args.output_dir``.
        sampler: who samples; ``vllm`` or TRL's ``use_vllm``: an engine beside the model (``sampling.ColocatedVLLM``).
        completions_at_once: sampled together, at most; ``None`` takes a generation batch. What does not fit in memory is
            halved, and the smaller number kept in ``memory.json`` beside the logs.
        rollout_copy: sample from a 16-bit copy of a 4-bit base, freed before scoring; see ``sampling.TransformersSampler``.
        sampler_correction: ``truncated`` weighs tokens (rows, where ratios are of sequences) by how likely they are to the
            scorer over how likely they were to the sampler, at most 2; the two differ in half precision. ``none`` does not.
        sampler_gap_limit: mean difference of their log-probabilities, in nats a token, above which training stops with a
            ``UserError``; ``None`` for no limit. Neither acts on a ``rollout_func``.
        **kwargs: arguments that a later TRL may have; refused unless they are ``None``.

    Raises:
        UserError: something was asked for that is not honoured.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        reward_processing_classes: Any = None,
        callbacks: Any = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        tools: Any = None,
        rollout_func: Any = None,
        environment_factory: Any = None,
        *,
        method: str | None = None,
        loss_options: Mapping[str, Any] | None = None,
        max_resample: int = 0,
        micro_batch: int | None = None,
        on_reward_error: OnError = "raise",
        reward_limit: float | None = None,
        log_rollouts: bool = True,
        log_directory: str | Path | None = None,
        sampler: sampling.Sampler | Literal["vllm"] | None = None,
        completions_at_once: int | None = None,
        rollout_copy: Literal["auto", True, False] = "auto",
        sampler_correction: Literal["truncated", "none"] = "truncated",
        sampler_gap_limit: float | None = SAMPLER_GAP_LIMIT,
        **kwargs: Any,
    ):
        if args is None:
            args = GRPOConfig(f"{supported.model_name(model)}-GRPO")
        supported.refuse_hooks(type(self), GRPOTrainer)
        supported.refuse_arguments({"tools": tools, "environment_factory": environment_factory, **kwargs})
        supported.refuse_unsupported(args)
        supported.refuse_wrong_types(train_dataset, eval_dataset)
        supported.refuse_starts(peft_config)
        functions = [] if reward_funcs is None else reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        if not functions:
            raise UserError("no reward: pass reward_funcs")
        device = getattr(model, "device", None)
        if device is not None and device.type == "cuda":
            stay_on(args, device)
        own_forward = plain(model).__dict__.get("forward") if isinstance(model, nn.Module) else None
        precise = trained_values(model)
        fresh = not hasattr(model, "peft_config") and not changes_the_base(peft_config)
        self.guards = guard(functions, reward_limit, on_reward_error)
        beta, sync, cast, vllm = args.beta, args.sync_ref_model, args.cast_lm_head_to_fp32, args.use_vllm
        args.beta, args.sync_ref_model = 0.0, False  # TRL would copy the adapter or load the model once more
        args.cast_lm_head_to_fp32 = args.use_vllm = False  # TRL's cast stops at an adapter on tied embeddings
        try:
            super().__init__(
                model,
                self.guards,
                args,
                train_dataset,
                eval_dataset,
                processing_class=processing_class,
                reward_processing_classes=reward_processing_classes,
                callbacks=callbacks,
                optimizers=optimizers,
                quantization_config=quantization_config,
                peft_config=peft_config,
                rollout_func=rollout_func,
            )
        finally:
            args.beta, args.sync_ref_model, args.cast_lm_head_to_fp32, args.use_vllm = beta, sync, cast, vllm
        self.beta = beta
        self.processes = Processes(self.accelerator.process_index, self.accelerator.num_processes)
        # Nothing is wrapped for data parallelism: accumulate() adds the gradients up itself, once a micro-step.
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        restore_precision(self.model, precise)
        drop_fused_head(self.model, own_forward)
        if cast:
            grpo.single_precision_head(self.model)
        self.reference = Reference(self.model, fresh=fresh) if beta else None
        if sync and self.reference is not None and self.reference.copy is None:
            raise UserError(
                "sync_ref_model=True moves a copy of the weights, and an adapter has its base: leave it out"
            )
        self.method, self.micro_batch = method, micro_batch
        self.generation_steps = args.steps_per_generation * args.num_iterations
        self.on_policy = self.generation_steps == args.gradient_accumulation_steps
        self.loss = grpo.losses.get(args.loss_type)
        self.loss_form = {
            "level": supported.loss_level(args),
            "options": supported.loss_options_of(args, loss_options),
        }
        directory = Path(log_directory if log_directory is not None else args.output_dir)
        self.metrics_log = JsonLines(directory / "metrics.jsonl")
        self.rollout_log = JsonLines(directory / "rollouts.jsonl") if log_rollouts and self.processes.main else None
        self._packer = grpo.Packer()
        self._measured: list[MicroBatchStats] = []
        self.gradients_seen: set[str] = set()
        self._restored: dict[str, Any] | None = None
        self._generation_batch: grpo.RolloutBatch | None = None
        self.add_callback(Follow(self))
        at_once = CompletionsAtOnce(completions_at_once, directory / "memory.json" if self.processes.main else None)
        self.collector = self._collector(max_resample, sampler, at_once, rollout_copy)
        if sampler_correction not in ("truncated", "none"):
            raise UserError(f"sampler_correction must be 'truncated' or 'none', got {sampler_correction!r}")
        foreign = self.collector.rollout is not None  # its log-probabilities are the user's affair, as in TRL
        self.sampler_correction = "none" if foreign or engine.uncorrected(args) else sampler_correction
        self.sampler_gap_limit = None if foreign else sampler_gap_limit
        self.samples_itself = sampler is None and not args.use_vllm and not foreign
        self.truncation = None if foreign else supported.truncation_of(args, self.on_policy)

    def _collector(self, max_resample: int, sampler: Any, at_once: CompletionsAtOnce, copy: Any) -> Collector:
        args, tokenizer = self.args, self._tokenizer
        stream = isinstance(self.train_dataset, IterableDataset)
        if stream and max_resample:
            raise UserError("max_resample draws from the whole data set: give a datasets.Dataset instead of a stream")
        rows: Any = self.train_dataset
        if args.remove_unused_columns:  # as in TRL, where the reward functions then see no other column
            rows = rows.select_columns(["prompt"])
        if stream:
            rows = Stream(rows, shuffle=args.shuffle_dataset, seed=args.seed)
        supported.refuse_chats_without_template(rows, tokenizer)
        drawing = sampler_of(self, sampler or ("vllm" if args.use_vllm else None), self._rollout(), copy, rows)
        ends, template = sampling.eos_ids(self.model, tokenizer), self.chat_template_kwargs
        return Collector(
            model=self.model,
            tokenizer=tokenizer,
            dataset=rows,
            score=self._score,
            reward_names=self.reward_func_names,
            reward_weights=self.reward_weights,
            sampling_config=supported.sampling_of(args),
            group_size=self.num_generations,
            prompts=args.generation_batch_size // self.num_generations,
            seed=args.seed,
            shuffle=args.shuffle_dataset and not stream,
            max_resample=max_resample,
            advantage_scale=self.scale_rewards,
            aggregation=self.multi_objective_aggregation,
            rollout=self._rollout(),
            eos_ids=ends,
            mask_truncated=self.mask_truncated_completions,
            sampler=drawing,
            template=template,
            at_once=at_once,
            processes=self.processes,
        )

    # ---- data -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[int]:
        """Numbers only: prompts are looked up by position when a generation batch is collected."""
        prompts = self.args.generation_batch_size // self.num_generations
        if isinstance(self.train_dataset, IterableDataset):  # max_steps says how long
            batches = self.args.max_steps
        else:
            batches = max(1, len(self.train_dataset) // prompts)  # as TRL, an epoch leaves out what fills no batch
        return DataLoader(PromptOrder(batches * self.generation_steps), batch_size=1, collate_fn=PromptOrder.collate)

    def enter_generation_batch(self, global_step: int) -> None:
        """Continue at ``global_step`` with the main process's weights; a ``UserError`` where rollouts are missing."""
        self.processes.same([p.data for p in self.model.parameters() if p.requires_grad])
        self._step = global_step * self.args.gradient_accumulation_steps
        self._current_train_step_time = 0.0
        self._generation_batch, restored, self._restored = None, self._restored, None
        if self._step % self.generation_steps:
            if restored is None or restored["step"] != self._step:
                raise UserError(
                    f"the checkpoint of step {global_step} lacks the rollouts of its generation batch: take an earlier one"
                )
            self._generation_batch = on_device(grpo.RolloutBatch(**restored["rollouts"]), self.accelerator.device)

    def _score(
        self, rows: list[dict[str, Any]], completions: list[Any], tokens: list[list[int]]
    ) -> tuple[Tensor, list[dict[str, Any]]]:
        """Rewards ``[B, F]``, and what the functions noted about each completion with ``log_extra``."""
        rewards = self._calculate_rewards(rows, [row["prompt"] for row in rows], completions, tokens)
        for column, values in self._pending_extra_logs.items():
            if len(values) != len(rows):
                raise UserError(f"log_extra({column!r}) was given {len(values)} values for {len(rows)} completions")
        noted = [{column: values[i] for column, values in self._pending_extra_logs.items()} for i in range(len(rows))]
        self._pending_extra_logs.clear()
        mode = "train" if self.model.training else "eval"
        told = self.processes.gather(dict(self._pending_metrics))
        self._pending_metrics.clear()
        for name in sorted({name for part in told for name in part}):
            values = [value for part in told for value in part.get(name, [])]
            self._metrics[mode][name].append(sum(values) / len(values))
        return rewards, noted

    def _rollout(self) -> RolloutFunction | None:
        if self.rollout_func is None:
            return None
        if self.processes.count > 1:
            raise UserError("rollout_func runs in one process here: start without accelerate launch")
        return RolloutFunction(lambda prompts: self.rollout_func(prompts, self), int(self._tokenizer.pad_token_id))

    def _prepare_inputs(self, generation_batch: Any) -> grpo.RolloutBatch:
        """The rows of this micro-step, with a fresh generation batch where one begins."""
        if self._generation_batch is None or self._step % self.generation_steps == 0:
            self._generation_batch = self._collect(self._step // self.generation_steps)
        steps = self.args.steps_per_generation
        rows = micro_steps(len(self._generation_batch) // self.num_generations, self.num_generations, steps)
        return self._generation_batch.rows(rows[self._step % steps].to(self._generation_batch.advantages.device))

    def _collect(self, number: int) -> grpo.RolloutBatch:
        batch = self.collector.collect(number)
        self.state.num_input_tokens_seen += int(batch.rollouts.prompt_mask.sum()) + sum(
            s["tokens"] for s in batch.samples
        )
        self._record("train", batch)
        if self.rollout_log is not None:
            self.rollout_log.append(*({"step": self.state.global_step + 1, **sample} for sample in batch.samples))
        return self.scored(batch.rollouts)

    def _record(self, mode: str, batch: GenerationBatch) -> None:
        """The measures of a generation batch, and its completions for TRL's table."""
        for name, value in batch.metrics.items():
            self._metrics[mode][name].append(value)
        self._metrics[mode]["num_tokens"] = [self.state.num_input_tokens_seen]
        if not self.log_completions:
            return
        for sample, prompt, completion in zip(batch.samples, batch.prompts, batch.completions, strict=True):
            self._logs["prompt"].append(prompt)
            self._logs["completion"].append(completion)
            self._logs["advantages"].append(sample["advantage"])
            for name, value in sample["rewards"].items():
                self._logs["rewards"][name].append(math.nan if value is None else value)
            for column, value in sample.get("extra", {}).items():
                self._logs["extra"][column].append(value)

    def release(self) -> None:
        """Let go of the model and all that was built on it, so that its memory can be used again."""
        self.model = self.model_wrapped = self.optimizer = self.lr_scheduler = self._generation_batch = None
        self.reference = None
        self.callback_handler.model = self.callback_handler.optimizer = self.callback_handler.lr_scheduler = None
        del self.collector
        self.accelerator.free_memory()

    def forget_metrics(self) -> None:
        """Drop what has been measured since the last log."""
        self._metrics["train"].clear()

    def note_gradients(self) -> None:
        """Remember which trained tensors have had a gradient, for the proof of identity; count a step that overflows."""
        seen = self.gradients_seen
        found, self.overflowed = new_gradients(self.model, seen, scaled=self.accelerator.scaler is not None)
        seen |= found
        if self.overflowed:
            self._metrics["train"]["skipped_steps"].append(1.0)

    # ---- evaluation, optimizer, logs --------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss, rewards and lengths over ``num_generations_eval`` samples of each evaluation prompt, under TRL's names.

        Args:
            eval_dataset: rows, a stream of them, the name of one of several evaluation sets, or a dictionary of sets,
                each measured for itself; ``None`` takes the trainer's.
            ignore_keys: of no use here, as in TRL.
            metric_key_prefix: of the loss and of the times; the rest begins with ``eval_``, as in TRL.

        Raises:
            UserError: there is nothing to evaluate on.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(dataset, str):
            dataset = self.eval_dataset[dataset]
        if isinstance(dataset, dict):
            found: dict[str, float] = {}
            for name, one in dataset.items():
                found |= self.evaluate(one, ignore_keys, f"{metric_key_prefix}_{name}")
            return found
        if dataset is None:
            raise UserError("nothing to evaluate on: give eval_dataset")
        supported.refuse_wrong_types(self.train_dataset, dataset)
        started, rows, size = time.time(), list(dataset), self.num_generations_eval
        keys = sampling.row_keys(self.args.seed, "evaluate", rows=len(rows) * size)
        step = max(1, self.args.per_device_eval_batch_size * self.processes.count // size)
        loss = 0.0
        self.model.eval()
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            batch = self.collector.collect_rows(part, keys[start * size : (start + len(part)) * size], size)
            self._record("eval", batch)
            loss += self.loss_of(batch.rollouts) * len(part) / len(rows)
        metrics = {f"{metric_key_prefix}_loss": loss}
        steps = math.ceil(len(rows) / step)
        metrics |= speed_metrics(metric_key_prefix, started, num_samples=len(rows) * size, num_steps=steps)
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The method's own optimizer where it has one, or where ``method`` is named; TRL's otherwise."""
        if self.optimizer is None and self.method is not None:
            rate, decay, eight_bit = optimizer_of(self.args)
            self.optimizer = methods.optimizer(self.model, self.method, rate, decay, eight_bit=eight_bit)
            return self.optimizer
        return super().create_optimizer() if model is None else super().create_optimizer(model)
