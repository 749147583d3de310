"""A frozen pretrained model with its tokenizer, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlvr_lite.config import Precision

__all__ = ["Base", "count_parameters", "linear4bit_layers"]


@dataclass(frozen=True)
class Base:
    """What adapters are trained on.

    Attributes:
        model: frozen (no parameter requires a gradient), in eval mode, with sdpa attention.
        tokenizer: pads on the left; has a pad token and a chat template.
        name: as it was asked for.
        revision: the commit of a Hub model, the hash of the weights of ``tiny``, ``None`` for a local folder.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``nf4``.
        scale: ``tiny``, ``small`` or ``paper``, a key of ``config.SCALES``.
        backend: who loaded it.
        compute_dtype: the type that activations have, and as loaded every weight that is not held in 4 bits.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    revision: str | None
    precision: Precision
    scale: str
    backend: str = "transformers"
    compute_dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        # Taken now: full fine-tuning later holds the same weights in fp32 and still computes in this type.
        object.__setattr__(self, "compute_dtype", self.model.get_input_embeddings().weight.dtype)

    @property
    def parameters(self) -> int:
        """Number of weights, each 4-bit weight counted as one."""
        return count_parameters(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.model.device

    @property
    def pad_id(self) -> int:
        """The token that fills a batch."""
        return self.tokenizer.pad_token_id

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Every token that ends an answer: the tokenizer's, and those of the generation config."""
        listed = self.model.generation_config.eos_token_id if self.model.generation_config else None
        also = listed if isinstance(listed, list) else [listed]
        return tuple(sorted({i for i in [self.tokenizer.eos_token_id, *also] if i is not None}))


def linear4bit_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Every bitsandbytes ``Linear4bit`` of a model; none where bitsandbytes was never needed."""
    for module in model.modules():
        if any(kind.__name__ == "Linear4bit" for kind in type(module).__mro__):
            yield module


def count_parameters(model: nn.Module) -> int:
    """Number of weights; tied ones count once, and a packed 4-bit tensor counts what it stands for.

    >>> count_parameters(nn.Linear(3, 2))
    8
    """
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += parameter.numel() if state is None else torch.Size(state.shape).numel()
    return total
