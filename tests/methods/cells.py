"""A cell of the conformance table: one method on one base, with a toy loss to train it by."""

from __future__ import annotations

import copy
import functools
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from rlvr_lite import methods
from rlvr_lite.config import AdapterConfig
from tests.models import random_qwen2

#: Precision and compute dtype of every base of the contract.
BASES = {
    "fp32": ("fp32", torch.float32),
    "bf16": ("bf16", torch.bfloat16),
    "fp16": ("fp16", torch.float16),
    "nf4": ("nf4", torch.float32),
    "nf4-bf16": ("nf4", torch.bfloat16),
}
_QUICK = ("fp32", "nf4-bf16")

PROMPT = torch.randint(2, 96, (2, 14), generator=torch.Generator().manual_seed(1))
DEFAULT = AdapterConfig()

#: The methods of arXiv 2512.23165.
THE_PAPERS = [
    "full",
    "lora",
    "rank1",
    "rslora",
    "lora_plus",
    "lora_fa",
    "dora",
    "adalora",
    "miss",
    "pissa",
    "milora",
    "vera",
    "ia3",
    "ln_tuning",
]


def cells(*, unsupported: bool = False) -> list:
    """Every (method, base) that can be built, or every one that must be refused; the slower bases run on demand."""
    return [
        pytest.param(name, base, id=f"{name}-{base}", marks=() if base in _QUICK else pytest.mark.slow)
        for name in methods.names()
        for base, (precision, _) in BASES.items()
        if (precision in methods.get(name).unsupported) == unsupported
    ]


@functools.cache
def folder() -> Path:
    """A random base on disk."""
    target = Path(tempfile.mkdtemp(prefix="rlvr-lite-test-")) / "base"
    random_qwen2().save_pretrained(target)
    return target


@functools.cache
def _loaded(base: str) -> nn.Module:
    return loaded_from(folder(), base).eval()


def loaded_from(place: Path, base: str) -> nn.Module:
    """A model on disk in the precision of a base."""
    precision, dtype = BASES[base]
    options = {}
    if precision == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return keep_unpacked(AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **options))


def fresh(base: str) -> nn.Module:
    """The same base again, untouched."""
    return keep_unpacked(copy.deepcopy(_loaded(base)))


def keep_unpacked(model: nn.Module) -> nn.Module:
    """What rlvr_lite's loader does to 4-bit layers on CPUs whose bitsandbytes would repack them in place."""
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
    return model


def attach(base: str | nn.Module, name: str, adapter: AdapterConfig = DEFAULT, *, steps: int = 20, seed: int = 0):
    """The method on a fresh base."""
    model = fresh(base) if isinstance(base, str) else base
    return methods.attach(model, name, adapter, total_steps=steps, seed=seed)


@torch.no_grad()
def logits(model: nn.Module, vocabulary: int = 96) -> Tensor:
    """What the policy says to the toy prompt, ``[B, T, V]`` in fp32."""
    return model.eval()(PROMPT % vocabulary).logits.float()


def toy_loss(model: nn.Module) -> Tensor:
    """Next-token loss taken outside the model, as a policy loss is."""
    said = model(PROMPT).logits.float()
    return F.cross_entropy(said[:, :-1].flatten(0, 1), PROMPT[:, 1:].flatten())


def train(model: nn.Module, name: str, optimizer: torch.optim.Optimizer, steps: range) -> list[set[str]]:
    """So many steps as a trainer takes them; returns the names with a non-zero gradient, step by step."""
    moved = []
    for step in steps:
        model.train()
        loss = toy_loss(model)
        penalty = methods.penalty(model, name)
        (loss if penalty is None else loss + penalty).backward()
        moved.append({n for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.count_nonzero())})
        optimizer.step()
        methods.after_backward(model, name, step)
        optimizer.zero_grad()
    return moved


def trained(base: str, name: str, adapter: AdapterConfig = DEFAULT, *, steps: int = 3, total: int = 20) -> nn.Module:
    """A method after a few steps at its own learning rate."""
    model = attach(base, name, adapter, steps=total)
    optimizer = methods.optimizer(model, name, methods.learning_rate(name, "tiny").value)
    train(model, name, optimizer, range(1, steps + 1))
    return model


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The trainable tensors by name."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}
