"""What kind of model a configuration describes, found out on the meta device before a weight is loaded."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rlvr_lite.bases._proven import REFUSED
from rlvr_lite.errors import UserError, kind_and_line
from rlvr_lite.grpo import output_head

__all__ = ["LOADING", "Examined", "admitted", "blank", "config_object", "examine"]

#: While transformers loads a model it ties no weights in the whole process, so that two threads would lose the head.
LOADING = threading.RLock()


@dataclass(frozen=True)
class Examined:
    """A decoder that can be trained.

    Attributes:
        kind: its model type.
        architecture: the class that transformers makes of it.
        attention: implementation it is loaded with: ``sdpa``, or ``eager`` where the architecture has no other exact one.
        embeddings: rows of its input embedding.
    """

    kind: str
    architecture: str
    attention: str
    embeddings: int


def config_object(name: str, found: Mapping[str, Any]) -> Any:
    """The transformers configuration of a ``config.json``.

    Raises:
        UserError: it needs code of its own, is of a kind that transformers does not know, or holds nonsense.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    values = _numbers(dict(found))
    kind = values.pop("model_type", None)
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if "auto_map" in values:
            raise UserError(
                f"base {name} needs code of its own ({kind}), which is not run: choose an architecture of transformers"
            )
        raise UserError(
            f"base {name} is of a kind that transformers does not know (model_type {kind!r}): upgrade transformers, or "
            "choose another base"
        )
    try:
        return AutoConfig.for_model(kind, **values)
    except Exception as error:  # others wrote it
        raise UserError(
            f"base {name} has a config.json that transformers cannot read: {kind_and_line(error)[:200]}"
        ) from error


def _numbers(value: Any) -> Any:
    """Numbers that JSON does not know, as transformers writes them: ``{"__float__": "Infinity"}``."""
    if isinstance(value, dict):
        return float(value["__float__"]) if set(value) == {"__float__"} else {k: _numbers(v) for k, v in value.items()}
    return [_numbers(x) for x in value] if isinstance(value, list) else value


def blank(config: Any, **how: Any) -> Any:
    """The causal language model of a configuration on the meta device: shapes and code, no weights."""
    import torch
    from transformers import AutoModelForCausalLM

    # In its own type transformers would change torch's default one meanwhile, under the feet of other threads.
    with LOADING, torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a model's code that is imported only now
        return AutoModelForCausalLM.from_config(config, **({"dtype": torch.float32} | how))


def examine(name: str, found: Mapping[str, Any]) -> Examined:
    """Refuse in one line what is not a text decoder whose log-probabilities can be computed exactly.

    Args:
        name: of the base, for messages.
        found: the contents of its ``config.json``.

    Raises:
        UserError: an encoder-decoder, a model that sees or hears, no causal language model, or an unknown output head.
    """
    return _examined(name, json.dumps(dict(found), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _examined(name: str, found: str) -> Examined:
    model = admitted(name, json.loads(found))
    kind, attention = str(model.config.model_type), "sdpa" if model._supports_sdpa else "eager"
    return Examined(kind, type(model).__name__, attention, model.get_input_embeddings().weight.shape[0])


def admitted(name: str, found: Mapping[str, Any]) -> Any:
    """The model of a text decoder on the meta device.

    Raises:
        UserError: as :func:`examine` says.
    """
    config = config_object(name, found)
    kind = str(config.model_type)
    _refuse_other_kinds(name, config)
    try:
        model = blank(config)
    except Exception as error:  # whatever the architecture raises on these sizes
        raise UserError(f"base {name} cannot be built from its config.json: {kind_and_line(error)[:200]}") from error
    architecture = type(model).__name__
    if not getattr(config.get_text_config(), "num_hidden_layers", 1):
        raise UserError(f"base {name} has no layers (num_hidden_layers 0 in its config.json): choose another base")
    if getattr(model, "main_input_name", "input_ids") != "input_ids" or _senses(config, model):
        raise UserError(
            f"base {name} is a model of more than text ({architecture}): give its text-only form (such as "
            f"{kind}_text), or a language model"
        )
    try:
        output_head(model)
    except ValueError as error:
        raise UserError(f"base {name} cannot be trained exactly: {error}") from error
    return model


def _refuse_other_kinds(name: str, config: Any) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.model_type
    if kind in REFUSED:
        raise UserError(f"base {name} ({kind}) cannot be trained exactly, {REFUSED[kind]}: choose another base")
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(f"base {name} is an encoder-decoder ({kind}): choose a decoder such as Qwen2.5-0.5B")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(f"base {name} is no causal language model ({kind}): choose a decoder such as Qwen2.5-0.5B")
    if getattr(config, "is_decoder", None) is False and _bidirectional(kind):
        raise UserError(f"base {name} is an encoder ({kind}): choose a decoder such as Qwen2.5-0.5B")


def _bidirectional(kind: str) -> bool:
    """Whether the same architecture is also made for masked language modelling, so that it is causal only if told so."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _senses(config: Any, model: Any) -> bool:
    """Whether a model has parts for images or sound."""
    words = ("vision", "visual", "image", "audio", "speech")
    return any(word in name.split(".")[-1] for name, module in model.named_modules() for word in words)
