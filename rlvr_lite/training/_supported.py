"""Which settings and hooks of TRL's trainer are honoured here; the rest is refused, never ignored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from transformers import Trainer

from rlvr_lite import grpo
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.training import _engine as engine
from rlvr_lite.training import _stock

__all__ = [
    "loss_level",
    "loss_options_of",
    "model_name",
    "refuse_arguments",
    "refuse_chats_without_template",
    "refuse_hooks",
    "refuse_starts",
    "refuse_unsupported",
    "refuse_wrong_types",
    "sampling_of",
    "truncation_of",
]

#: Fields that are carried out here, by TRL's constructor or by the loop of transformers, as their documentation says.
HONOURED = frozenset(
    [
        "beta",
        "cast_lm_head_to_fp32",
        "chat_template_kwargs",
        "disable_dropout",
        "epsilon",
        "epsilon_high",
        "generation_batch_size",
        "generation_kwargs",
        "importance_sampling_level",
        "loss_type",
        "mask_truncated_completions",
        "max_completion_length",
        "min_p",
        "model_init_kwargs",
        "multi_objective_aggregation",
        "num_generations",
        "num_generations_eval",
        "num_iterations",
        "off_policy_mask_threshold",
        "ref_model_mixup_alpha",
        "ref_model_sync_steps",
        "reward_weights",
        "router_aux_loss_coef",
        "scale_rewards",
        "shuffle_dataset",
        "steps_per_generation",
        "sync_ref_model",
        "temperature",
        "top_entropy_quantile",
        "top_k",
        "top_p",
        "trust_remote_code",
        "use_bias_correction_kl",
        "disable_tqdm",
        "log_completions",
        "log_completions_hub_repo",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "log_unique_prompts",
        "logging_first_step",
        "logging_nan_inf_filter",
        "logging_steps",
        "logging_strategy",
        "num_completions_to_print",
        "project",
        "report_to",
        "run_name",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
        "activation_checkpointing",
        "activation_checkpointing_kwargs",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "bf16",
        "ddp_backend",
        "ddp_timeout",
        "eval_delay",
        "eval_on_start",
        "eval_steps",
        "eval_strategy",
        "fp16",
        "full_determinism",
        "gradient_accumulation_steps",
        "gradient_checkpointing",
        "gradient_checkpointing_kwargs",
        "greater_is_better",
        "hub_always_push",
        "hub_model_id",
        "hub_private_repo",
        "hub_revision",
        "hub_strategy",
        "hub_token",
        "learning_rate",
        "lr_scheduler_kwargs",
        "lr_scheduler_type",
        "max_grad_norm",
        "max_steps",
        "metric_for_best_model",
        "num_train_epochs",
        "optim",
        "optim_args",
        "optim_target_modules",
        "output_dir",
        "per_device_eval_batch_size",
        "per_device_train_batch_size",
        "push_to_hub",
        "remove_unused_columns",
        "restore_callback_states_from_checkpoint",
        "save_only_model",
        "save_steps",
        "save_strategy",
        "save_total_limit",
        "seed",
        "tf32",
        "torch_empty_cache_steps",
        "use_cpu",
        "warmup_steps",
        "weight_decay",
    ]
)
#: Fields that change nothing of a result: how data is loaded and gradients travel in TRL's own loop, what a script
#: notes for itself, and settings of features that are refused where they are switched on.
WITHOUT_EFFECT = frozenset(
    [
        "dataloader_in_order",
        "dataloader_multiprocessing_context",
        "dataloader_num_workers",
        "dataloader_persistent_workers",
        "dataloader_pin_memory",
        "dataloader_prefetch_factor",
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "ddp_static_graph",
        "ds3_gather_for_generation",
        "pad_to_multiple_of",
        "use_cache",
        "do_eval",
        "do_predict",
        "do_train",
        "local_rank",
        "resume_from_checkpoint",
        "entropy_coef_delta",
        "entropy_coef_max",
        "entropy_coef_min",
        "entropy_target",
        "fsdp_config",
        "liger_kernel_config",
        "log_multimodal",
        "max_tool_calling_iterations",
        "torch_compile_backend",
        "torch_compile_mode",
        "transformers_continuous_batching_config",
    ]
)
#: What to do instead of the settings that are asked for most.
_ADVICE = {
    "average_tokens_across_devices": "the loss counts the tokens of all processes already",
    "bf16_full_eval": "evaluation runs in the precision of training",
    "cache_implementation": "the sampler here has its own cache",
    "data_seed": "seed decides the order of the prompts",
    "deepspeed": "use accelerate launch with plain data parallelism",
    "entropy_coef": "top_entropy_quantile and epsilon_high act on entropy too",
    "fp16_full_eval": "evaluation runs in the precision of training",
    "fsdp": "use accelerate launch with plain data parallelism and a 4-bit base",
    "ignore_data_skip": "which prompts a step sees depends on seed and step alone",
    "load_best_model_at_end": "choose a checkpoint after the run",
    "neftune_noise_alpha": "sampling and loss would follow two policies",
    "repetition_penalty": "sampling and loss would follow two distributions",
    "torch_compile": "leave it off",
    "use_adaptive_entropy": "top_entropy_quantile and epsilon_high act on entropy too",
    "use_liger_kernel": "log-probabilities are computed without full logits already",
    "use_transformers_continuous_batching": "the sampler here drops finished completions already",
}
#: Arguments of the constructor that stand for something that is not here.
_NO_ARGUMENT = {
    "tools": "have a rollout_func call them, or use trl.GRPOTrainer",
    "environment_factory": "have a rollout_func run the environment, or use trl.GRPOTrainer",
}
#: Keyword arguments of ``generate`` that change nothing when completions are sampled one by one.
_GENERATION = {"do_sample": True, "num_beams": 1, "length_penalty": None, "early_stopping": None, "use_cache": True}
#: Those that the sampler here has, and what they are called in the configuration.
_SAMPLED = {"max_new_tokens": "max_completion_length"} | {n: n for n in ("min_p", "temperature", "top_k", "top_p")}
#: Hooks of TRL's class, or of transformers' below it, that are called here with what they are called with there.
_CALLED = frozenset(
    [
        "_calculate_rewards",
        "_log_completion_extra",
        "_log_metric",
        "create_accelerator_and_postprocess",
        "create_model_card",
        "evaluate",
        "log",
        "push_to_hub",
        "save_model",
        "training_step",
    ]
)
#: Hooks of transformers' class that have another way here; the rest of its loop is the loop of this trainer too.
_BYPASSED = frozenset(
    [
        "_get_collator_with_removed_columns",
        "_get_dataloader",
        "_get_eval_sampler",
        "_get_train_sampler",
        "_load_best_model",
        "_prepare_input",
        "_remove_unused_columns",
        "_save_optimizer_and_scheduler",
        "_save_rng_state",
        "_save_scaler",
        "autocast_smart_context_manager",
        "compute_loss",
        "compute_loss_context_manager",
        "evaluation_loop",
        "get_batch_samples",
        "get_eval_dataloader",
        "get_test_dataloader",
        "get_train_dataloader",
        "predict",
        "prediction_loop",
        "prediction_step",
    ]
)


def model_name(model: Any) -> str:
    """The last part of the model's path or Hub id, after which TRL names the output folder."""
    name = model if isinstance(model, str) else getattr(model.config, "_name_or_path", "")
    return str(name).rstrip("/").split("/")[-1]


