"""The rollout of a dry run: prompts read, a token on a cache that grows, and one on buffers of a fixed size."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from rlvr_lite import grpo, methods, sampling
from rlvr_lite.analysis.memory import Step, last_growth
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError

__all__ = ["Rollouts"]


class Rollouts:
    """Samples for a dry run, which sets what is named here.

    Attributes:
        model: with a method attached.
        compute: dtype of activations.
        step: its sizes.
        meter: counts.
        head: of the model.
        place: where its tensors lie.
    """

    model: nn.Module
    compute: torch.dtype
    step: Step
    meter: Any
    head: grpo.OutputHead
    place: torch.device

    def rollout(self) -> None:
        """Read the prompts and draw the first token of every completion."""
        step = self.step
        ids, mask = self._prompts(step.prompts)
        rows = step.prompts * step.group_size
        with self.meter.phase("rollout"), self._autocast(), methods.lean(self.model, copy=step.copy):
            sampling.rollout(
                self.model,
                ids,
                mask,
                group_size=step.group_size,
                sampling=SamplingConfig(max_completion_length=1),
                eos_ids=[0],
                pad_id=0,
                row_keys=sampling.row_keys(0, rows=rows),
            )

    @torch.no_grad()
    def decode(self) -> None:
        """The token at which the cache grows for the last time: no later one needs more."""
        from rlvr_lite.sampling import choose

        step, rows = self.step, self.step.prompts * self.step.group_size
        length, _ = last_growth(step.prompt_length, step.completion_length)
        lean = methods.lean(self.model, copy=step.copy)
        with self.meter.phase("rollout"), self._autocast(), grpo.eval_mode(self.model), lean:
            cache = sampling.growing_cache(self.head.backbone.config)
            self._fill(cache, rows, length)
            hidden = sampling.next_hidden(
                self.head,
                torch.ones(rows, dtype=torch.long, device=self.place),
                torch.ones(rows, length + 1, dtype=torch.long, device=self.place),
                torch.full((rows, 1), length, device=self.place),
                cache,
            )
            uniforms = torch.zeros(rows, dtype=torch.float64, device=self.place)
            choose(self.head.logits(hidden), uniforms, SamplingConfig())

    @torch.no_grad()
    def decode_in_place(self) -> None:
        """A token on buffers of a fixed size, where the architecture allows, with what a CUDA graph of it holds."""
        step, rows = self.step, self.step.prompts * self.step.group_size
        _, mask = self._prompts(step.prompts)
        lean = methods.lean(self.model, copy=step.copy)
        with self.meter.phase("rollout"), self._autocast(), grpo.eval_mode(self.model), lean:
            cache = sampling.growing_cache(self.head.backbone.config)
            if not sampling.takes_own_mask(self.head.backbone, cache):
                return
            self._fill(cache, step.prompts, step.prompt_length)
            shared = torch.arange(rows, device=self.place) // step.group_size
            drawing = SamplingConfig(max_completion_length=step.completion_length)
            last = torch.full((step.prompts, 1), step.prompt_length - 1, device=self.place)
            run = sampling.FixedStep(self.head, drawing, cache, mask, last, shared)
            with self.meter.kind("head"):  # a graph keeps for itself what one step made of logits
                drawn = rows * self.head.vocabulary * (self.compute.itemsize + 8)
                held = self.head.weight.new_empty(drawn, dtype=torch.uint8)
            run(torch.ones(rows, dtype=torch.long, device=self.place), torch.zeros(rows, device=self.place).double())
            del held

    def _fill(self, cache: Any, rows: int, length: int) -> None:
        """Put ``length`` tokens of every row into a cache: one is read, whose keys, values and states are made as many."""
        one = torch.ones(rows, 1, dtype=torch.long, device=self.place)
        grpo.feed(self.head.backbone, one, one, one * 0, past_key_values=cache, use_cache=True)
        for layer in cache.layers:
            for name in ("conv_states", "recurrent_states"):
                for state in (getattr(layer, name, None) or {}).values():
                    if state is not None:
                        self.meter.add(state, "KV cache")
            if getattr(layer, "keys", None) is not None and hasattr(layer, "sliding_window"):
                kept = min(length, layer.sliding_window - 1)
                layer.keys, layer.values = (
                    x.new_empty(*x.shape[:2], kept, x.shape[3]) for x in (layer.keys, layer.values)
                )
                layer.cumulative_length = length
                self.meter.add(layer.keys, "KV cache")
                self.meter.add(layer.values, "KV cache")
            elif getattr(layer, "keys", None) is not None:
                wide = [x.new_empty(*x.shape[:2], length - 1, x.shape[3]) for x in (layer.keys, layer.values)]
                layer.update(*wide)
                del wide

    @property
    @torch.no_grad()
    def cached(self) -> set[tuple[int, int]]:
        """Heads and width of what each layer caches.

        Raises:
            UserError: the architecture is sampled without a cache.
        """
        with self.meter.phase("once"), self._autocast(), grpo.eval_mode(self.model):
            cache, backbone = sampling.growing_cache(self.head.backbone.config), self.head.backbone
            one = torch.ones(1, 1, dtype=torch.long, device=self.place)
            try:
                grpo.feed(backbone, one, one, one * 0, past_key_values=cache, use_cache=True)
            except ValueError as error:
                raise UserError(f"no dry run: {backbone.config.model_type} is sampled without a cache") from error
            found = [getattr(layer, part, None) for layer in cache.layers for part in ("keys", "values")]
        del self.meter.peaks["once"]
        return {(x.shape[1], x.shape[3]) for x in found if x is not None}

    def _prompts(self, count: int) -> tuple[Tensor, Tensor]:
        with unset_fake_temporarily():
            ids = torch.ones(count, self.step.prompt_length, dtype=torch.long, device=self.place)
            return ids, torch.ones_like(ids)

    def _autocast(self) -> Any:
        if self.compute == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.place.type, dtype=self.compute)
