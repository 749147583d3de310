"""Frozen pretrained models to train adapters on, and the small one that ships with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.bases._locate import EMBEDDED, WELL_KNOWN, full_name, hub_id, locate, read_config
from rlvr_lite.lazy import on_use

if TYPE_CHECKING:
    from rlvr_lite.bases._activations import with_activations
    from rlvr_lite.bases._attention import keep_attention_fused
    from rlvr_lite.bases._backend import import_unsloth
    from rlvr_lite.bases._base import Base
    from rlvr_lite.bases._decode_check import check_decode
    from rlvr_lite.bases._examine import admitted, blank, config_object, examine
    from rlvr_lite.bases._load import load, load_for, native_dtype
    from rlvr_lite.bases._prompting import rendered
    from rlvr_lite.bases._proven import list_bases
    from rlvr_lite.bases._shape import shape_of

__all__ = [
    "EMBEDDED",
    "WELL_KNOWN",
    "Base",
    "admitted",
    "blank",
    "check_decode",
    "config_object",
    "examine",
    "full_name",
    "hub_id",
    "import_unsloth",
    "keep_attention_fused",
    "list_bases",
    "load",
    "load_for",
    "locate",
    "native_dtype",
    "read_config",
    "rendered",
    "shape_of",
    "with_activations",
]

_HOMES = {
    "Base": "_base",
    "admitted": "_examine",
    "blank": "_examine",
    "check_decode": "_decode_check",
    "config_object": "_examine",
    "examine": "_examine",
    "import_unsloth": "_backend",
    "keep_attention_fused": "_attention",
    "list_bases": "_proven",
    "load": "_load",
    "load_for": "_load",
    "native_dtype": "_load",
    "rendered": "_prompting",
    "shape_of": "_shape",
    "with_activations": "_activations",
}

#: Unsloth must come before the libraries that loading needs.
__getattr__ = on_use(__name__, _HOMES)
