"""What users of TRL, transformers, PEFT and Unsloth call our options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rlvr_lite.errors import UserError, did_you_mean

__all__ = ["unknown_option"]

#: The same option by another name; behind a blank its value. Where a call has no first one, the next counts.
_SAME: Mapping[str, str] = {
    "lr": "learning_rate",
    "beta": "kl_coef",
    "epsilon": "clip_low",
    "epsilon_high": "clip_high",
    "num_generations": "group_size",
    "max_steps": "steps",
    "max_new_tokens": "max_completion_length",
    "max_tokens": "max_completion_length",
    "model": "base|policy",
    "model_name": "base|policy",
    "model_name_or_path": "base|policy",
    "dataset": "task|benchmarks",
    "dataset_name": "task|benchmarks",
    "train_dataset": "task",
    "output_dir": "out",
    "output": "out",
    "o": "out",
    "r": "rank",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "target_modules": "targets",
    "lora_target_modules": "targets",
    "loss_type": "loss",
    "reward": "rewards",
    "reward_funcs": "rewards",
    "scale_rewards": "advantage_scale",
    "max_grad": "max_grad_norm",
    "save_total_limit": "keep_checkpoints",
    "logging": "report_to",
    "dtype": "precision",
    "torch_dtype": "precision",
    "quantization": "precision",
    "bf16": "precision bf16",
    "fp16": "precision fp16",
    "load_in_4bit": "precision nf4",
    "use_dora": "method dora",
    "use_rslora": "method rslora",
    "use_lora": "method lora",
    "use_peft": "method lora",
    "peft": "method|methods",
    "peft_method": "method|methods",
    "adapter": "method|methods",
    "use_unsloth": "backend unsloth",
    "use_vllm": "sampler vllm|engine vllm",
    "card": "gpu",
    "device": "gpu",
    "num_samples": "k",
    "n_samples": "k",
    "num_seeds": "seeds",
    "limit": "n",
    "tasks": "benchmarks",
    "run": "policy|directory|runs",
    "format": "to",
    "config": "recipe",
}
#: The nearest option to one that counts something else, and what ours counts.
_NEAR: Mapping[str, tuple[str, str]] = {
    "per_device_train_batch_size": ("prompts_per_step", "counts prompts, each with a whole group"),
    "train_batch_size": ("prompts_per_step", "counts prompts, each with a whole group"),
    "batch_size": ("prompts_per_step", "counts prompts, each with a whole group"),
    "gradient_accumulation_steps": ("micro_batch", "counts completions a backward pass"),
    "num_train_epochs": ("steps", "counts optimizer steps"),
    "epochs": ("steps", "counts optimizer steps"),
    "warmup_ratio": ("warmup_steps", "counts steps"),
    "max_seq_length": ("max_completion_length", "counts tokens of the answer alone"),
    "lora_dropout": ("method_options", "takes it as dropout"),
}
#: What a run has no option for, and what it does instead.
_ABSENT: Mapping[str, str] = {
    "lr_scheduler_type": "the rate is constant after the warm-up",
    "max_prompt_length": "prompts are never cut",
    "num_iterations": "each rollout serves one step; rlvr_lite.training.GRPOTrainer has it",
    "top_p": "rollouts are drawn from the whole distribution; rlvr_lite.training.GRPOTrainer has it",
    "top_k": "rollouts are drawn from the whole distribution; rlvr_lite.training.GRPOTrainer has it",
    "logging_steps": "every step is logged",
    "load_in_8bit": "a base is held in 16, 32 or 4 bits; see precision",
    "resume": "the same call again goes on from where it stopped",
    "resume_from_checkpoint": "the same call again goes on from where it stopped",
    "device": "CUDA_VISIBLE_DEVICES chooses the GPU",
    "gpu": "CUDA_VISIBLE_DEVICES chooses the GPU",
    "gpus": "CUDA_VISIBLE_DEVICES chooses the GPUs, and `accelerate launch -m rlvr_lite train` takes several",
    "push_to_hub": "rlvr-lite export takes a finished run to the Hub",
}
_CALLS_OF_A_RUN = "learning_rate"  # what only these have


def _plain(option: str) -> str:
    name, _, value = option.partition(" ")
    return f"{name}={value!r}" if value else name


def unknown_option(
    who: str, typed: str, known: Iterable[str], spelt: Callable[[str], str] = _plain, help_: str = ""
) -> UserError:
    """An error for an option that a call does not have: what it is called here, or the nearest one.

    Args:
        who: has no such option.
        typed: the option, with underscores.
        known: options that it has.
        spelt: how an option, behind a blank with its value, is written where it was typed.
        help_: what to do where nothing is near; by default all options are listed.

    >>> print(unknown_option("train", "lr", ["learning_rate", "steps"]))
    train has no option lr: it is learning_rate here
    >>> print(unknown_option("train", "bf16", ["precision"]))
    train has no option bf16: it is precision='bf16' here
    """
    known = sorted(known)
    start = f"{who} has no option {spelt(typed)}"
    for same in _SAME.get(typed, "").split("|"):
        if same.partition(" ")[0] in known:
            return UserError(f"{start}: it is {spelt(same)} here")
    nearest, counts = _NEAR.get(typed, ("", ""))
    if nearest in known:
        return UserError(f"{start}: the nearest is {spelt(nearest)}, which {counts}")
    if typed in _ABSENT and _CALLS_OF_A_RUN in known:
        return UserError(f"{start}: {_ABSENT[typed]}")
    here = {name: nearest for name, (nearest, _) in _NEAR.items() if nearest in known} | {name: name for name in known}
    for name, others in _SAME.items():
        for same in others.split("|"):
            if same.partition(" ")[0] in known:
                here.setdefault(name, same)
    meant = did_you_mean(typed, {name: name for name in known}, spelt)
    meant = meant or did_you_mean(typed, here, spelt, likeness=0.8, most=1)
    return UserError(f"{start}: {meant or help_ or 'choose one of ' + ', '.join(known)}")
