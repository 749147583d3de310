"""Loading a frozen base in a chosen precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer
from transformers.utils import logging as transformers_logging

from rlvr_lite.bases._attention import keep_attention_fused
from rlvr_lite.bases._backend import claim
from rlvr_lite.bases._base import Base, count_parameters, linear4bit_layers
from rlvr_lite.bases._examine import LOADING, examine
from rlvr_lite.bases._locate import EMBEDDED, Located, locate
from rlvr_lite.bases._prompting import end_of_turn, plain_template, preset
from rlvr_lite.bases._unsloth import load_unsloth
from rlvr_lite.config import Precision, RunConfig, scale_of
from rlvr_lite.errors import UserError, kind_and_line, unknown_name
from rlvr_lite.grpo import remove_dropout
from rlvr_lite.host import check_fork, check_host

__all__ = ["load", "load_for"]

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load(
    name: str,
    precision: Precision = "auto",
    *,
    backend: str = "auto",
    revision: str | None = None,
    device: str | torch.device | None = None,
    compute_dtype: torch.dtype | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Base:
    """A pretrained causal language model, frozen, ready to carry an adapter.

    Args:
        name: ``tiny``, a model folder, or a Hub id.
        precision: of the weights. ``auto`` takes fp32 on a CPU; on a card bf16 from compute capability 8.0 on, fp16
            below. ``nf4`` holds the linear layers in 4-bit NormalFloat with double quantisation
            (Dettmers et al. 2023, arXiv:2305.14314, section 3); norms, biases, embeddings and the head keep the
            compute type.
        backend: ``transformers``, ``unsloth`` (a CUDA GPU, and ``import unsloth`` before every other import), or
            ``auto``: Unsloth where it has been imported, transformers otherwise. A process keeps to one.
        revision: of a Hub model: branch, tag or commit.
        device: such as ``cpu`` or ``cuda:1``; by default the first card, if there is one.
        compute_dtype: of an ``nf4`` base; by default what ``auto`` would take.
        chat_template_kwargs: variables of the chat template, such as ``{"enable_thinking": False}``.

    Raises:
        UserError: the base cannot be found or fetched, holds no safetensors, needs code of its own, is not a causal
            language model, or cannot be had in this precision, on this device or from this backend; the card cannot be
            used (:func:`rlvr_lite.host.check_host`); its chat template does not read such a variable.
    """
    if precision not in get_args(Precision):
        raise unknown_name("precision", precision, get_args(Precision))
    chosen = claim(backend)
    place = _device(device)
    located = locate(str(name), revision)
    concrete = _precision(name, precision, place, located)
    if device is None or place.type == "cuda":
        check_host(concrete)
    if place.type == "cuda":
        keep_attention_fused()
    if compute_dtype is not None and concrete != "nf4":
        raise UserError(f"compute_dtype is for nf4; a {concrete} base computes in {concrete}: leave it out")
    dtype = (compute_dtype or native_dtype(place)) if concrete == "nf4" else _DTYPES[concrete]
    tokenizer = _tokenizer(name, located, examine(name, located.config).embeddings)  # before a weight is loaded
    with LOADING, _quiet(when=name in EMBEDDED):
        loader = load_unsloth if chosen == "unsloth" else _model
        model = loader(name, located, concrete, dtype, place)
    preset(tokenizer, chat_template_kwargs or {})
    model.config.pad_token_id = tokenizer.pad_token_id
    if model.generation_config is not None:
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        _complete_ends(model.generation_config, tokenizer)
    remove_dropout(model)
    model.requires_grad_(False).eval()
    for layer in linear4bit_layers(model):
        # On CPUs with AVX512_BF16 bitsandbytes would repack the weight in place at the first forward in eval mode;
        # later gradients through the layer are then cut off.
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        layer.compute_dtype = dtype  # type: ignore[assignment]
    return Base(model, tokenizer, str(name), located.revision, concrete, scale_of(count_parameters(model)), chosen)


def load_for(config: RunConfig) -> Base:
    """The base of a run, as its configuration asks for it."""
    return load(
        config.base,
        config.precision,
        backend=config.backend,
        revision=config.revision,
        chat_template_kwargs=config.chat_template_kwargs,
    )


def native_dtype(device: torch.device) -> torch.dtype:
    """What a device computes fast without losing range: fp32 on a CPU, bf16 or fp16 on a card.

    Asked of the compute capability, because ``torch.cuda.is_bf16_supported()`` also says yes to cards that only
    emulate bf16, such as the T4.
    """
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16


@contextmanager
def _quiet(when: bool) -> Iterator[None]:
    """No progress bar over the weights: those of the bundled tiny model load at once."""
    shown = transformers_logging.is_progress_bar_enabled()
    if when:
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if when and shown:
            transformers_logging.enable_progress_bar()


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(f"unknown device {device!r}: give cpu, cuda or cuda:1") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device {device} needs a CUDA GPU, and PyTorch finds none: leave --device out")
    if place.type == "cuda":
        check_fork()
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise UserError(f"there is no {device}: PyTorch finds {torch.cuda.device_count()} GPUs, counted from 0")
    if place.type == "cuda" and place.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return place


def _precision(name: str, precision: Precision, device: torch.device, located: Located) -> Precision:
    stored = located.config.get("quantization_config")
    if stored is not None:
        if stored.get("bnb_4bit_quant_type") == "nf4" and precision in ("auto", "nf4"):
            return "nf4"
        kind = stored.get("bnb_4bit_quant_type") or stored.get("quant_method", "unknown")
        raise UserError(f"base {name} is stored quantised ({kind}), not as {precision}: give the original model")
    if precision != "auto":
        return precision
    native = native_dtype(device)
    return next(name for name, dtype in _DTYPES.items() if dtype == native)


def _model(name: str, located: Located, precision: str, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    attention = examine(name, located.config).attention
    how: dict[str, Any] = {}
    if precision == "nf4" and "quantization_config" not in located.config:
        how["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            located.folder,
            dtype=dtype,
            device_map={"": device},
            attn_implementation=attention,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            **how,
        )
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(f"base {name} in {precision} does not fit on {device}: try --precision nf4") from error
    except Exception as error:  # a folder that others wrote can be wrong in any way
        raise UserError(f"base {name} cannot be loaded as a causal language model: {kind_and_line(error)}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"base {name} lacks {len(missing)} weights ({missing[0]}, ...): fetch or save it once more")
    return model


def _tokenizer(name: str, located: Located, embeddings: int) -> Tokenizer:
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            located.folder, local_files_only=True, trust_remote_code=False, padding_side="left"
        )
    except Exception as error:
        raise UserError(
            f"base {name} has no usable tokenizer ({kind_and_line(error)}): save its tokenizer into that folder"
        ) from error
    if not tokenizer("1", add_special_tokens=False)[
        "input_ids"
    ]:  # what transformers makes of a folder without its files
        raise UserError(f"base {name} has no usable tokenizer (an empty one): save its tokenizer into that folder")
    if tokenizer.eos_token_id is None:
        raise UserError(f"base {name} has no end token: set eos_token in its tokenizer_config.json")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # masks, never token ids, tell padding from text
    if len(tokenizer) > embeddings:
        raise UserError(
            f"base {name} has {embeddings} embeddings for the {len(tokenizer)} tokens of its tokenizer: take the tokenizer "
            "that it was saved with, or call resize_token_embeddings and save both"
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = plain_template(tokenizer)
    return tokenizer


def _complete_ends(config: Any, tokenizer: Tokenizer) -> None:
    """Every token that ends an answer, in the generation config: whoever samples reads them there."""
    listed = config.eos_token_id if isinstance(config.eos_token_id, list | tuple) else [config.eos_token_id]
    known = {i for i in [tokenizer.eos_token_id, *listed] if i is not None}
    more = end_of_turn(tokenizer, known)
    config.eos_token_id = sorted(known if more is None else known | {more})
