"""Shared-prompt packing: the same numbers as one row at a time, wherever it is used, and a reason wherever it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rlvr_lite.grpo import Packer, RolloutBatch, completion_logprobs, output_head, pack_groups
from rlvr_lite.grpo import _packer as packer_module
from rlvr_lite.grpo import _packing as packing_module
from tests.grpo.reference import gradients, relative, step_batch
from tests.models import random_qwen2

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
    "attn_implementation": "sdpa",
}


class Always(Packer):
    """Packs whatever the price."""

    def _cost(self, *args: Any) -> None:
        return None


def scored(model: Any, batch: RolloutBatch, packer: Packer | None) -> Tensor:
    return completion_logprobs(
        model, batch.prompt_ids, batch.prompt_mask, batch.completions, batch.mask, 0.8, packer=packer
    )[0]


def difference(model: Any, batch: RolloutBatch, packer: Packer) -> float:
    """Relative difference of gradients, after the values have been found equal."""
    signal = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(1))
    plain = scored(model, batch, None)
    (plain * signal).sum().backward()
    expected = gradients(model)
    packed = scored(model, batch, packer)
    (packed * signal).sum().backward()
    torch.testing.assert_close(packed, plain, rtol=0, atol=2e-5)
    return relative(gradients(model), expected)


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "qwen2": random_qwen2,
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SMALL, head_dim=8)),
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**SMALL, sliding_window=None)),
    "olmo2": lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SMALL)),
    "smollm3": lambda: transformers.SmolLM3ForCausalLM(transformers.SmolLM3Config(**SMALL)),
    "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(**SMALL)),
}


@pytest.mark.parametrize("name", sorted(packer_module._ARCHITECTURES))
def test_every_named_architecture_packs(name: str) -> None:
    torch.manual_seed(0)
    packer = Always()
    assert difference(ARCHITECTURES[name](), step_batch(prompt=7, length=14, groups=3), packer) < 1e-5
    assert (packer.packed, packer.refused) == (1, {})


@given(
    st.builds(
        step_batch,
        groups=st.integers(1, 4),
        size=st.integers(1, 4),
        prompt=st.integers(1, 6),
        length=st.integers(1, 12),
        dead=st.just(0),
        seed=st.integers(0, 10**6),
    ),
    st.sampled_from([1, 3, 256]),
)
@settings(max_examples=40, deadline=None)
def test_any_ragged_batch_packs(batch: RolloutBatch, width: int) -> None:
    model = random_qwen2(hidden=16, layers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing_module, "_WIDTH", width)
        assert difference(model, batch, Always()) < 1e-5


def test_rows_without_tokens_are_carried() -> None:
    batch = step_batch(groups=2, size=3)
    batch.mask[[0, 4]] = 0
    assert difference(random_qwen2(), batch, Always()) < 1e-5
    batch.mask[:] = 0
    assert (scored(random_qwen2(), batch, Always()) == 0).all()


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    model, batch = random_qwen2(), step_batch()
    expected = difference(model, batch, Always())
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert difference(model, batch, Always()) < max(1e-5, 2 * expected)


def test_autocast() -> None:
    model, batch, packer = random_qwen2(), step_batch(), Always()
    with torch.autocast("cpu", torch.bfloat16):
        plain, packed = scored(model, batch, None), scored(model, batch, packer)
    assert packer.packed == 1
    assert (plain - packed).abs().max() < 0.05


def test_the_mask_is_one_byte_and_no_dense_mask_is_made() -> None:
    batch = step_batch(groups=8, size=8, prompt=30, length=60, dead=0)
    packed = pack_groups(batch.prompt_ids, batch.prompt_mask, batch.completions, batch.mask)
    tokens = packed.input_ids.shape[1]
    assert packed.attention_mask.shape == (1, 1, tokens, tokens)
    assert packed.attention_mask.untyped_storage().nbytes() == 1
    plan = packed.attention_mask.plan
    assert plan is not None
    assert sum(block.causal.numel() for block in plan.blocks) < tokens * tokens / 100


def test_the_mask_answers_as_a_dense_tree_would() -> None:
    """Also at a scale that is not the default one, and with dropout."""
    batch = step_batch(groups=3, size=3)
    packed = pack_groups(batch.prompt_ids, batch.prompt_mask, batch.completions, batch.mask)
    tokens = packed.input_ids.shape[1]
    branch = torch.zeros(tokens, 2, dtype=torch.long)  # group, and completion in it (0 is the prompt)
    at = 0
    for group in range(3):
        rows = range(3 * group, 3 * group + 3)
        lengths = [int(batch.prompt_mask[rows[0]].sum()), *(int(batch.mask[row].sum()) - 1 for row in rows)]
        for number, length in enumerate(lengths):
            branch[at : at + length] = torch.tensor([group, number])
            at += length
    same_group = branch[:, None, 0] == branch[None, :, 0]
    same_branch = (branch[:, None, 1] == branch[None, :, 1]) | (branch[None, :, 1] == 0)
    dense = (same_group & same_branch).tril()
    query, key, value = torch.randn(3, 1, 2, tokens, 8)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=dense, scale=0.9)
    found = F.scaled_dot_product_attention(query, key, value, attn_mask=packed.attention_mask, scale=0.9)
    torch.testing.assert_close(found, expected)
    dropped = F.scaled_dot_product_attention(query, key, value, attn_mask=packed.attention_mask, dropout_p=1.0)
    assert (dropped == 0).all()


def test_each_prompt_stands_once() -> None:
    batch = step_batch(groups=4, size=5)
    packed = pack_groups(batch.prompt_ids, batch.prompt_mask, batch.completions, batch.mask)
    assert packed.input_ids.shape[1] == int(batch.prompt_mask[::5].sum() + (batch.mask.sum(-1) - 1).sum())


def eager() -> Any:
    model = random_qwen2()
    model.set_attn_implementation("eager")
    return model


def sliding() -> Any:
    config = transformers.MistralConfig(**SMALL, sliding_window=8)
    return transformers.MistralForCausalLM(config)


def dynamic_rope() -> Any:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, rope_parameters=rope))


def mixture() -> Any:
    config = transformers.MixtralConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1, sliding_window=None)
    return transformers.MixtralForCausalLM(config)


@pytest.mark.parametrize(
    ("build", "reason"),
    [(eager, "eager"), (sliding, "sliding"), (dynamic_rope, "rotary"), (mixture, "mixtral")],
    ids=["eager", "sliding", "dynamic rope", "mixture of experts"],
)
def test_unsupported_models_fall_back_with_a_reason(build: Callable[[], Any], reason: str) -> None:
    torch.manual_seed(0)
    model, batch, packer = build(), step_batch(), Always()
    torch.testing.assert_close(scored(model, batch, packer), scored(model, batch, None))
    assert packer.packed == 0
    assert reason in next(iter(packer.refused))


def ignores_the_mask(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any) -> Any:
    """What a kernel that only knows causal attention would do."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    output = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    return output.transpose(1, 2), None


