"""The trained part and the frozen part of a policy, whether it was attached here or comes from a script with PEFT."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.errors import UserError

__all__ = [
    "Reference",
    "attached",
    "changes_the_base",
    "drop_fused_head",
    "load_trained_state",
    "load_weights",
    "new_gradients",
    "plain",
    "restore_precision",
    "trained_state",
    "trained_values",
]


def plain(model: Any) -> nn.Module:
    """The model below a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def attached(model: nn.Module) -> bool:
    """Whether a method of ours sits on the model."""
    try:
        methods.attachment(model)
    except UserError:
        return False
    return True


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Everything that a resumed run needs of the model, by name."""
    if attached(model):
        return dict(methods.trainable_state(model))
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def load_trained_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """The inverse of :func:`trained_state`.

    Raises:
        UserError: the state is of another model or adapter.
    """
    if attached(model):
        methods.load_trainable_state(model, state)
        return
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    odd = sorted(trained.keys() ^ state.keys()) or [n for n, p in trained.items() if p.shape != state[n].shape]
    if odd:
        raise UserError(
            f"the checkpoint is of another adapter ({odd[0]} does not match): resume with the same configuration"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(state[name])


def load_weights(model: Any, found: dict[str, Tensor]) -> None:
    """Tensors from a file of PEFT's or transformers', into a model that was not attached here.

    Raises:
        UserError: they are of another model or adapter.
    """
    try:
        if hasattr(model, "peft_config"):
            missing = set(get_peft_model_state_dict(model, save_embedding_layers=False)) - set(found)
            odd = [*set_peft_model_state_dict(model, found).unexpected_keys, *sorted(missing)]
        else:
            missing, unexpected = model.load_state_dict(found, strict=False)
            odd = [*unexpected, *(set(missing) - set(model.all_tied_weights_keys))]
    except RuntimeError as error:  # a shape
        odd = [str(error).splitlines()[-1].strip()]
    if odd:
        raise UserError(
            f"the checkpoint is of another model ({odd[0]} does not match): resume with the same configuration"
        )


def _has_base(model: Any) -> bool:
    return not methods.get(methods.attachment(model).method).trains_base


class Reference:
    """The policy that the KL term compares with, as TRL chooses it.

    A method of ours, or an adapter that was just put on, is compared with the base under it. An adapter that came
    trained, one whose start changed the base, and full fine-tuning are compared with a frozen copy of their start.

    Args:
        model: the policy before its first step.
        fresh: whether the adapter of a PEFT model was put on without changing what the model says.
    """

    def __init__(self, model: Any, *, fresh: bool):
        self.model = model
        self.copy: dict[str, Tensor] | None = None
        based = _has_base(model) if attached(model) else fresh and hasattr(model, "disable_adapter")
        if not based:
            self.copy = {name: value.clone() for name, value in trained_values(model).items()}

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Inside, the model is the reference."""
        if self.copy is None:
            with methods.disabled(self.model) if attached(self.model) else self.model.disable_adapter():
                yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        assert self.copy is not None
        for name, parameter in self.model.named_parameters():
            if name in self.copy:
                self.copy[name], parameter.data = parameter.data, self.copy[name]

    @torch.no_grad()
    def mix(self, alpha: float) -> None:
        """Move the copy towards the policy: ``alpha`` of the policy, the rest of what it was (TR-DPO, arXiv 2404.09656)."""
        assert self.copy is not None
        for name, parameter in self.model.named_parameters():
            if name in self.copy:
                self.copy[name].mul_(1 - alpha).add_(parameter.data, alpha=alpha)


def changes_the_base(peft_config: Any) -> bool:
    """Whether putting the adapter on writes into the weights under it, so that without it they are another model."""
    start = str(getattr(peft_config, "init_lora_weights", "")).lower()
    return start.startswith(("pissa", "olora", "corda", "lora_ga", "loftq"))


def trained_values(model: Any) -> dict[str, Tensor]:
    """The trained tensors themselves, by name; none of what is not loaded yet."""
    if not isinstance(model, nn.Module):
        return {}
    return {name: p.data for name, p in model.named_parameters() if p.requires_grad}


def restore_precision(model: nn.Module, precise: dict[str, Tensor]) -> None:
    """Adapters back to fp32: TRL rounds those on a 4-bit base to bf16, where updates at RL learning rates vanish."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name in precise:
            parameter.data = precise[name]
        elif parameter.requires_grad and parameter.dtype != torch.float32 and "lora_" in name:
            parameter.data = parameter.data.float()


def drop_fused_head(model: nn.Module, own_forward: Callable[..., Any] | None) -> None:
    """Undo TRL's patch of the forward pass; the log-probabilities here come from the hidden states."""
    base = plain(model)
    if own_forward is not None:
        base.forward = own_forward
    else:
        base.__dict__.pop("forward", None)


def new_gradients(model: nn.Module, seen: Collection[str], *, scaled: bool) -> tuple[set[str], bool]:
    """Trained tensors not in ``seen`` with a gradient other than zero, and whether the gradient overflowed in fp16.

    Where it did, the gradient scaler skips the step, so that it is no gradient of any tensor.

    Args:
        model: after its backward pass, gradients divided by the scale again.
        seen: names that need not be looked at.
        scaled: whether a gradient scaler is at work.
    """
    trained = [(n, p.grad) for n, p in model.named_parameters() if p.requires_grad and p.grad is not None]
    open_ = [(n, grad) for n, grad in trained if n not in seen]
    told = [grad.any() for _, grad in open_] + [grad.isfinite().all() for _, grad in trained if scaled]
    answers = torch.stack(told).tolist() if told else []  # the host waits for the device once
    overflowed = not all(answers[len(open_) :])
    found = {name for (name, _), there in zip(open_, answers, strict=False) if there}
    return (set(), True) if overflowed else (found, False)
