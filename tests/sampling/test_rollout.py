"""Rollouts: equal to transformers where that is defined, independent row by row, and without side effects."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import Truncation, completion_logprobs
from rlvr_lite.sampling import Rollout, rollout, row_keys
from rlvr_lite.sampling import _decode as decode
from tests.models import random_qwen2
from tests.sampling.reference import plain_rollout

EOS, PAD = 1, 0
GREEDY = SamplingConfig(temperature=0, max_completion_length=24)


def prompts(count: int = 5, width: int = 7, vocab: int = 96, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(width) >= torch.randint(0, width, (count, 1), generator=generator)).long()
    return torch.randint(2, vocab, (count, width), generator=generator) * mask, mask


def sample(
    model: Any, ids: Tensor, mask: Tensor, group: int = 1, sampling: SamplingConfig = GREEDY, **options: Any
) -> Rollout:
    keys = options.pop("keys", None) or row_keys(0, rows=len(ids) * group)
    return rollout(
        model, ids, mask, group_size=group, sampling=sampling, eos_ids=[EOS], pad_id=PAD, row_keys=keys, **options
    )


def architectures() -> list[Any]:
    small: dict[str, Any] = {
        "vocab_size": 20,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
        "pad_token_id": PAD,
        "bos_token_id": 2,
        "eos_token_id": EOS,
    }
    torch.manual_seed(0)
    return [
        random_qwen2(),
        random_qwen2(vocab=6, seed=3),
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**small)).eval(),
        transformers.MistralForCausalLM(transformers.MistralConfig(**small, sliding_window=5)).eval(),
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=20, n_embd=32, n_layer=2, n_head=4, bos_token_id=2, eos_token_id=EOS)
        ).eval(),
    ]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "number", range(5), ids=["qwen2", "tiny vocabulary", "llama", "sliding window", "learned positions"]
)
def test_greedy_equals_transformers(number: int, use_cache: bool) -> None:
    model = architectures()[number]
    ids, mask = prompts(vocab=model.config.vocab_size)
    expected = model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=GREEDY.max_completion_length,
        eos_token_id=EOS,
        pad_token_id=PAD,
        use_cache=use_cache,
    )[:, ids.shape[1] :]
    found = sample(model, ids, mask)
    assert torch.equal(found.tokens, expected)


def test_logprobs_are_those_that_training_scores() -> None:
    model = random_qwen2()
    ids, mask = prompts()
    sampling = SamplingConfig(temperature=0.7, top_k=5, top_p=0.9, max_completion_length=30)
    found = sample(model, ids, mask, 4, sampling)
    scored, _ = completion_logprobs(
        model,
        ids.repeat_interleave(4, 0),
        mask.repeat_interleave(4, 0),
        found.tokens,
        found.mask,
        0.7,
        truncation=Truncation(top_k=5, top_p=0.9),
    )
    torch.testing.assert_close(found.logprobs, scored, rtol=0, atol=1e-4)


def test_shape_padding_and_ends() -> None:
    model = random_qwen2(vocab=8, seed=1)
    ids, mask = prompts(vocab=8)
    found = sample(model, ids, mask, 6, SamplingConfig(max_completion_length=40))
    lengths = found.mask.sum(1)
    assert found.tokens.shape == found.mask.shape == found.logprobs.shape == (30, int(lengths.max()))
    assert len(set(lengths.tolist())) > 3
    for row, length in enumerate(lengths.tolist()):
        tokens = found.tokens[row].tolist()
        assert EOS not in tokens[: length - 1]
        assert tokens[length - 1] == EOS or length == 40
        assert set(tokens[length:]) <= {PAD}
        assert found.mask[row].tolist() == [1] * length + [0] * (len(tokens) - length)
        assert (found.logprobs[row, length:] == 0).all()
        assert (found.logprobs[row, :length] < 0).all()


def joined(parts: list[Rollout], length: int) -> Tensor:
    return torch.cat([torch.nn.functional.pad(p.tokens, (0, length - p.tokens.shape[1]), value=PAD) for p in parts])


def test_samples_do_not_depend_on_the_batch() -> None:
    model = random_qwen2(vocab=16, seed=2)
    ids, mask = prompts(6, vocab=16)
    keys = row_keys(5, "x", rows=6 * 4)
    sampling = SamplingConfig(max_completion_length=40)
    whole = sample(model, ids, mask, 4, sampling, keys=keys)
    width = whole.tokens.shape[1]
    split = [
        sample(model, ids[p : p + 1], mask[p : p + 1], 4, sampling, keys=keys[4 * p : 4 * p + 4]) for p in range(6)
    ]
    assert torch.equal(joined(split, width), whole.tokens)
    order = [3, 0, 5, 1, 4, 2]
    shuffled_keys = [keys[4 * p + i] for p in order for i in range(4)]
    shuffled = sample(model, ids[order], mask[order], 4, sampling, keys=shuffled_keys)
    assert torch.equal(shuffled.tokens.view(6, 4, -1), whole.tokens.view(6, 4, -1)[order])
    single = [
        sample(model, ids[p : p + 1], mask[p : p + 1], 1, sampling, keys=[keys[4 * p + i]])
        for p in range(6)
        for i in range(4)
    ]
    assert torch.equal(joined(single, width), whole.tokens)


RAGGED = SamplingConfig(temperature=1.2, max_completion_length=40)


@pytest.mark.parametrize(
    "sampling", [RAGGED, GREEDY, SamplingConfig(top_p=0.8, top_k=9, max_completion_length=40)], ids=str
)
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize(
    "number", range(5), ids=["qwen2", "tiny vocabulary", "llama", "sliding window", "learned positions"]
)
def test_looking_at_every_token_it_is_the_plain_loop_bit_for_bit(
    number: int, padded: bool, sampling: SamplingConfig
) -> None:
    model = architectures()[number]
    ids, mask = prompts(vocab=model.config.vocab_size)
    ids, mask = (ids, mask) if padded else (ids.clamp(min=2), torch.ones_like(mask))
    keys = row_keys(0, rows=4 * len(ids))
    options: Any = {"group_size": 4, "sampling": sampling, "eos_ids": [EOS], "pad_id": PAD, "row_keys": keys}
    expected = plain_rollout(model, ids, mask, **options)
    found = rollout(model, ids, mask, **options, every=1)
    for name in ("tokens", "mask", "logprobs"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    rarely = rollout(model, ids, mask, **options, every=16)
    assert torch.equal(rarely.tokens, expected.tokens)
    torch.testing.assert_close(rarely.logprobs, expected.logprobs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("every", [1, 3, 16, 100])
def test_long_completions_use_every_block_of_numbers(every: int) -> None:
    model = random_qwen2()
    ids, mask = prompts(2)
    sampling, keys = SamplingConfig(max_completion_length=300), row_keys(0, rows=4)
    options: Any = {"group_size": 2, "sampling": sampling, "eos_ids": [], "pad_id": PAD, "row_keys": keys}
    expected = plain_rollout(model, ids, mask, **options)
    assert torch.equal(rollout(model, ids, mask, **options, every=every).tokens, expected.tokens)


def test_other_attention_than_sdpa_gets_the_mask_that_it_understands() -> None:
    """A row of booleans would be added to the scores of eager attention as numbers."""
    model = random_qwen2()
    ids, mask = prompts()
    expected = sample(model, ids, mask)
    model.set_attn_implementation("eager")
    found = sample(model, ids, mask)
    assert torch.equal(found.tokens, expected.tokens)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=1e-5)


def test_the_host_looks_once_in_sixteen_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a value of a tensor waits for a GPU, whose default this is; the plain loop does it several times a token."""
    model = random_qwen2()
    ids, mask = prompts()
    looks = Counter[str]()

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            name = func._schema.name
            if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal"):
                looks[name] += 1
            return func(*args, **(kwargs or {}))

    original = Tensor.tolist

    def counted(tensor: Tensor) -> Any:
        looks["tolist"] += 1
        return original(tensor)

    monkeypatch.setattr(Tensor, "tolist", counted)
    reads = {}
    for length in (20, 84):
        looks.clear()
        with Reads():
            rollout(
                model,
                ids,
                mask,
                group_size=2,
                sampling=SamplingConfig(max_completion_length=length),
                eos_ids=[],
                pad_id=PAD,
                row_keys=row_keys(0, rows=2 * len(ids)),
                every=16,
            )
        reads[length] = looks.total()
    assert reads[84] - reads[20] <= 64 // 16


