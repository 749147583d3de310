"""Hashes that tell one base from another, and an untouched base from a changed one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from rlvr_lite.methods._attachment import attachment, base_tensors, carries_method
from rlvr_lite.methods._layout import Layout

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["base_hash", "tensors_hash"]

#: Magnitudes below this differ between a 16-bit and a 32-bit load of one checkpoint (fp16 loses precision there).
_LEAST = 2.0**-12
_ROWS = 8192


def base_hash(model: nn.Module) -> str:
    """SHA-256 of what a base keeps in every precision: shapes, token embeddings and norm weights, rounded to bf16.

    The same checkpoint gives the same hash in fp32, bf16 and NF4, and in fp16 if it was stored in bf16. Works on an
    attached model too, unless the method trains just these tensors.
    """
    if carries_method(model):
        layout, tensors = attachment(model).build.layout, base_tensors(model)
    else:
        layout, tensors = Layout.of_model(model), dict(model.named_parameters())
    embedding = model.get_input_embeddings().weight  # type: ignore[operator]
    digest = hashlib.sha256()
    _update_rounded(digest, embedding)
    for name, linear in sorted(layout.linears.items()):
        digest.update(f"{name} {linear.out} {linear.inp} {linear.bias}\n".encode())
    for name in sorted(layout.norms):
        digest.update(name.encode())
        _update_rounded(digest, tensors[f"{name}.weight"])
    return digest.hexdigest()


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        _update(digest, tensor)
    return digest.hexdigest()


def _update_rounded(digest: hashlib._Hash, tensor: Tensor) -> None:
    """Row by row, so that no second copy of a large embedding is made."""
    for rows in tensor.detach().split(_ROWS):
        value = rows.to(torch.bfloat16)
        _update(digest, torch.where(value.abs() < _LEAST, torch.zeros_like(value), value))


def _update(digest: hashlib._Hash, tensor: Tensor) -> None:
    digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
