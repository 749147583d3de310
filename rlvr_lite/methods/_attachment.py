"""What was put on a base, and which tensors belong to whom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlvr_lite.errors import UserError
from rlvr_lite.methods._lora import PREFIX
from rlvr_lite.methods._spec import Build

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Attachment", "adapter_tensors", "attachment", "base_tensors", "carries_method", "remember", "tensors"]

_ATTRIBUTE = "_rlvr_lite_attachment"


@dataclass(frozen=True)
class Attachment:
    """What was put on a base; the model carries it along.

    Attributes:
        method: its name.
        build: what it was built from.
        base_names: names of the base's own tensors, to tell them from the adapter's.
        base_hash: of the base, see :func:`base_hash`.
        frozen_hash: of every byte of the frozen base; empty where the method trains the base.
    """

    method: str
    build: Build
    base_names: frozenset[str]
    base_hash: str
    frozen_hash: str


def attachment(model: nn.Module) -> Attachment:
    """What the model carries.

    Raises:
        UserError: nothing was attached.
    """
    found = getattr(model, _ATTRIBUTE, None)
    if found is None:
        raise UserError("the model carries no method: call rlvr_lite.methods.attach first")
    return found


def carries_method(model: nn.Module) -> bool:
    """Whether a method, ours or any of PEFT, sits on the model."""
    return hasattr(model, _ATTRIBUTE) or hasattr(model, "peft_config")


def remember(model: nn.Module, made: Attachment) -> None:
    """Note on the model what was put on it."""
    setattr(model, _ATTRIBUTE, made)


def base_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The base's own parameters and buffers inside an attached model, by their names in the base."""
    known = attachment(model).base_names
    return {base_name(n): t for n, t in tensors(model) if base_name(n) in known}


def adapter_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Everything the method added, trained or not, by its name in the attached model."""
    known = attachment(model).base_names
    return {n: t for n, t in tensors(model) if base_name(n) not in known}


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer, tied ones once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def base_name(name: str) -> str:
    """The name in the base of a tensor of an attached model."""
    return name.removeprefix(PREFIX).replace(".base_layer.", ".")
