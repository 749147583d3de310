"""Real widths of many architectures, few layers deep: what the closed form is held against the dry run on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LAYERS = 6
_DEEP = {"num_hidden_layers": LAYERS}


def _sizes(hidden: int, inner: int, heads: int, kv: int, vocabulary: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": hidden, "intermediate_size": inner, "num_attention_heads": heads, "num_key_value_heads": kv,
        "vocab_size": vocabulary, "max_position_embeddings": 32768,
    } | _DEEP | more  # fmt: skip


_MIXED = ["linear_attention", "linear_attention", "full_attention"] * 2
_SLIDING = ["sliding_attention", "sliding_attention", "full_attention"] * 2

#: Model type and sizes, by name.
ARCHITECTURES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5-0.5B": ("qwen2", _sizes(896, 4864, 14, 2, 151936, tie_word_embeddings=True)),
    "Llama-3.2-1B": ("llama", _sizes(2048, 8192, 32, 8, 128256, tie_word_embeddings=True)),
    "Qwen3-0.6B": ("qwen3", _sizes(1024, 3072, 16, 8, 151936, head_dim=128, tie_word_embeddings=True)),
    "SmolLM3-3B": ("smollm3", _sizes(2048, 11008, 16, 4, 128256, tie_word_embeddings=True)),
    "OLMo-2-1B": ("olmo2", _sizes(2048, 8192, 16, 16, 100352)),
    "Mistral-7B": ("mistral", _sizes(4096, 14336, 32, 8, 32768, sliding_window=None)),
    "Phi-4-mini": ("phi3", _sizes(3072, 8192, 24, 8, 200064, tie_word_embeddings=True, pad_token_id=0)),
    "Phi-2": ("phi", _sizes(2560, 10240, 32, 32, 51200)),
    "Gemma-2B": ("gemma", _sizes(2048, 16384, 8, 1, 256000, head_dim=256)),
    "Gemma-2-2B": ("gemma2", _sizes(2304, 9216, 8, 4, 256000, head_dim=256)),
    "Gemma-3-1B": ("gemma3_text", _sizes(1152, 6912, 4, 1, 262144, head_dim=256, sliding_window=512, layer_types=_SLIDING)),
    "Granite-3.3-2B": ("granite", _sizes(2048, 8192, 32, 8, 49159, tie_word_embeddings=True)),
    "StarCoder2-3B": ("starcoder2", _sizes(3072, 12288, 24, 2, 49152, sliding_window=None)),
    "StableLM-2-1.6B": ("stablelm", _sizes(2048, 5632, 32, 32, 100352)),
    "Nemotron-mini-4B": ("nemotron", _sizes(3072, 9216, 24, 8, 256000, head_dim=128)),
    "GLM-4-9B": ("glm", _sizes(4096, 13696, 32, 2, 151552, head_dim=128)),
    "EXAONE-4-1.2B": ("exaone4", _sizes(2048, 4096, 32, 8, 102400, sliding_window=4096, sliding_window_pattern=4, layer_types=_SLIDING)),
    "Command-R7B": ("cohere2", _sizes(4096, 14336, 32, 8, 256000, sliding_window=4096, layer_types=_SLIDING)),
    "Pythia-1B": ("gpt_neox", {
        "vocab_size": 50304, "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 8, **_DEEP,
        "max_position_embeddings": 32768,
    }),
    "GPT-2-medium": ("gpt2", {"vocab_size": 50257, "n_embd": 1024, "n_head": 16, "n_layer": LAYERS, "n_positions": 32768}),
    "OPT-1.3B": ("opt", {
        "vocab_size": 50272, "hidden_size": 2048, "ffn_dim": 8192, "num_attention_heads": 32, **_DEEP,
        "word_embed_proj_dim": 2048, "max_position_embeddings": 32768,
    }),
    "Bloom-560M": ("bloom", {"vocab_size": 250880, "hidden_size": 1024, "n_head": 16, "n_layer": LAYERS}),
    "GPT-J": ("gptj", {"vocab_size": 50400, "n_embd": 4096, "n_head": 16, "n_layer": LAYERS, "rotary_dim": 64, "n_positions": 2048}),
    "MPT-1B": ("mpt", {"vocab_size": 50368, "d_model": 2048, "n_heads": 16, "n_layers": LAYERS, "max_seq_len": 32768}),
    "Falcon-7B": ("falcon", {
        "vocab_size": 65024, "hidden_size": 4544, "num_attention_heads": 71, "multi_query": True, "parallel_attn": True,
        **_DEEP,
    }),
    "LFM2-1.2B": ("lfm2", _sizes(2048, 12288, 32, 8, 65536, layer_types=["conv", "conv", "full_attention"] * 2)),
    "Qwen3.5-0.8B": ("qwen3_5_text", _sizes(
        1024, 3584, 8, 2, 248320, head_dim=256, layer_types=_MIXED, linear_num_key_heads=16, linear_num_value_heads=16,
        linear_key_head_dim=128, linear_value_head_dim=128, tie_word_embeddings=True,
    )),
    "Qwen3-30B-A3B": ("qwen3_moe", _sizes(
        2048, 6144, 32, 4, 151936, head_dim=128, moe_intermediate_size=768, num_experts=128, num_experts_per_tok=8,
    )),
    "OLMoE-1B-7B": ("olmoe", _sizes(2048, 1024, 16, 16, 50304, num_experts=64, num_experts_per_tok=8)),
    "DeepSeek-V2-Lite": ("deepseek_v2", _sizes(
        2048, 10944, 16, 16, 102400, q_lora_rank=None, kv_lora_rank=512, qk_rope_head_dim=64, qk_nope_head_dim=128,
        v_head_dim=128, n_routed_experts=64, num_experts_per_tok=6, n_group=1, topk_group=1, moe_intermediate_size=1408,
        first_k_dense_replace=1, n_shared_experts=2, topk_method="greedy",
    )),
    "Granite-4-H": ("granitemoehybrid", _sizes(
        1536, 512, 12, 4, 100352, num_local_experts=0, num_experts_per_tok=0, layer_types=["mamba", "mamba", "attention"] * 2,
        shared_intermediate_size=4096, mamba_expand=2, mamba_n_groups=1, mamba_n_heads=48, mamba_d_head=64, mamba_d_state=128,
    )),
}  # fmt: skip