def test_another_key_gives_another_sample() -> None:
    model = random_qwen2()
    ids, mask = prompts(1)
    sampling = SamplingConfig(max_completion_length=20)
    found = {tuple(sample(model, ids, mask, 1, sampling, keys=[key]).tokens[0].tolist()) for key in row_keys(0, rows=8)}
    assert len(found) == 8


def test_left_padding_does_not_matter() -> None:
    model = random_qwen2()
    ids, mask = prompts(4)
    padded = [torch.nn.functional.pad(x, (5, 0)) for x in (ids, mask)]
    found = sample(model, *padded)
    for row in range(4):
        own = ids[row : row + 1, mask[row].bool()]
        alone = sample(model, own, torch.ones_like(own))
        length = int(alone.mask.sum())
        assert torch.equal(found.tokens[row, :length], alone.tokens[0])
        torch.testing.assert_close(found.logprobs[row, :length], alone.logprobs[0], rtol=0, atol=1e-5)


def test_finished_rows_leave_the_batch() -> None:
    model = random_qwen2(vocab=6, seed=3)
    ids, mask = prompts(8, vocab=6)
    sizes: list[int] = []
    hook = model.lm_head.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    found = sample(model, ids, mask, 4, SamplingConfig(max_completion_length=60), every=1)
    hook.remove()
    alive = [int((found.mask.sum(1) > step).sum()) for step in range(found.tokens.shape[1])]
    decoded = sizes[-len(alive) :]
    assert alive[-1] < alive[0] / 2
    assert all(n <= size <= n * 8 / 7 + 1 for n, size in zip(alive, decoded, strict=True))


