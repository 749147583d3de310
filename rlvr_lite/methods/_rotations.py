"""OFT whose rotations are computed once while sampling, instead of for every token."""

from __future__ import annotations

from typing import Any

from peft.tuners.oft.layer import OFTRotationModule
from torch import Tensor, nn

from rlvr_lite.methods._kept import Keeping

__all__ = ["KeptRotation", "keep_rotations"]


class KeptRotation(Keeping, OFTRotationModule):
    """PEFT's block rotation; the orthogonal blocks ``[in / b, b, b]`` are kept while sampling."""

    def _cayley_batch(self, skew: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.kept(lambda: OFTRotationModule._cayley_batch(self, skew, *args, **kwargs), skew)


def keep_rotations(model: nn.Module) -> None:
    """Let every OFT layer of a fresh model keep its rotation while sampling."""
    for module in model.modules():
        if isinstance(module, OFTRotationModule):
            module.__class__ = KeptRotation