def refuse_hooks(cls: type, ours: type) -> None:
    """Raise if a subclass overrides a method of TRL's trainer that is never called here, or called differently.

    Args:
        cls: the class of the trainer that is being built.
        ours: this package's class, from which it may inherit.
    """
    stock = _stock.GRPOTrainer.__mro__
    of_trl = {name for c in stock[: stock.index(Trainer)] for name in vars(c)} - _CALLED
    for layer in cls.__mro__[: cls.__mro__.index(ours)]:
        for name, value in vars(layer).items():
            if not name.startswith("__") and callable(value) and name in of_trl | _BYPASSED:
                raise UserError(
                    f"{layer.__name__} overrides {name}, which rlvr_lite's GRPOTrainer does not call: use "
                    "trl.GRPOTrainer, or do it in a reward function, a rollout_func or a callback"
                )


def refuse_arguments(arguments: dict[str, Any]) -> None:
    """Raise for an argument of TRL's constructor that is not honoured, by name."""
    for name, value in arguments.items():
        if value is not None and value != []:
            advice = _NO_ARGUMENT.get(name, "leave it out, or use trl.GRPOTrainer")
            raise UserError(f"GRPOTrainer({name}=...) is not supported by rlvr_lite: {advice}")


def _refuse(name: str, value: Any, default: Any) -> UserError:
    advice = _ADVICE.get(name, "")
    stay = f"leave it at {default!r}" + (f" ({advice})" if advice else "")
    return UserError(f"GRPOConfig({name}={value!r}) is not supported by rlvr_lite: {stay}")


def refuse_unsupported(args: Any) -> None:
    """Raise a ``UserError`` that names every setting which differs from its default and is not honoured here.

    Every field of TRL's configuration that is not known to be honoured counts, those of later versions included; fields
    that a subclass adds are its own.
    """
    if type(args).__name__.startswith("Unsloth"):
        raise UserError(
            "this GRPOConfig is Unsloth's, with other defaults than TRL's: take rlvr_lite.training.GRPOConfig instead"
        )
    config = _stock.GRPOConfig
    defaults = config(output_dir=str(args.output_dir), use_cpu=args.use_cpu, bf16=args.bf16, fp16=args.fp16)
    if args.loss_type not in grpo.losses.names():
        known = ", ".join(grpo.losses.names())
        raise UserError(f"loss_type {args.loss_type!r} is not supported by rlvr_lite: choose one of {known}")
    honoured = HONOURED | WITHOUT_EFFECT | set(grpo.losses.get(args.loss_type).trl.values())
    for name in (f.name for f in dataclasses.fields(config)):
        if name in honoured or engine.honours(args, name):
            continue
        value, default = getattr(args, name), getattr(defaults, name)
        if name == "accelerator_config":  # TRL itself sets this one for streams
            value = dataclasses.replace(value, dispatch_batches=default.dispatch_batches)
        if value != default:
            raise _refuse(name, value, default)
    _refuse_combinations(args)


