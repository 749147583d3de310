"""A trainer on a small random model, ours or TRL's, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset

from rlvr_lite import methods
from rlvr_lite.bases._tiny_tokenizer import build_tokenizer
from rlvr_lite.config import AdapterConfig
from rlvr_lite.training import GRPOTrainer
from tests.models import random_qwen2

PROMPTS = ["1+2=?", "3+4-1=?", "9-2+5=?", "7=?", "1+1+1+1=?", "8-3=?", "2+2=?", "6-5+4=?"]

GAP = ("completions_at_once", "sampler_correction", "sampler_gap_limit")


def dataset(rows: int = 8) -> Dataset:
    chats = [[{"role": "user", "content": PROMPTS[i % len(PROMPTS)]}] for i in range(rows)]
    return Dataset.from_list([{"id": str(i), "prompt": chat, "answer": str(i)} for i, chat in enumerate(chats)])


def letters(completions: list[Any], **_: Any) -> list[float]:
    """A reward that differs inside most groups: the share of distinct characters, in three steps."""
    return [float(len(set(chat[0]["content"])) % 3) for chat in completions]


def sparse(completions: list[Any], **_: Any) -> list[float]:
    """A reward that is the same in about half of the groups."""
    return [float("7" in chat[0]["content"]) for chat in completions]


def arguments(folder: Path, **changes: Any) -> trl.GRPOConfig:
    values: dict[str, Any] = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "per_device_train_batch_size": 16,
        "num_generations": 4,
        "max_steps": 4,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_completion_length": 12,
        "top_k": 0,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
    }
    return trl.GRPOConfig(**values | changes)


def policy(method: str = "lora", *, spread: float = 0.0, seed: int = 0, **options: Any) -> torch.nn.Module:
    """A random model with an adapter; with ``spread`` its trained tensors are moved off their start."""
    adapter = AdapterConfig(rank=4, options=options)
    model = methods.attach(random_qwen2(vocab=128, seed=seed), method, adapter, total_steps=4, seed=0)
    if spread:
        generator = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += spread * torch.randn(parameter.shape, generator=generator)
    return model


def trainer(folder: Path, model: Any = None, reward: Any = letters, rows: int = 8, **options: Any) -> GRPOTrainer:
    names = (
        "max_resample",
        "micro_batch",
        "reward_limit",
        "on_reward_error",
        "method",
        "peft_config",
        "rollout_func",
        "sampler",
        "rollout_copy",
        *GAP,
    )
    own = {k: options.pop(k) for k in names if k in options}
    made = GRPOTrainer(
        policy() if model is None else model,
        reward,
        arguments(folder, **options),
        dataset(rows),
        processing_class=build_tokenizer(),
        **{"method": "lora"} | own,
    )
    return made


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def step_gradient(made: GRPOTrainer) -> dict[str, torch.Tensor]:
    """Of the first step, all micro-batches together."""
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    made.accumulate(made._prepare_inputs(None))
    return gradients(made.model)


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def relative(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm, over all tensors together."""
    difference = sum(float((ours[n] - theirs[n]).double().square().sum()) for n in theirs) ** 0.5
    return difference / sum(float(t.double().square().sum()) for t in theirs.values()) ** 0.5
