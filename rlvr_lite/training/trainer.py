"""GRPO on one GPU or several: TRL's trainer with its sampling, scoring, batching and checkpoints replaced.

``trl.GRPOTrainer`` and transformers keep the configuration, optimizer, scheduler, mixed precision, callbacks and
logging. The hooks replaced here have been stable over many releases: ``_prepare_inputs``, ``training_step``,
``_compute_loss``, ``get_train_dataloader``, ``create_optimizer``, and those for saving and loading.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rlvr_lite import grpo, methods, sampling
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.records import JsonLines
from rlvr_lite.training import supported
from rlvr_lite.training._policy import drop_fused_head, plain, reference, restore_precision, trained_values
from rlvr_lite.training._resumable import Resumable
from rlvr_lite.training._stock import GRPOConfig
from rlvr_lite.training.callbacks import Follow
from rlvr_lite.training.collect import Collector
from rlvr_lite.training.generation_batch import cut, micro_batches_of, micro_steps, on_device
from rlvr_lite.training.guard import guard
from rlvr_lite.training.order import PromptOrder
from rlvr_lite.training.parallel import Processes
from rlvr_lite.training.scoring import MicroBatchStats, of_micro_batches

__all__ = ["GRPOTrainer"]


class GRPOTrainer(Resumable):
    """Drop-in for ``trl.GRPOTrainer`` with exact savings, dynamic sampling and exact resume.

    Takes the arguments of TRL's class; a setting of ``GRPOConfig`` that is not honoured raises a ``UserError``. Besides
    TRL's losses ``loss_type`` may be any of ``rlvr_lite.grpo.losses``, such as ``"gspo"``. Prompts follow ``f(seed, step)`` and every
    completion draws from a generator of its own, so a run resumed from any checkpoint continues bit for bit on a CPU.

    Under ``accelerate launch`` each process samples, scores and differentiates a share of a generation batch.
    Generators, advantages and row weights follow the whole batch, and gradients are added up, not averaged: any number
    of processes takes the steps of one with the whole batch, up to rounding. ``per_device_train_batch_size`` counts
    completions a process, as in TRL; bnpo's local batch is the micro-step of all. The main process writes the files.

    Args:
        model: as in TRL; a model from ``rlvr_lite.methods.attach`` keeps its adapters in fp32.
        reward_funcs: as in TRL. A function that raises, hangs or returns nonsense costs the sample, not the run.
        args: a ``trl.GRPOConfig``.
        train_dataset, eval_dataset: as in TRL.
        method: name of the attached method, for its optimizer and its rank schedule; ``None`` takes AdamW.
        loss_options: the loss's own options, over the fields of ``args`` in which TRL has some of them.
        max_resample: rounds of fresh prompts for groups without variance (DAPO's dynamic sampling).
        micro_batch: completions a backward pass; ``None`` takes a micro-step at once. A pass that runs out of memory
            is halved and repeated in either case.
        reward_limit: seconds a reward function may take for a batch.
        log_rollouts: write every completion to ``rollouts.jsonl`` beside ``metrics.jsonl``.
        log_directory: where these logs stand; ``None`` takes ``args.output_dir``.
        **kwargs: the remaining arguments of ``trl.GRPOTrainer``.
    """

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        *,
        method: str | None = None,
        loss_options: Mapping[str, Any] | None = None,
        max_resample: int = 0,
        micro_batch: int | None = None,
        reward_limit: float = 60.0,
        log_rollouts: bool = True,
        log_directory: str | Path | None = None,
        **kwargs: Any,
    ):
        args = args or GRPOConfig("grpo-output")
        supported.refuse_unsupported(args)
        supported.refuse_wrong_types(train_dataset, eval_dataset)
        supported.refuse_starts(args, kwargs.get("peft_config"))
        functions = reward_funcs if isinstance(reward_funcs, list) else [reward_funcs]
        device = getattr(model, "device", None)
        if device is not None and device.type == "cuda":
            args._n_gpu = 1  # transformers would wrap the model in DataParallel on a two-GPU notebook
        beta, args.beta = args.beta, 0.0  # TRL would copy the adapter for a reference; ours is the base itself
        own_forward = plain(model).__dict__.get("forward") if isinstance(model, nn.Module) else None
        precise = trained_values(model)
        self.guards = guard(functions, reward_limit)
        try:
            super().__init__(model, self.guards, args, train_dataset, eval_dataset, **kwargs)
        finally:
            args.beta = beta
        self.beta = beta
        self.processes = Processes(self.accelerator.process_index, self.accelerator.num_processes)
        # Nothing is wrapped for data parallelism: accumulate() adds the gradients up itself, once a micro-step.
        self.accelerator.prepare_model = functools.partial(self.accelerator.prepare_model, evaluation_mode=True)
        restore_precision(self.model, precise)
        drop_fused_head(self.model, own_forward)
        self.method = method
        self.micro_batch = micro_batch
        self.generation_steps = args.steps_per_generation * args.num_iterations
        self.on_policy = self.generation_steps == args.gradient_accumulation_steps
        self.loss = grpo.losses.get(args.loss_type)
        self.loss_form: dict[str, Any] = {
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
        self.collector = self._collector(max_resample)

    def _collector(self, max_resample: int) -> Collector:
        args, tokenizer = self.args, self._tokenizer
        supported.refuse_chats_without_template(self.train_dataset, tokenizer)
        return Collector(
            model=self.model,
            tokenizer=tokenizer,
            dataset=self.train_dataset,
            score=self._score,
            reward_names=self.reward_func_names,
            reward_weights=self.reward_weights,
            sampling_config=SamplingConfig(
                temperature=args.temperature,
                top_p=args.top_p,
                top_k=args.top_k or 0,
                max_new_tokens=args.max_completion_length,
            ),
            group_size=self.num_generations,
            prompts=args.generation_batch_size // self.num_generations,
            seed=args.seed,
            shuffle=args.shuffle_dataset,
            max_resample=max_resample,
            advantage_scale=self.scale_rewards,
            eos_ids=sampling.eos_ids(self.model, tokenizer),
            mask_truncated=self.mask_truncated_completions,
            autocast=self.accelerator.autocast,
            template=self.chat_template_kwargs,
            processes=self.processes,
        )

    # ---- data -------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[int]:
        """Numbers only: prompts are looked up by position when a generation batch is collected."""
        prompts = self.args.generation_batch_size // self.num_generations
        batches = math.ceil(len(self.train_dataset) / prompts)
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

    def _score(self, rows: list[dict[str, Any]], completions: list[Any], tokens: list[list[int]]) -> Tensor:
        return self._calculate_rewards(rows, [row["prompt"] for row in rows], completions, tokens)

    def _prepare_inputs(self, generation_batch: Any) -> grpo.RolloutBatch:
        """The rows of this micro-step, with a fresh generation batch where one begins."""
        if self._generation_batch is None or self._step % self.generation_steps == 0:
            self._generation_batch = self._collect(self._step // self.generation_steps)
        steps = self.args.steps_per_generation
        rows = micro_steps(len(self._generation_batch) // self.num_generations, self.num_generations, steps)
        return self._generation_batch.rows(rows[self._step % steps].to(self._generation_batch.advantages.device))

    def _collect(self, number: int) -> grpo.RolloutBatch:
        batch = self.collector.collect(number)
        for name, value in batch.metrics.items():
            self._metrics["train"][name].append(value)
        self.state.num_input_tokens_seen += int(batch.rollouts.prompt_mask.sum() + batch.rollouts.mask.sum())
        if self.rollout_log is not None:
            self.rollout_log.append(*({"step": self.state.global_step + 1, **sample} for sample in batch.samples))
        return self.scored(batch.rollouts)

    def scored(self, rollouts: grpo.RolloutBatch) -> grpo.RolloutBatch:
        """All that the loss needs beside advantages: weights, and log-probabilities before the update and of the base."""
        old = None if self.on_policy else self._logprobs_of(rollouts)
        ref = None
        if self.beta:
            with reference(self.model):
                ref = self._logprobs_of(rollouts)
        return dataclasses.replace(rollouts, weights=self.weights_of(rollouts), old_logprobs=old, ref_logprobs=ref)

    def weights_of(self, rollouts: grpo.RolloutBatch) -> Tensor:
        """What a row's tokens weigh in its optimizer step, from all rows of the generation batch, kept or not."""
        steps = self.args.steps_per_generation
        lengths = rollouts.mask.sum(1)
        local = math.ceil(len(rollouts) / steps)
        whole = grpo.row_weights(lengths, loss=self.loss.name, max_length=self.max_completion_length, local_rows=local)
        return whole * (steps / self.args.gradient_accumulation_steps)

    # ---- loss -------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over one micro-step, in micro-batches that fit in memory."""
        started = time.perf_counter()
        model.train()
        batch = self._prepare_inputs(inputs)
        loss = self.accumulate(batch)
        self._step += 1
        self._current_train_step_time += time.perf_counter() - started
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._metrics["train"]["step_time"].append(self._current_train_step_time)
            self._current_train_step_time = 0.0
        return loss

    def accumulate(self, batch: grpo.RolloutBatch) -> Tensor:
        """Add the gradient of a micro-step, of which each process computes its share.

        Args:
            batch: the rows of all processes, the same at each.

        Returns:
            The loss ``[]`` of all rows.
        """
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        earlier = [p.grad for p in parameters]
        for p in parameters:
            p.grad = None
        kept = batch.rows(grpo.keep_informative(batch.advantages, batch.mask, kl_coef=self.beta))
        if self.processes.count > 1:
            kept = grpo.micro_batches(kept, self.processes.count)[self.processes.rank]
        total = self._differentiate(kept, parameters)
        for p in parameters:  # a step without signal still is a step of the optimizer, as with a loss of zero
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        self.processes.add([total, *(p.grad for p in parameters if p.grad is not None)])
        self._log_micro_batches()
        penalty = methods.penalty(self.model, self.method) if self.method is not None else None
        if penalty is not None:  # of the weights alone, so the same at every process
            penalty = penalty / self.current_gradient_accumulation_steps
            self.accelerator.backward(penalty)
            total += penalty.detach()
        for p, grad in zip(parameters, earlier, strict=True):
            if grad is not None:
                p.grad = grad.add_(p.grad)
        return total

    def _differentiate(self, rows: grpo.RolloutBatch, parameters: list[nn.Parameter]) -> Tensor:
        """Loss ``[]`` and gradient of some rows, micro-batch by micro-batch; one that does not fit in memory is halved.

        Each gradient is kept apart until it is complete, so one that breaks off leaves no trace.
        """
        total = torch.zeros((), device=self.accelerator.device)
        queue = deque(micro_batches_of(rows, self.micro_batch))
        while queue:
            micro_batch = queue.popleft()
            before, told = [p.grad for p in parameters], len(self._measured)
            for p in parameters:
                p.grad = None
            try:
                loss = self._compute_loss(self.model, micro_batch)
                self.accelerator.backward(loss)
                total += loss.detach()
            except torch.OutOfMemoryError:
                for p in parameters:
                    p.grad = None
                del self._measured[told:]
                torch.cuda.empty_cache()
                if len(micro_batch) == 1:
                    raise UserError(
                        "one completion does not fit in memory: lower max_completion_length, turn gradient_checkpointing on, "
                        "or use a 4-bit base"
                    ) from None
                queue.extendleft(reversed(cut(micro_batch, math.ceil(len(micro_batch) / 2))))
            for p, grad in zip(parameters, before, strict=True):
                if grad is not None:
                    p.grad = grad if p.grad is None else grad.add_(p.grad)
        return total

    def _compute_loss(self, model: nn.Module, inputs: grpo.RolloutBatch) -> Tensor:
        """The loss of some rows, scaled so that the losses of all micro-batches of an optimizer step add up to its loss."""
        logprobs, entropy = self._logprobs(model, inputs)
        loss, stats = grpo.policy_loss(
            logprobs,
            inputs.old_logprobs,
            inputs.advantages,
            inputs.mask,
            loss=self.loss.name,
            **self.loss_form,
            clip_low=self.epsilon_low,
            clip_high=self.epsilon_high - self.loss.trl_bound,
            ref_logprobs=inputs.ref_logprobs,
            kl_coef=self.beta,
            unbiased_kl=self.args.use_bias_correction_kl,
            weights=inputs.weights,
        )
        gap = None
        if inputs.sampled_logprobs is not None:
            gap = ((logprobs.detach() - inputs.sampled_logprobs).abs() * inputs.mask).max().item()
        self._measured.append(MicroBatchStats(stats, entropy.detach().sum().item(), gap))
        return loss

    def _log_micro_batches(self) -> None:
        measured = [one for part in self.processes.gather(self._measured) for one in part]
        self._measured = []
        for name, value in of_micro_batches(measured, kl=bool(self.beta)).items():
            self._metrics["train"][name].append(value)

    def _logprobs(self, model: nn.Module, rows: grpo.RolloutBatch) -> tuple[Tensor, Tensor]:
        with self.accelerator.autocast():
            return grpo.completion_logprobs(
                model,
                rows.prompt_ids,
                rows.prompt_mask,
                rows.completions,
                rows.mask,
                self.temperature,
                packer=self._packer,
            )

    def release(self) -> None:
        """Let go of the model and all that was built on it, so that its memory can be used again."""
        self.model = self.model_wrapped = self.optimizer = self.lr_scheduler = self._generation_batch = None
        self.callback_handler.model = self.callback_handler.optimizer = self.callback_handler.lr_scheduler = None
        del self.collector
        self.accelerator.free_memory()

    def forget_metrics(self) -> None:
        """Drop what has been measured since the last log."""
        self._metrics["train"].clear()

    def note_gradients(self) -> None:
        """Remember which trained tensors have had a gradient other than zero; part of the proof of identity."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and name not in self.gradients_seen and bool(parameter.grad.any()):
                self.gradients_seen.add(name)

    @torch.no_grad()
    def _logprobs_of(self, rollouts: grpo.RolloutBatch) -> Tensor:
        """Log-probabilities ``[B, C]`` under the model as it stands, without a graph."""
        share = list(self.processes.share(range(len(rollouts))))
        own = torch.tensor(share, dtype=torch.long, device=rollouts.mask.device)
        parts = own.split(self.micro_batch or max(len(own), 1))
        found = torch.cat([self._logprobs(self.model, rollouts.rows(part))[0] for part in parts])
        if self.processes.count == 1:
            return found
        return torch.cat(self.processes.gather(found.cpu())).to(found.device)

    # ---- evaluation, optimizer, logs --------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean reward over ``num_generations_eval`` samples of each evaluation prompt."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        rows, size = list(dataset), self.num_generations_eval
        keys = sampling.row_keys(self.args.seed, "evaluate", rows=len(rows) * size)
        batch = max(1, self.args.per_device_eval_batch_size // size)
        rewards, lengths = [], []
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            rollouts = self.collector.draw(part, keys[start * size : (start + len(part)) * size], size)
            rewards.append(self.collector.judge(part, rollouts, size)[0])
            lengths.append(rollouts.mask.sum(1).float())
        scores = torch.cat(rewards)
        metrics = {
            f"{metric_key_prefix}_reward": (scores * self.reward_weights.to(scores.device)).nansum(1).mean().item()
        }
        for name, mean in zip(self.reward_func_names, scores.nanmean(0).tolist(), strict=True):
            metrics[f"{metric_key_prefix}_rewards/{name}/mean"] = mean
        metrics[f"{metric_key_prefix}_completions/mean_length"] = torch.cat(lengths).mean().item()
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The method's own optimizer where it has one, or where ``method`` is named; TRL's otherwise."""
        if self.optimizer is None and self.method is not None:
            self.optimizer = methods.optimizer(self.model, self.method, self.args.learning_rate, self.args.weight_decay)
            return self.optimizer
        return super().create_optimizer() if model is None else super().create_optimizer(model)
