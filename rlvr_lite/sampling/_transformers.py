"""Our own loop over a transformers model in memory: the sampler of training, evaluation and chat."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from rlvr_lite.bases import keep_attention_fused
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import output_head, position_limit
from rlvr_lite.methods import lean
from rlvr_lite.sampling._decode import rollout
from rlvr_lite.sampling._portions import Portion, plan_portions
from rlvr_lite.sampling._sampler import SampledPolicy, Sampler, Samples, register_sampler
from rlvr_lite.sampling._text import Messages, encode, eos_ids, pad_id, render, tokenize, unpadded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TransformersSampler"]

_MAX_ROWS = 256  # more do not raise the throughput of a small model any further
_CPU_CACHE_BYTES = 2**30
_GPU_COPY_SHARE = 0.25  # of what is free
_GPU_CACHE_SHARE = 0.7  # of what is free: logits, activations and fragments need the rest
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

_LOG = logging.getLogger(__name__)


class TransformersSampler(Sampler):
    """Samples with :func:`rlvr_lite.sampling.rollout` from a model in memory as it stands, adapters included.

    Args:
        model: a causal language model, or a ``PeftModel`` around one; put into eval mode for the time.
        tokenizer: its tokenizer.
        template: keyword arguments for the chat template.
        ends: tokens that end a completion; by default those that tokenizer and generation config name.
        copy: multiply with a 16-bit copy of a base in 4 bits while several portions are sampled: the same weights to the bit.
            ``auto`` makes one on a CPU, and on a GPU where it takes at most a quarter of what is free.
        autocast: the context in which the policy computes; by default what training takes, autocast to the 16-bit type
            of a 16-bit base.

    Attributes:
        template, ends: as given.
    """

    name = "transformers"
    weights = "the policy in memory"

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: Mapping[str, Any] | None = None,
        ends: Sequence[int] | None = None,
        autocast: Callable[[], AbstractContextManager[Any]] | None = None,
        copy: Literal["auto", True, False] = "auto",
    ):
        if next(model.parameters()).is_cuda:
            keep_attention_fused()
        self._model, self._tokenizer = model, tokenizer
        self.template = dict(template or {})
        self.ends = tuple(eos_ids(model, tokenizer) if ends is None else ends)
        self.autocast = autocast or self._as_in_training
        self._copy = copy
        if copy is True and not self._copied:
            raise UserError(
                "rollout_copy=True copies a base in 4 bits that PEFT's layers multiply with: leave it out here"
            )

    @property
    def precision(self) -> str:  # type: ignore[override]
        """Of the base that is held."""
        if any(type(module).__name__ == "Linear4bit" for module in self._model.modules()):
            return "nf4"
        return _PRECISIONS.get(output_head(self._model).weight.dtype, "fp32")

    def _as_in_training(self) -> AbstractContextManager[Any]:
        weight = output_head(self._model).weight
        if weight.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(weight.device.type, dtype=weight.dtype)

    @cached_property
    def _copied(self) -> int:
        """Bytes of the copy; 0 of a base that is not held in 4 bits, or that Unsloth's kernels read."""
        if hasattr(self._model, "_rlvr_lite_host"):
            return 0
        layers: list[Any] = [
            m for m in self._model.modules() if type(m).__name__ == "Linear4bit" and not hasattr(m, "base_layer")
        ]
        return 2 * sum(int(math.prod(layer.weight.quant_state.shape)) for layer in layers)

    def _copies(self) -> bool:
        device = next(self._model.parameters()).device
        if self._copy != "auto" or not self._copied or device.type != "cuda":
            return bool(self._copy and self._copied)
        return self._copied <= _GPU_COPY_SHARE * torch.cuda.mem_get_info(device)[0]

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Adapters are cast and folded once, and a base in 4 bits is copied where that was chosen; freed at the end.

        Raises:
            UserError: a copy was asked for, and there is no room for it.
        """
        with contextlib.ExitStack() as stack:
            with self.autocast():
                try:
                    stack.enter_context(lean(self._model, copy=self._copies()))
                except torch.OutOfMemoryError:
                    if self._copy is True:
                        raise UserError(
                            f"rollout_copy=True: no room for {self._copied / 2**30:.1f} GiB more; leave it out"
                        ) from None
                    _LOG.warning("no room for a 16-bit copy of the base: sampling goes on without it")
                    self._copy = False
            yield

    def room(self) -> int:
        """Cache tokens in 70 % of the free memory of a GPU, less a copy of the base; in 1 GiB on a CPU."""
        parameter = next(self._model.parameters())
        if parameter.device.type == "cuda":
            copied = self._copied if self._copies() else 0
            free = _GPU_CACHE_SHARE * (torch.cuda.mem_get_info(parameter.device)[0] - copied)
        else:
            free = _CPU_CACHE_BYTES
        config: Any = self._model.config
        attention = getattr(config, "num_attention_heads", 1)  # Mamba has none
        head = getattr(config, "head_dim", None) or config.hidden_size // attention
        heads = getattr(config, "num_key_value_heads", None) or attention
        item = parameter.element_size() if parameter.is_floating_point() else 2
        return int(free // (2 * config.num_hidden_layers * heads * head * item))

    def longest(self, prompts: Sequence[Messages]) -> int | None:
        """The base's positions less the longest prompt; 0 where that leaves none."""
        limit = position_limit(output_head(self._model).causal_lm.config)[0]
        return limit and max(0, limit - encode(self._tokenizer, prompts, self.template)[0].shape[1])

    def portions(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, room: int) -> Iterable[Portion]:
        """Prompts of like length together, at most 256 completions."""
        lengths = encode(self._tokenizer, prompts, self.template)[1].sum(-1).tolist()
        return plan_portions(lengths, k, config.max_completion_length, room, _MAX_ROWS)

    def sample(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        """``k`` completions of each prompt in one batch; every completion depends on its key alone."""
        rendered = [render(self._tokenizer, prompt, self.template) for prompt in prompts]
        ids, mask = tokenize(self._tokenizer, rendered, prompts)
        device = output_head(self._model).weight.device
        with self.autocast():
            drawn = rollout(
                self._model,
                ids.to(device),
                mask.to(device),
                group_size=k,
                sampling=config,
                eos_ids=self.ends,
                pad_id=pad_id(self._tokenizer),
                row_keys=keys,
            )
        rows = unpadded(drawn.tokens, drawn.mask)
        texts = self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        ended = torch.tensor([row[-1] in self.ends for row in rows], device=device)
        shown = [text for text in rendered for _ in range(k)]
        return Samples(drawn.tokens, drawn.mask, drawn.logprobs, texts, ended, shown)


def _build(policy: SampledPolicy) -> Sampler:
    return TransformersSampler(*policy.load())


register_sampler("transformers", _build)
