"""The exact training state of an attached model, as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from rlvr_lite.errors import UserError
from rlvr_lite.methods._attachment import adapter_tensors, attachment
from rlvr_lite.methods._registry import get

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["load_trainable_state", "trainable_state"]

_EXTRA = "state:"


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """All that training changed or the start drew: copies on the CPU, ready for safetensors.

    Holds the trained tensors, the adapter's frozen ones (anchors, random projections) and what the method keeps besides
    (AdaLoRA's importance scores and ranks). Loaded into a freshly attached model it restores training bit for bit.
    """
    method = get(attachment(model).method)
    held = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in _held(model).items()}
    if method.state is not None:
        held |= {_EXTRA + name: tensor for name, tensor in method.state(model).items()}
    return held


def load_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put back what :func:`trainable_state` returned, in place.

    Raises:
        UserError: the state is of another method, or of an adapter of another size.
    """
    method = get(attachment(model).method)
    extra = {name.removeprefix(_EXTRA): t for name, t in state.items() if name.startswith(_EXTRA)}
    held = _held(model)
    missing = held.keys() ^ {name for name in state if not name.startswith(_EXTRA)}
    if missing:
        raise UserError(
            f"the saved state is not one of {method.name} on this base: {sorted(missing)[0]} does not match"
        )
    for name, tensor in held.items():
        if tensor.shape != state[name].shape:
            shapes = f"{tuple(state[name].shape)} saved, {tuple(tensor.shape)} here"
            raise UserError(f"the saved state has another size ({name}: {shapes}): use the rank it was made with")
    with torch.no_grad():
        for name, tensor in held.items():
            tensor.copy_(state[name])
    if method.load_state is not None:
        method.load_state(model, extra)
    if method.after_load is not None:
        method.after_load(model)


def _held(model: nn.Module) -> dict[str, Tensor]:
    if get(attachment(model).method).trains_base:
        return dict(model.named_parameters())
    return adapter_tensors(model)
