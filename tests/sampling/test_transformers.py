"""From messages to text: templates, ends, order and budgets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GenerationConfig, PreTrainedTokenizerFast

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.sampling import (
    Completion,
    TransformersSampler,
    encode,
    eos_ids,
    joined,
    pad_id,
    plan_portions,
    render,
    row_keys,
    sample_portions,
)
from tests.models import random_qwen2

VOCAB = 12
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}go{% endif %}"
)


def tokenizer(**options: Any) -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<eos>": 1, "user": 2, "go": 3, "<end>": 4} | {f"w{i}": i for i in range(5, VOCAB)}
    model = Tokenizer(WordLevel(words, unk_token="w5"))
    model.pre_tokenizer = WhitespaceSplit()
    model.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=model, **{"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "w5"} | options
    )
    made.chat_template = TEMPLATE
    return made


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


PROMPTS = [message("w6"), message("w7 w8 w9 w10"), message("w7 w8"), message("w11 w6 w6 w6 w6 w6")]
SAMPLING = SamplingConfig(max_completion_length=15)


def model() -> Any:
    return random_qwen2(vocab=VOCAB, seed=4)


def generate(
    net: Any, tok: Any, prompts: Any, k: int, config: SamplingConfig, keys: Any, max_rows: int = 128
) -> list[list[Completion]]:
    """Completions a prompt, sampled in portions of at most ``max_rows``."""
    sampler = TransformersSampler(net, tok)
    lengths = encode(tok, prompts)[1].sum(-1).tolist()
    portions = plan_portions(lengths, k, config.max_completion_length, 2**40, max_rows)
    parts = list(sample_portions(sampler, portions, prompts, k, config, keys))
    found = joined(parts, k, pad_id(tok)).completions()
    return [found[i * k : (i + 1) * k] for i in range(len(prompts))]


def test_prompts_are_rendered_and_padded_on_the_left() -> None:
    ids, mask = encode(tokenizer(), [message("w6"), "w7 w8 w9 w10"])
    assert ids.tolist() == [[0, 2, 6, 3], [7, 8, 9, 10]]
    assert mask.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1]]
    assert render(tokenizer(), message("w6")) == "user w6 go"


@pytest.mark.parametrize("max_rows", [1, 2, 5, 128])
def test_order_and_samples_do_not_depend_on_the_budget(max_rows: int) -> None:
    keys = row_keys(0, rows=len(PROMPTS) * 3)
    expected = generate(model(), tokenizer(), PROMPTS, 3, SAMPLING, keys)
    found = generate(model(), tokenizer(), PROMPTS, 3, SAMPLING, keys, max_rows=max_rows)
    assert found == expected
    assert [len(row) for row in found] == [3] * 4
    assert len({completion.text for row in found for completion in row}) > 4
    for number, prompt in enumerate(PROMPTS):
        alone = generate(model(), tokenizer(), [prompt], 3, SAMPLING, keys[3 * number : 3 * number + 3])
        assert alone[0] == expected[number]


def test_the_budget_bounds_the_rows() -> None:
    net, sizes = model(), []
    net.lm_head.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    generate(net, tokenizer(), PROMPTS, 5, SAMPLING, row_keys(0, rows=20), max_rows=4)
    assert max(sizes) <= 4


def test_completions_say_how_they_ended() -> None:
    found = generate(model(), tokenizer(), PROMPTS, 8, SAMPLING, row_keys(0, rows=32))
    completions = [completion for row in found for completion in row]
    assert {c.truncated for c in completions} == {True, False}
    for c in completions:
        assert 1 <= c.tokens <= 15
        assert not c.truncated or c.tokens == 15
        assert "<eos>" not in c.text


def test_greedy_text_equals_transformers() -> None:
    net, tok = model(), tokenizer()
    found = generate(net, tok, PROMPTS, 1, SamplingConfig(temperature=0, max_completion_length=15), row_keys(0, rows=4))
    ids, mask = encode(tok, PROMPTS)
    expected = net.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=15, pad_token_id=0)
    assert [row[0].text for row in found] == tok.batch_decode(expected[:, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("named", [4, [4, 6]])
def test_ends_are_the_tokenizers_and_the_generation_configs(named: Any) -> None:
    net = model()
    net.generation_config = GenerationConfig(eos_token_id=named)
    assert eos_ids(net, tokenizer()) == tuple(sorted({1, 4} | set(named if isinstance(named, list) else [])))
    found = generate(net, tokenizer(), PROMPTS, 8, SamplingConfig(max_completion_length=60), row_keys(0, rows=32))
    assert not any("<end>" in c.text[:-5] for row in found for c in row)
    assert any(c.text.endswith("<end>") for row in found for c in row)


def test_missing_tokens_and_templates() -> None:
    assert pad_id(tokenizer(pad_token=None)) == 1
    net = model()
    net.generation_config = GenerationConfig()
    with pytest.raises(UserError, match="eos_token"):
        eos_ids(net, tokenizer(eos_token=None))
    bare = tokenizer()
    bare.chat_template = None
    with pytest.raises(UserError, match="chat template"):
        render(bare, message("w6"))
    with pytest.raises(UserError, match="prompt 1 is empty"):
        encode(tokenizer(), ["w6", ""])


def test_wrong_keys() -> None:
    with pytest.raises(ValueError, match="12 rows need 12 keys, got 4"):
        TransformersSampler(model(), tokenizer()).sample(PROMPTS, 3, SAMPLING, [1, 2, 3, 4])


def test_a_sixteen_bit_policy_is_sampled_under_the_autocast_of_its_training() -> None:
    seen = []
    net = model().to(torch.bfloat16)
    net.lm_head.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    sampler = TransformersSampler(net, tokenizer())
    assert sampler.precision == "bf16"
    sampler.sample(PROMPTS, 1, SAMPLING, row_keys(0, rows=4))
    assert seen[-1]


def test_a_prompt_may_end_where_the_tokenizer_has_no_padding() -> None:
    found = generate(model(), tokenizer(pad_token=None), PROMPTS, 2, SAMPLING, row_keys(0, rows=8))
    with_padding = generate(model(), tokenizer(), PROMPTS, 2, SAMPLING, row_keys(0, rows=8))
    assert [[c.tokens for c in row] for row in found] == [[c.tokens for c in row] for row in with_padding]
    assert torch.is_grad_enabled()
