"""Linear layers whose weight is computed from something smaller, or differently anchored, than itself.

Seen from PEFT they are the ``lora_A`` and ``lora_B`` of a plain LoRA, and a plain LoRA is what reaches the disk. What is
frozen is a buffer, so no activation call of PEFT can make it trainable.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "AnchoredIn",
    "AnchoredOut",
    "ComputedLinear",
    "CoreOut",
    "FixedLinear",
    "NormalizedIn",
    "VectorOut",
]


class ComputedLinear(nn.Linear):
    """A bias-free linear layer with ``weight`` as a function of its parameters and buffers.

    On disk there is only ``weight``; reading one back calls :meth:`split`.

    Attributes:
        folded: the weight, computed once for the time of a rollout.
    """

    folded: Tensor | None = None

    def __init__(self, out_features: int, in_features: int):
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        self.register_parameter("bias", None)

    def compute(self) -> Tensor:
        """The weight ``[out, in]``, differentiable in the parameters."""
        raise NotImplementedError

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        """Parameters and buffers, by name, from a weight read from disk."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The computed weight ``[out, in]``."""
        return self.compute() if self.folded is None else self.folded

    @property
    def factor(self) -> Tensor:
        """What x is multiplied with."""
        return self.weight

    def forward(self, x: Tensor) -> Tensor:
        """``x [.., in]`` to ``[.., out]``."""
        return F.linear(x, self.factor)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[prefix + "weight"] = self.compute().detach()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.pop(prefix + "weight", None)
        if weight is not None:
            state_dict.update({prefix + name: value for name, value in self.split(weight).items()})
        # The plain module writes every tensor under its own name, which is what the split names here.
        nn.Module._load_from_state_dict(self, state_dict, prefix, *args)


class FixedLinear(ComputedLinear):
    """A frozen matrix: a buffer, which nothing can make trainable."""

    def __init__(self, weight: Tensor):
        super().__init__(*weight.shape)
        self.register_buffer("fixed", weight.clone())

    def compute(self) -> Tensor:
        """The matrix itself."""
        return self.fixed  # type: ignore[return-value]

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        """The matrix itself."""
        return {"fixed": weight}


class AnchoredIn(ComputedLinear):
    """``[A; A - A0]`` of shape ``[2r, in]``: the input side of ``B A - B0 A0 = [B - B0, B0] [A; A - A0]``.

    Args:
        start: ``A0 [r, in]``, kept as the anchor; the trained ``A`` starts from it.
        residual: the base already lacks ``B0 A0``, so the forward needs ``A`` alone; on disk it is ``[A; A - A0]``.
    """

    def __init__(self, start: Tensor, residual: bool = False):
        super().__init__(2 * start.shape[0], start.shape[1])
        self.residual = residual
        self.live = nn.Parameter(start.clone())
        self.register_buffer("anchor", start.clone())

    def compute(self) -> Tensor:
        """The stacked matrix; in fp32 it is exactly ``[A0; 0]`` at the start."""
        return torch.cat([self.live, self.live - self.anchor])  # type: ignore[operator]

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        """``A`` is the upper half; the lower half tells the anchor."""
        top, bottom = weight.chunk(2)
        return {"live": top, "anchor": top - bottom}

    @property
    def factor(self) -> Tensor:
        """``[2r, in]``, or ``[r, in]`` in the residual form."""
        return self.live if self.residual else self.weight


class AnchoredOut(ComputedLinear):
    """``[B - B0, B0]`` of shape ``[out, 2r]``: the output side of ``B A - B0 A0``."""

    def __init__(self, start: Tensor, residual: bool = False):
        super().__init__(start.shape[0], 2 * start.shape[1])
        self.residual = residual
        self.live = nn.Parameter(start.clone())
        self.register_buffer("anchor", start.clone())

    def compute(self) -> Tensor:
        """The joined matrix; in fp32 it is exactly ``[0, B0]`` at the start."""
        return torch.cat([self.live - self.anchor, self.anchor], 1)  # type: ignore[operator, list-item]

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        """``B0`` is the right half; the left half tells how far ``B`` went."""
        left, right = weight.chunk(2, 1)
        return {"live": left + right, "anchor": right}

    @property
    def factor(self) -> Tensor:
        """``[out, 2r]``, or ``[out, r]`` in the residual form."""
        return self.live if self.residual else self.weight


class CoreOut(ComputedLinear):
    """``B R`` of shape ``[out, r]`` with a trained core ``R [r, r]`` and a frozen ``B``."""

    def __init__(self, fixed: Tensor):
        super().__init__(*fixed.shape)
        self.core = nn.Parameter(fixed.new_zeros(fixed.shape[1], fixed.shape[1]))
        self.register_buffer("fixed", fixed.clone())

    def compute(self) -> Tensor:
        """``B R``."""
        return self.fixed @ self.core  # type: ignore[operator]


class VectorOut(ComputedLinear):
    """``B (sum_i v_i P_i)`` of shape ``[out, r]`` with a trained vector ``v [u]`` that several layers may share.

    Args:
        fixed: ``B [out, r]``, frozen.
        projections: ``P [u, r, r]``, frozen.
        vector: ``v [u]``, trained.
    """

    def __init__(self, fixed: Tensor, projections: Tensor, vector: nn.Parameter):
        super().__init__(*fixed.shape)
        self.vector = vector
        self.register_buffer("fixed", fixed.clone())
        self.register_buffer("projections", projections.clone())

    def compute(self) -> Tensor:
        """``B R`` with ``R = sum_i v_i P_i``."""
        return self.fixed @ torch.einsum("i,ijk->jk", self.vector, self.projections)  # type: ignore[operator]


class NormalizedIn(ComputedLinear):
    """``A [r, in]`` with every column scaled to length one, at each use; gradients pass through the scaling."""

    def __init__(self, start: Tensor):
        super().__init__(*start.shape)
        self.live = nn.Parameter(start.clone())

    def compute(self) -> Tensor:
        """``A[:, j] / max(|A[:, j]|, eps)``."""
        return F.normalize(self.live, dim=0, eps=1e-12)

    def split(self, weight: Tensor) -> dict[str, Tensor]:
        """A normalised matrix is its own normalisation."""
        return {"live": weight}
