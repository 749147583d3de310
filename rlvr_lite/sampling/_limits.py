"""What stops a rollout: sequences longer than the base allows, and logits that are not numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from rlvr_lite.errors import UserError
from rlvr_lite.grpo import OutputHead, eval_mode, feed, output_head, position_limit

__all__ = ["check_copy", "check_engine", "check_finite", "check_length", "check_overflow", "check_room", "fitted"]


def check_length(head: OutputHead, prompt: int, completion: int) -> None:
    """Refuse a sequence that the base has no positions for.

    Raises:
        UserError: naming the longest completion that would fit.
    """
    check_room(position_limit(head.causal_lm.config), prompt, completion)


def check_room(positions: tuple[int | None, str], prompt: int, completion: int) -> None:
    """The same for a base that is not loaded.

    Args:
        positions: as :func:`rlvr_lite.grpo.position_limit` gives them.
        prompt: tokens.
        completion: tokens.

    Raises:
        UserError: naming the longest completion that would fit.
    """
    limit, why = positions
    if limit is not None and prompt + completion > limit:
        room = limit - prompt
        way_out = f"set max_completion_length to at most {room}" if room > 0 else "shorten the prompt"
        raise UserError(
            f"a prompt of {prompt} tokens and {completion} of a completion are more than this base allows ({why}): {way_out}"
        )


def fitted(positions: tuple[int | None, str], prompt: int, counted: bool, longest: int, *, named: bool) -> int:
    """The longest completion on a base that is not loaded: a length that nobody named is fitted, one that was is checked.

    Args:
        positions: as :func:`rlvr_lite.grpo.position_limit` gives them.
        prompt: tokens of the longest prompt.
        counted: whether they were; a guess refuses nothing.
        longest: tokens of a completion.
        named: whether a caller chose them.

    Raises:
        UserError: as :func:`check_room`.
    """
    if not named and positions[0] is not None:
        longest = min(longest, max(1, positions[0] - prompt))
    check_room(positions, prompt if counted else 1, longest)
    return longest


def check_finite(
    model: nn.Module, head: OutputHead, logprobs: Tensor, input_ids: Tensor, attention_mask: Tensor, tokens: Tensor
) -> None:
    """Refuse samples whose log-probabilities are not numbers: precision and layer are named.

    Args:
        model: that sampled.
        head: of it.
        logprobs: ``[P*G, L]``.
        input_ids: ``[P, T]``.
        attention_mask: ``[P, T]``.
        tokens: ``[P*G, L]``.

    Raises:
        UserError: some of them are infinite or not a number.
    """
    broken = (~torch.isfinite(logprobs)).any(-1)
    if not broken.any():
        return
    row = int(broken.nonzero()[0])
    prompt = row // max(1, len(tokens) // len(input_ids))
    ids = torch.cat([input_ids[prompt][attention_mask[prompt].bool()], tokens[row]])[None]
    where = _first_broken(model, head, ids) or "the output head"
    precision = str(head.weight.dtype).removeprefix("torch.")
    wider = "bf16 or fp32" if head.weight.dtype == torch.float16 else "fp32"
    advice = (
        f"load the base as {wider}" if precision != "float32" else "its weights are damaged, or the update diverged"
    )
    raise UserError(f"the logits are not finite in {precision}: {where} is the first that is not; {advice}")


def check_overflow(model: nn.Module, input_ids: Tensor) -> None:
    """Refuse a policy whose weights, each of them finite, give numbers that overflow once they are multiplied.

    A norm that squares them makes zeros of infinity again, so that finite logits prove nothing.

    Args:
        model: the policy.
        input_ids: a text, ``[1, T]``.

    Raises:
        UserError: naming the module that is the first to give what is not finite, or no longer once it is squared.
    """
    where = _first_broken(model, output_head(model), input_ids, torch.finfo(torch.float32).max ** 0.5)
    if where:
        raise UserError(f"its numbers overflow in {where}: they are damaged, or the update diverged")


@torch.no_grad()
def _first_broken(model: nn.Module, head: OutputHead, ids: Tensor, largest: float = math.inf) -> str:
    """Name of the innermost module that is the first to give what is not finite, or is larger; empty if none does."""
    found: list[str] = []
    names = {module: name for name, module in head.causal_lm.named_modules()}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if found or not isinstance(first, Tensor) or not first.is_floating_point() or not first.numel():
            return
        size = float(first.abs().amax())
        if not (math.isfinite(size) and size <= largest):
            found.append(names[module])

    hooks = [module.register_forward_hook(look) for module in names]
    try:
        with eval_mode(model):
            position = torch.arange(ids.shape[1], device=ids.device)[None]
            head.logits(feed(head.backbone, ids, torch.ones_like(ids), position))
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def check_copy(asked: bool | str, precision: str, backend: str) -> None:
    """Refuse a copy of what is not held in 4 bits, or of what other kernels multiply with.

    Args:
        asked: ``RunConfig.rollout_copy``.
        precision: of the base; ``auto`` while nobody knows.
        backend: who loads it.

    Raises:
        UserError: naming the way out.
    """
    if asked is True and precision not in ("auto", "nf4"):
        raise UserError(
            f"rollout_copy=True copies a base in 4 bits, and this one is in {precision}: leave it out, or set precision to nf4"
        )
    if asked is True and backend == "unsloth":
        raise UserError("rollout_copy=True: Unsloth's kernels read the 4-bit weights; leave it out, or the backend")


def check_engine(sampler: str, copy: bool | str, backend: str) -> None:
    """Refuse an engine for what it cannot be handed, before a weight is loaded.

    Args:
        sampler: ``RunConfig.sampler``.
        copy: ``RunConfig.rollout_copy``.
        backend: who loads the base.

    Raises:
        UserError: naming the way out.
    """
    if sampler != "vllm":
        return
    if copy is True:
        raise UserError("rollout_copy=True is for sampling from the model itself: leave it out, or sampler='vllm'")
    if backend == "unsloth":
        raise UserError("sampler='vllm' reads a base that transformers loaded: leave it out, or backend='unsloth'")
