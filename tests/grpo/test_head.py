"""Which models may be taken apart into backbone and head, and that the others are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2ForCausalLM,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from rlvr_lite.grpo import output_head, token_logprobs
from tests.models import random_qwen2

SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def logits_agree(model: Any) -> bool:
    head = output_head(model)
    ids = torch.arange(6)[None]
    with torch.no_grad():
        hidden = head.backbone(input_ids=ids, use_cache=False).last_hidden_state
        return torch.allclose(head.logits(hidden), model(input_ids=ids).logits, atol=1e-5)


def test_plain_and_peft_models_are_taken_apart() -> None:
    assert logits_agree(random_qwen2())
    model = get_peft_model(random_qwen2(), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert output_head(model).causal_lm is model.get_base_model()
    assert logits_agree(model)


def test_a_saved_copy_of_the_head_is_the_head() -> None:
    config = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"], task_type="CAUSAL_LM")
    model = get_peft_model(random_qwen2(tied=False), config)
    head = output_head(model)
    assert head.weight.requires_grad
    with torch.no_grad():
        head.weight.add_(1)
    assert logits_agree(model)


CHANGED = {
    "gemma2": (Gemma2ForCausalLM, Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=0.5), (1.0, 0.5)),
    "cohere": (CohereForCausalLM, CohereConfig(**SMALL, logit_scale=0.25), (0.25, None)),
    "granite": (GraniteForCausalLM, GraniteConfig(**SMALL, logits_scaling=8.0), (0.125, None)),
    "falcon_h1": (FalconH1ForCausalLM, FalconH1Config(**SMALL, mamba_d_ssm=16, mamba_n_heads=2, mamba_d_head=8,
                  mamba_d_state=8, mamba_chunk_size=8, lm_head_multiplier=0.3), (0.3, None)),
    "opt": (OPTForCausalLM, OPTConfig(vocab_size=32, hidden_size=16, ffn_dim=32, num_hidden_layers=1,
            num_attention_heads=2, word_embed_proj_dim=8, pad_token_id=0), (1.0, None)),
    "gptj": (GPTJForCausalLM, GPTJConfig(vocab_size=32, n_embd=16, n_layer=1, n_head=2, rotary_dim=4), (1.0, None)),
}  # fmt: skip


def make(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    model = kind._from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", CHANGED)
def test_scaled_capped_and_biased_logits_are_read_off_the_model(name: str) -> None:
    kind, config, expected = CHANGED[name]
    model = make(kind, config)
    head = output_head(model)
    assert (head.scale, head.cap) == pytest.approx(expected)
    assert logits_agree(model)
    with torch.device("meta"):
        assert (output_head(kind._from_config(config)).scale, head.cap) == pytest.approx(expected)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", CHANGED)
def test_log_probabilities_and_gradients_are_those_of_the_models_own_logits(name: str, trained: bool) -> None:
    model = make(*CHANGED[name][:2]).double()
    head = output_head(model)
    head.weight.requires_grad_(trained)
    ids = torch.randint(1, 32, (2, 7))
    hidden = head.backbone(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    targets, weights = ids[:, 1:].flatten(), torch.randn(12, dtype=torch.float64)
    wanted = [p for p in model.parameters() if p.requires_grad]
    found, entropy = token_logprobs(hidden, head.weight, head.bias, targets, 0.7, scale=head.scale, cap=head.cap)
    ours = torch.autograd.grad((found * weights).sum(), wanted, retain_graph=True, allow_unused=True)
    own = (model(input_ids=ids, use_cache=False).logits[:, :-1].flatten(0, 1) / 0.7).log_softmax(-1)
    expected = own.gather(-1, targets[:, None])[:, 0]
    theirs = torch.autograd.grad((expected * weights).sum(), wanted, allow_unused=True)
    # Some models turn logits to single precision on their way out.
    torch.testing.assert_close(found, expected.double(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(entropy, -(own.exp() * own).sum(-1).double(), atol=1e-5, rtol=1e-5)
    for mine, their in zip(ours, theirs, strict=True):
        if their is not None:
            torch.testing.assert_close(mine, their, atol=1e-6, rtol=1e-5)


class Scaled(Qwen2ForCausalLM):
    """An architecture that nobody has heard of: it scales its logits without a setting."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output


class Shrunk(Qwen2ForCausalLM):
    """Another one: it changes what its backbone gives before the head sees it."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden = self.model(input_ids=kwargs["input_ids"], use_cache=False).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden / 2))


@pytest.mark.parametrize("kind", [Scaled, Shrunk])
def test_factors_without_a_setting_are_found(kind: type[Qwen2ForCausalLM]) -> None:
    model = kind(random_qwen2().config)
    assert output_head(model).scale == 0.5
    assert logits_agree(model)


class Unpadded(Qwen2ForCausalLM):
    """Its head has rows that stand for no token."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits[..., :90]
        return output


def test_rows_of_the_head_without_a_token_are_left_out() -> None:
    model = Unpadded(random_qwen2().config)
    assert output_head(model).weight.shape[0] == 90
    assert logits_agree(model)


class Shifted(Qwen2ForCausalLM):
    """It does what is neither a factor nor a cap."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.sin()
        return output


class Cut(Qwen2ForCausalLM):
    """It leaves out the first token."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits[..., 1:]
        return output


class Elsewhere(Qwen2ForCausalLM):
    """Its backbone knows more than what it is called with from outside."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["inputs_embeds"] = 2 * self.model.embed_tokens(kwargs.pop("input_ids"))
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize("kind", [Shifted, Cut, Elsewhere])
def test_heads_that_are_no_scaled_or_capped_projection_are_refused(kind: type[Qwen2ForCausalLM]) -> None:
    with pytest.raises(ValueError, match="not a scaled or capped projection"):
        output_head(kind(random_qwen2().config))


def test_the_first_look_does_not_mind_dropout() -> None:
    config = LoraConfig(target_modules=["q_proj"], lora_dropout=0.9, init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(random_qwen2(), config).train()
    output_head(model)
    assert model.training


def test_adapters_where_they_cannot_be_honoured_are_refused() -> None:
    on_head = LoraConfig(target_modules=["q_proj", "lm_head"], task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="lm_head"):
        output_head(get_peft_model(random_qwen2(tied=False), on_head))
    with pytest.raises(ValueError, match="prompt-learning"):
        output_head(get_peft_model(random_qwen2(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)))
    with pytest.raises(ValueError, match="output head"):
        output_head(torch.nn.Linear(2, 2))
