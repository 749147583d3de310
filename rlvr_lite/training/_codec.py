"""Nested Python state (optimizers, schedulers, random generators) as JSON beside one safetensors file.

This is what takes the place of pickles in a checkpoint: only plain values, tuples and tensors pass.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rlvr_lite.records import read_json, write_text

__all__ = ["read_state", "write_state"]


def _pack(value: Any, tensors: dict[str, torch.Tensor], path: str) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[path] = value.detach().cpu().contiguous().clone()
        return {"__tensor__": path}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(value.copy())
        return {"__array__": path}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        items = [
            [_pack(k, tensors, f"{path}.k{i}"), _pack(v, tensors, f"{path}.{i}")]
            for i, (k, v) in enumerate(value.items())
        ]
        return {"__dict__": items}
    if isinstance(value, tuple):
        return {"__tuple__": [_pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]}
    if isinstance(value, list):
        return [_pack(v, tensors, f"{path}.{i}") for i, v in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{path} holds a {type(value).__name__}, which a checkpoint cannot store")


def _unpack(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    match kind:
        case "__tensor__":
            return tensors[content]
        case "__array__":
            return tensors[content].numpy()
        case "__dict__":
            return {_unpack(k, tensors): _unpack(v, tensors) for k, v in content}
        case "__tuple__":
            return tuple(_unpack(v, tensors) for v in content)
        case "__float__":
            return float(content)
    raise ValueError(f"unknown mark {kind!r}")


def write_state(directory: Path, name: str, value: Any) -> None:
    """Write ``value`` as ``name.json`` and, for the tensors in it, ``name.safetensors``.

    Args:
        directory: where the two files are written.
        name: their common stem.
        value: dictionaries, lists, tuples, numbers, strings, ``None``, tensors and arrays, nested at will.

    Raises:
        TypeError: something else is in it.
    """
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(_pack(value, tensors, name), allow_nan=False)
    if tensors:
        save_file(tensors, directory / f"{name}.safetensors")
    write_text(directory / f"{name}.json", text + "\n")


def read_state(directory: Path, name: str) -> Any:
    """The inverse of :func:`write_state`; tensors come back on the CPU, equal bit for bit."""
    tensors: dict[str, torch.Tensor] = {}
    path = directory / f"{name}.safetensors"
    if path.exists():
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    return _unpack(read_json(directory / f"{name}.json"), tensors)
