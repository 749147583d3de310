"""Tiny random models of many architectures, each made from its configuration by transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoTokenizer

from rlvr_lite.bases import EMBEDDED

ENDS = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
SIZES = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
} | ENDS
GPT = {"vocab_size": 128, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.15} | ENDS
OLD = {"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4} | ENDS
FEW = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
MLA = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 24,
          "first_k_dense_replace": 1, "n_shared_experts": 1}  # fmt: skip
MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8, "mamba_d_conv": 4}
HYBRID = ["linear_attention", "linear_attention", "full_attention"]
SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]


def _of(kind: str, sizes: Mapping[str, Any] = SIZES, **more: Any) -> Callable[[], Any]:
    return lambda: CONFIG_MAPPING[kind](**{k: v for k, v in {**sizes, **more}.items() if v != "absent"})


def _rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


#: Configurations by name.
ZOO: Mapping[str, Callable[[], Any]] = {
    "llama": _of("llama"),
    "llama_tied_bias": _of("llama", tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    "llama_yarn": _of("llama", rope_parameters=_rope("yarn", factor=4.0, original_max_position_embeddings=256)),
    "llama_dropout": _of("llama", attention_dropout=0.3),
    "qwen2": _of("qwen2"),
    "qwen2_sliding": _of("qwen2", use_sliding_window=True, sliding_window=12, max_window_layers=1),
    "qwen3": _of("qwen3", head_dim=16, tie_word_embeddings=True),
    "gemma": _of("gemma", head_dim=16, tie_word_embeddings=True),
    "gemma2": _of("gemma2", head_dim=16, sliding_window=12, query_pre_attn_scalar=16, final_logit_softcapping=2.0),
    "gemma3_text": _of("gemma3_text", head_dim=16, sliding_window=12, query_pre_attn_scalar=16, layer_types=SLIDING),
    # A padding row of zeros would have no gradient there: the root of the mean square at 0.
    "gemma3n_text": _of("gemma3n_text", pad_token_id=None, head_dim=16, sliding_window=12, layer_types=SLIDING, num_kv_shared_layers=0,
                        vocab_size_per_layer_input=128, hidden_size_per_layer_input=8, intermediate_size=48,
                        activation_sparsity_pattern=[0.0] * 3, laurel_rank=4, altup_num_inputs=2),
    "gemma4_text": _of("gemma4_text", head_dim=16, global_head_dim=16, sliding_window=12, layer_types=SLIDING,
                       hidden_size_per_layer_input=8, vocab_size_per_layer_input=128),
    "phi3": _of("phi3"),
    "phi": _of("phi", num_key_value_heads=4, resid_pdrop=0.3),
    "mistral": _of("mistral", sliding_window=None),
    "mistral_sliding": _of("mistral", sliding_window=12),
    "ministral3": _of("ministral3", head_dim=8),
    "gpt2": _of("gpt2", GPT),
    "gpt_neo": _of("gpt_neo", OLD, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=12,
                   num_hidden_layers="absent", num_attention_heads="absent", max_position_embeddings=512),
    "gpt_neox": _of("gpt_neox", num_key_value_heads="absent"),
    "gpt_bigcode": _of("gpt_bigcode", GPT),
    "gptj": _of("gptj", GPT, rotary_dim=8),
    "codegen": _of("codegen", GPT, rotary_dim=8),
    "opt": _of("opt", OLD, ffn_dim=48, max_position_embeddings=512, word_embed_proj_dim=16, init_std=0.15),
    "bloom": _of("bloom", ENDS, vocab_size=128, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.15),
    "mpt": _of("mpt", ENDS, vocab_size=128, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2, max_seq_len=512),
    "falcon": _of("falcon", OLD, num_kv_heads=2, new_decoder_architecture=True, initializer_range=0.15),
    "falcon_alibi": _of("falcon", OLD, alibi=True, new_decoder_architecture=False, multi_query=True, parallel_attn=True),
    "xglm": _of("xglm", ENDS, vocab_size=128, d_model=32, ffn_dim=48, num_layers=2, attention_heads=4, init_std=0.15),
    "biogpt": _of("biogpt", num_key_value_heads="absent"),
    "persimmon": _of("persimmon", num_key_value_heads="absent"),
    "olmo": _of("olmo"),
    "olmo2": _of("olmo2"),
    "olmo3": _of("olmo3", sliding_window=12, layer_types=SLIDING),
    "cohere": _of("cohere", logit_scale=0.25),
    "cohere2": _of("cohere2", logit_scale=0.25, sliding_window=12, layer_types=SLIDING),
    "granite": _of("granite", logits_scaling=8.0, residual_multiplier=0.22, embedding_multiplier=12.0),
    "granitemoe": _of("granitemoe", num_local_experts=4, num_experts_per_tok=2, logits_scaling=4.0),
    "granitemoehybrid": _of("granitemoehybrid", num_local_experts=4, num_experts_per_tok=2, logits_scaling=4.0,
                            layer_types=["mamba", "mamba", "attention"], shared_intermediate_size=24, mamba_expand=2,
                            mamba_n_groups=1, **MAMBA),
    "stablelm": _of("stablelm"),
    "starcoder2": _of("starcoder2", sliding_window=None, residual_dropout=0.3, embedding_dropout=0.3),
    "smollm3": _of("smollm3", no_rope_layers=[1, 0, 1]),
    "nemotron": _of("nemotron", head_dim=8),
    "glm": _of("glm", head_dim=8),
    "glm4": _of("glm4", head_dim=8),
    "exaone4": _of("exaone4", sliding_window=12, sliding_window_pattern=3, layer_types=SLIDING),
    "ernie4_5": _of("ernie4_5", head_dim=8),
    "helium": _of("helium", head_dim=8),
    "apertus": _of("apertus"),
    "arcee": _of("arcee"),
    "seed_oss": _of("seed_oss", head_dim=8),
    "nanochat": _of("nanochat", final_logit_softcapping=2.0),
    "minicpm3": _of("minicpm3", dim_model_base=64, **MLA),
    "hunyuan_v1_dense": _of("hunyuan_v1_dense", head_dim=8),
    "diffllama": _of("diffllama"),
    "hyperclovax": _of("hyperclovax", logits_scaling=4.0),
    "lfm2": _of("lfm2", layer_types=["conv", "conv", "full_attention"], conv_L_cache=3),
    "qwen3_5": _of("qwen3_5_text", head_dim=8, layer_types=HYBRID, **DELTA),
    "qwen3_next": _of("qwen3_next", head_dim=8, shared_expert_intermediate_size=24, layer_types=HYBRID, **DELTA, **FEW),
    "falcon_h1": _of("falcon_h1", mamba_d_ssm=32, lm_head_multiplier=0.3, head_dim=8,
                     **(MAMBA | {"mamba_d_head": 8})),
    "bamba": _of("bamba", attn_layer_indices=[2], mamba_expand=2, **MAMBA),
    "nemotron_h": _of("nemotron_h", head_dim=8, hybrid_override_pattern="M*-", mamba_num_heads=4, mamba_head_dim=16,
                      ssm_state_size=8, n_groups=1, chunk_size=8),
    "mamba": _of("mamba", ENDS, vocab_size=128, hidden_size=32, num_hidden_layers=2, state_size=8),
    "mamba2": _of("mamba2", ENDS, vocab_size=128, hidden_size=32, num_hidden_layers=2, state_size=8, num_heads=4,
                  head_dim=16, n_groups=1, chunk_size=8),
    "recurrent_gemma": _of("recurrent_gemma", head_dim=8, lru_width=32, attention_window_size=12,
                           block_types=["recurrent", "recurrent", "attention"], conv1d_width=4),
    "jamba": _of("jamba", num_experts=4, num_experts_per_tok=2, attn_layer_period=3, attn_layer_offset=2,
                 expert_layer_period=2, expert_layer_offset=1, mamba_d_state=8, mamba_d_conv=4, mamba_dt_rank=4,
                 use_mamba_kernels=False),
    "qwen2_moe": _of("qwen2_moe", shared_expert_intermediate_size=24, **FEW),
    "qwen3_moe": _of("qwen3_moe", head_dim=8, mlp_only_layers=[0], **FEW),
    "mixtral": _of("mixtral", num_local_experts=4, num_experts_per_tok=2, sliding_window=None, router_jitter_noise=0.3),
    "olmoe": _of("olmoe", num_experts=4, num_experts_per_tok=2),
    "phimoe": _of("phimoe", num_local_experts=4, num_experts_per_tok=2, input_jitter_noise=0.3, router_jitter_noise=0.3),
    "gpt_oss": _of("gpt_oss", head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=12,
                   layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                   rope_parameters=_rope("default")),
    "deepseek_v2": _of("deepseek_v2", **MLA, **ROUTED, topk_method="greedy"),
    "deepseek_v3": _of("deepseek_v3", **MLA, **ROUTED),
    "glm4_moe": _of("glm4_moe", head_dim=8, **ROUTED),
    "ernie4_5_moe": _of("ernie4_5_moe", moe_num_experts=4, moe_k=2, moe_intermediate_size=24, head_dim=8),
    "minimax": _of("minimax", head_dim=8, num_local_experts=4, num_experts_per_tok=2, block_size=8,
                   layer_types=["linear_attention", "full_attention", "linear_attention"]),
    "llama4_text": _of("llama4_text", head_dim=8, num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=48,
                       attention_chunk_size=64),
    "zamba2": _of("zamba2", num_key_value_heads=4, attention_hidden_size=64, attention_head_dim=16, mamba_d_state=8,
                  n_mamba_heads=4, mamba_headdim=16, mamba_ngroups=1, chunk_size=8, num_mem_blocks=1,
                  layers_block_type=["mamba", "hybrid", "mamba"], hybrid_layer_ids=[1], adapter_rank=4),
}  # fmt: skip


def random_model(config: Any, *, seed: int = 0, device: str = "cpu") -> Any:
    """A model with random weights, those of norms too, in eval mode."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and not any(part in name for part in ("A_log", "dt", ".D", "sinks")):
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def saved(name: str, folder: Path, **changes: Any) -> Path:
    """A folder with a model of that architecture and the embedded tokenizer."""
    config = ZOO[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    model = random_model(config)
    model.generation_config.update(eos_token_id=1, pad_token_id=0, bos_token_id=None)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(EMBEDDED["tiny"]).save_pretrained(folder)
    return folder
