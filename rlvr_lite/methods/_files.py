"""An adapter on disk: a directory of safetensors and JSON, in PEFT's own format wherever PEFT has one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.config import AdapterConfig, from_json
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.methods._attached import attach_blank
from rlvr_lite.methods._attachment import attachment
from rlvr_lite.methods._hash import base_hash
from rlvr_lite.methods._lora import ADAPTER
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._state import load_trainable_state, trainable_state
from rlvr_lite.records import atomic_directory, damage, read_json, refuse_pickles, write_json
from rlvr_lite.runs import ADAPTER_FACTS

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load", "save"]

_PEFT_WEIGHTS = "adapter_model.safetensors"
_OWN_STATE = "state.safetensors"
_FULL_WEIGHTS = "model.safetensors"
_PACKAGES = ("rlvr-lite", "torch", "transformers", "peft")


def save(model: nn.Module, directory: Path | str, *, facts: Mapping[str, Any] | None = None) -> None:
    """Write the adapter so that :func:`load`, and plain PEFT where it has a format, can read it.

    An existing directory is replaced as a whole. ``facts`` (JSON values) are kept in ``rlvr_lite.json``.
    """
    from safetensors.torch import save_file

    found = attachment(model)
    method = get(found.method)
    description = {
        "method": found.method,
        "adapter": dataclasses.asdict(found.build.adapter),
        "total_steps": found.build.total_steps,
        "seed": found.build.seed,
        "base": {"hash": found.base_hash, "parameters": found.build.layout.parameters},
        "facts": dict(facts or {}),
        "versions": {package: version(package) for package in _PACKAGES},
    }
    with atomic_directory(Path(directory)) as target:
        if method.trains_base:
            save_file(trainable_state(model), target / _FULL_WEIGHTS, metadata={"format": "pt"})
            model.config.save_pretrained(target)  # type: ignore[union-attr, operator]
        else:
            with _unchanged_config(model), warnings.catch_warnings():
                # A layer that AdaLoRA left without a rank is an empty tensor, which PEFT takes for a lost shard.
                warnings.filterwarnings("ignore", ".*invalid shape", UserWarning)
                model.save_pretrained(str(target), safe_serialization=True)  # type: ignore[operator]
            (target / "README.md").unlink(missing_ok=True)
            if method.own_state:
                save_file(trainable_state(model), target / _OWN_STATE)
        write_json(target / ADAPTER_FACTS, description)


def load(base_model: nn.Module, directory: Path | str, trainable: bool = False) -> nn.Module:
    """Put a saved adapter on a freshly loaded base.

    Args:
        base_model: the base it was trained on, in any precision the method can sit on.
        directory: what :func:`save` wrote.
        trainable: whether training goes on from here; otherwise every tensor is frozen.

    Raises:
        UserError: the directory is damaged, holds pickles, or belongs to another base.
    """
    directory = Path(directory)
    description = _read_description(directory)
    with as_written(directory / ADAPTER_FACTS):
        hashed, name = str(description["base"]["hash"]), str(description["method"])
        adapter = from_json(AdapterConfig, json.dumps(description["adapter"]))
        total_steps, seed = int(description["total_steps"]), int(description["seed"])
    if base_hash(base_model) != hashed:
        raise UserError(f"{directory} was trained on another base: load the base named in its {ADAPTER_FACTS}")
    method = get(name)
    model = attach_blank(base_model, name, adapter, total_steps=total_steps, seed=seed)
    if method.trains_base:
        load_trainable_state(model, _read_tensors(directory / _FULL_WEIGHTS))
    elif method.own_state:
        load_trainable_state(model, _read_tensors(directory / _OWN_STATE))
    else:
        _load_peft(model, directory)
        if method.after_load is not None:
            method.after_load(model)
    return model if trainable else model.requires_grad_(False)


def _read_description(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(f"{directory} does not exist: give the directory an adapter was saved to")
    refuse_pickles(directory)
    if not (directory / ADAPTER_FACTS).is_file():
        raise UserError(f"{directory} has no {ADAPTER_FACTS}: only adapters saved by rlvr_lite are loaded")
    broken = damage(directory)
    if broken:
        raise UserError(f"{broken}: save or copy the adapter again")
    return read_json(directory / ADAPTER_FACTS)


def _read_tensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or not safetensors ({error}): save or copy the adapter again") from error


def _load_peft(model: nn.Module, directory: Path) -> None:
    from peft import set_peft_model_state_dict

    tensors, known = _read_tensors(directory / _PEFT_WEIGHTS), model.state_dict()
    result = set_peft_model_state_dict(model, dict(tensors), adapter_name=ADAPTER)
    for name in result.unexpected_keys:
        shared = known.get(f"{name}.{ADAPTER}")  # PEFT before 0.21 leaves out what all layers of VeRA share
        if shared is None:
            raise UserError(f"{directory} does not fit its own description ({name}): save it again")
        shared.copy_(tensors[name])


@contextlib.contextmanager
def _unchanged_config(model: nn.Module) -> Any:
    """Saving renames keys inside AdaLoRA's live configuration; put them back."""
    configs: Any = model.peft_config
    config = configs[ADAPTER]
    before = dict(vars(config))
    try:
        yield
    finally:
        vars(config).update(before)
