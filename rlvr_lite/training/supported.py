"""Which settings of TRL's ``GRPOConfig`` this trainer honours; the rest is refused, never ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import TrainingArguments

from rlvr_lite import grpo
from rlvr_lite.errors import UserError
from rlvr_lite.training._stock import GRPOConfig

__all__ = [
    "loss_level",
    "loss_options_of",
    "refuse_chats_without_template",
    "refuse_starts",
    "refuse_unsupported",
    "refuse_wrong_types",
]

#: Fields that ``GRPOConfig`` adds to ``TrainingArguments`` and that are carried out here as TRL documents them.
HONOURED = frozenset(
    {
        "beta",
        "chat_template_kwargs",
        "disable_dropout",
        "epsilon",
        "epsilon_high",
        "generation_batch_size",
        "importance_sampling_level",
        "loss_type",
        "mask_truncated_completions",
        "max_completion_length",
        "model_init_kwargs",
        "num_completions_to_print",
        "num_generations",
        "num_generations_eval",
        "num_iterations",
        "remove_unused_columns",
        "reward_weights",
        "scale_rewards",
        "shuffle_dataset",
        "steps_per_generation",
        "temperature",
        "top_k",
        "top_p",
        "trust_remote_code",
        "use_bias_correction_kl",
    }
)
_MUTATING_STARTS = ("pissa", "olora", "corda", "lora_ga", "loftq")
_REFUSED_ARGUMENTS = {
    "deepspeed": "use accelerate launch with plain data parallelism",
    "load_best_model_at_end": "choose a checkpoint after the run",
    "push_to_hub": "push the finished adapter instead",
    "torch_compile": "leave it off",
}


def refuse_unsupported(args: GRPOConfig) -> None:
    """Raise a ``UserError`` that names every setting which differs from its default and is not honoured here."""
    if type(args).__name__.startswith("Unsloth"):
        raise UserError(
            "this GRPOConfig is Unsloth's, with other defaults than TRL's: take rlvr_lite.training.GRPOConfig instead"
        )
    if args.loss_type not in grpo.losses.names():
        known = ", ".join(grpo.losses.names())
        raise UserError(f"loss_type {args.loss_type!r} is not supported by rlvr_lite: choose one of {known}")
    honoured = HONOURED | set(grpo.losses.get(args.loss_type).trl.values())
    inherited = {f.name for f in dataclasses.fields(TrainingArguments)}
    defaults = GRPOConfig(output_dir=str(args.output_dir), use_cpu=args.use_cpu, bf16=args.bf16, fp16=args.fp16)
    for name in (f.name for f in dataclasses.fields(args)):
        if name in inherited or name in honoured or name.startswith("vllm_"):
            continue
        default = getattr(defaults, name)
        if getattr(args, name) != default:
            raise UserError(
                f"GRPOConfig({name}={getattr(args, name)!r}) is not supported by rlvr_lite: leave it at {default!r}"
            )
    for name, advice in _REFUSED_ARGUMENTS.items():
        if getattr(args, name, None):
            raise UserError(f"GRPOConfig({name}=...) is not supported by rlvr_lite: {advice}")
    if getattr(args, "fsdp", None):
        raise UserError("GRPOConfig(fsdp=...) is not supported by rlvr_lite: the base is frozen, use a 4-bit base")
    if args.use_vllm:
        raise UserError(
            "GRPOConfig(use_vllm=True) is not supported by rlvr_lite: its own sampler shares the trained weights"
        )
    try:
        grpo.losses.get(args.loss_type).at(loss_level(args))
    except ValueError as error:
        raise UserError(f"importance_sampling_level: {error}") from None
    if (args.steps_per_generation * args.num_iterations) % args.gradient_accumulation_steps:
        raise UserError(
            f"steps_per_generation x num_iterations ({args.steps_per_generation} x {args.num_iterations}) must be a "
            f"multiple of gradient_accumulation_steps ({args.gradient_accumulation_steps})"
        )


def loss_options_of(args: GRPOConfig, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The loss's own options: ``given`` over the fields in which TRL holds them."""
    held = {option: getattr(args, name, None) for option, name in grpo.losses.get(args.loss_type).trl.items()}
    return {option: value for option, value in held.items() if value is not None} | dict(given or {})


def loss_level(args: GRPOConfig) -> grpo.losses.Level | None:
    """The level of the ratio that was asked for; ``token``, TRL's default, is none where a loss has no such form."""
    level = args.importance_sampling_level
    return None if level == "token" and level not in grpo.losses.get(args.loss_type).levels else level


def refuse_starts(args: GRPOConfig, peft_config: Any) -> None:
    """Raise on a PEFT adapter that TRL's class would train otherwise than its name says."""
    start = str(getattr(peft_config, "init_lora_weights", "")).lower()
    if args.beta and start.startswith(_MUTATING_STARTS):
        raise UserError(
            f"init_lora_weights={start!r} changes the base, so it cannot be the KL reference: attach it with rlvr_lite.methods"
        )
    if peft_config is not None and str(getattr(peft_config, "peft_type", "")).endswith("ADALORA"):
        raise UserError("AdaLoRA needs its rank schedule: attach it with rlvr_lite.methods and pass method='adalora'")


def refuse_wrong_types(train_dataset: Any, eval_dataset: Any) -> None:
    """Raise unless the data sets can be indexed and have a prompt column."""
    for name, dataset in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset)):
        if dataset is None and name == "eval_dataset":
            continue
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "column_names"):
            raise UserError(
                f"{name} must be a datasets.Dataset, which can be indexed; a stream or a {type(dataset).__name__} cannot"
            )
        if "prompt" not in dataset.column_names:
            raise UserError(f"{name} has no 'prompt' column; it has {', '.join(map(repr, dataset.column_names))}")
        if len(dataset) == 0:
            raise UserError(f"{name} is empty")


def refuse_chats_without_template(dataset: Any, tokenizer: Any) -> None:
    """Raise if the prompts are chats and nothing says how to put a chat into text."""
    if dataset is not None and not isinstance(dataset[0]["prompt"], str) and not tokenizer.chat_template:
        raise UserError(
            "the prompts are chats but the tokenizer has no chat template: set one, or give prompts as text"
        )
