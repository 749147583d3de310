"""The plain computation that every saving must agree with: full logits, every row, no shortcuts, formulas in loops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rlvr_lite.grpo import RolloutBatch

SEQUENCE = ("gspo", "luspo")


def step_batch(
    *, groups: int = 5, size: int = 4, prompt: int = 9, length: int = 12, vocab: int = 96, dead: int = 2, seed: int = 0
) -> RolloutBatch:
    """Ragged rows, of which the first ``dead`` groups have advantage zero; weights are not set."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    rows = groups * size
    prompt_mask = (torch.arange(prompt) >= draw(0, prompt, groups)[:, None]).long()
    prompt_ids = draw(2, vocab, groups, prompt) * prompt_mask
    lengths = draw(1, length + 1, rows)
    mask = (torch.arange(length) < lengths[:, None]).long()
    advantages = torch.randn(rows, generator=generator)
    advantages[: dead * size] = 0
    return RolloutBatch(
        prompt_ids.repeat_interleave(size, 0),
        prompt_mask.repeat_interleave(size, 0),
        draw(2, vocab, rows, length) * mask,
        mask,
        advantages,
        torch.full((rows,), torch.nan),
        old_logprobs=-3 + torch.randn(rows, length, generator=generator),
        ref_logprobs=-3 + torch.randn(rows, length, generator=generator),
    )


def full_logprobs(model: Any, batch: RolloutBatch, temperature: float = 1.0) -> Tensor:
    """``[B, C]`` by one forward pass a row without any padding, and a softmax over all its logits."""
    rows = []
    for row in range(len(batch)):
        prompt = batch.prompt_ids[row][batch.prompt_mask[row].bool()]
        completion = batch.completions[row][batch.mask[row].bool()]
        logits = model(input_ids=torch.cat([prompt, completion])[None]).logits[0].float() / temperature
        logprobs = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        picked = logprobs.gather(-1, completion[:, None]).squeeze(-1)
        rows.append(torch.nn.functional.pad(picked, (0, batch.mask.shape[1] - len(completion))))
    return torch.stack(rows)


def token_loss(
    name: str, logp: Tensor, old: Tensor, advantage: Tensor, row_ratio: Tensor, length: int, low: float, high: float
) -> Tensor:
    """One token's loss, as the papers print it."""
    ratio = row_ratio if name in SEQUENCE else torch.exp(logp - old)
    if name == "vespo":
        k, decay = (2, 3) if advantage >= 0 else (3, 2)
        weight = row_ratio.detach() ** length
        return -(weight**k) * torch.exp(decay * (1 - weight)) * advantage * logp
    if name == "sapo":
        temperature = 1 if advantage > 0 else 1.05
        return -4 / temperature * torch.sigmoid(temperature * (ratio - 1)) * advantage
    if name == "reinforce":
        return -advantage * logp
    if name == "cispo":
        return -torch.clamp(ratio, max=1 + high).detach() * advantage * logp
    clipped = torch.clamp(ratio, 1 - low, 1 + high)
    return -torch.minimum(ratio * advantage, clipped * advantage)


def full_loss(
    name: str,
    logprobs: Tensor,
    batch: RolloutBatch,
    *,
    max_length: int,
    kl_coef: float = 0.0,
    unbiased_kl: bool = True,
    low: float = 0.2,
    high: float = 0.28,
) -> Tensor:
    """The loss of all rows, token by token."""
    old = logprobs.detach() if batch.old_logprobs is None else batch.old_logprobs
    rows, tokens, total = len(batch), int(batch.mask.sum()), torch.zeros(())
    for row in range(rows):
        length = int(batch.mask[row].sum())
        if not length:
            continue
        row_ratio = torch.exp((logprobs[row, :length] - old[row, :length]).mean())
        losses = []
        for t in range(length):
            logp = logprobs[row, t]
            loss = token_loss(name, logp, old[row, t], batch.advantages[row], row_ratio, length, low, high)
            if kl_coef:
                assert batch.ref_logprobs is not None
                difference = batch.ref_logprobs[row, t] - logp
                ratio = row_ratio if name in SEQUENCE else torch.exp(logp - old[row, t])
                loss = loss + kl_coef * (torch.exp(difference) - difference - 1) * (ratio if unbiased_kl else 1)
            losses.append(loss)
        summed = torch.stack(losses).sum()
        if name in ("grpo", "gspo", "sapo"):
            total = total + summed / length / rows
        elif name == "luspo":
            total = total + summed / rows
        elif name in ("dr_grpo", "reinforce"):
            total = total + summed / (rows * max_length)
        else:
            total = total + summed / tokens
    return total


def gradients(model: Any) -> Tensor:
    """All gradients end to end, in double precision, taken away from the model."""
    found = torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def relative(found: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of the expected."""
    return float((found - expected).norm() / expected.norm())
