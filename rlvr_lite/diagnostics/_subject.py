"""What the checks look at: a device, the bundled tiny base on it, and a folder for what they write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlvr_lite import bases, methods, sampling
from rlvr_lite.config import AdapterConfig, Precision, SamplingConfig
from rlvr_lite.diagnostics._check import Skipped
from rlvr_lite.host import Host
from rlvr_lite.planning import config_of

__all__ = ["LARGE", "VOCABULARY_SHARE", "Subject"]

#: The base of the paper, whose blocks are measured with random weights, and the part of its vocabulary that they get.
LARGE, VOCABULARY_SHARE = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 16


_EASY = (2, 9, 12)  # prompts of one group have a length of their own, so that some are padded


@dataclass
class Subject:
    """The machine as the checks see it.

    Attributes:
        device: where they compute.
        host: its facts.
        folder: for what they write; removed afterwards.
        notes: what one check leaves for another, such as the throughput.
    """

    device: torch.device
    host: Host
    folder: Path
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def card(self) -> bool:
        """Whether it is a CUDA device."""
        return self.device.type == "cuda"

    def needs_card(self) -> None:
        """Leave a check that looks at a card."""
        if not self.card:
            raise Skipped("needs a CUDA GPU")

    @cached_property
    def base(self) -> bases.Base:
        """The bundled base as a run would load it here."""
        return bases.load("tiny", device=self.device)

    @cached_property
    def exact(self) -> bases.Base:
        """The same in fp32."""
        return self.base if self.base.precision == "fp32" else bases.load("tiny", "fp32", device=self.device)

    @contextmanager
    def policy(self, base: bases.Base, spread: float = 0.05) -> Iterator[nn.Module]:
        """A LoRA on a base, moved off its start so that it matters; the base is given back as it was.

        Args:
            base: that carries nothing.
            spread: standard deviation of what every trained number is moved by.
        """
        model = methods.attach(base.model, "lora", AdapterConfig(), total_steps=10, seed=0)
        source = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(spread * torch.randn(parameter.shape, generator=source).to(parameter))
        try:
            yield model
        finally:
            methods.detach(model)

    def autocast(self, dtype: torch.dtype) -> Any:
        """The context in which a base of this compute type is trained."""
        if dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=dtype)

    def prompts(self, count: int, width: int = 12, *, padded: bool = True) -> tuple[Tensor, Tensor]:
        """Token ids and mask ``[count, width]``, padded on the left."""
        source = torch.Generator().manual_seed(2)
        ids = torch.randint(5, 60, (count, width), generator=source)
        length = torch.tensor([_EASY[i % len(_EASY)] * width // 12 if padded else width for i in range(count)])
        mask = (torch.arange(width) >= width - length[:, None]).long()
        return ids.to(self.device), mask.to(self.device)

    def rollout(self, model: nn.Module, prompts: tuple[Tensor, Tensor], group: int, length: int, keys: Any) -> Any:
        """Completions that end at their length only."""
        return sampling.rollout(
            model,
            *prompts,
            group_size=group,
            sampling=SamplingConfig(max_completion_length=length),
            eos_ids=[-1],
            pad_id=0,
            row_keys=keys,
        )

    def large(self, layers: int, precision: Precision = "auto") -> bases.Base:
        """A random base with blocks as those of DeepSeek-R1-Distill-Qwen-1.5B, and a part of its vocabulary.

        Args:
            layers: how many blocks.
            precision: that it is held in.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = self.folder / f"large-{layers}"
        if not folder.exists():
            sizes = config_of(LARGE)
            sizes = sizes | {"num_hidden_layers": layers, "vocab_size": sizes["vocab_size"] // VOCABULARY_SHARE}
            found = bases.config_object("random", sizes | {"tie_word_embeddings": True})
            with torch.random.fork_rng(devices=[]), _no_bars():
                torch.manual_seed(0)
                AutoModelForCausalLM.from_config(found, dtype=torch.bfloat16).save_pretrained(folder)
            AutoTokenizer.from_pretrained(bases.EMBEDDED["tiny"]).save_pretrained(folder)
        with _no_bars():
            return bases.load(str(folder), precision, device=self.device)

    def forget_bases(self) -> None:
        """Load them anew: what a method that broke has left on one is unknown."""
        for name in ("base", "exact"):
            self.__dict__.pop(name, None)


@contextmanager
def _no_bars() -> Iterator[None]:
    """transformers' bars over a few blocks would tear that of the check-up."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
