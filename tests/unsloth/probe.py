"""One backend in a process of its own: what each method's policy answers, how it is trained, and what it samples.

``python -m tests.unsloth.probe BACKEND MODEL OUT METHOD..`` writes a dictionary per method with ``torch.save``. A method
may be followed by ``@fp16`` (the base's precision, with autocast as in training; Triton's interpreter has no bf16) and ``+checkpointing``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__" and sys.argv[1] == "unsloth":
    import tests.unsloth.standin  # noqa: F401

import torch

torch.set_num_threads(1)

from rlvr_lite import bases, grpo, methods, sampling  # noqa: E402
from rlvr_lite.config import AdapterConfig, SamplingConfig  # noqa: E402
from rlvr_lite.errors import UserError  # noqa: E402

_GROUP, _LENGTH = 2, 6
_PROMPTS = torch.tensor([[5, 6, 7, 8, 9], [0, 0, 10, 11, 12]])
_MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
_COMPLETIONS = torch.tensor([[13, 14, 15, 16], [17, 18, 0, 0], [19, 20, 21, 0], [22, 23, 24, 25]])
_OWN = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]])


def adapter_of(method: str) -> AdapterConfig:
    """Rank 4 where the method has a rank."""
    known = methods.get(method)
    return AdapterConfig(rank=4 if "rank" in known.uses else None)


@torch.no_grad()
def shake(model: torch.nn.Module, seed: int = 1, size: float = 0.05) -> None:
    """Move every trained tensor, the same on every backend."""
    source = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            parameter.add_(size * torch.randn(parameter.shape, generator=source))


def fused(model: Any) -> int:
    """How many of Unsloth's fused LoRA functions sit in the layers."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    found = 0
    for block in base.model.layers:
        for holder, name in ((block.self_attn, "apply_qkv"), (block.self_attn, "apply_o"), (block.mlp, "forward")):
            function = vars(holder).get(name)
            found += getattr(function, "__name__", "").startswith("apply_lora")
    return found


def measure(model: Any, *, checkpointing: bool = False) -> dict[str, Any]:
    """Log-probabilities and gradients as the trainer takes them, and greedy tokens from the sampler."""
    prompts, mask = (x.repeat_interleave(_GROUP, 0) for x in (_PROMPTS, _MASK))
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    model.zero_grad(set_to_none=True)
    passes: list[int] = []  # through the first layer; checkpointing makes it two
    first = next(module for name, module in model.named_modules() if name.endswith("layers.0"))
    counting = first.mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    packer = grpo.Packer()
    logprobs, entropy = grpo.completion_logprobs(model, prompts, mask, _COMPLETIONS, _OWN, packer=packer)
    weight = torch.linspace(-1, 1, _OWN.numel()).view_as(logprobs)
    ((logprobs * weight).sum() + 0.1 * entropy.sum()).backward()
    gradients = {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad(set_to_none=True)
    counting.remove()
    seen_passes = len(passes)
    if checkpointing:
        model.gradient_checkpointing_disable()
    model.eval()
    head = grpo.output_head(model)
    ids = torch.cat([prompts, _COMPLETIONS], 1)
    seen = torch.cat([mask, _OWN], 1)
    with torch.no_grad():
        position = (seen.cumsum(1) - 1).clamp(min=0)
        hidden = head.backbone(input_ids=ids, attention_mask=seen, position_ids=position, use_cache=False)
        logits = head.logits(hidden.last_hidden_state)[seen.bool()]
    config = SamplingConfig(temperature=0.0, max_completion_length=_LENGTH)
    rows = len(_PROMPTS) * _GROUP
    options = {"group_size": _GROUP, "sampling": config, "pad_id": 0, "row_keys": list(range(rows))}
    free = sampling.rollout(model, _PROMPTS, _MASK, eos_ids=(), **options)
    # an end token of one row only, so that rows leave the batch while others go on
    ended = sampling.rollout(model, _PROMPTS, _MASK, eos_ids=(int(free.tokens[0, 1]),), **options)
    greedy = {"free": free.tokens, "ended": ended.tokens, "logprobs": free.logprobs}
    return {
        "logits": logits,
        "gradients": gradients,
        "greedy": greedy,
        "passes": seen_passes,
        "packed": dict(packer.refused),
    }


def probe(backend: str, folder: str, names: list[str]) -> dict[str, Any]:
    """Measure every method on a fresh base; one that is refused gives its reason."""
    found: dict[str, Any] = {}
    for label in names:
        label_of_base, _, how = label.partition("+")
        name, _, precision = label_of_base.partition("@")
        started = time.process_time()
        try:
            base = bases.load(folder, precision or "fp32", backend=backend)
            model = methods.attach(base.model, name, adapter_of(name), total_steps=10, seed=0)
        except UserError as error:
            found[label] = {"refused": str(error)}
            continue
        start = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        shake(model)
        with torch.autocast("cpu", torch.float16, enabled=precision == "fp16"):
            row = measure(model, checkpointing=how == "checkpointing")
        row |= {"start": start, "hash": methods.base_hash(model) if name == "lora" else ""}
        if name != "full":
            with methods.disabled(model):
                row["disabled"] = measure_logits(model)
        row |= {"fused": fused(model), "seconds": time.process_time() - started}
        found[label] = row
    return found


@torch.no_grad()
def measure_logits(model: Any) -> torch.Tensor:
    """Logits ``[B, T, V]`` of the prompts."""
    head = grpo.output_head(model)
    position = (_MASK.cumsum(1) - 1).clamp(min=0)
    output = head.backbone(input_ids=_PROMPTS, attention_mask=_MASK, position_ids=position, use_cache=False)
    return head.logits(output.last_hidden_state)[_MASK.bool()]


if __name__ == "__main__":
    _backend, _folder, _out, *_names = sys.argv[1:]
    if _backend == "unsloth":
        # The kernels are made for 16 bits, and the product leaves 32-bit bases unfused; here they are to be compared.
        import rlvr_lite.bases._unsloth_host as _host

        _host._narrow = lambda weight: True
    torch.save(probe(_backend, _folder, _names), Path(_out))
