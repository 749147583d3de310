"""A run's configuration in the words of TRL and transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.training_args import ParallelMode

from rlvr_lite import grpo
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.training._stock import GRPOConfig

__all__ = ["arguments", "optimizer_of", "stay_on"]


def arguments(
    config: RunConfig,
    compute_dtype: torch.dtype,
    device: torch.device,
    output: Path,
    processes: int = 1,
    engine: float | None = None,
) -> GRPOConfig:
    """The settings of a filled configuration.

    Args:
        config: the run, every field filled in.
        compute_dtype: of the base's activations; decides mixed precision.
        device: where the base lies.
        output: where checkpoints go.
        processes: how many share a step.
        engine: share of the card that a vLLM engine may fill; ``None`` for TRL's.

    Raises:
        UserError: the completions of a step cannot be shared evenly.
    """
    rows = (config.prompts_per_step or 1) * config.group_size
    if rows % processes:
        raise UserError(
            f"{rows} completions a step cannot be shared by {processes} processes: make prompts_per_step a multiple of {processes}"
        )
    loss = grpo.losses.get(config.loss)
    return GRPOConfig(
        output_dir=str(output),
        use_cpu=device.type == "cpu",
        bf16=compute_dtype == torch.bfloat16,
        fp16=compute_dtype == torch.float16,
        per_device_train_batch_size=rows // processes,
        gradient_accumulation_steps=1,
        num_generations=config.group_size,
        max_steps=config.steps or 1,
        learning_rate=config.learning_rate or 0.0,
        optim="adamw_torch_fused" if config.optim == "auto" else config.optim,
        max_grad_norm=config.max_grad_norm,
        max_completion_length=config.max_completion_length,
        temperature=config.temperature,
        top_k=0,
        beta=config.kl_coef,
        epsilon=config.clip_low,
        epsilon_high=loss.trl_bound + config.clip_high,
        loss_type=config.loss,
        importance_sampling_level=loss.levels[0],
        scale_rewards=config.advantage_scale,
        reward_weights=None if config.reward_weights is None else list(config.reward_weights),
        gradient_checkpointing=bool(config.gradient_checkpointing),
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=1,
        save_strategy="steps" if config.save_steps else "no",
        save_steps=config.save_steps or 500,
        save_total_limit=config.keep_checkpoints,
        seed=config.seed,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        use_vllm=config.sampler == "vllm",
        vllm_mode="colocate",
        vllm_enable_sleep_mode=True,
        **({} if engine is None else {"vllm_gpu_memory_utilization": engine}),
    )


def stay_on(args: GRPOConfig, card: torch.device) -> None:
    """Have a model trained on the card where it lies: transformers would use the first one, or all in DataParallel.

    The card becomes the process's current one, as transformers makes the first.
    """
    if args.parallel_mode is not ParallelMode.DISTRIBUTED and args.device != card:
        vars(args)["_setup_devices"] = card  # a cached property, which `device` reads
        torch.cuda.set_device(card)
    args._n_gpu = 1


def optimizer_of(args: GRPOConfig) -> tuple[float, float, bool]:
    """Learning rate, weight decay, and whether Adam's moments are in 8 bits, of TRL's settings for a method's optimizer.

    Raises:
        UserError: it asks for another kind than the methods of this package have.
    """
    name = str(getattr(args.optim, "value", args.optim))
    if name not in ("adamw_torch", "adamw_torch_fused", "paged_adamw_8bit"):
        raise UserError(f"method takes AdamW: optim must be adamw_torch_fused or paged_adamw_8bit, got {name}")
    return args.learning_rate, args.weight_decay, name == "paged_adamw_8bit"