def calls_it_otherwise(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **kwargs: Any
) -> Any:
    output = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, enable_gqa=True)
    return output.transpose(1, 2), None


@pytest.mark.parametrize(
    ("attention", "reason"), [(ignores_the_mask, "differ by"), (calls_it_otherwise, "does not know")]
)
def test_a_model_that_attends_in_its_own_way_is_found_out(
    attention: Callable[..., Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, "sdpa", attention)
    packer = Always()
    for _ in range(2):
        scored(random_qwen2(), step_batch(), packer)
    assert packer.packed == 0
    assert all(reason in found for found in packer.refused)


def test_a_shape_is_proven_once_without_touching_mode_or_randomness() -> None:
    model, batch, packer = random_qwen2(), step_batch(), Always()
    output_head(model)  # has its own first look at a model
    model.train()
    state = torch.get_rng_state()
    calls: list[int] = []
    hook = model.model.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(3):
        scored(model, batch, packer)
    hook.remove()
    assert len(calls) == 2 + 3
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("batch", "packs"),
    [
        (step_batch(groups=1, size=8, prompt=200, length=10, dead=0, seed=3), True),
        (step_batch(groups=4, size=8, prompt=4, length=200, dead=0), True),  # ragged: no padding is a gain by itself
        (step_batch(groups=6, size=1, prompt=1, length=1, dead=0), False),
    ],
    ids=["long prompt", "ragged", "nothing shared"],
)
def test_packing_only_where_it_is_cheaper(batch: RolloutBatch, packs: bool) -> None:
    model = random_qwen2()
    model.config.max_position_embeddings = 512
    packer = Packer()
    with torch.no_grad():
        scored(model, batch, packer)
    assert bool(packer.packed) == packs
    assert packs or "cheaper" in next(iter(packer.refused))