def test_the_prompt_is_read_once_a_group() -> None:
    model = random_qwen2()
    ids, mask = prompts(3)
    sample(model, ids, mask, 5, SamplingConfig(max_completion_length=3))  # the first look at a model
    shapes: list[tuple[int, ...]] = []
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape)))
    sample(model, ids, mask, 5, SamplingConfig(max_completion_length=3))
    sample(model, ids, mask, 5, SamplingConfig(max_completion_length=3))
    hook.remove()
    assert shapes.count((3, 7)) == 2
    assert all(shape[1] == 1 for shape in shapes if shape != (3, 7))


def test_adapters_take_part_and_modes_come_back() -> None:
    base = random_qwen2()
    ids, mask = prompts()
    plain = sample(base, ids, mask)
    model = get_peft_model(
        base, LoraConfig(target_modules=["q_proj", "v_proj"], lora_dropout=0.5, task_type="CAUSAL_LM")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    model.train()
    base.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    first, second = sample(model, ids, mask), sample(model, ids, mask)
    assert torch.equal(first.tokens, second.tokens)  # dropout is off
    assert not torch.equal(first.tokens, plain.tokens)
    assert [module.training for module in model.modules()] == before
    assert not first.logprobs.requires_grad


def test_an_interrupted_rollout_restores_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_qwen2().train()

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(decode, "choose", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sample(model, *prompts())
    assert all(module.training for module in model.modules())


def test_gradient_checkpointing_does_not_switch_the_cache_off() -> None:
    model = random_qwen2()
    ids, mask = prompts()
    expected = sample(model, ids, mask)
    model.train()
    model.gradient_checkpointing_enable()
    assert torch.equal(sample(model, ids, mask).tokens, expected.tokens)


def test_autocast_is_the_callers() -> None:
    model = random_qwen2()
    with torch.autocast("cpu", torch.bfloat16):
        found = sample(model, *prompts(), 2, SamplingConfig(max_completion_length=8))
    assert found.logprobs.dtype == torch.float32
    assert found.logprobs.isfinite().all()


def test_global_randomness_is_neither_used_nor_moved() -> None:
    model = random_qwen2()
    torch.manual_seed(1)
    first = sample(model, *prompts(), 2, SamplingConfig(max_completion_length=8))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = sample(model, *prompts(), 2, SamplingConfig(max_completion_length=8))
    assert torch.equal(first.tokens, second.tokens)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_input_is_named() -> None:
    model = random_qwen2()
    ids, mask = prompts()
    with pytest.raises(ValueError, match="10 rows need 10 keys, got 3"):
        sample(model, ids, mask, 2, keys=[1, 2, 3])
    with pytest.raises(ValueError, match="no token"):
        sample(model, ids, mask * 0)


def test_sampled_sequences_by_chi_square() -> None:
    """Two tokens deep on a vocabulary of four: all sixteen sequences occur as often as the model says."""
    model = random_qwen2(vocab=4, seed=5)
    ids = torch.tensor([[2, 3]])
    samples = 4000
    found = rollout(
        model,
        ids,
        torch.ones_like(ids),
        group_size=samples,
        sampling=SamplingConfig(temperature=1.3, max_completion_length=2),
        eos_ids=[],
        pad_id=PAD,
        row_keys=row_keys(0, rows=samples),
    )
    counts = (found.tokens[:, 0] * 4 + found.tokens[:, 1]).bincount(minlength=16)
    every = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    with torch.no_grad():
        logits = model(input_ids=torch.cat([ids.expand(16, -1), every], 1)).logits[:, 1:3] / 1.3
    expected = samples * logits.log_softmax(-1).gather(-1, every[..., None]).squeeze(-1).sum(-1).exp()
    assert ((counts - expected) ** 2 / expected).sum() < 38  # 15 degrees of freedom, p = 9e-4
