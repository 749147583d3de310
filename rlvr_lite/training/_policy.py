"""The trained part and the frozen part of a policy, whether it was attached here or comes from a script with PEFT."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.errors import UserError

__all__ = [
    "attached",
    "drop_fused_head",
    "load_trained_state",
    "plain",
    "reference",
    "restore_precision",
    "trained_state",
    "trained_values",
]


def plain(model: Any) -> nn.Module:
    """The model below a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attached(model: nn.Module) -> bool:
    """Whether a method of ours sits on the model."""
    try:
        methods.attachment(model)
    except UserError:
        return False
    return True


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Everything that a resumed run needs of the model, by name."""
    if attached(model):
        return dict(methods.trainable_state(model))
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """The inverse of :func:`trained_state`.

    Raises:
        UserError: the state is of another model or adapter.
    """
    if attached(model):
        methods.load_trainable_state(model, state)
        return
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    odd = sorted(trained.keys() ^ state.keys()) or [n for n, p in trained.items() if p.shape != state[n].shape]
    if odd:
        raise UserError(
            f"the checkpoint is of another adapter ({odd[0]} does not match): resume with the same configuration"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state[name])


def reference(model: Any) -> AbstractContextManager[Any]:
    """The frozen base as the policy, for the KL term.

    Raises:
        UserError: every weight is trained, so there is no frozen base.
    """
    if attached(model):
        return methods.disabled(model)
    if hasattr(model, "disable_adapter"):
        return model.disable_adapter()
    raise UserError("beta > 0 needs a frozen base to compare with: train an adapter, or set beta=0")


def trained_values(model: Any) -> dict[str, Tensor]:
    """The trained tensors themselves, by name; none of what is not loaded yet."""
    if not isinstance(model, nn.Module):
        return {}
    return {name: p.data for name, p in model.named_parameters() if p.requires_grad}


def restore_precision(model: nn.Module, precise: dict[str, Tensor]) -> None:
    """Adapters back to fp32: TRL rounds those on a 4-bit base to bf16, where updates at RL learning rates vanish."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name in precise:
            parameter.data = precise[name]
        elif parameter.requires_grad and parameter.dtype != torch.float32 and "lora_" in name:
            parameter.data = parameter.data.float()


def drop_fused_head(model: nn.Module, own_forward: Callable[..., Any] | None) -> None:
    """Undo TRL's patch of the forward pass; the log-probabilities here come from the hidden states."""
    base = plain(model)
    if own_forward is not None:
        base.forward = own_forward
    else:
        base.__dict__.pop("forward", None)
