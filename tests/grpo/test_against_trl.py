"""Stock TRL's own loss on the same batch: the same value and the same gradient."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from rlvr_lite.grpo import RolloutBatch, losses, row_weights
from tests.grpo.reference import gradients, relative, step_batch
from tests.grpo.test_savings import MAX_LENGTH, SAVINGS, TEMPERATURE, lora_model, saved_gradient

BY_ROW = ("dapo", "bnpo", "dr_grpo", "sapo")
#: TRL's settings for each of its losses; "delta" and "sequence" are forms that our name does not have by itself.
STOCK: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.28},  # TRL's bound is on the ratio itself
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence"},
    "sapo": {"loss_type": "sapo", "sapo_temperature_pos": 1.2, "sapo_temperature_neg": 3.0},
    "luspo": {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    "vespo": {"loss_type": "vespo", "vespo_k_pos": 1.5, "vespo_lambda_neg": 2.5},
    "cispo by row": {"loss_type": "cispo", "epsilon_high": 1.28, "importance_sampling_level": "sequence"},
    **{f"{name} by row": {"loss_type": name, "importance_sampling_level": "sequence"} for name in BY_ROW},
    **{f"{name} delta": {"loss_type": name, "delta": 1.4} for name in ("grpo", "dapo", "luspo")},
}


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Any]:
    """Builds TRL trainers around a model, of which only the loss is used."""
    import trl
    import trl.trainer.utils

    if trl.trainer.utils._ChunkedLogProbFunction is None or "1.15" in trl.__version__:  # it needs a card as well
        pytest.skip("this TRL scores with Triton only")
    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "x": 2}, unk_token="x"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="x")

    def build(model: Any, **settings: Any) -> Any:
        config = trl.GRPOConfig(
            str(tmp_path),
            use_cpu=True,
            bf16=False,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=MAX_LENGTH,
            temperature=TEMPERATURE,
            gradient_checkpointing=False,
            report_to="none",
            **{"epsilon": 0.2, "epsilon_high": 0.28} | settings,
        )
        data = Dataset.from_list([{"prompt": "x"}] * 4)
        trainer = trl.GRPOTrainer(model, lambda **_: [0.0], args=config, train_dataset=data, processing_class=tokenizer)
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield build


def inputs_of(batch: RolloutBatch) -> dict[str, torch.Tensor | None]:
    return {
        "prompt_ids": batch.prompt_ids,
        "prompt_mask": batch.prompt_mask,
        "completion_ids": batch.completions,
        "completion_mask": batch.mask,
        "advantages": batch.advantages,
        "num_items_in_batch": batch.mask.sum(),
        "old_per_token_logps": batch.old_logprobs,
        "ref_per_token_logps": batch.ref_logprobs,
    }


@pytest.mark.parametrize("name", sorted(STOCK))
def test_same_gradient_as_stock(name: str, stock: Any) -> None:
    model = lora_model()
    trainer = stock(model, **STOCK[name])
    batch = step_batch(prompt=12, length=15)
    old = trainer._get_per_token_logps_and_entropies(
        model, torch.cat([batch.prompt_ids, batch.completions], 1), torch.cat([batch.prompt_mask, batch.mask], 1), 15
    )[0]
    batch = replace(batch, old_logprobs=old.detach() + 0.3 * torch.randn(old.shape))
    trainer._compute_loss(model, inputs_of(batch)).backward()
    expected = gradients(model)
    loss = losses.get("gspo" if name == "gspo" else STOCK[name]["loss_type"])
    options = {option: STOCK[name][field] for option, field in loss.trl.items() if field in STOCK[name]}
    form = {"options": options, "level": STOCK[name].get("importance_sampling_level", "token")}
    for label, savings in SAVINGS.items():
        found = relative(saved_gradient(model, loss.name, batch, savings, **form), expected)
        assert found < 1e-5, f"{label}: {found}"


def test_same_gradient_as_stock_with_a_kl_term(stock: Any) -> None:
    model = lora_model()
    trainer = stock(model, loss_type="dapo")
    trainer.beta = 0.1
    batch = replace(step_batch(prompt=12, length=15), old_logprobs=None)
    batch = replace(batch, ref_logprobs=-4.5 + 0.1 * torch.randn(batch.mask.shape))
    trainer._compute_loss(model, inputs_of(batch)).backward()
    expected = gradients(model)
    assert relative(saved_gradient(model, "dapo", batch, SAVINGS["all"], kl_coef=0.1), expected) < 1e-5


def test_bnpo_over_two_stock_micro_batches(stock: Any) -> None:
    model = lora_model()
    trainer = stock(model, loss_type="bnpo")
    trainer.current_gradient_accumulation_steps = 2
    batch = replace(step_batch(groups=4, prompt=12, length=15), old_logprobs=None, ref_logprobs=None)
    for rows in torch.arange(len(batch)).split(8):
        trainer._compute_loss(model, inputs_of(batch.rows(rows))).backward()
    expected = gradients(model)
    weights = row_weights(batch.mask.sum(-1), loss="bnpo", max_length=MAX_LENGTH, local_rows=8)
    logprobs = trainer._get_per_token_logps_and_entropies(
        model, torch.cat([batch.prompt_ids, batch.completions], 1), torch.cat([batch.prompt_mask, batch.mask], 1), 15
    )[0]
    (-(batch.advantages * weights)[:, None] * batch.mask * logprobs).sum().backward()
    assert relative(gradients(model), expected) < 1e-5
