"""What a script for TRL's class may ask for: honoured, or refused in one line; nothing is accepted and ignored."""

from __future__ import annotations

import dataclasses
from typing import Any

import datasets
import peft
import pytest
import torch
import trl
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM, TrainerCallback

from rlvr_lite import grpo
from rlvr_lite.bases._tiny_tokenizer import build_tokenizer
from rlvr_lite.errors import UserError
from rlvr_lite.training import GRPOConfig, GRPOTrainer
from rlvr_lite.training._supported import HONOURED, WITHOUT_EFFECT, refuse_unsupported
from tests.models import random_qwen2
from tests.training.helpers import arguments, relative

#: Fields that are refused unless they keep their default. A field that a later TRL or transformers adds is in no list.
REFUSED = frozenset(
    [
        "accelerator_config",
        "auto_find_batch_size",
        "average_tokens_across_devices",
        "batch_eval_metrics",
        "bf16_full_eval",
        "cache_implementation",
        "data_seed",
        "dataloader_drop_last",
        "debug",
        "deepspeed",
        "enable_jit_checkpoint",
        "entropy_coef",
        "eval_accumulation_steps",
        "eval_do_concat_batches",
        "eval_use_gather_object",
        "fp16_full_eval",
        "fsdp",
        "ignore_data_skip",
        "include_for_metrics",
        "include_num_input_tokens_seen",
        "label_names",
        "label_smoothing_factor",
        "length_column_name",
        "load_best_model_at_end",
        "neftune_noise_alpha",
        "parallelism_config",
        "prediction_loss_only",
        "repetition_penalty",
        "save_on_each_node",
        "skip_memory_metrics",
        "torch_compile",
        "train_sampling_strategy",
        "use_adaptive_entropy",
        "use_liger_kernel",
        "use_transformers_continuous_batching",
        "use_transformers_paged",
    ]
)
OF_LOSSES = {field for name in grpo.losses.names() for field in grpo.losses.get(name).trl.values()}
FIELDS = {f.name for f in dataclasses.fields(GRPOConfig)}
#: Removed or renamed in some version that is supported.
OLDER = {"activation_checkpointing", "activation_checkpointing_kwargs", "logging_dir", "warmup_ratio"}


def lengths(completions: list[Any], **_: Any) -> list[float]:
    return [float(len(str(c)) % 5) for c in completions]


def rows(count: int = 8) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(count)], "answer": list(range(count))})


def build(
    folder: Any, model: Any = None, reward: Any = lengths, data: Any = None, cls: Any = GRPOTrainer, **options: Any
) -> Any:
    own = {
        k: options.pop(k)
        for k in ("peft_config", "rollout_func", "eval_dataset", "tools", "environment_factory", "later")
        if k in options
    }
    model = random_qwen2(vocab=128) if model is None else model
    options = {"max_steps": 2} | options
    return cls(
        model,
        reward,
        arguments(folder, **options),
        rows() if data is None else data,
        processing_class=build_tokenizer(),
        **own,
    )


def test_every_field_of_the_configuration_is_known():
    """A new one is to be honoured or refused on purpose; until then it is refused."""
    known = HONOURED | WITHOUT_EFFECT | OF_LOSSES | REFUSED | OLDER
    assert {f for f in FIELDS if not f.startswith("vllm_")} <= known | {"use_vllm"}
    assert not (HONOURED | WITHOUT_EFFECT | OF_LOSSES) & REFUSED


