"""From what a user asked for to a complete adapter configuration, or one line that says why not."""

from __future__ import annotations

import dataclasses
import math

from rlvr_lite.config import ALL_LINEAR, SCALES, AdapterConfig
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.methods._layout import Layout
from rlvr_lite.methods._registry import get
from rlvr_lite.methods._spec import LearningRate, Method

__all__ = ["check_fits", "check_precision", "learning_rate", "resolve"]


def resolve(name: str, adapter: AdapterConfig, scale: str, layout: Layout | None = None) -> AdapterConfig:
    """``adapter`` with every default of the method filled in; resolving twice changes nothing.

    Args:
        name: of the method.
        adapter: what the user asked for.
        scale: of the base, a key of ``config.SCALES``.
        layout: of the base, to put the architecture's own names in place of ``all-linear``.

    Raises:
        UserError: the method does not know an option, or does not use a setting that was given.
    """
    method = get(name)
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    for setting in ("rank", "alpha", "targets"):
        given = getattr(adapter, setting)
        fixed = setting == "rank" and given == method.fixed_rank
        if setting not in method.uses and given is not None and not fixed:
            raise UserError(f"{name} has no {setting}: leave it out{_instead(method, setting)}")
    for option, value in adapter.options.items():
        if option not in method.options:
            if not method.options:
                raise UserError(f"{name} has no further options: leave out {option!r}")
            raise unknown_name(f"option of {name}", option, method.options)
        _check_option(method, option, value)
    rank = adapter.rank or (method.rank or {}).get(scale, SCALES[scale].rank)
    alpha = adapter.alpha or (method.alpha or {}).get(scale, SCALES[scale].alpha)
    targets = (adapter.targets or (ALL_LINEAR,)) if "targets" in method.uses else None
    if targets is not None and layout is not None:
        targets = layout.names(targets)
    return dataclasses.replace(
        adapter,
        rank=rank if "rank" in method.uses else method.fixed_rank,
        alpha=float(alpha) if "alpha" in method.uses else None,
        targets=targets,
        options={**method.options, **adapter.options},
    )


def learning_rate(name: str, scale: str) -> LearningRate:
    """The method's default learning rate for bases of a scale, with its source.

    Args:
        name: of the method.
        scale: tiny, small or paper.

    Raises:
        UserError: there is no such method or scale.

    >>> learning_rate("lora", "tiny").value
    0.002
    """
    if scale not in SCALES:
        raise unknown_name("scale", scale, SCALES)
    return get(name).learning_rates[scale]


def check_precision(name: str, precision: str) -> None:
    """Refuse a method on a base of a precision it cannot sit on; call it before any weight is loaded.

    Raises:
        UserError: with the reason and the way out.
    """
    method = get(name)
    if precision in method.unsupported:
        raise UserError(f"{name} cannot sit on a {precision} base: {method.unsupported[precision]}")  # type: ignore[index]


def check_fits(name: str, adapter: AdapterConfig, layout: Layout) -> None:
    """Refuse a resolved adapter that the base has no room for.

    Raises:
        UserError: a target matches nothing, the rank exceeds a layer, or the method's own sizes do not suit one.
    """
    method = get(name)
    if adapter.targets is not None and adapter.rank is not None:
        targets = layout.targets(adapter.targets)
        limits = {full: method.rank_limit(layer.out, layer.inp) for full, layer in targets.items()}
        tightest = min(limits, key=limits.__getitem__)
        if adapter.rank > limits[tightest]:
            shape = f"{targets[tightest].out} x {targets[tightest].inp}"
            raise UserError(
                f"rank {adapter.rank} exceeds {tightest} ({shape}): choose a rank of at most {limits[tightest]}"
            )
    if adapter.targets is not None and not method.plain_lora:
        for full, linear in layout.targets(adapter.targets).items():
            if linear.transposed:
                raise UserError(f"{name} cannot sit on {full}, which holds its weight transposed: use lora or its kin")
    method.expected(layout, adapter)


def _instead(method: Method, setting: str) -> str:
    if method.options:
        return f"; its options are {', '.join(method.options)}"
    return "" if not method.uses else f"; it uses {', '.join(sorted(method.uses - {setting}))}"


def _check_option(method: Method, option: str, value: object) -> None:
    """An option has the type of its default (a whole number may stand for a real one) and lies where it means something.

    Raises:
        UserError: it does not; a word that is nearly right is offered.
    """
    default = method.options[option]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = number if isinstance(default, float) else type(value) is type(default)
    if not fits:
        raise UserError(f"option {option!r} of {method.name} must be {type(default).__name__}, got {value!r}")
    allowed = method.allowed[option]
    if isinstance(value, str):
        if value not in allowed:
            raise unknown_name(f"{option} of {method.name}", value, [str(word) for word in allowed])
        return
    least, most = (float(end) for end in allowed)
    if not (least <= float(value) <= most and math.isfinite(float(value))):  # type: ignore[arg-type]
        where = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise UserError(f"option {option!r} of {method.name} must be {where}, got {value!r}")
