"""The loss of a generation batch and its gradient, in micro-batches that fit in memory."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor, nn

from rlvr_lite import grpo, methods
from rlvr_lite.errors import UserError
from rlvr_lite.training._gap import check_gap
from rlvr_lite.training._generation_batch import cut, micro_batches_of
from rlvr_lite.training._policy import Reference, plain
from rlvr_lite.training._resumable import Resumable
from rlvr_lite.training._scoring import MicroBatchStats, of_micro_batches

__all__ = ["Objective"]


class Objective(Resumable):
    """What TRL's trainer computes in ``_compute_loss``, over rows of which those without a gradient are left out.

    Attributes:
        loss: its formula and weights.
        loss_form: the level of its ratio, and its own options.
        reference: the policy that the KL term compares with; ``None`` without one.
        micro_batch: completions a backward pass, at most.
        on_policy: whether every update is the first on its rollouts.
        sampler_correction: ``truncated`` importance weights between sampler and scorer, or ``none``.
        sampler_gap_limit: mean difference of their log-probabilities, in nats a token, above which the run stops.
        samples_itself: whether the model samples as it stands, so that before the first update only rounding differs.
        truncation: what the sampler leaves out, and with it the scores; ``None`` for nothing.
    """

    loss: grpo.losses.Loss
    loss_form: dict[str, Any]
    reference: Reference | None
    method: str | None
    micro_batch: int | None
    on_policy: bool
    beta: float
    epsilon_low: float
    temperature: float
    max_completion_length: int
    top_entropy_quantile: float
    off_policy_mask_threshold: float | None
    sampler_correction: str
    sampler_gap_limit: float | None
    samples_itself: bool
    truncation: grpo.Truncation | None
    aux_loss_enabled: bool
    router_aux_loss_coef: float
    current_gradient_accumulation_steps: int
    _packer: grpo.Packer
    _measured: list[MicroBatchStats]
    _step: int
    _current_train_step_time: float

    def scored(self, rollouts: grpo.RolloutBatch) -> grpo.RolloutBatch:
        """All that the loss needs beside advantages: weights, and log-probabilities before the update and of the base."""
        old = None if self.on_policy else self._logprobs_of(rollouts)
        return dataclasses.replace(
            rollouts, weights=self.weights_of(rollouts), old_logprobs=old, ref_logprobs=self._of_reference(rollouts)
        )

    def _of_reference(self, rollouts: grpo.RolloutBatch) -> Tensor | None:
        if self.reference is None:
            return None
        with self.reference():
            return self._logprobs_of(rollouts)

    def weights_of(self, rollouts: grpo.RolloutBatch) -> Tensor:
        """What a row's tokens weigh in its optimizer step, from all rows of the generation batch, kept or not."""
        steps = self.args.steps_per_generation
        lengths = rollouts.mask.sum(1)
        local = math.ceil(len(rollouts) / steps)
        whole = grpo.row_weights(lengths, loss=self.loss.name, max_length=self.max_completion_length, local_rows=local)
        return whole * (steps / self.args.gradient_accumulation_steps)

    @torch.no_grad()
    def loss_of(self, rollouts: grpo.RolloutBatch) -> float:
        """The loss of an evaluation batch by itself, without a gradient; measured under TRL's names."""
        weights = grpo.row_weights(rollouts.mask.sum(1), loss=self.loss.name, max_length=self.max_completion_length)
        rows = dataclasses.replace(rollouts, weights=weights, ref_logprobs=self._of_reference(rollouts))
        every = torch.arange(len(rows), device=rows.mask.device)
        share = list(self.processes.share(every.tolist()))
        total = torch.zeros((), device=self.accelerator.device)
        own = self._of_uncertain_tokens(rows).rows(torch.tensor(share, dtype=torch.long, device=rows.mask.device))
        for micro_batch in micro_batches_of(own, self.micro_batch):
            total += self._compute_loss(self.model, micro_batch)
        self.processes.add([total])
        self._log_micro_batches(rows, every)
        return total.item()

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over one micro-step, in micro-batches that fit in memory."""
        started = time.perf_counter()
        model.train()
        if callable(getattr(self.optimizer, "train", None)):  # optimizers without a schedule have two sets of weights
            self.optimizer.train()
        with methods.steady(self.model):
            loss = self.accumulate(self._prepare_inputs(inputs))
        every = self.args.torch_empty_cache_steps
        if every is not None and self.state.global_step % every == 0:
            clear_device_cache()
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
        informative = grpo.keep_informative(batch.advantages, batch.mask, kl_coef=self.beta)
        kept = self._of_uncertain_tokens(batch).rows(informative)
        if self.processes.count > 1:
            kept = grpo.micro_batches(kept, self.processes.count)[self.processes.rank]
        total = self._differentiate(kept, parameters)
        if self.aux_loss_enabled:
            total += self._balance_experts(batch)
        for p in parameters:  # a step without signal still is a step of the optimizer, as with a loss of zero
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        if self.accelerator.scaler is not None:  # it begins with the first loss that it is given, and there may be none
            self.accelerator.scaler.scale(total)
        self.processes.add([total, *(p.grad for p in parameters if p.grad is not None)])
        self._log_micro_batches(batch, informative)
        penalty = methods.penalty(self.model, self.method) if self.method is not None else None
        if penalty is not None:  # of the weights alone, so the same at every process
            penalty = penalty / self.current_gradient_accumulation_steps
            self.accelerator.backward(penalty)
            total += penalty.detach()
        for p, grad in zip(parameters, earlier, strict=True):
            if grad is not None:
                p.grad = grad.add_(p.grad)
        return total

    def _of_uncertain_tokens(self, batch: grpo.RolloutBatch) -> grpo.RolloutBatch:
        """Advantages ``[B, C]`` that are 0 but at the tokens of highest entropy (arXiv 2506.01939), if so asked."""
        if self.top_entropy_quantile >= 1 or not batch.mask.any():  # fewer groups than micro-steps leave some empty
            return batch
        share = self._shared(batch, 1)
        threshold = torch.quantile(share[batch.mask.bool()].float(), 1 - self.top_entropy_quantile)
        return dataclasses.replace(batch, advantages=batch.advantages[:, None] * (share >= threshold) * batch.mask)

    def _balance_experts(self, batch: grpo.RolloutBatch) -> Tensor:
        """Gradient of the routers' load-balancing loss over all rows of a micro-step, as the model defines it.

        It depends on the whole micro-step, so no row is left out and no prompt is shared.
        """
        rows = list(self.processes.share(range(len(batch))))
        if not rows:
            return torch.zeros((), device=self.accelerator.device)
        part = grpo.trim(batch.rows(torch.tensor(rows, device=batch.mask.device)))
        ids = torch.cat([part.prompt_ids, part.completions], 1)
        mask = torch.cat([part.prompt_mask, part.mask], 1)
        with self.accelerator.autocast():
            output = plain(self.model)(
                input_ids=ids, attention_mask=mask, output_router_logits=True, logits_to_keep=1, use_cache=False
            )
        balance = getattr(output, "aux_loss", None)
        if balance is None:  # Llama 4 computes none, whatever its configuration says
            if self.args.router_aux_loss_coef:
                raise UserError("this base computes no load-balancing loss: leave out router_aux_loss_coef")
            self.aux_loss_enabled = False
            return torch.zeros((), device=self.accelerator.device)
        steps = self.current_gradient_accumulation_steps
        loss = self.router_aux_loss_coef * balance / (steps * self.processes.count)
        self.accelerator.backward(loss)
        self._metrics["train"]["aux_loss"].append(balance.item())
        return loss.detach()

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
        advantages = self._near_policy(inputs, logprobs)
        loss, stats = grpo.policy_loss(
            logprobs,
            inputs.old_logprobs,
            advantages,
            inputs.mask,
            loss=self.loss.name,
            **self.loss_form,
            clip_low=self.epsilon_low,
            clip_high=self.epsilon_high - self.loss.trl_bound,
            ref_logprobs=inputs.ref_logprobs,
            kl_coef=self.beta,
            unbiased_kl=self.args.use_bias_correction_kl,
            weights=inputs.weights,
            correction=self._correction(inputs, logprobs),
        )
        self._measured.append(
            MicroBatchStats.of(
                stats,
                entropy.detach(),
                logprobs.detach(),
                inputs,
                sequences=self.loss.at(self.loss_form["level"]) == "sequence",
                clip_low=self.epsilon_low,
                clip_high=self.epsilon_high - self.loss.trl_bound,
            )
        )
        return loss

    def _correction(self, inputs: grpo.RolloutBatch, logprobs: Tensor) -> Tensor | None:
        """Importance weights of tokens or, for a loss with ratios of sequences, of rows."""
        if self.sampler_correction == "none" or inputs.sampled_logprobs is None:
            return None
        scored = logprobs.detach() if inputs.old_logprobs is None else inputs.old_logprobs
        level = self.loss.at(self.loss_form["level"])
        return grpo.truncated_weights(scored, inputs.sampled_logprobs, inputs.mask, level=level)

    def _near_policy(self, inputs: grpo.RolloutBatch, logprobs: Tensor) -> Tensor:
        """Advantages without the rows that the policy has left behind and that did badly (DeepSeek-V3.2, §3.1)."""
        if self.off_policy_mask_threshold is None or inputs.old_logprobs is None:
            return inputs.advantages
        rows = inputs.advantages if inputs.advantages.dim() == 2 else inputs.advantages[:, None]
        mask = inputs.mask.to(logprobs.dtype)
        moved = ((inputs.old_logprobs - logprobs.detach()) * mask).sum(1) / mask.sum(1).clamp(min=1)
        return rows * ((rows >= 0) | (moved <= self.off_policy_mask_threshold)[:, None])

    def _log_micro_batches(self, batch: grpo.RolloutBatch, informative: Tensor) -> None:
        """TRL's measures of a micro-step, over all of its rows; none of an empty one."""
        if not len(batch):
            return
        measured = [one for part in self.processes.gather(self._measured) for one in part]
        self._measured = []
        left_out = torch.ones(len(batch), dtype=torch.bool, device=batch.mask.device)
        left_out[informative] = False
        found = of_micro_batches(measured, batch.rows(left_out.nonzero().squeeze(-1)), self.loss, kl=bool(self.beta))
        mode = "train" if self.model.training else "eval"
        if (
            mode == "train"
            and self.state.global_step == 0
            and self.samples_itself
            and self.sampler_gap_limit is not None
        ):
            largest = found.get("sampling/sampling_logp_difference/max")
            autocast = self.accelerator.mixed_precision != "no"
            check_gap(self.model, largest, self.accelerator.device, autocast=autocast)
        for name, value in found.items():
            self._metrics[mode][name].append(value)
        gap = found.get("sampling/sampling_logp_difference/mean", 0.0)
        if self.sampler_gap_limit is not None and not gap <= self.sampler_gap_limit:
            raise UserError(
                f"what samples is not what is scored: log-probabilities differ by {gap:.2g} nats a token on average, above "
                f"sampler_gap_limit={self.sampler_gap_limit:g}; sample in another precision (fp32, fp16) or with another "
                "sampler, or raise the limit"
            )

    def _logprobs(self, model: nn.Module, rows: grpo.RolloutBatch) -> tuple[Tensor, Tensor]:
        with self.accelerator.autocast():
            return grpo.completion_logprobs(
                model,
                rows.prompt_ids,
                rows.prompt_mask,
                rows.completions,
                rows.mask,
                self.temperature,
                truncation=self.truncation,
                packer=self._packer,
            )

    def _logprobs_of(self, rollouts: grpo.RolloutBatch) -> Tensor:
        """Log-probabilities ``[B, C]`` under the model as it stands, without a graph."""
        return self._shared(rollouts, 0)

    @torch.no_grad()
    def _shared(self, rollouts: grpo.RolloutBatch, which: int) -> Tensor:
        """Log-probabilities (0) or entropies (1) ``[B, C]``, of which each process computes its share."""
        share = list(self.processes.share(range(len(rollouts))))
        own = torch.tensor(share, dtype=torch.long, device=rollouts.mask.device)
        parts = own.split(self.micro_batch or max(len(own), 1))
        found = torch.cat([self._logprobs(self.model, rollouts.rows(part))[which] for part in parts])
        if self.processes.count == 1:
            return found
        return torch.cat(self.processes.gather(found.cpu())).to(found.device)
