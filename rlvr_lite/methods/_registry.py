"""Every method by its name. A file of this folder that calls :func:`register` adds one."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from rlvr_lite.errors import unknown_name
from rlvr_lite.methods._spec import Method

__all__ = ["get", "names", "register"]

_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make ``method`` known under its name; a second one of the same name is a programming error."""
    if method.name in _METHODS:
        raise ValueError(f"method {method.name!r} is registered twice")
    _METHODS[method.name] = method
    return method


@cache
def _discover() -> None:
    """Import every public module of this folder, each of which registers its method."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if not module.name.startswith("_"):
            importlib.import_module(f"{__package__}.{module.name}")


def names() -> list[str]:
    """All names: the paper's methods first, then the others by family and name."""
    _discover()
    paper = sorted((m for m in _METHODS.values() if m.paper_row is not None), key=lambda m: (m.paper_row, m.name))
    rest = sorted((m for m in _METHODS.values() if m.paper_row is None), key=lambda m: (m.family, m.name))
    return [method.name for method in (*paper, *rest)]


def get(name: str) -> Method:
    """The method called ``name``.

    Raises:
        UserError: there is none; the nearest names are offered.

    >>> get("lora").family
    'baseline'
    """
    _discover()
    if name not in _METHODS:
        raise unknown_name("method", name, _METHODS)
    return _METHODS[name]
