"""What the Unsloth route leans on, read from the installed sources without importing them.

A failure means that Unsloth changed: audit ``rlvr_lite/bases/_unsloth*.py`` against it before widening the versions.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.find_spec("unsloth")
pytestmark = pytest.mark.skipif(_SPEC is None, reason="unsloth is not installed: pip install 'rlvr-lite[unsloth]'")


def tree(path: str) -> ast.Module:
    folder = Path(_SPEC.submodule_search_locations[0])
    return ast.parse((folder / path).read_text(encoding="utf-8"))


def function(path: str, name: str, within: str | None = None) -> ast.FunctionDef:
    places = [tree(path)]
    if within is not None:
        places = [n for n in ast.walk(places[0]) if isinstance(n, ast.ClassDef) and n.name == within]
    found = [n for place in places for n in ast.walk(place) if isinstance(n, ast.FunctionDef) and n.name == name]
    assert found, f"{path} has no {name}"
    return found[0]


def parameters(found: ast.FunctionDef) -> list[str]:
    return [a.arg for a in [*found.args.posonlyargs, *found.args.args, *found.args.kwonlyargs]]


def names(node: ast.AST) -> set[str]:
    """Every name, attribute and string in a piece of code."""
    return (
        {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
        | {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    )


def called(node: ast.AST) -> set[str]:
    return {n.func.id for n in ast.walk(node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}


def test_every_option_of_the_load_exists():
    import inspect

    from rlvr_lite.bases import _unsloth

    loads = [
        n
        for n in ast.walk(ast.parse(inspect.getsource(_unsloth)))
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "from_pretrained"
    ]
    given = {k.arg for k in loads[0].keywords}
    found = function("models/loader.py", "from_pretrained", within="FastLanguageModel")
    assert found.args.kwarg is not None
    assert given - set(parameters(found)) == {
        "use_safetensors",
        "local_files_only",
    }  # for transformers, through **kwargs
    # A new default may change what is loaded: look at it, and pass it explicitly.
    left = set(parameters(found)) - given
    unneeded = {
        "token",
        "device_map_planner_kwargs",
        "revision",
        "gpu_memory_utilization",
        "float8_kv_cache",
        "max_lora_rank",
    }
    assert left - unneeded <= {"on_model_resolved"}


def test_the_decode_guards_are_those_that_were_audited():
    guards = {
        "_has_non_lora_adapter",
        "_has_multiple_active_adapters",
        "_has_active_dora_adapter",
        "_has_active_lora_bias",
        "_has_packed_qweight",
    }
    found = function("kernels/utils.py", "fast_linear_forward")
    assert {name for name in called(found) if name.startswith("_has_")} == guards
    assert parameters(function("kernels/utils.py", "_has_non_lora_adapter")) == ["proj"]


def test_a_foreign_layer_is_known_by_its_base_layer():
    assert {"_modules", "base_layer", "lora_A"} <= names(function("kernels/utils.py", "_has_non_lora_adapter"))


def test_casts_of_adapters_are_keyed_by_optimizer_steps():
    assert {"_OPTIMIZER_STEPS", "_fast_lora"} <= names(function("kernels/utils.py", "_fast_lora_weights"))


def test_decoding_reads_weight_and_scale_of_a_lora():
    read = names(function("kernels/utils.py", "get_lora_parameters_bias"))
    assert {"lora_A", "lora_B", "weight", "scaling", "base_layer", "disable_adapters"} <= read


def test_the_causal_model_closes_over_its_decode_step():
    assert parameters(function("models/llama.py", "CausalLM_fast_forward")) == ["fast_forward_inference"]
    step = function("models/llama.py", "LlamaModel_fast_forward_inference_custom")
    assert parameters(step) == ["self", "input_ids", "past_key_values", "position_ids", "attention_mask"]
    used = {
        n.attr
        for n in ast.walk(step)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
    }
    assert used == {"max_seq_length", "config", "model"}  # all that the backbone hands in
    forward = function("models/llama.py", "_gated_method")
    assert "wraps" in names(forward)  # so that the forward can be unwrapped


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_the_families_have_a_fast_model(family):
    from rlvr_lite.bases._unsloth import FAMILIES

    assert family in FAMILIES
    dispatch = names(function("models/loader.py", "from_pretrained", within="FastLanguageModel"))
    assert {family, f"Fast{family.capitalize()}Model"} <= dispatch


def test_decode_buffers_have_their_names():
    stored = names(function("models/_decode_graphs.py", "alloc_decode_buffers"))
    assert {"paged_attention", "paged_attention_K", "paged_attention_V"} <= stored
    assert "paged_attention" in names(function("models/llama.py", "LlamaModel_fast_forward_inference_custom"))


def test_the_padding_mask_can_be_kept_in_training():
    assert "_unsloth_keep_padding_mask" in names(function("models/llama.py", "LlamaModel_fast_forward"))


def test_inputs_longer_than_max_seq_length_would_be_cut():
    assert "max_seq_length" in names(function("models/llama.py", "LlamaModel_fast_forward"))


def test_fused_functions_are_put_in_by_name():
    assert "apply_qkv" in names(function("models/llama.py", "LlamaAttention_fast_forward"))
    assert "apply_o" in names(function("models/llama.py", "LlamaAttention_fast_forward"))
    for name in ("original_apply_qkv", "original_apply_o"):
        assert parameters(function("models/llama.py", name)) == ["self", "X"]
    exported = names(tree("kernels/__init__.py")) | {
        alias.name for n in ast.walk(tree("kernels/__init__.py")) if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    assert {"apply_lora_qkv", "apply_lora_o", "apply_lora_mlp_swiglu"} <= exported


def test_fused_functions_leave_variants_and_trained_bases_to_peft():
    assert {"lora_variant", "_base_weight_requires_grad"} <= names(
        function("kernels/fast_lora.py", "_needs_peft_forward")
    )


def test_norms_are_read_never_called():
    found = function("kernels/rms_layernorm.py", "fast_rms_layernorm")
    assert {"weight", "variance_epsilon"} <= names(found)


def test_the_row_of_the_padding_token_is_zeroed():
    assert "zero_pad_embedding_rows" in names(function("models/llama.py", "from_pretrained", within="FastLlamaModel"))


def test_its_switch_for_tests_leaves_trl_alone():
    assert "UNSLOTH_ALLOW_CPU" in names(function("models/rl.py", "PatchFastRL"))
