"""Every architecture is sampled in a way that is exact, and says so where it is not the fastest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import MiniMaxForCausalLM, Qwen2ForCausalLM, Qwen2Model

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import cache_name, remove_dropout
from rlvr_lite.sampling import rollout, way
from tests.models import random_qwen2
from tests.zoo import ZOO, random_model

SHARED = ("llama", "gemma2", "lfm2", "qwen3_5", "falcon_h1", "opt", "gpt2", "mamba", "gpt_oss", "deepseek_v3")
EXACT = {"qwen3_5": 1e-4}  # one step at a time and in chunks, a delta rule rounds otherwise


def own_logprobs(model: Any, prompt: list[int], completion: list[int], temperature: float) -> Tensor:
    """Of the model's own logits, one row, no padding, no cache."""
    ids = torch.tensor([prompt + completion])
    logits = model(input_ids=ids, use_cache=False).logits[0].float() / temperature
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(completion)[:, None])[:, 0]


@torch.no_grad()
def gap(model: Any, *, ragged: bool = True) -> float:
    """Largest difference between log-probabilities as sampled, ragged prompts in one batch, and the model's own."""
    prompts = [[10 + 7 * i % 90 for i in range(n)] for n in (5, 23, 14)]
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    sampling = SamplingConfig(temperature=0.8, max_completion_length=20)
    made = rollout(
        model, ids, mask, group_size=4, sampling=sampling, eos_ids=[1, *range(30, 38)], pad_id=0, row_keys=range(12)
    )
    rows = [row[:n] for row, n in zip(made.tokens.tolist(), made.mask.sum(1).tolist(), strict=True)]
    assert not ragged or len({len(row) for row in rows}) > 1  # some leave early
    own = [own_logprobs(model, prompts[i // 4], row, 0.8) for i, row in enumerate(rows)]
    return max(float((made.logprobs[i, : len(row)] - own[i]).abs().max()) for i, row in enumerate(rows))


@pytest.mark.parametrize("name", SHARED)
def test_prompts_are_shared_and_exact(name: str) -> None:
    model = random_model(ZOO[name]())
    remove_dropout(model)
    assert way(model) == "shared"
    assert gap(model) <= EXACT.get(name, 2e-5)


class Unrepeatable(Qwen2Model):
    """Its layers keep something of their own beside the cache, row by row."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get(cache_name(self))
        if cache is not None:
            rows = len(kwargs["input_ids"])
            assert getattr(cache, "rows", rows) == rows
            cache.rows = rows
        return super().forward(*args, **kwargs)


class Uncached(Qwen2Model):
    """It has no cache at all."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, position_ids: Any = None, **_: Any) -> Any:  # type: ignore[override]
        return super().forward(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )


class Blind(Qwen2Model):
    """It does not look at the mask."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        seen = kwargs.get("attention_mask")
        return super().forward(*args, **(kwargs | {"attention_mask": None if seen is None else torch.ones_like(seen)}))


def with_backbone(kind: type[Qwen2Model]) -> Qwen2ForCausalLM:
    model = random_qwen2(vocab=128)
    model.model.__class__ = kind
    return model


@pytest.mark.parametrize(("kind", "expected"), [(Unrepeatable, "rows"), (Uncached, "recomputed")])
def test_what_cannot_be_shared_is_sampled_exactly_and_said_once(
    kind: type[Qwen2Model], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = with_backbone(kind)
    assert way(model) == expected
    assert gap(model) <= 2e-5
    assert len(caplog.records) == 1


def test_a_cache_of_another_make_is_no_obstacle() -> None:
    model = random_model(ZOO["minimax"]())
    assert isinstance(model, MiniMaxForCausalLM)
    assert way(model) == "recomputed"
    assert gap(model) <= 2e-5


def test_a_model_that_reads_padding_is_refused() -> None:
    with pytest.raises(UserError, match="padding"):
        way(with_backbone(Blind))
