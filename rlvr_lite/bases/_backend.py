"""Which library loads bases in this process: one only, because Unsloth rewrites classes that both use.

Nothing here imports a heavy library, so that the command line can let Unsloth in first.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

from rlvr_lite.errors import UserError, unknown_name

__all__ = ["BACKENDS", "claim", "import_unsloth"]

BACKENDS = ("auto", "transformers", "unsloth")

#: What Unsloth patches on import, and so must precede.
_AFTER = ("transformers", "peft", "trl")
_ANEW = "start Python anew and put `import unsloth` before every other import"
_claimed: str | None = None


def claim(asked: str) -> str:
    """The backend that loads, of which a process has one; ``auto`` takes Unsloth where it has been imported.

    Raises:
        UserError: no such backend, or the process uses, or was made for, the other one.
    """
    global _claimed
    if asked not in BACKENDS:
        raise unknown_name("backend", asked, BACKENDS)
    imported = "unsloth" in sys.modules
    backend = ("unsloth" if imported else "transformers") if asked == "auto" else asked
    if backend == "unsloth":
        _check_there()
    if _claimed is not None and _claimed != backend:
        raise UserError(
            f"this process has loaded a base with {_claimed}, and {backend} cannot share a process with it: start Python anew"
        )
    if backend == "unsloth":
        import_unsloth()
    elif imported:
        raise UserError(
            "unsloth has been imported and has rewritten classes of transformers and PEFT: "
            "take backend unsloth, or start Python anew without it"
        )
    _claimed = backend
    return backend


def import_unsloth() -> None:
    """Import Unsloth, if it is installed, has a GPU, and comes before what it patches.

    ``UNSLOTH_ALLOW_CPU=1``, Unsloth's own switch for tests, lets its GPU code run without a GPU.

    Raises:
        UserError: with the way out.
    """
    _check_there()
    if "unsloth" not in sys.modules:
        early = [name for name in _AFTER if name in sys.modules]
        if early:
            raise UserError(f"unsloth must be imported before {early[0]}, and is not: {_ANEW}")
        importlib.import_module("unsloth")
    early = [name for name in _AFTER if _began(name) < _began("unsloth")]
    if early:
        raise UserError(f"unsloth was imported after {early[0]}, which it could not patch in time: {_ANEW}")
    device = getattr(sys.modules["unsloth"], "DEVICE_TYPE", None)
    if device != "cuda":
        raise UserError(f"backend unsloth needs a CUDA GPU, and Unsloth runs on {device}: leave --backend out")


def _check_there() -> None:
    import torch

    if not torch.cuda.is_available() and os.environ.get("UNSLOTH_ALLOW_CPU") != "1":
        raise UserError("backend unsloth needs a CUDA GPU, and PyTorch finds none: leave --backend out")
    if "unsloth" not in sys.modules and importlib.util.find_spec("unsloth") is None:
        raise UserError("backend unsloth is not installed: pip install 'rlvr-lite[unsloth]', or leave --backend out")


def _began(package: str) -> float:
    """When a package began to load: the place of its first module; the package itself moves back once it is complete."""
    places = (i for i, name in enumerate(sys.modules) if name == package or name.startswith(f"{package}."))
    return next(places, float("inf"))
