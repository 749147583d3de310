"""Adapter methods: found by name, attached to a frozen base, and proven to be what their name says.

Listing methods and resolving configurations loads no heavy library; everything that touches a model loads torch on use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlvr_lite.lazy import on_use
from rlvr_lite.methods._footprint import footprint
from rlvr_lite.methods._hosting import Hosting, list_hosting, on_unsloth
from rlvr_lite.methods._layout import DEEPSEEK_R1_DISTILL_QWEN_1_5B, Layout, Linear
from rlvr_lite.methods._registry import get, names, register
from rlvr_lite.methods._resolve import check_fits, check_precision, learning_rate, resolve
from rlvr_lite.methods._spec import Build, LearningRate, Method
from rlvr_lite.methods._table import list_methods

if TYPE_CHECKING:
    from rlvr_lite.methods._attached import (
        after_backward,
        attach,
        detach,
        disabled,
        merge,
        optimizer,
        penalty,
        precision_of,
    )
    from rlvr_lite.methods._attachment import Attachment, attachment, remember
    from rlvr_lite.methods._fast_dora import moved, steady
    from rlvr_lite.methods._files import load, save
    from rlvr_lite.methods._hash import base_hash
    from rlvr_lite.methods._identity import Identity, identity
    from rlvr_lite.methods._lean import lean
    from rlvr_lite.methods._lora import moved_by_peft
    from rlvr_lite.methods._optimizers import check_optim
    from rlvr_lite.methods._state import load_trainable_state, trainable_state
    from rlvr_lite.methods._updates import updates

__all__ = [
    "DEEPSEEK_R1_DISTILL_QWEN_1_5B",
    "Attachment",
    "Build",
    "Hosting",
    "Identity",
    "Layout",
    "LearningRate",
    "Linear",
    "Method",
    "after_backward",
    "attach",
    "attachment",
    "base_hash",
    "check_fits",
    "check_optim",
    "check_precision",
    "detach",
    "disabled",
    "footprint",
    "get",
    "identity",
    "lean",
    "learning_rate",
    "list_hosting",
    "list_methods",
    "load",
    "load_trainable_state",
    "merge",
    "moved",
    "moved_by_peft",
    "names",
    "on_unsloth",
    "optimizer",
    "penalty",
    "precision_of",
    "register",
    "remember",
    "resolve",
    "save",
    "steady",
    "trainable_state",
    "updates",
]

_HOMES = {
    "_attached": ("after_backward", "attach", "detach", "disabled", "merge", "optimizer", "penalty", "precision_of"),
    "_attachment": ("Attachment", "attachment", "remember"),
    "_fast_dora": ("moved", "steady"),
    "_files": ("load", "save"),
    "_hash": ("base_hash",),
    "_identity": ("Identity", "identity"),
    "_lean": ("lean",),
    "_lora": ("moved_by_peft",),
    "_optimizers": ("check_optim",),
    "_state": ("load_trainable_state", "trainable_state"),
    "_updates": ("updates",),
}

#: What needs torch is loaded on first use.
__getattr__ = on_use(__name__, {name: home for home, public in _HOMES.items() for name in public})
