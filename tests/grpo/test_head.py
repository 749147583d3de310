"""Which models may be taken apart into backbone and head, and that the others are named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import CohereConfig, CohereForCausalLM, Gemma2Config, Gemma2ForCausalLM, Qwen2ForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from rlvr_lite.grpo import output_head
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


def test_changed_logits_are_refused_by_setting() -> None:
    with pytest.raises(ValueError, match=r"final_logit_softcapping=30\.0"):
        output_head(Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8)))
    with pytest.raises(ValueError, match=r"logit_scale=0\.0625"):
        output_head(CohereForCausalLM(CohereConfig(**SMALL)))


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
def test_changed_logits_are_refused_without_setting(kind: type[Qwen2ForCausalLM]) -> None:
    with pytest.raises(ValueError, match="not a plain projection"):
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
