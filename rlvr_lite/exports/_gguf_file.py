"""A merged model as one GGUF file, for llama.cpp and what is built on it."""

from __future__ import annotations

import contextlib
import io
import logging
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.errors import UserError, first_line
from rlvr_lite.exports._gguf_tokens import vocabulary

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

__all__ = ["GGUF_TYPES", "convert", "library", "read_gguf", "script_of", "write_gguf"]

#: Our names of the types, and llama.cpp's.
GGUF_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "q8_0": "q8_0"}
_ARCHITECTURES = ("qwen2", "qwen3", "llama")
_SCRIPT = "convert_hf_to_gguf.py"


def library() -> Any:
    """The package gguf.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise UserError("GGUF files need the package gguf: pip install 'rlvr-lite[gguf]'") from error
    logging.getLogger("gguf").setLevel(logging.WARNING)  # it announces every tensor
    return gguf


def check_convertible(model: Any) -> None:
    """Refuse a model that :func:`write_gguf` would write wrongly.

    Raises:
        UserError: naming what is not supported.
    """
    library()
    config = model.config
    kind = config.model_type
    problem = ""
    if kind not in _ARCHITECTURES:
        problem = f"architecture {kind}"
    elif _rope(config).get("rope_type", "default") != "default":
        problem = f"rope scaling {_rope(config)['rope_type']}"
    elif getattr(config, "use_sliding_window", False):
        problem = "sliding-window attention"
    elif config.hidden_act != "silu":
        problem = f"activation {config.hidden_act}"
    if problem:
        raise UserError(f"{problem} is not converted here: give llama_cpp, the folder of llama.cpp")


def _rope(config: Any) -> dict[str, Any]:
    return getattr(config, "rope_parameters", None) or {"rope_theta": getattr(config, "rope_theta", 10000.0)}


def write_gguf(model: Any, tokenizer: PreTrainedTokenizerBase, path: Path, dtype: str, name: str) -> None:
    """Write a Qwen 2, Qwen 3 or Llama model with its tokenizer.

    Matrices are stored as ``dtype``, vectors in fp32. The layout is that of llama.cpp: Llama's query and key rows are
    reordered, because it rotates neighbouring pairs where transformers rotates halves.

    Args:
        model: in fp32.
        tokenizer: a byte-level BPE.
        path: of the file.
        dtype: a key of :data:`GGUF_TYPES`.
        name: shown by the programs that load it.

    Raises:
        UserError: the architecture or the tokenizer is not supported.
    """
    gguf = library()
    check_convertible(model)
    config = model.config
    words = vocabulary(tokenizer, config.vocab_size)
    writer = gguf.GGUFWriter(path, config.model_type)
    _write_model_facts(gguf, writer, config, dtype, name)
    _write_tokenizer(writer, tokenizer, words)
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == config.model_type)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for parameter, tensor in model.named_parameters():  # a tied head is not listed a second time
        target = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise UserError(f"{parameter} has no place in a GGUF file: give llama_cpp, the folder of llama.cpp")
        data, kind = _stored(gguf, _ordered(parameter, tensor.detach().float(), config), dtype)
        writer.add_tensor(target, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_model_facts(gguf: Any, writer: Any, config: Any, dtype: str, name: str) -> None:
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(name)
    writer.add_file_type(getattr(gguf.LlamaFileType, "ALL_F32" if dtype == "fp32" else f"MOSTLY_{_kind(dtype)}"))
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _write_tokenizer(writer: Any, tokenizer: Any, words: Any) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.cut)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    for kind in ("bos", "eos", "pad", "unk"):
        i = getattr(tokenizer, f"{kind}_token_id")
        if i is not None:
            getattr(writer, f"add_{kind}_token_id")(i)
    writer.add_add_bos_token(False)  # the chat template writes what is wanted
    writer.add_add_eos_token(False)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _kind(dtype: str) -> str:
    return GGUF_TYPES[dtype].upper()


def _stored(gguf: Any, tensor: Tensor, dtype: str) -> tuple[np.ndarray, Any]:
    """A tensor in its type on disk: vectors stay fp32, and rows that blocks of 32 do not fill become fp16."""
    kind = gguf.GGMLQuantizationType.F32 if tensor.ndim == 1 else gguf.GGMLQuantizationType[_kind(dtype)]
    if dtype == "q8_0" and tensor.ndim > 1 and tensor.shape[-1] % 32:
        kind = gguf.GGMLQuantizationType.F16
    return gguf.quants.quantize(tensor.cpu().numpy(), kind), kind


def _ordered(name: str, tensor: Tensor, config: Any) -> Tensor:
    """Llama's query and key rows from halves ``[h, 2, d/2]`` to pairs ``[h, d/2, 2]``; all others as they are."""
    if config.model_type != "llama" or not any(f".{side}_proj." in name for side in "qk"):
        return tensor
    heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
    halves = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def script_of(llama_cpp: Path) -> Path:
    """llama.cpp's converter in its folder, or the file itself.

    Raises:
        UserError: it is not there.
    """
    script = llama_cpp if llama_cpp.suffix == ".py" else llama_cpp / _SCRIPT
    if not script.is_file():
        raise UserError(f"{script} does not exist: give the folder of llama.cpp, which holds {_SCRIPT}")
    return script


def convert(model: Any, tokenizer: PreTrainedTokenizerBase, path: Path, dtype: str, script: Path) -> None:
    """The same by llama.cpp's own converter.

    Args:
        model: in fp32.
        tokenizer: its tokenizer.
        path: of the file.
        dtype: a key of :data:`GGUF_TYPES`.
        script: ``convert_hf_to_gguf.py``.

    Raises:
        UserError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix=".merged-", dir=path.parent) as merged:
        model.save_pretrained(merged)
        tokenizer.save_pretrained(merged)
        command = [sys.executable, str(script), merged, "--outfile", str(path), "--outtype", GGUF_TYPES[dtype]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not path.is_file():
        last = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"{script} failed ({last[-1] if last else done.returncode}): look at llama.cpp's requirements")


def read_gguf(path: Path) -> tuple[Any, PreTrainedTokenizerBase | None]:
    """Model, in fp32, and tokenizer as transformers' own reader understands the file.

    The tokenizer is None before transformers 5.18, which built it by the architecture's name, with special tokens that
    the file does not have, instead of by what stands in the file.

    Raises:
        UserError: it cannot be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    library()
    where = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that cannot be switched off
            model = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32).eval()
            return model, AutoTokenizer.from_pretrained(**where) if _tokenizers_are_read() else None
    except (ValueError, KeyError, OSError, RuntimeError, IndexError) as error:
        raise UserError(f"{path} cannot be read as GGUF ({first_line(error)}): export it again") from error


def _tokenizers_are_read() -> bool:
    major, minor = version("transformers").split(".")[:2]
    return (int(major), int(minor)) >= (5, 18)
