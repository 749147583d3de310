"""QuanTA as a tuner of PEFT, which has none: its configuration, its layer, and the name by which PEFT finds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn

from rlvr_lite.methods._axes import axes_of, pairs

__all__ = ["TensorConfig", "TensorLinear"]

_NAME = "RLVR_LITE_QUANTA"  # not one that PEFT may give a QuanTA of its own, whose file would be another


def _kind() -> Any:
    """A further member of PeftType: PEFT 0.20 saves no adapter of another type."""
    if _NAME not in PeftType._member_map_:
        kind: Any = str.__new__(PeftType, _NAME)
        kind._name_ = kind._value_ = _NAME
        PeftType._member_map_[_NAME] = PeftType._value2member_map_[_NAME] = kind
        PeftType._member_names_.append(_NAME)
    return PeftType(_NAME)


_KIND = _kind()
_PREFIX = "quanta_"


@dataclass
class TensorConfig(PeftConfig):
    """What ``adapter_config.json`` holds.

    Attributes:
        axes: how many of them the larger side of every layer is split into.
        target_modules: adapted layers.
    """

    axes: int = 4
    target_modules: list[str] | str | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = _KIND
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]


class TensorLinear(nn.Module, BaseTunerLayer):
    """``y = W x + bias + (prod_k T_k - prod_k S_k) x`` (arXiv 2406.00132).

    x is padded with zeros to ``max(in, out)`` numbers and seen as a tensor with the axes ``d_1 .. d_N``; ``T_k``, a matrix
    ``[d_m d_n, d_m d_n]``, acts on the axes m and n; ``S_k`` is what it started from. The first ``out`` numbers are kept.

    Attributes:
        axes: ``d_1 .. d_N``.
    """

    def __init__(self: Any, base_layer: nn.Linear, adapter: str, config: TensorConfig):
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        axes = axes_of(max(self.in_features, self.out_features), config.axes)
        if axes is None:
            raise ValueError(f"{base_layer} cannot be split into {config.axes} axes")
        self.axes, self.merged_adapters = axes, list[str]()
        self._disable_adapters, self._active_adapter = False, adapter
        self.adapter_layer_names = tuple(f"{_PREFIX}{m}_{n}" for m, n in pairs(len(axes)))
        self.other_param_names = tuple(f"{name}_start" for name in self.adapter_layer_names)
        for (m, n), live, start in zip(pairs(len(axes)), self.adapter_layer_names, self.other_param_names, strict=True):
            size = axes[m] * axes[n]
            first = nn.init.kaiming_uniform_(torch.empty(size, size), nonlinearity="linear")
            setattr(self, live, nn.ParameterDict({adapter: nn.Parameter(first)}))
            setattr(self, start, BufferDict({adapter: first.clone()}, persistent=True))
        self._move_adapter_to_device_of_base_layer(adapter)
        self.set_adapter(adapter, inference_mode=config.inference_mode)

    def changed(self: Any, x: Tensor, adapter: str) -> Tensor:
        """``(prod_k T_k - prod_k S_k) x`` for ``x [.., in]``, ``[.., out]``.

        By ``d_k = T_k d_{k-1} + (T_k - S_k) s_{k-1}`` and ``s_k = S_k s_{k-1}``: zero at the start, and no difference of large
        numbers in 16 bits afterwards.
        """
        wide = F.pad(x, (0, prod(self.axes) - self.in_features))
        still, moved = wide.reshape(-1, *self.axes), None
        for (m, n), name, start in zip(
            pairs(len(self.axes)), self.adapter_layer_names, self.other_param_names, strict=True
        ):
            live, frozen = getattr(self, name)[adapter], getattr(self, start)[adapter]
            step = _on_axes(still, live - frozen, m, n)
            moved = step if moved is None else _on_axes(moved, live, m, n) + step
            still = _on_axes(still, frozen, m, n)
        assert moved is not None
        return moved.reshape(*x.shape[:-1], -1)[..., : self.out_features]

    def get_delta_weight(self: Any, adapter: str) -> Tensor:
        """The update ``[out, in]`` in fp32."""
        device = self.base_layer.weight.device
        return self.changed(torch.eye(self.in_features, device=device), adapter).T

    def merge(self: Any, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the update to the base's weight."""
        for adapter in adapter_names or self.active_adapters:
            if adapter not in self.merged_adapters:
                self._add(self.get_delta_weight(adapter))
                self.merged_adapters.append(adapter)

    def unmerge(self: Any) -> None:
        """Take it off again."""
        while self.merged_adapters:
            self._add(-self.get_delta_weight(self.merged_adapters.pop()))

    @torch.no_grad()
    def _add(self: Any, delta: Tensor) -> None:
        weight = self.base_layer.weight
        weight.add_(delta.to(weight.dtype))

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """``x [.., in]`` to ``[.., out]``, in the dtype of what the base gives."""
        result = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for adapter in self.active_adapters:
            dtype = getattr(self, self.adapter_layer_names[0])[adapter].dtype
            result = result + self.changed(x.to(dtype), adapter).to(result.dtype)
        return result


def _on_axes(x: Tensor, matrix: Tensor, m: int, n: int) -> Tensor:
    """``matrix [d_m d_n, d_m d_n]`` on the axes m and n of ``x [B, d_1 .. d_N]``."""
    moved = x.movedim((m + 1, n + 1), (-2, -1))
    # As one product of matrices, which a batch of small ones is not, whatever requires a gradient.
    said = F.linear(moved.reshape(-1, len(matrix)), matrix)
    return said.view(moved.shape).movedim((-2, -1), (m + 1, n + 1))


class _TensorModel(BaseTuner):
    prefix = _PREFIX
    tuner_layer_cls = TensorLinear
    target_module_mapping: Mapping[str, Any] = {}

    def _create_and_replace(
        self, config: Any, adapter: str, target: nn.Module, name: str, parent: nn.Module, current_key: str, **_: Any
    ) -> None:
        if not isinstance(target, nn.Linear):
            raise TypeError(f"{current_key} is no linear layer")
        self._replace_module(parent, name, TensorLinear(target, adapter, config), target)


PEFT_TYPE_TO_CONFIG_MAPPING[_KIND] = TensorConfig
PEFT_TYPE_TO_PREFIX_MAPPING[_KIND] = _PREFIX
PEFT_TYPE_TO_TUNER_MAPPING[_KIND] = _TensorModel
