"""Names and shapes of a base's layers, of its model on the meta device."""

from __future__ import annotations

import json
from functools import lru_cache

from rlvr_lite import bases, methods
from rlvr_lite.analysis.memory import Shape

__all__ = ["layout_of"]


def layout_of(shape: Shape) -> methods.Layout:
    """Names and shapes of the layers of a base."""
    return _built(json.dumps(dict(shape.config), sort_keys=True, default=str))


@lru_cache(maxsize=64)
def _built(config: str) -> methods.Layout:
    return methods.Layout.of_model(bases.blank(bases.config_object("base", json.loads(config))))
