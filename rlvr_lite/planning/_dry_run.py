"""The real step on fake tensors: what each phase holds at its highest moment, without weights and without a GPU."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from rlvr_lite import bases, grpo, methods
from rlvr_lite.analysis.memory import PHASES, Step
from rlvr_lite.analysis.meter import Meter, dense_weight
from rlvr_lite.config import AdapterConfig
from rlvr_lite.grpo import logprobs as head_module
from rlvr_lite.planning._bases import config_of
from rlvr_lite.planning._dry_rollout import Rollouts
from rlvr_lite.planning._shapes import materialise, policy_on_meta

if TYPE_CHECKING:
    from rlvr_lite.planning._planned import Plan

__all__ = ["Runner", "dry_run", "measure_step", "planned_phases"]


def planned_phases(plan: Plan) -> dict[str, dict[str, int]]:
    """The phases of a plan by a dry run of its step, as on a GPU."""
    asked = plan.config
    config = bases.config_object(asked.base, config_of(asked.base, asked.revision))
    eight_bit, precision = asked.optim == "paged_adamw_8bit", str(asked.precision)
    meter = dry_run(config, precision, asked.method, asked.adapter, plan.step, eight_bit=eight_bit)
    found = {phase: meter.peaks[phase] for phase in PHASES if phase in meter.peaks}
    if plan.step.engine:  # whose memory is vLLM's own affair
        found["rollout"] = dict(plan.phases["rollout"])
    return {phase: {k: n for k, n in kinds.items() if k != "total"} for phase, kinds in found.items()}


def dry_run(
    config: Any,
    precision: str,
    method: str,
    adapter: AdapterConfig,
    step: Step,
    *,
    device: str = "cuda",
    compute: torch.dtype | None = None,
    eight_bit: bool = False,
) -> Meter:
    """Run every phase of a step on fake tensors.

    Args:
        config: transformers configuration of the base.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``nf4``.
        method: its name.
        adapter: its size and place; missing values take the defaults, as where a method is attached.
        step: sizes.
        device: ``cuda`` counts what a GPU would hold (chunks of the head), ``cpu`` what a CPU would.
        compute: dtype of activations; by default that of the precision, 16 bits for ``nf4``.
        eight_bit: whether Adam's moments are held in 8 bits.

    Returns:
        The meter: bytes by phase and kind.
    """
    compute = compute or (torch.float32 if precision == "fp32" else torch.bfloat16)  # bf16 and fp16 are of one size
    model = policy_on_meta(config, precision, method, adapter, compute)
    with FakeTensorMode(allow_non_fake_inputs=True), warnings.catch_warnings():
        # Methods ask for it to notice that a tensor was replaced, which no fake one is.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor", UserWarning)
        materialise(model)
        return measure_step(model, method, compute, step, device=device, fake=True, eight_bit=eight_bit)


def measure_step(
    model: nn.Module,
    method: str,
    compute: torch.dtype,
    step: Step,
    *,
    device: str,
    fake: bool = False,
    eight_bit: bool = False,
) -> Meter:
    """Run every phase of a step on a policy, real or fake, and count it.

    Args:
        model: with the method attached.
        method: its name.
        compute: dtype of activations.
        step: sizes.
        device: whose habits are followed, see :func:`dry_run`.
        fake: whether the model's tensors have no values.
        eight_bit: whether Adam's moments are held in 8 bits.
    """
    backbone = grpo.output_head(model).causal_lm.config
    kinds = _Kinds(backbone)
    meter = Meter(kinds, {"bitsandbytes::gemm_4bit": dense_weight})
    runner = Runner(model, method, compute, step, device, _Proven() if fake else grpo.Packer(), meter, eight_bit)
    with mock.patch.dict(head_module.CHUNK, cpu=head_module.CHUNK[device]):  # the head's chunks as large as there
        runner.weights()
        runner.first_pass()
        kinds.cached |= runner.cached
        runner.step_once()
    return meter


class _Kinds:
    """Tells logits and the cache of keys and values from other activations by their shapes."""

    def __init__(self, config: Any):
        self.vocabulary = config.get_text_config().vocab_size
        self.cached: set[tuple[int, int]] = set()  # heads and width of what the cache holds, as far as is known
        aten = torch.ops.aten
        self.makers = {aten.new_empty.default, aten.new_zeros.default, aten.index_select.default}

    def __call__(self, func: Any, made: Tensor) -> str | None:
        if made.dim() and made.shape[-1] == self.vocabulary:
            return "head"
        if made.dim() == 4 and func in self.makers and (made.shape[1], made.shape[3]) in self.cached:
            return "KV cache"
        return None


class _Proven(grpo.Packer):
    """Packs wherever it is cheaper: without values there is nothing to compare."""

    def _proof(self, *_: Any) -> None:
        return None


class Runner(Rollouts):
    """The phases of one step, in order."""

    def __init__(
        self,
        model: nn.Module,
        method: str,
        compute: torch.dtype,
        step: Step,
        device: str,
        packer: grpo.Packer,
        meter: Any,
        eight_bit: bool = False,
    ):
        self.model, self.method, self.compute, self.step = model, method, compute, step
        self.device, self.packer, self.meter, self.eight_bit = device, packer, meter, eight_bit
        self.head = grpo.output_head(model)
        self.place = self.head.weight.device

    def first_pass(self) -> None:
        """What is done once a run and not in every step: packing is proven, norms of weights are taken."""
        fake = isinstance(self.packer, _Proven)
        with self.meter.phase("once"), torch.no_grad():
            self._logprobs(self._micro_batch(2 if fake else self.step.completion_length))
        with self.meter.phase("once"), self.meter.kind("reference"):
            self.reference = [p.detach().clone() for p in self._copied()]
        del self.meter.peaks["once"]

    def _copied(self) -> list[nn.Parameter]:
        """What a KL term keeps a copy of: the base, where it is the base that is trained."""
        if not (self.step.reference and methods.get(self.method).trains_base):
            return []
        return [p for p in self.model.parameters() if p.requires_grad]

    def step_once(self) -> None:
        """Every phase, training first: from then on the optimizer's moments stay."""
        moments = self.train()
        self.rollout()
        self.decode()
        if self.device == "cuda":
            self.decode_in_place()
        self.score()
        del moments

    # ---- weights ----------------------------------------------------------------------------------------------

    def weights(self) -> None:
        """Count what lies in memory before the first step."""
        known = methods.attachment(self.model).base_names
        with self.meter.phase("load"), self.meter.kind("adapter"):
            for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
                base = name.removeprefix("base_model.model.").replace(".base_layer.", ".") in known
                self.meter.add(tensor, "weights" if base else "adapter")
                for part in _quantisation(tensor):
                    self.meter.add(part, "weights")
            for module in self.model.modules():
                for value in vars(module).values():  # such as the second copy that a published form holds
                    if isinstance(value, Tensor):
                        self.meter.add(value)

    # ---- scoring and training ---------------------------------------------------------------------------------

    @torch.no_grad()
    def score(self) -> None:
        """Log-probabilities of one micro-batch under the frozen base, as a KL term needs them."""
        if self.step.reference:
            base = contextlib.nullcontext() if self.reference else methods.disabled(self.model)  # the copy is as large
            with self.meter.phase("scoring"), grpo.eval_mode(self.model), base:
                self._logprobs(self._micro_batch())

    def train(self) -> Any:
        """Forward, backward and gradient of one micro-batch, as the trainer's ``accumulate`` does it, and the update.

        Returns:
            What holds the optimizer's moments.
        """
        model, meter = self.model, self.meter
        if self.step.checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
        model.train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        hooks = [p.register_post_accumulate_grad_hook(lambda p: meter.add(p.grad, "gradients")) for p in parameters]
        if self.eight_bit and self.place.type != "cuda":
            optimizer: Any = self._eight_bit_moments(parameters)
        else:
            optimizer = methods.optimizer(model, self.method, 1e-5, eight_bit=self.eight_bit)
            self._first_update(optimizer, parameters)
        with meter.phase("forward"):
            before = self._earlier_gradients(parameters)
            batch = self._micro_batch()
            scored = self._logprobs(batch)[0]
            loss, _ = grpo.policy_loss(scored, None, batch.advantages, batch.mask, weights=batch.weights)
            del scored
        with meter.phase("backward"):
            loss.backward()
            del loss
            for p, grad in zip(parameters, before, strict=bool(before)):
                assert p.grad is not None
                p.grad = grad.add_(p.grad)
            del before
            penalty = methods.penalty(model, self.method)
            if penalty is not None:
                penalty.backward()
                del penalty
        with meter.phase("optimizer"):
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            if isinstance(optimizer, torch.optim.Optimizer):
                optimizer.step()
        for p in parameters:
            p.grad = None
        for hook in hooks:
            hook.remove()
        return optimizer

    def _first_update(self, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> None:
        """An update by nothing, after which the moments are there, as in every step but the first."""
        with self.meter.phase("optimizer"), self.meter.kind("optimizer"):
            for p in parameters:
                p.grad = torch.zeros_like(p)
            optimizer.step()
            for moment in (x for state in optimizer.state.values() for x in state.values()):
                if getattr(moment, "is_paged", False):
                    self.meter.add(moment, "paged")
            for p in parameters:
                p.grad = None

    def _earlier_gradients(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """Of the micro-batches before, which the trainer keeps apart until one is complete; none if there is only one."""
        if self.step.rows <= self.step.micro_batch:
            return []
        with self.meter.kind("gradients"):
            return [torch.zeros_like(p) for p in parameters]

    def _eight_bit_moments(self, parameters: list[nn.Parameter]) -> list[Tensor]:
        """Adam's moments as bitsandbytes' paged 8-bit AdamW holds them, whose kernels run on a GPU only."""
        with self.meter.phase("optimizer"), self.meter.kind("optimizer"):
            moments = []
            for p in parameters:
                small = p.numel() < 4096  # stays in 32 bits
                for _ in range(2):
                    # A float of one byte: whole numbers may be positions or masks, so the meter lets them be real.
                    moments.append(torch.zeros(p.numel(), dtype=torch.float32 if small else torch.float8_e4m3fn))
                    moments.append(torch.zeros(0 if small else -(-p.numel() // 256)))
        return moments

    def _logprobs(self, rows: grpo.RolloutBatch) -> tuple[Tensor, Tensor]:
        with self._autocast():
            return grpo.completion_logprobs(
                self.model, rows.prompt_ids, rows.prompt_mask, rows.completions, rows.mask, packer=self.packer
            )

    # ---- inputs -----------------------------------------------------------------------------------------------

    def _micro_batch(self, length: int | None = None) -> grpo.RolloutBatch:
        """One micro-batch of completions that end at different lengths, all of them long: groups stay together."""
        step = self.step
        rows = min(step.micro_batch, step.rows)
        with unset_fake_temporarily():
            group = torch.arange(rows, device=self.place) // step.group_size
            ids = (1 + group)[:, None].expand(rows, step.prompt_length).contiguous()
            mask = torch.ones(rows, length or step.completion_length, dtype=torch.long, device=self.place)
            mask[1:, -1] = 0
            return grpo.RolloutBatch(
                prompt_ids=ids,
                prompt_mask=torch.ones_like(ids),
                completions=torch.ones_like(mask),
                mask=mask,
                advantages=torch.ones(rows, device=self.place),
                weights=torch.ones(rows, device=self.place),
            )


def _quantisation(tensor: Tensor) -> Iterator[Tensor]:
    state = getattr(tensor, "quant_state", None)
    while state is not None:
        yield from (t for t in (state.absmax, state.code, state.offset) if isinstance(t, Tensor))
        state = state.state2
