"""How each method sits on a base that Unsloth loaded: fused into its kernels, called by them, or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rlvr_lite.config import AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods._registry import get, names
from rlvr_lite.table import Table

__all__ = ["Hosting", "check_hosting", "list_hosting", "on_unsloth"]

_HEADS = ("lm_head", "embed_tokens")
_PLAIN = "lora.Linear("


@dataclass(frozen=True)
class Hosting:
    """A method on an Unsloth base.

    Attributes:
        route: ``fused`` (a plain LoRA in the fused kernels, at layers without a bias), ``hosted`` (the base's kernels are
            fused, the adapter's own layers are called), or ``refused``.
        reason: why.
        plain_lora: whether the adapter is ``s B A`` with a weight for B and for A, whatever these are computed from.
    """

    route: Literal["fused", "hosted", "refused"]
    reason: str
    plain_lora: bool = False


def on_unsloth(name: str, precision: str, adapter: AdapterConfig | None = None) -> Hosting:
    """What an Unsloth base of a precision does with a method.

    Args:
        name: of the method.
        precision: of the base: ``fp32``, ``bf16``, ``fp16`` or ``nf4``.
        adapter: its configuration, if it is more than the defaults.

    >>> [on_unsloth(name, "nf4").route for name in ("lora", "pissa", "dora", "vera", "full")]
    ['fused', 'fused', 'hosted', 'hosted', 'refused']
    """
    method = get(name)
    adapter = adapter or AdapterConfig(options=dict(method.options))
    refused = {**method.unsupported, **method.unsupported_unsloth}
    if precision in refused:
        return Hosting("refused", refused[precision])
    heads = [target for target in adapter.targets or () if target.rpartition(".")[2] in _HEADS]
    if heads:
        return Hosting(
            "refused",
            f"Unsloth reads the weight of {heads[0]} and never calls its adapter: leave it out of the targets",
        )
    layer = method.layer if isinstance(method.layer, str) else method.layer(adapter)
    if method.trains_base:
        return Hosting("hosted", "every weight of the base is trained, and none is added")
    if not layer.startswith(_PLAIN):
        return Hosting("hosted", f"{layer}: its own layer is called, in training and decoding")
    if "+" in layer:
        return Hosting("hosted", f"{layer}: a LoRA variant, called in training and decoding")
    if adapter.options.get("dropout"):
        return Hosting("hosted", f"{layer}: the fused kernels know no dropout, so its own layer is called")
    if precision == "fp32":
        return Hosting("hosted", f"{layer}: a plain LoRA, but the fused kernels are made for 16 bits", plain_lora=True)
    return Hosting("fused", f"{layer}: a plain LoRA to the kernels", plain_lora=True)


def check_hosting(name: str, precision: str, adapter: AdapterConfig) -> Hosting:
    """As :func:`on_unsloth`, for a method that is about to be attached.

    Raises:
        UserError: Unsloth would ignore or break it.
    """
    found = on_unsloth(name, precision, adapter)
    if found.route == "refused":
        raise UserError(f"{name} cannot sit on this {precision} base of Unsloth: {found.reason}")
    return found


def list_hosting() -> Table:
    """Every method on Unsloth bases of 4, 16 and 32 bits."""
    rows: list[dict[str, Any]] = []
    for name in names():
        found = {precision: on_unsloth(name, precision) for precision in ("nf4", "bf16", "fp32")}
        reason = next((h.reason for h in found.values() if h.route == "refused"), found["bf16"].reason)
        rows.append({"method": name, **{p: h.route for p, h in found.items()}, "why": reason})
    return Table.of(rows, title="Methods on a base loaded by Unsloth")
