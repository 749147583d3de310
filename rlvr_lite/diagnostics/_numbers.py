"""Whether numbers on this device are what they should be: products in 4 bits, gradients, rollouts, moments."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rlvr_lite import bases, grpo, sampling
from rlvr_lite.config import SAMPLER_GAP_LIMIT
from rlvr_lite.diagnostics._check import Finding, Skipped
from rlvr_lite.diagnostics._subject import Subject
from rlvr_lite.errors import UserError

__all__ = [
    "SCORED_TOKENS",
    "adapter_in_decoding",
    "eight_bit_moments",
    "four_bit_products",
    "gradient",
    "packed_gradients",
    "same_rollouts",
    "sampled_and_scored",
    "scaler_overflow",
]

_ROWS = (1, 8, 64, 128, 2048)
#: Relative to the exact product: three roundings to the type that products are computed in.
_ROUNDING = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
_GRADIENT = {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.1}
_GROUP, _LENGTH = 4, 24
#: Completion tokens of :func:`gradient`, about.
SCORED_TOKENS = 2 * _GROUP * _LENGTH * 3 // 4


def four_bit_products(subject: Subject) -> Finding:
    """bitsandbytes' NF4 product against the dequantised product, in fp64 on the CPU, at 1 to 2,048 rows."""
    import bitsandbytes as bnb
    from bitsandbytes.functional import dequantize_4bit

    dtype = bases.native_dtype(subject.device)
    source = torch.Generator().manual_seed(0)
    layer: Any = bnb.nn.Linear4bit(
        1536, 256, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True
    )
    weight = torch.randn(256, 1536, generator=source) / 40
    layer.weight = bnb.nn.Params4bit(weight.to(dtype), requires_grad=False, quant_type="nf4", compress_statistics=True)
    layer = layer.to(subject.device)
    layer.support_avx512bf16_for_cpu = False
    exact = dequantize_4bit(layer.weight.data, layer.weight.quant_state).double().cpu()
    apart = {}
    for rows in _ROWS:
        x = torch.randn(rows, 1536, generator=source).to(subject.device, dtype)
        with torch.no_grad():
            apart[rows] = _relative(layer(x).double().cpu(), x.double().cpu() @ exact.T)
    worst = max(apart, key=lambda rows: apart[rows] if apart[rows] == apart[rows] else float("inf"))
    limit = _ROUNDING[dtype]
    remedy = "pip install -U bitsandbytes, or take bf16 or fp16"
    figure = f"{apart[worst]:.1e} at {worst:,} rows, the worst of {', '.join(f'{n:,}' for n in _ROWS)}"
    return Finding(figure, f"{limit:g}", apart[worst] <= limit, remedy)


def packed_gradients(subject: Subject) -> Finding:
    """Gradients of a packed and of a plain pass, each against the plain one in fp32 on the CPU."""
    on_cpu = bases.load("tiny", "fp32", device="cpu") if subject.card else subject.exact
    with subject.policy(on_cpu) as model:
        reference = gradient(subject, model, torch.float32, None)
    found, refused = {}, ""
    with subject.policy(subject.base) as model:
        for kind in ("plain", "packed"):
            packer = grpo.Packer() if kind == "packed" else None
            found[kind] = _relative(gradient(subject, model, subject.base.compute_dtype, packer), reference)
            if packer is not None and not packer.packed:
                refused = f"; not packed: {next(iter(packer.refused), 'no reason')}"
    limit = _GRADIENT[subject.base.compute_dtype]
    figure = ", ".join(f"{kind} {apart:.1e}" for kind, apart in found.items()) + refused
    return Finding(
        figure, f"{limit:g}", not refused and max(found.values()) <= limit, "report it: training would differ"
    )


def adapter_in_decoding(subject: Subject) -> Finding:
    """Whether decoding from the cache and the training pass follow a full pass, and the adapter."""
    with subject.policy(subject.base) as model:
        try:
            bases.check_decode(model)
        except UserError as error:
            return Finding(str(error), "the full forward pass", False, "take --backend transformers")
    return Finding("decoding, training pass and full pass agree")


def same_rollouts(subject: Subject) -> Finding:
    """The same completions in one batch, and prompt by prompt, in fp32."""
    prompts = subject.prompts(3)
    keys = sampling.row_keys(0, rows=3 * _GROUP)
    with subject.policy(subject.exact) as model:
        whole = subject.rollout(model, prompts, _GROUP, _LENGTH, keys).tokens
        parts = [
            subject.rollout(
                model, (prompts[0][i : i + 1], prompts[1][i : i + 1]), _GROUP, _LENGTH, keys[i * _GROUP :][:_GROUP]
            ).tokens
            for i in range(3)
        ]
    same = int((whole == torch.cat(parts)).all(1).sum())
    remedy = "report it: a score would depend on the batch"
    return Finding(f"{same} of {len(whole)} completions equal", "all", same == len(whole), remedy)


