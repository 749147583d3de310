"""Sizes of bases: those of well-known models are written down here, so that a plan needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr_lite.bases import EMBEDDED, full_name, hub_id, read_config
from rlvr_lite.errors import UserError

__all__ = ["KNOWN", "config_of"]


def _qwen2(
    hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, tied: bool, positions: int
) -> dict[str, Any]:
    return _config("qwen2", hidden, inner, layers, heads, kv, vocabulary, tied, positions)


def _llama(
    hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, positions: int
) -> dict[str, Any]:
    return _config("llama", hidden, inner, layers, heads, kv, vocabulary, True, positions)


def _config(
    kind: str, hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, tied: bool, positions: int
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": positions,
    }


#: From the ``config.json`` of each model on the Hub; a name also stands for its ``-Instruct`` form.
KNOWN: Mapping[str, dict[str, Any]] = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _qwen2(1536, 8960, 28, 12, 2, 151936, tied=False, positions=131072),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B": _qwen2(3584, 18944, 28, 28, 4, 152064, tied=False, positions=131072),
    "Qwen/Qwen2.5-0.5B": _qwen2(896, 4864, 24, 14, 2, 151936, tied=True, positions=32768),
    "Qwen/Qwen2.5-1.5B": _qwen2(1536, 8960, 28, 12, 2, 151936, tied=True, positions=131072),
    "Qwen/Qwen2.5-3B": _qwen2(2048, 11008, 36, 16, 2, 151936, tied=True, positions=32768),
    "Qwen/Qwen2.5-7B": _qwen2(3584, 18944, 28, 28, 4, 152064, tied=False, positions=131072),
    "Qwen/Qwen2.5-Math-1.5B": _qwen2(1536, 8960, 28, 12, 2, 151936, tied=True, positions=4096),
    "Qwen/Qwen2.5-Math-7B": _qwen2(3584, 18944, 28, 28, 4, 152064, tied=False, positions=4096),
    "HuggingFaceTB/SmolLM2-135M": _llama(576, 1536, 30, 9, 3, 49152, 8192),
    "HuggingFaceTB/SmolLM2-360M": _llama(960, 2560, 32, 15, 5, 49152, 8192),
    "HuggingFaceTB/SmolLM2-1.7B": _llama(2048, 8192, 24, 32, 32, 49152, 8192),
    "meta-llama/Llama-3.2-1B": _llama(2048, 8192, 16, 32, 8, 128256, 131072),
    "meta-llama/Llama-3.2-3B": _llama(3072, 8192, 28, 24, 8, 128256, 131072),
}


def config_of(base: str, revision: str | None = None) -> dict[str, Any]:
    """The contents of a base's ``config.json``.

    Args:
        base: ``tiny``, a model folder, a name of ``KNOWN`` with or without its owner, or a Hub model in the local cache.
        revision: of a Hub model.

    Raises:
        UserError: its sizes are not to be had without a network.
    """
    path = EMBEDDED.get(base, Path(base).expanduser()) / "config.json"
    if path.is_file():
        return _checked(base, read_config(base, path))
    cached = _cached(base, revision)
    if cached is not None:
        return _checked(base, read_config(base, cached))
    plain = full_name(base.removeprefix("unsloth/")).removesuffix("-Instruct")
    if plain in KNOWN:
        return KNOWN[plain]
    hub_id(base)  # says what is wrong with a name that can be none
    shown = ", ".join(name.rpartition("/")[2] for name in KNOWN)
    raise UserError(
        f"the sizes of base {base} are not known offline: give a model folder, fetch it once into the Hub's cache, or "
        f"take one of tiny, {shown}"
    )


def _cached(base: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _checked(base: str, config: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(config.get("model_type"), str):
        raise UserError(
            f"base {base} has no model_type in its config.json, so nobody knows what it is: choose another base"
        )
    return config
