"""A base loaded by Unsloth: its kernels and its decode path, with no default of Unsloth's left to chance."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from rlvr_lite.bases._base import linear4bit_layers
from rlvr_lite.bases._locate import Located
from rlvr_lite.bases._unsloth_backbone import host_backbone
from rlvr_lite.bases._unsloth_host import HOST, UnslothHost, guard_decode
from rlvr_lite.errors import UserError, kind_and_line

__all__ = ["FAMILIES", "load_unsloth"]

#: Architectures whose backbone has all of Unsloth's fast path; others compile it, scale their head or mask outside it.
FAMILIES = ("llama", "qwen2", "qwen3")


def load_unsloth(name: str, located: Located, precision: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The model of a folder through ``unsloth.FastLanguageModel``, ready for ``rlvr_lite.methods.attach``.

    Args:
        name: as the base was asked for, for messages.
        located: the folder.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``nf4``.
        dtype: of activations, and of all that is not in 4 bits.
        device: the card; the CPU only under Unsloth's switch for tests.

    Raises:
        UserError: an architecture Unsloth has no fast path for, or a load that is not what was asked.
    """
    family = located.config.get("model_type")
    if family not in FAMILIES:
        raise UserError(
            f"backend unsloth has no fast path for {family} models, only for {', '.join(FAMILIES)}: "
            "leave --backend out to take transformers"
        )
    fast = importlib.import_module("unsloth").FastLanguageModel
    length = int(located.config["max_position_embeddings"])
    try:
        model, _ = fast.from_pretrained(
            model_name=str(located.folder),
            max_seq_length=length,  # longer inputs would be cut without a word
            dtype=dtype,
            load_in_4bit=precision == "nf4",
            load_in_8bit=False,
            load_in_16bit=False,
            full_finetuning=False,
            device_map={"": device},
            rope_scaling=None,
            fix_tokenizer=False,
            trust_remote_code=False,
            use_gradient_checkpointing=False,  # the trainer decides
            resize_model_vocab=None,
            use_exact_model_name=True,  # no other repository under the same name
            offload_embedding=False,
            float32_mixed_precision=None,
            fast_inference=False,
            random_state=0,
            disable_log_stats=True,
            qat_scheme=None,
            load_in_fp8=False,
            unsloth_tiled_mlp=False,
            text_only=False,
            use_safetensors=True,
            local_files_only=True,
        )
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(f"base {name} in {precision} does not fit on {device}: try --precision nf4") from error
    except Exception as error:  # a folder that others wrote can be wrong in any way
        raise UserError(f"Unsloth cannot load base {name}: {kind_and_line(error)}") from error
    _as_stored(name, model, located)
    _as_asked(name, model, precision, dtype)
    guard_decode()
    host_backbone(model, _decode_step(model))
    setattr(model, HOST, UnslothHost())
    return model


def _decode_step(model: Any) -> Any:
    """Unsloth's forward of one cached token for this family, which its causal model closes over."""
    step = inspect.getclosurevars(inspect.unwrap(type(model).forward)).nonlocals.get("fast_forward_inference")
    if step is None:
        raise UserError(
            f"this Unsloth has no decode path for {type(model).__name__}: update rlvr-lite, or downgrade it"
        )
    return step


def _stored(located: Located) -> dict[str, Any]:
    """The open file of every stored tensor, by the tensor's name."""
    found: dict[str, Any] = {}
    for path in sorted(located.folder.glob("*.safetensors")):
        file = safe_open(path, framework="pt")
        found.update(dict.fromkeys(file.keys(), file))
    return found


@torch.no_grad()
def _as_stored(name: str, model: Any, located: Located) -> None:
    """Refuse invented weights, and put back the embedding: Unsloth writes zeros into the row of the padding token."""
    stored = _stored(located)
    missing = [n for n, _ in model.named_parameters() if n not in stored and n.removeprefix("model.") not in stored]
    if missing:
        raise UserError(f"base {name} lacks {len(missing)} weights ({missing[0]}, ...): fetch or save it once more")
    for key in ("model.embed_tokens.weight", "embed_tokens.weight"):
        if key in stored:
            weight: Tensor = model.get_input_embeddings().weight
            weight.copy_(stored[key].get_tensor(key))


def _as_asked(name: str, model: Any, precision: str, dtype: torch.dtype) -> None:
    layers: list[Any] = list(linear4bit_layers(model))
    packed = {id(layer.weight) for layer in layers}
    odd = {p.dtype for p in model.parameters() if id(p) not in packed} - {dtype}
    if odd:
        raise UserError(f"Unsloth loaded parts of base {name} in {odd.pop()}, not {dtype}: take backend transformers")
    states = [layer.weight.quant_state for layer in layers]
    if bool(layers) != (precision == "nf4") or any(s.quant_type != "nf4" or not s.nested for s in states):
        raise UserError(f"Unsloth did not load base {name} in {precision}: take backend transformers")