def sampled_and_scored(subject: Subject) -> Finding:
    """Mean difference of log-probabilities between the sampler and the training pass."""
    prompts = subject.prompts(3)
    keys = sampling.row_keys(0, rows=3 * _GROUP)
    dtype = subject.base.compute_dtype
    with subject.policy(subject.base) as model, torch.no_grad(), subject.autocast(dtype):
        drawn = subject.rollout(model, prompts, _GROUP, _LENGTH, keys)
        ids, mask = (x.repeat_interleave(_GROUP, 0) for x in prompts)
        scored, _ = grpo.completion_logprobs(model, ids, mask, drawn.tokens, drawn.mask)
    apart = float((scored - drawn.logprobs).abs().sum() / drawn.mask.sum())
    limit = 1e-3 if dtype == torch.float32 else SAMPLER_GAP_LIMIT
    return Finding(f"{apart:.1e} nats a token", f"{limit:g}", apart <= limit, "take --precision fp16 or fp32")


def scaler_overflow(subject: Subject) -> Finding:
    """A gradient that overflows in fp16 is skipped, halves the scale, and the next step goes on."""
    subject.needs_card()
    weight = nn.Parameter(torch.ones(4, device=subject.device))
    optimizer = torch.optim.AdamW([weight], lr=0.1, fused=True)
    scaler = torch.amp.GradScaler(subject.device.type)
    before, kept = scaler.get_scale(), weight.detach().clone()
    for factor in (1e36, 1.0):
        scaler.scale((weight * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if factor != 1.0 and not torch.equal(weight, kept):
            return Finding("a step with an infinite gradient was taken", "skipped", False, "upgrade PyTorch")
    moved = not torch.equal(weight, kept) and bool(weight.isfinite().all())
    figure = (
        f"skipped; scale {before:g} to {scaler.get_scale():g}; the next step {'moved' if moved else 'did not move'}"
    )
    return Finding(figure, "skipped, then moved", moved and scaler.get_scale() < before, "upgrade PyTorch")


def eight_bit_moments(subject: Subject) -> Finding:
    """Twenty steps of paged 8-bit AdamW against fp32 AdamW on the same gradients: how far the updates are apart."""
    subject.needs_card()
    if subject.host.bitsandbytes is None:
        raise Skipped("bitsandbytes is not installed")
    import bitsandbytes

    source = torch.Generator().manual_seed(0)
    shape = (320, 320)  # what is smaller than 1e5 numbers is not paged
    start = torch.randn(shape, generator=source)
    gradients = [start + torch.randn(shape, generator=source) for _ in range(20)]
    moved = []
    for kind in (bitsandbytes.optim.PagedAdamW8bit, torch.optim.AdamW):
        weight = nn.Parameter(start.clone().to(subject.device))
        optimizer = kind([weight], lr=1e-3, weight_decay=0.0)
        for one in gradients:
            weight.grad = one.to(subject.device)
            optimizer.step()
        moved.append(weight.detach().cpu() - start)
    apart = _relative(*moved)
    return Finding(f"updates differ by {apart:.1%}", "10 %", apart <= 0.1, "pip install -U bitsandbytes")


def gradient(subject: Subject, model: nn.Module, dtype: torch.dtype, packer: grpo.Packer | None) -> Tensor:
    """Of every trained number, ``[N]`` in fp32 on the CPU: the policy loss of two groups with mixed advantages."""
    place = grpo.output_head(model).weight.device
    ids, mask = (x.to(place).repeat_interleave(_GROUP, 0) for x in subject.prompts(2))
    source = torch.Generator().manual_seed(3)
    completions = torch.randint(5, 60, (2 * _GROUP, _LENGTH), generator=source).to(place)
    lengths = torch.randint(_LENGTH // 2, _LENGTH + 1, (2 * _GROUP, 1), generator=source)
    kept = (torch.arange(_LENGTH) < lengths).long().to(place)
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5] * 2, device=place)
    model.zero_grad(set_to_none=True)
    with torch.autocast(place.type, dtype=dtype, enabled=dtype != torch.float32):
        scored, _ = grpo.completion_logprobs(model, ids, mask, completions, kept, packer=packer)
    loss, _ = grpo.policy_loss(scored, None, advantages, kept, weights=torch.ones(len(kept), device=place))
    loss.backward()
    parts = [
        p.grad.detach().float().flatten().cpu() for p in model.parameters() if p.requires_grad and p.grad is not None
    ]
    model.zero_grad(set_to_none=True)
    return torch.cat(parts)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
