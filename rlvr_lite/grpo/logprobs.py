r"""Log-probabilities of given tokens without the logits of all positions.

With z = s (W h + b) / T and p = softmax(z), the log-probability of token t is z_t - logsumexp(z), its gradient by h is
s (W_t - p^T W) / T, and the entropy is logsumexp(z) - p^T z. A model that caps its logits at c has
z = c tanh(s (W h + b) / c) / T instead, which puts 1 - tanh^2 beside each row of W in the gradient. Positions are taken a chunk at a time, so that only a chunk
of the ``[N, V]`` logits exists at any moment.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from rlvr_lite.grpo._truncation import Truncation

__all__ = ["token_logprobs"]

CHUNK = {"cpu": 2**23, "cuda": 2**25}  # logits at a time: 32 MiB of fp32 on a CPU, 128 MiB on a GPU


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    temperature: float = 1.0,
    *,
    scale: float = 1.0,
    cap: float | None = None,
    truncation: Truncation | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, softmax(logits / temperature).

    With a frozen head (neither ``weight`` nor ``bias`` requires a gradient) the derivative by ``hidden`` is formed in
    the forward pass: two matrix products in all, and nothing of width V is kept. With a trained head, logits are
    recomputed chunk by chunk in the backward pass, which gives the gradients of ``weight`` and ``bias`` too. Products
    run in the dtype of the head (or of autocast), the softmax in at least single precision. Entropies carry no gradient.

    Args:
        hidden: ``[N, H]``, last hidden states at the positions that predict the targets.
        weight: ``[V, H]`` of the output head.
        bias: ``[V]`` or ``None``.
        targets: int64 ``[N]``.
        temperature: divides the logits.
        scale: factor of the logits, before the cap.
        cap: bound of the logits (see :class:`OutputHead`), or ``None``.
        truncation: leaves out the tokens that the sampler did, so that probabilities are over those kept and the
            target; which these are has no gradient.

    Returns:
        log-probabilities ``[N]`` and entropies ``[N]`` in nats, float32 (float64 for float64 inputs).

    >>> hidden, weight = torch.eye(2), torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    >>> logprobs, entropy = token_logprobs(hidden, weight, None, torch.tensor([1, 2]))
    >>> torch.allclose(logprobs, torch.tensor([1.0, 0.0]) - torch.tensor([2 + torch.e, 3.0]).log())
    True
    >>> round(entropy[1].item(), 4)  # log 3
    1.0986
    """
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    if not torch.is_grad_enabled():
        trained, hidden = False, hidden.detach()  # the derivative would be formed for nothing
    function = _TrainedHead if trained else _FrozenHead
    rows = max(16, CHUNK.get(hidden.device.type, CHUNK["cpu"]) // weight.shape[0])
    final = _Final(float(scale), cap, float(temperature), truncation)
    return function.apply(hidden, weight, bias, targets, final, rows)


class _Final(NamedTuple):
    """From the head's product u to z = s u / T, or c tanh(s u / c) / T."""

    scale: float
    cap: float | None
    temperature: float
    truncation: Truncation | None

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor | None, float]:
        """z (in place of u), and its derivative by u: ``[n, V]`` or ``None`` for 1, and a factor."""
        if self.cap is None:
            factor = self.scale / self.temperature
            return (z if factor == 1 else z.mul_(factor)), None, factor
        z.mul_(self.scale / self.cap).tanh_()
        slope = 1 - z * z
        return z.mul_(self.cap / self.temperature), slope, self.scale / self.temperature


def _precise(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """What the products run in. The head is cast once, where autocast would cast a frozen one at every chunk."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _score(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, final: _Final
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None, float]:
    """One chunk: e = exp(z - max z) ``[n, V]``, its sums ``[n, 1]``, log-probabilities and entropies ``[n]``, dz / du.

    The probabilities are e / sums; dividing is left to where it is cheap.
    """
    u = F.linear(hidden.to(weight.dtype), weight, bias).to(_precise(weight.dtype))
    z, slope, factor = final(u)
    z.sub_(z.amax(-1, keepdim=True))
    e = z.exp()
    if final.truncation is not None:
        e = final.truncation(e, targets)
    sums = e.sum(-1, keepdim=True)
    log_sums = sums.squeeze(-1).log()
    logprobs = z.gather(-1, targets[:, None]).squeeze(-1) - log_sums
    expected = (e[:, None] @ z[:, :, None]).view(-1)  # vecdot would keep all the products
    return e, sums, logprobs, log_sums - expected / sums.squeeze(-1), slope, factor


class _FrozenHead(torch.autograd.Function):
    """d logp / d hidden is all that is kept."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, final: _Final, rows: int
    ) -> tuple[Tensor, Tensor]:
        dtype = _compute_dtype(weight)
        logprobs = hidden.new_empty(len(hidden), dtype=_precise(dtype))
        entropy = torch.empty_like(logprobs)
        derivative = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        with torch.autocast(weight.device.type, enabled=False):
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                scored = _score(hidden[part], weight, bias, targets[part], final)
                e, sums, logprobs[part], entropy[part], slope, factor = scored
                if derivative is not None:
                    chosen = weight[targets[part]].to(e.dtype)
                    if slope is not None:
                        e, chosen = e.mul_(slope), chosen.mul_(slope.gather(-1, targets[part, None]))
                    expected = (e.to(dtype) @ weight).to(e.dtype).div_(sums)
                    derivative[part] = chosen.sub_(expected).mul_(factor)
                del e, slope, scored  # or two chunks are alive at once
        if derivative is not None:
            ctx.save_for_backward(derivative)
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (derivative,) = ctx.saved_tensors
        return derivative * grads[0][:, None].to(derivative.dtype), None, None, None, None, None


class _TrainedHead(torch.autograd.Function):
    """Logits are formed again in the backward pass, where d logp / d z = onehot(target) - p."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, final: _Final, rows: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.dtype, ctx.final, ctx.rows = _compute_dtype(weight), final, rows
        logprobs = hidden.new_empty(len(hidden), dtype=_precise(ctx.dtype))
        entropy = torch.empty_like(logprobs)
        with torch.autocast(weight.device.type, enabled=False):
            weight, bias = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
            for start in range(0, len(hidden), rows):
                part = slice(start, start + rows)
                logprobs[part], entropy[part] = _score(hidden[part], weight, bias, targets[part], final)[2:4]
        ctx.mark_non_differentiable(entropy)
        return logprobs, entropy

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets = ctx.saved_tensors
        precise = _precise(ctx.dtype)
        head, shift = weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype)
        grad_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros_like(weight, dtype=precise) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=precise) if ctx.needs_input_grad[2] else None
        with torch.autocast(weight.device.type, enabled=False):
            for start in range(0, len(hidden), ctx.rows):
                part = slice(start, start + ctx.rows)
                e, sums, _, _, slope, factor = _score(hidden[part], head, shift, targets[part], ctx.final)
                grad = grads[0][part, None].to(precise) * factor
                dz = e.mul_(-grad / sums).scatter_add_(-1, targets[part, None], grad)
                if slope is not None:
                    dz = dz.mul_(slope)
                if grad_bias is not None:
                    grad_bias += dz.sum(0)
                dz = dz.to(ctx.dtype)
                if grad_hidden is not None:
                    grad_hidden[part] = dz @ head
                if grad_weight is not None:
                    grad_weight += dz.t() @ hidden[part].to(ctx.dtype)
                del e, dz, slope
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            None,
            None,
            None,
        )