def _refuse_combinations(args: Any) -> None:
    try:
        grpo.losses.get(args.loss_type).at(loss_level(args))
    except ValueError as error:
        raise UserError(f"importance_sampling_level: {error}") from None
    for name, value in (args.generation_kwargs or {}).items():
        if (name in _GENERATION and _GENERATION[name] in (None, value)) or (name in _SAMPLED and name != "temperature"):
            continue
        if name not in (*_SAMPLED, "repetition_penalty") or value != getattr(args, name):
            raise UserError(
                f"GRPOConfig(generation_kwargs={{{name!r}: {value!r}}}) is not supported by rlvr_lite: leave it out"
                + (", or set temperature itself, which sampling and loss share" if name == "temperature" else "")
            )
    if args.sync_ref_model and not args.beta:
        raise UserError("sync_ref_model=True needs a reference model: set beta above 0")
    if (args.steps_per_generation * args.num_iterations) % args.gradient_accumulation_steps:
        raise UserError(
            f"steps_per_generation x num_iterations ({args.steps_per_generation} x {args.num_iterations}) must be a "
            f"multiple of gradient_accumulation_steps ({args.gradient_accumulation_steps})"
        )


def sampling_of(args: Any) -> SamplingConfig:
    """How completions are drawn; as in TRL ``generation_kwargs`` win over the other fields."""
    asked = {field: getattr(args, field) for field in _SAMPLED.values()}
    asked |= {_SAMPLED[name]: value for name, value in (args.generation_kwargs or {}).items() if name in _SAMPLED}
    return SamplingConfig(**{field: value for field, value in asked.items() if value is not None})


def truncation_of(args: Any, on_policy: bool) -> grpo.Truncation | None:
    """What the sampler leaves out, and with it the scores; ``None`` for nothing.

    Raises:
        UserError: another policy than the one that sampled is scored too.
    """
    drawn = sampling_of(args)
    truncation = grpo.Truncation(drawn.top_k, drawn.top_p, drawn.min_p)
    if truncation.keeps_all:
        return None
    if args.beta or not on_policy:
        raise UserError(
            "top_p, top_k and min_p need beta=0 and one update a generation batch (num_iterations=1, steps_per_generation="
            "gradient_accumulation_steps), since another policy keeps other tokens: set these, or leave them out"
        )
    return truncation


def loss_options_of(args: Any, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """The loss's own options: ``given`` over the fields in which TRL holds them."""
    held = {option: getattr(args, name, None) for option, name in grpo.losses.get(args.loss_type).trl.items()}
    return {option: value for option, value in held.items() if value is not None} | dict(given or {})


def loss_level(args: Any) -> grpo.losses.Level | None:
    """The level of the ratio that was asked for; ``token``, TRL's default, is none where a loss has no such form."""
    level = args.importance_sampling_level
    return None if level == "token" and level not in grpo.losses.get(args.loss_type).levels else level


def refuse_starts(peft_config: Any) -> None:
    """Raise on a PEFT adapter that TRL's class would train otherwise than its name says."""
    if peft_config is not None and str(getattr(peft_config, "peft_type", "")).endswith("ADALORA"):
        raise UserError("AdaLoRA needs its rank schedule: attach it with rlvr_lite.methods and pass method='adalora'")


def refuse_wrong_types(train_dataset: Any, eval_dataset: Any) -> None:
    """Raise unless the data sets have a prompt column; a dictionary of evaluation sets is looked into."""
    named = eval_dataset if isinstance(eval_dataset, dict) else {"": eval_dataset}
    sets = {"train_dataset": train_dataset} | {
        "eval_dataset" + (f"[{key!r}]" if key else ""): value for key, value in named.items() if value is not None
    }
    if train_dataset is None:
        raise UserError("train_dataset is required: pass a datasets.Dataset or IterableDataset with a 'prompt' column")
    for name, dataset in sets.items():
        if not hasattr(dataset, "column_names"):
            raise UserError(
                f"{name} must be a datasets.Dataset or IterableDataset, a {type(dataset).__name__} cannot be read"
            )
        columns = dataset.column_names
        if columns is not None and "prompt" not in columns:
            raise UserError(f"{name} has no 'prompt' column; it has {', '.join(map(repr, columns))}")
        if hasattr(dataset, "__len__") and len(dataset) == 0:
            raise UserError(f"{name} is empty")
        if {"image", "images"} & set(columns or ()):
            raise UserError(f"{name} has images, and rlvr_lite trains on text: use trl.GRPOTrainer")


def refuse_chats_without_template(dataset: Any, tokenizer: Any) -> None:
    """Raise if the prompts are chats and nothing says how to put a chat into text."""
    if dataset is not None and not isinstance(dataset[0]["prompt"], str) and not tokenizer.chat_template:
        raise UserError(
            "the prompts are chats but the tokenizer has no chat template: set one, or give prompts as text"
        )