def _odd(value: Any) -> Any:
    """Another value of that kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 0.25
    return (
        "something"
        if value is None or isinstance(value, str)
        else [*value, "something"]
        if isinstance(value, list)
        else None
    )


@pytest.mark.parametrize("name", sorted(REFUSED & FIELDS))
def test_a_field_that_is_not_honoured_is_refused_by_name(tmp_path, name):
    args = arguments(tmp_path)
    if name == "accelerator_config":
        args.accelerator_config = dataclasses.replace(args.accelerator_config, split_batches=True)
    else:
        setattr(args, name, _odd(getattr(args, name)))
    with pytest.raises(UserError, match=name):
        refuse_unsupported(args)


@pytest.mark.parametrize("kept", [{"top_k": 3}, {"top_p": 0.2}, {"min_p": 0.5}], ids=str)
def test_what_sampling_leaves_out_scoring_does_too(tmp_path, kept):
    """As fields and as keyword arguments of ``generate``, which TRL puts over them."""
    log = []
    for options in (kept, {"generation_kwargs": kept}, {"generation_kwargs": kept, "top_k": 7}):
        made = build(tmp_path, **options)
        made.train()
        log.append([row for row in made.state.log_history if "entropy" in row])
    for row in log[0]:
        assert row["sampling/sampling_logp_difference/max"] < 1e-4
        assert 0 < row["entropy"] < 2.5  # of 128 tokens it is above 4
    for a, b in zip(log[0], log[1], strict=True):
        assert all(a[name] == b[name] for name in ("entropy", "loss", "grad_norm", "reward"))
    assert ("top_k" in kept) == (log[0][0]["entropy"] == log[2][0]["entropy"])


@pytest.mark.parametrize("other", [{"beta": 0.1}, {"num_iterations": 2}, {"steps_per_generation": 2}], ids=str)
def test_another_policy_keeps_other_tokens(tmp_path, other):
    with pytest.raises(UserError, match="top_p"):
        build(tmp_path, top_p=0.9, **other)


def test_the_length_of_generation_kwargs_is_sampled(tmp_path):
    made = build(tmp_path, generation_kwargs={"max_new_tokens": 3, "do_sample": True, "temperature": 1.0})
    made.train()
    assert max(row.get("completions/max_length", 0) for row in made.state.log_history) == 3


@pytest.mark.parametrize(
    "asked", [{"temperature": 0.5}, {"num_beams": 2}, {"repetition_penalty": 1.1}, {"bad": 1}], ids=str
)
def test_a_keyword_of_generate_that_the_sampler_lacks_is_refused_by_name(tmp_path, asked):
    with pytest.raises(UserError, match=next(iter(asked))):
        build(tmp_path, generation_kwargs=asked)


@pytest.mark.parametrize("name", sorted(OF_LOSSES))
def test_the_option_of_another_loss_is_refused(tmp_path, name):
    args = arguments(tmp_path, loss_type="cispo", epsilon_high=1.2)
    setattr(args, name, 0.5)
    with pytest.raises(UserError, match=name):
        refuse_unsupported(args)


def test_a_field_nobody_knows_is_refused_and_one_of_a_subclass_is_its_own(tmp_path, monkeypatch):
    later = dataclasses.make_dataclass("GRPOConfig", [("new_field", int, 1)], bases=(trl.GRPOConfig,))
    asked = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "new_field": 2}
    refuse_unsupported(later(**asked))
    monkeypatch.setattr("rlvr_lite.training._stock.GRPOConfig", later)
    with pytest.raises(UserError, match="new_field"):
        refuse_unsupported(later(**asked))


@pytest.mark.parametrize(
    "name",
    [
        "_generate_and_score_completions",
        "_generate",
        "compute_loss",
        "_compute_loss",
        "_get_train_sampler",
        "_get_per_token_logps_and_entropies",
        "_prepare_inputs",
        "prediction_step",
        "get_train_dataloader",
    ],
)
def test_a_subclass_with_a_hook_that_is_not_called_is_refused(tmp_path, name):
    mine = type("Mine", (GRPOTrainer,), {name: lambda self, *args, **kwargs: None})
    with pytest.raises(UserError, match=name):
        build(tmp_path, cls=mine)


def test_a_subclass_with_hooks_that_are_called_is_not(tmp_path):
    called = set()

    class Mine(GRPOTrainer):
        def log(self, logs, start_time=None):
            called.add("log")
            super().log(logs, start_time)

        def training_step(self, *args, **kwargs):
            called.add("training_step")
            return super().training_step(*args, **kwargs)

        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            called.add("_calculate_rewards")
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

        def save_model(self, output_dir=None, _internal_call=False):
            called.add("save_model")
            super().save_model(output_dir, _internal_call)

        def create_optimizer(self, *args):
            called.add("create_optimizer")
            return super().create_optimizer(*args)

    build(tmp_path, cls=Mine, max_steps=1, save_strategy="steps", save_steps=1).train()
    assert called == {"log", "training_step", "_calculate_rewards", "save_model", "create_optimizer"}
    assert not list(tmp_path.rglob("training_args.bin"))


@pytest.mark.parametrize("argument", ["tools", "environment_factory", "later"])
def test_an_argument_that_is_not_honoured_is_refused_by_name(tmp_path, argument):
    with pytest.raises(UserError, match=argument):
        build(tmp_path, **{argument: [len]})


def test_arguments_by_position_stand_in_trls_order(tmp_path):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append(state.global_step)

    tokenizer = build_tokenizer()
    made = GRPOTrainer(random_qwen2(vocab=128), lengths, arguments(tmp_path), rows(), None, tokenizer, None, [Watch()])
    assert made.processing_class is tokenizer
    made.train()
    assert seen == [1, 2, 3, 4]


def test_no_reward_and_no_rows_are_refused(tmp_path):
    with pytest.raises(UserError, match="reward"):
        build(tmp_path, reward=[])
    with pytest.raises(UserError, match="empty"):
        build(tmp_path, data=rows(0))
    with pytest.raises(UserError, match="images"):
        build(tmp_path, data=rows().add_column("image", [None] * 8))


def test_a_stream_trains_like_the_rows_it_holds(tmp_path):
    seen: dict[str, list[int]] = {"stream": [], "rows": []}
    for kind, data in (("stream", rows().to_iterable_dataset()), ("rows", rows())):

        def reward(completions, answer, kind=kind, **_):
            seen[kind] += answer
            return lengths(completions)

        build(tmp_path / kind, reward=reward, data=data, max_steps=5, shuffle_dataset=False).train()
    assert seen["stream"] == seen["rows"]
    with pytest.raises(UserError, match="max_resample"):
        GRPOTrainer(
            random_qwen2(vocab=128),
            lengths,
            arguments(tmp_path),
            rows().to_iterable_dataset(),
            processing_class=build_tokenizer(),
            max_resample=1,
        )


def test_an_epoch_leaves_out_what_fills_no_batch(tmp_path):
    made = build(tmp_path, data=rows(18), max_steps=-1, num_train_epochs=1, max_completion_length=2)
    made.train()
    assert made.state.global_step == 4


def test_evaluation_has_trls_names(tmp_path):
    made = build(
        tmp_path, eval_dataset={"a": rows(2), "b": rows(4).to_iterable_dataset()}, per_device_eval_batch_size=4
    )
    found = made.evaluate()
    names = {"loss", "runtime", "samples_per_second", "steps_per_second"}
    assert {f"eval_{s}_{n}" for s in "ab" for n in names} <= found.keys()
    for name in ("reward", "reward_std", "rewards/lengths/mean", "rewards/lengths/std", "num_tokens", "entropy"):
        assert f"eval_{name}" in found
    assert made.evaluate(rows(2))["eval_completions/min_length"] > 0


def test_text_keeps_the_first_token_that_the_tokenizer_puts_there(tmp_path):
    made = build(tmp_path)
    tokenizer = made.processing_class
    first = tokenizer.convert_ids_to_tokens(7)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, 7)])
    assert made.collector.draw([rows()[0]], [1, 2], 2).prompt_ids[0, 0] == 7
    chat = [{"role": "user", "content": "1"}]
    drawn = made.collector.draw([{"prompt": chat}], [1, 2], 2).prompt_ids[0].tolist()
    assert (
        drawn
        == tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True)["input_ids"]
    )


def test_the_reference_of_a_trained_adapter_is_a_copy_of_it(tmp_path):
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = peft.get_peft_model(random_qwen2(vocab=128), config)
    made = build(tmp_path, model, beta=0.5, max_steps=2, learning_rate=0.1)
    made.train()
    kl = [row["kl"] for row in made.state.log_history if "kl" in row]
    assert abs(kl[0]) < 1e-6 < kl[1]
    assert list(model.peft_config) == ["default"]


@pytest.mark.parametrize("start", [True, "pissa"])
def test_the_reference_of_a_new_adapter_is_the_base(tmp_path, start):
    base = random_qwen2(vocab=128)
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=start)
    made = build(tmp_path, random_qwen2(vocab=128), beta=0.5, peft_config=config, learning_rate=0.1)
    made.train()
    ids = torch.arange(10, 20)[None]
    with made.reference(), torch.no_grad():
        torch.testing.assert_close(made.model(ids).logits, base(ids).logits, rtol=1e-3, atol=1e-3)


def test_log_metric_and_log_extra_arrive(tmp_path):
    def reward(completions, log_metric, log_extra, **_):
        log_metric("share", 0.25)
        log_extra("kind", [str(i) for i in range(len(completions))])
        return lengths(completions)

    made = build(tmp_path, reward=reward, log_completions=True)
    made.train()
    assert [row["share"] for row in made.state.log_history if "share" in row] == [0.25, 0.25]
    assert sorted(made._logs["extra"]["kind"]) == sorted(str(i) for i in range(16))
    assert not made._pending_extra_logs
    assert not made._pending_metrics
    assert {row["extra"]["kind"] for row in made.rollout_log.rows()} == {str(i) for i in range(16)}


def test_an_error_of_a_reward_ends_the_run_whenever_it_comes(tmp_path):
    calls = []

    def late(completions, **_):
        calls.append(1)
        if len(calls) == 2:
            raise KeyError("bug")
        return lengths(completions)

    with pytest.raises(KeyError, match="bug"):
        build(tmp_path, reward=late, max_steps=3).train()


def _experts() -> Qwen3MoeForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=128,
            num_hidden_layers=2,
            intermediate_size=32,
            moe_intermediate_size=16,
            num_experts=4,
            num_experts_per_tok=2,
            pad_token_id=0,
            eos_token_id=1,
            **sizes,
        )
    )


@pytest.mark.skipif("1.15" in trl.__version__, reason="its head needs Triton")
def test_routers_are_balanced_as_in_trl(tmp_path):
    """Gradient of the whole loss on the same rows."""
    made = build(tmp_path, _experts(), router_aux_loss_coef=0.5)
    made.model.train()
    made.current_gradient_accumulation_steps = 1
    batch = made._prepare_inputs(None)
    made.accumulate(batch)
    ours = {n: p.grad.clone() for n, p in made.model.named_parameters()}
    stock = build(tmp_path, _experts(), cls=trl.GRPOTrainer, router_aux_loss_coef=0.5)
    stock.model.train()
    stock.current_gradient_accumulation_steps = 1
    inputs = {
        "prompt_ids": batch.prompt_ids,
        "prompt_mask": batch.prompt_mask,
        "completion_ids": batch.completions,
        "completion_mask": batch.mask,
        "advantages": batch.advantages,
        "num_items_in_batch": batch.mask.sum().float(),
    }
    stock._compute_loss(stock.model, inputs).backward()
    routers = {n: p.grad for n, p in stock.model.named_parameters() if "gate.weight" in n}
    assert relative(ours, routers) < 1e-3
    assert relative(ours, {n: p.grad for n, p in stock.model.named_parameters() if p.grad is not None}) < 1e-3


@pytest.mark.parametrize("adapter", [False, True])
def test_a_checkpoint_loads_with_transformers_and_peft_and_resumes(tmp_path, adapter):
    options = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 0.1}
    if adapter:
        options["peft_config"] = peft.LoraConfig(r=4, target_modules=["q_proj"])
    whole = build(tmp_path / "a", max_steps=3, **options)
    whole.train()
    folder = tmp_path / "a" / "checkpoint-2"
    assert (folder / "tokenizer_config.json").is_file()
    ids = torch.arange(10, 20)[None]
    last = tmp_path / "a" / "checkpoint-3"
    if adapter:
        loaded = peft.PeftModel.from_pretrained(random_qwen2(vocab=128), last)
    else:
        loaded = AutoModelForCausalLM.from_pretrained(last)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, whole.model.eval()(ids).logits)
    again = build(tmp_path / "b", max_steps=3, **options)
    again.train(resume_from_checkpoint=str(folder))
    for (name, a), b in zip(whole.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_second_trainer_in_the_folder_is_refused_and_touches_nothing(tmp_path):
    class Second(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 0:  # nothing is logged yet
                return
            before = (tmp_path / "metrics.jsonl").read_bytes(), sorted(tmp_path.iterdir())
            with pytest.raises(UserError, match=r"training.*choose another output_dir"):
                second.train()
            assert before == ((tmp_path / "metrics.jsonl").read_bytes(), sorted(tmp_path.iterdir()))
            done.append(state.global_step)

    done: list[int] = []
    first, second = build(tmp_path), build(tmp_path)
    first.add_callback(Second())
    first.train()
    assert done == [1]
    assert not list(tmp_path.glob("_lock*"))
    second.train()
    first.train()


def test_save_only_model_saves_only_that(tmp_path):
    made = build(tmp_path, save_strategy="steps", save_steps=1, save_only_model=True)
    made.train()
    files = {path.name for path in (tmp_path / "checkpoint-1").iterdir()}
    assert "model.safetensors" in files
    assert not {"optimizer.safetensors", "optimizer.json", "generators.json"} & files
    with pytest.raises(UserError, match="save_only_model"):
        build(tmp_path, max_steps=3).train(resume_from_checkpoint=True)


@pytest.mark.skipif("1.15" in trl.__version__, reason="its head needs Triton")
@pytest.mark.parametrize("adapter", [False, True])
def test_a_checkpoint_of_trl_is_resumed(tmp_path, adapter):
    options = {"save_strategy": "steps", "save_steps": 2, "learning_rate": 0.1}
    if adapter:
        options["peft_config"] = peft.LoraConfig(r=4, target_modules=["q_proj"])
    build(tmp_path, cls=trl.GRPOTrainer, max_steps=2, **options).train()
    folder = tmp_path / "checkpoint-2"
    made = build(tmp_path, max_steps=3, **options)
    made.train(resume_from_checkpoint=str(folder))
    assert made.state.global_step == 3
    other = build(tmp_path, random_qwen2(vocab=128, hidden=32), max_steps=3, **options)
    with pytest.raises(UserError, match="another model"):
        other.train(resume_from_checkpoint=str(folder))
    saved = load_file(folder / ("adapter_model.safetensors" if adapter else "model.safetensors"))
    found = build(tmp_path, max_steps=3, **options)
    found._load_from_checkpoint(str(folder))
    mine = peft.get_peft_model_state_dict(found.model) if adapter else found.model.state_dict()
    assert all(torch.equal(mine[name], value) for name, value in saved.items())
