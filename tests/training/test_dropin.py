"""The same script with TRL's class and with ours: what it logs and where its weights end are the same.

Completions come from a ``rollout_func``, which makes them the same for both, so that every number can be compared.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import datasets
import pandas
import pytest
import torch
import trl

from rlvr_lite import grpo
from rlvr_lite.bases._tiny_tokenizer import build_tokenizer
from rlvr_lite.training import GRPOTrainer
from tests.models import random_qwen2
from tests.training.helpers import arguments, relative

pytestmark = [
    pytest.mark.skipif("1.15" in trl.__version__, reason="its head needs Triton"),
    pytest.mark.filterwarnings("ignore:You are using 'rollout_func'"),
]
#: Measures that depend on the clock, or that only one of the two has.
TIMES = ("step_time", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A model on disk, from which TRL loads its reference again."""
    target = tmp_path_factory.mktemp("model")
    random_qwen2(vocab=128).save_pretrained(target)
    build_tokenizer().save_pretrained(target)
    return str(target)


def rows(count: int = 8) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"prompt": [f"{i}+{i}=" for i in range(count)], "answer": list(range(count))})


def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Completions that depend on the prompt, the place in the batch and the step; most have an end."""
    tokenizer, step = trainer.processing_class, trainer.state.global_step
    found: dict[str, Any] = {"prompt_ids": [], "completion_ids": [], "logprobs": None, "place": []}
    for place, prompt in enumerate(prompts):
        draw = torch.Generator().manual_seed(1000 * step + place)
        length = int(torch.randint(2, 9, (1,), generator=draw))
        ids = torch.randint(10, 100, (length,), generator=draw).tolist()
        found["prompt_ids"].append(tokenizer(prompt)["input_ids"])
        found["completion_ids"].append(ids + [tokenizer.eos_token_id] * (place % 5 > 0))
        found["place"].append(place)
    return found


def by_place(completions: list[str], place: list[int], **_: Any) -> list[float]:
    """All groups have a signal, since rows without one are left out of a measure or two."""
    return [float((7 * i) % 5) for i in place]


def by_length(completions: list[str], **_: Any) -> list[float | None]:
    return [None if len(c) == 5 else len(c) / 10 for c in completions]


def run(cls: Any, model: Any, out: Path, *, rewards: Any = by_place, own: Any = None, **options: Any) -> Any:
    options = {"shuffle_dataset": False, "max_steps": 2, "learning_rate": 0.3, "optim": "sgd"} | options
    torch.manual_seed(0)
    made = cls(
        model,
        rewards,
        arguments(out, **options),
        rows(),
        rows(2),
        build_tokenizer(),
        rollout_func=rollout,
        **own or {},
    )
    made.train()
    return made


def assert_same(ours: Any, stock: Any, *, but: tuple[str, ...] = (), rtol: float = 2e-3) -> None:
    """The same names and numbers in the log, and the same trained weights."""
    for a, b in zip(ours.state.log_history, stock.state.log_history, strict=True):
        assert b.keys() - a.keys() <= set(but)
        for name in b.keys() - set(TIMES) - set(but):
            assert a[name] == b[name] or math.isclose(a[name], b[name], rel_tol=rtol, abs_tol=1e-5), name
    start = {n: p.detach() for n, p in random_qwen2(vocab=128).named_parameters()}
    theirs, mine = ({n: p.detach() for n, p in t.model.named_parameters()} for t in (stock, ours))
    moved = {n: theirs[n] - start.get(n, 0) for n in theirs}
    assert sum(float(m.square().sum()) for m in moved.values()) > 0
    assert relative({n: mine[n] - start.get(n, 0) for n in mine}, moved) < 1e-3


ADAM = {"learning_rate": 1e-3, "optim": "adamw_torch", "adam_epsilon": 1e-3}  # so that it does not magnify rounding
#: Settings of the objective, of rewards and of the loop, with what makes them act.
ACTING: dict[str, dict[str, Any]] = {
    "nothing": {},
    "adam_beta1": {"adam_beta1": 0.5, **ADAM},
    "adam_beta2": {"adam_beta2": 0.5, **ADAM},
    "adam_epsilon": {**ADAM, "adam_epsilon": 1e-2},
    "beta": {"beta": 0.3},
    "delta": {"delta": 1.3, "learning_rate": 1.0, "num_iterations": 2, "max_steps": 4},
    "epsilon": {"epsilon": 0.01, "num_iterations": 2, "max_steps": 4},
    "epsilon_high": {"epsilon_high": 0.01, "num_iterations": 2, "max_steps": 4},
    "gradient_accumulation_steps": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8},
    "generation_batch_size": {
        "generation_batch_size": 32,
        "per_device_train_batch_size": 8,
        "max_steps": 4,
        "but": True,
    },
    "importance_sampling_level": {
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
        "num_iterations": 2,
        "max_steps": 4,
    },
    "log_completions": {"log_completions": True},
    "logging_steps": {"logging_steps": 2},
    "logging_first_step": {"logging_steps": 2, "logging_first_step": True},
    "lr_scheduler_type": {"lr_scheduler_type": "cosine", "max_steps": 3},
    "mask_truncated_completions": {"mask_truncated_completions": True},
    "max_grad_norm": {"max_grad_norm": 0.01},
    "multi_objective_aggregation": {"multi_objective_aggregation": "normalize_then_sum", "two": True},
    "num_generations": {"num_generations": 8},
    "num_iterations": {"num_iterations": 2, "max_steps": 4},
    "num_train_epochs": {"num_train_epochs": 2, "max_steps": -1},
    "off_policy_mask_threshold": {"off_policy_mask_threshold": 1e-3, "num_iterations": 2, "max_steps": 4},
    "optim": {"optim": "adamw_torch", **ADAM},
    "pad_to_multiple_of": {"pad_to_multiple_of": 8},
    "reward_weights": {"reward_weights": [0.3, 2.0], "two": True},
    "sapo_temperature_neg": {"loss_type": "sapo", "sapo_temperature_neg": 3.0, "num_iterations": 2, "max_steps": 4},
    "sapo_temperature_pos": {"loss_type": "sapo", "sapo_temperature_pos": 3.0, "num_iterations": 2, "max_steps": 4},
    "scale_rewards": {"scale_rewards": "none"},
    "sync_ref_model": {"sync_ref_model": True, "ref_model_sync_steps": 1, "beta": 0.3, "max_steps": 3},
    "ref_model_mixup_alpha": {
        "sync_ref_model": True,
        "ref_model_sync_steps": 1,
        "ref_model_mixup_alpha": 0.2,
        "beta": 0.3,
        "max_steps": 3,
    },
    "temperature": {"temperature": 0.7},
    "top_entropy_quantile": {"top_entropy_quantile": 0.5},
    "use_bias_correction_kl": {"use_bias_correction_kl": False, "beta": 0.3, "num_iterations": 2, "max_steps": 4},
    "warmup_steps": {"warmup_steps": 2},
    "weight_decay": {"weight_decay": 0.5},
    **{
        f"vespo_{name}": {"loss_type": "vespo", f"vespo_{name}": value, "num_iterations": 2, "max_steps": 4}
        for name, value in {"k_pos": 1.0, "k_neg": 1.0, "lambda_pos": 1.0, "lambda_neg": 1.0}.items()
    },
    **{
        f"loss_type {loss}": {"loss_type": loss, "num_iterations": 2, "max_steps": 4}
        for loss in ("grpo", "bnpo", "dr_grpo", "luspo", "cispo")
    },
}


@pytest.mark.parametrize("name", ACTING)
def test_a_setting_acts_as_in_trl(tmp_path, folder, name):
    options = dict(ACTING[name])
    if options.get("loss_type") == "cispo":
        options["epsilon_high"] = 1.2
    rewards = [by_place, by_length] if options.pop("two", False) else by_place
    but = ("entropy",) if name == "mask_truncated_completions" else ()
    if options.pop("but", False):  # TRL deals the rows of a generation batch out at random
        but = ("loss", "grad_norm", "entropy")
    stock = run(trl.GRPOTrainer, folder, tmp_path / "stock", rewards=rewards, **options)
    ours = run(GRPOTrainer, folder, tmp_path / "ours", rewards=rewards, **options)
    if "loss" in but:
        but += ("clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "clip_ratio/low_min")
        but += ("clip_ratio/high_max", "train_loss")
        for a, b in zip(ours.state.log_history, stock.state.log_history, strict=True):
            assert a["reward"] == pytest.approx(b["reward"], abs=1e-5) if "reward" in b else True
        return
    assert_same(ours, stock, but=but)
    if options.get("log_completions"):
        files = [sorted((tmp_path / which / "completions").glob("*.parquet")) for which in ("ours", "stock")]
        for a, b in zip(*files, strict=True):
            pandas.testing.assert_frame_equal(pandas.read_parquet(a), pandas.read_parquet(b), atol=1e-4)


@pytest.mark.parametrize("quantile", [1.0, 0.5])
def test_micro_steps_without_a_group_count_for_nothing(tmp_path, folder, quantile):
    """A group is never cut, so that two of them leave six of eight micro-steps empty."""
    options = {"top_entropy_quantile": quantile, "max_steps": 1}
    many = {"gradient_accumulation_steps": 8, "per_device_train_batch_size": 1}
    logs = [
        run(GRPOTrainer, folder, tmp_path / str(len(o)), **options, **o).state.log_history[0]
        for o in (many, {"per_device_train_batch_size": 8})
    ]
    for name in ("entropy", "reward") if quantile < 1 else ("entropy", "reward", "loss", "grad_norm"):
        assert logs[0][name] == pytest.approx(logs[1][name], rel=0.1), name


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("cast", [False, True])
def test_a_head_in_single_precision_scores_as_trls(tmp_path, tied, autocast, cast):
    source = random_qwen2(vocab=128, tied=tied)
    source.save_pretrained(tmp_path / "model")
    options = {"cast_lm_head_to_fp32": cast, "bf16": autocast, "temperature": 0.5}
    if not autocast:
        options["model_init_kwargs"] = {"dtype": "bfloat16"}
    made = {
        cls: cls(str(tmp_path / "model"), by_place, arguments(tmp_path, **options), rows(), None, build_tokenizer())
        for cls in (trl.GRPOTrainer, GRPOTrainer)
    }
    ids = torch.randint(10, 100, (4, 12), generator=torch.Generator().manual_seed(0))
    stock, ours = made.values()
    with torch.no_grad(), stock.accelerator.autocast():
        expected = stock._get_per_token_logps_and_entropies(stock.model, ids, torch.ones_like(ids), 7)[0]
    batch = grpo.RolloutBatch(
        ids[:, :5], torch.ones_like(ids[:, :5]), ids[:, 5:], torch.ones_like(ids[:, 5:]), torch.ones(4), torch.ones(4)
    )
    scored = ours._logprobs_of(batch)
    exact = float((scored - expected).abs().max())
    assert exact < (1e-4 if cast else 0.05)
    assert ours.model.lm_head.weight.dtype == (torch.float32 if cast or autocast else torch.bfloat16)
    with torch.no_grad(), ours.accelerator.autocast():
        hidden = ours.model.model(ids).last_hidden_state[:, 4:-1]
        sampled = grpo.output_head(ours.model).logits(hidden)
    logits = hidden.float() @ ours.model.lm_head.weight.detach().float().t()
    assert hidden.dtype == (torch.float32 if autocast else torch.bfloat16)
    for found in (scored, (sampled / 0.5).log_softmax(-1).gather(-1, ids[:, 5:, None])[..., 0]):
        difference = found - (logits / 0.5).log_softmax(-1).gather(-1, ids[:, 5:, None])[..., 0]
        assert (float(difference.abs().max()) < 1e-4) == cast
