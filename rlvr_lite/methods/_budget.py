"""AdaLoRA's rank budget: what PEFT leaves to the caller, and an allocation that ties cannot empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.adalora.layer import AdaLoraLayer, RankAllocator
from torch import Tensor, nn

from rlvr_lite.methods._lora import ADAPTER

__all__ = ["allocate", "allocator_state", "budget", "load_allocator_state", "orthogonal_penalty", "use_exact_allocator"]

_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_PATTERN, _STEP = "rank_pattern.", "step"


class ExactAllocator(RankAllocator):
    """PEFT's allocator, but parameters without a gradient are skipped and exactly the budget is kept.

    PEFT masks every triplet whose importance is at most a threshold, so equal importances, such as the zeros before the
    first step with a signal, empty all layers at once. Here ties keep the earlier triplet.
    """

    step = 0

    def update_ipt(self, model: nn.Module) -> None:
        """Importance ``|w dw|`` and its smoothed mean and uncertainty (arXiv 2303.10512, eq. 8-11)."""
        for name, p in model.named_parameters():
            if "lora_" not in name or ADAPTER not in name or not p.requires_grad:
                continue
            for scores in (self.ipt, self.exp_avg_ipt, self.exp_avg_unc):
                scores.setdefault(name, torch.zeros_like(p))
            gradient = torch.zeros_like(p) if p.grad is None else p.grad
            self.ipt[name] = (p.detach() * gradient).abs()
            mean = self.exp_avg_ipt[name].lerp(self.ipt[name], 1 - self.beta1)
            self.exp_avg_ipt[name] = mean
            self.exp_avg_unc[name] = self.exp_avg_unc[name].lerp((self.ipt[name] - mean).abs(), 1 - self.beta2)

    def mask_to_budget(self, model: nn.Module, budget: int) -> dict[str, list[bool]]:
        """Zero the E of all but the ``budget`` most important triplets (eq. 7 and 12); returns which stay."""
        parameters = dict(model.named_parameters())
        names = [name % "lora_E" for name in self.name_set]
        scores = [self._triplets(name, parameters) for name in self.name_set]
        order = torch.cat(scores).argsort(descending=True, stable=True)
        kept = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        kept[order[:budget]] = True
        pattern = {}
        with torch.no_grad():
            for name, keep in zip(names, kept.split([len(s) for s in scores]), strict=True):
                parameters[name].masked_fill_(~keep[:, None], 0.0)
                pattern[name] = keep.tolist()
        return pattern

    def _triplets(self, name: str, parameters: Mapping[str, Tensor]) -> Tensor:
        """Importance of each triplet: that of E plus the mean over its row of A and its column of B."""

        def score(part: str) -> Tensor:
            if name % part not in self.exp_avg_ipt:  # nothing was scored yet
                return torch.zeros_like(parameters[name % part])
            return self.exp_avg_ipt[name % part] * self.exp_avg_unc[name % part]

        return score("lora_E").flatten() + score("lora_A").mean(1) + score("lora_B").mean(0)


def _parts(model: nn.Module) -> tuple[Any, ExactAllocator, Any]:
    tuner: Any = model.base_model
    return tuner, tuner.rankallocator, tuner.peft_config[ADAPTER]


def use_exact_allocator(model: nn.Module) -> None:
    """Give a fresh PEFT AdaLoRA this allocator, and hold its divisors as buffers: PEFT lets them be trained."""
    tuner, allocator, _ = _parts(model)
    allocator.__class__ = ExactAllocator
    for module in tuner.modules():
        if isinstance(module, AdaLoraLayer):
            module.ranknum = BufferDict({ADAPTER: module.ranknum[ADAPTER].detach().float()}, persistent=True)


def allocate(model: nn.Module, step: int) -> None:
    """Score the triplets, and cut them to the budget of this step where the schedule says so."""
    tuner, allocator, _ = _parts(model)
    tuner.update_and_allocate(step)
    allocator.step = step


def orthogonal_penalty(model: nn.Module) -> Tensor | None:
    """``weight * mean(|A A^T - I| + |B^T B - I|)`` over all A and B (eq. 4), which PEFT adds to its own loss alone."""
    config = _parts(model)[2]
    terms = []
    for name, p in model.named_parameters():
        if name.endswith((f"lora_A.{ADAPTER}", f"lora_B.{ADAPTER}")):
            gram = p @ p.T if "lora_A" in name else p.T @ p
            terms.append((gram - torch.eye(len(gram), dtype=p.dtype, device=p.device)).norm())
    return config.orth_reg_weight * torch.stack(terms).mean()


def budget(model: nn.Module) -> dict[str, int]:
    """Ranks in use, the target, and whether the schedule has reached it."""
    _, allocator, config = _parts(model)
    pattern = config.rank_pattern
    used = sum(map(sum, pattern.values())) if pattern else allocator.init_bgt
    final = allocator.step >= config.total_step - config.tfinal
    return {"used": int(used), "target": int(allocator.target_bgt), "final": int(final)}


def allocator_state(model: nn.Module) -> dict[str, Tensor]:
    """Scores, kept triplets and the step they belong to."""
    _, allocator, config = _parts(model)
    state = {f"{kind}.{n}": t.detach().cpu() for kind in _SCORES for n, t in getattr(allocator, kind).items()}
    state |= {_PATTERN + n: torch.tensor(kept) for n, kept in (config.rank_pattern or {}).items()}
    return state | {_STEP: torch.tensor(allocator.step)}


def load_allocator_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`allocator_state`."""
    _, allocator, config = _parts(model)
    device = next(model.parameters()).device
    for kind in _SCORES:
        prefix = kind + "."
        scores = {n.removeprefix(prefix): t.to(device) for n, t in state.items() if n.startswith(prefix)}
        setattr(allocator, kind, scores)
    pattern = {n.removeprefix(_PATTERN): t.tolist() for n, t in state.items() if n.startswith(_PATTERN)}
    config.rank_pattern = pattern or None
    allocator.step = int(state[_STEP])
