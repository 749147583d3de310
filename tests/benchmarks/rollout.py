"""Rollout speed against transformers' generate, which stock TRL calls, in the same run.

    python -m tests.benchmarks.rollout                         # a random model of the embedded base's size
    RLVR_LITE_SMOLLM2=folder python -m tests.benchmarks.rollout --model smollm2

Both sides sample from the same LoRA model at temperature 1. Its head is flattened and its end token given a constant
probability, so that lengths are geometric with a long tail: their mean is a third of the longest. Times are CPU seconds
of one thread, the best of the repeats, both sides alternating; tokens are those up to the end token.

    python -m tests.benchmarks.rollout --count lora dora       # operations a decoded token, of 28 layers

Counted are the operators that torch dispatches, views apart, between two tokens of a Qwen2 with 2 and with 4 layers, from
which 28 follow: with the layers' own forward, with :func:`rlvr_lite.methods.lean`, and with its copy of a base in NF4.

    RLVR_LITE_SMOLLM2=folder python -m tests.benchmarks.rollout --methods lora dora --precision nf4

CPU time of rollouts of SmolLM2 in turns, as medians: of the lean loop over that of the same loop with the layers' own
forward, over that of the plain loop that looks at every token (the reference of tests/sampling), and over that of
generate. What is prepared once for all rollouts of a policy stands beside.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
import warnings
from contextlib import ExitStack, nullcontext
from typing import Any
from unittest import mock

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_lite import bases, methods
from rlvr_lite.config import AdapterConfig, SamplingConfig
from rlvr_lite.grpo import output_head
from rlvr_lite.sampling import rollout, row_keys, way
from rlvr_lite.table import Table
from tests.benchmarks.grpo_core import peft_model
from tests.models import random_qwen2
from tests.sampling.reference import plain_rollout

EOS, PAD = 1, 0


def end_probability(longest: int) -> float:
    """The p for which a geometric length cut at ``longest`` has mean ``longest / 3``: (1 - (1 - p)^n) / p = n / 3."""
    low, high = 1e-9, 1.0
    for _ in range(80):
        middle = (low + high) / 2
        mean = (1 - (1 - middle) ** longest) / middle
        low, high = (middle, high) if mean > longest / 3 else (low, middle)
    return low


def flatten_head(model: Any, longest: int) -> None:
    """Give every token about the same probability and the end token a constant one."""
    base = model.get_base_model()
    p, vocab = end_probability(longest), base.config.vocab_size
    head = nn.Linear(base.config.hidden_size, vocab, bias=True)
    with torch.no_grad():
        head.weight.copy_(base.get_output_embeddings().weight * 1e-3)
        head.bias.zero_()
        head.bias[EOS] = math.log(p * (vocab - 1) / (1 - p))
    base.lm_head = head.requires_grad_(False)


def ours(model: Any, ids: Tensor, mask: Tensor, group: int, longest: int, seed: int) -> int:
    """Tokens sampled by one rollout."""
    sampled = rollout(
        model,
        ids,
        mask,
        group_size=group,
        sampling=SamplingConfig(max_completion_length=longest),
        eos_ids=[EOS],
        pad_id=PAD,
        row_keys=row_keys(seed, rows=len(ids) * group),
    )
    return int(sampled.mask.sum())


def stock(model: Any, ids: Tensor, mask: Tensor, group: int, longest: int, seed: int) -> int:
    """Tokens sampled by generate on repeated prompts, as TRL calls it."""
    torch.manual_seed(seed)
    with torch.no_grad():
        found = model.generate(
            input_ids=ids.repeat_interleave(group, 0),
            attention_mask=mask.repeat_interleave(group, 0),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=longest,
            eos_token_id=EOS,
            pad_token_id=PAD,
            disable_compile=True,
        )[:, ids.shape[1] :]
    before_end = (found == EOS).cumsum(1) - (found == EOS).long()
    return int((before_end == 0).sum())


def measure(name: str, prompts: int, group: int, width: int, longest: int, repeats: int) -> dict[str, Any]:
    """One row of the table."""
    model, _ = peft_model(name, seed=0)
    flatten_head(model, longest)
    model.eval()
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(width) >= torch.randint(0, width // 2, (prompts, 1), generator=generator)).long()
    ids = torch.randint(2, model.get_base_model().config.vocab_size, (prompts, width), generator=generator) * mask
    rates = {"ours": 0.0, "generate": 0.0}
    lengths = {}
    for sample in (ours, stock):
        sample(model, ids[:1], mask[:1], 2, 4, 0)  # first-call costs
    for seed in range(repeats):
        for side, sample in (("ours", ours), ("generate", stock)):
            start = time.process_time()
            tokens = sample(model, ids, mask, group, longest, seed)
            rates[side] = max(rates[side], tokens / (time.process_time() - start))
            lengths[side] = tokens / (prompts * group)
    return {
        "model": name,
        "prompts x G": f"{prompts} x {group}",
        "prompt": width,
        "longest": longest,
        "mean length, ours": lengths["ours"],
        "generate's": lengths["generate"],
        "generate tokens/s": rates["generate"],
        "ours tokens/s": rates["ours"],
        "ratio": rates["ours"] / rates["generate"],
    }


#: What only looks at memory otherwise, or takes some.
_VIEWS = """view _unsafe_view t transpose expand slice select unsqueeze squeeze permute as_strided detach alias unbind split chunk
reshape _reshape_alias split_with_sizes unflatten empty new_empty empty_like empty_strided lift_fresh"""


class _Operations(TorchDispatchMode):
    """Counts operators while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.found = False, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found += self.on and func._schema.name.split("::")[1] not in _VIEWS.split()
        return func(*args, **(kwargs or {}))


def operations(method: str, precision: str, layers: int, lean: bool, copy: bool) -> float:
    """Operators a decoded token of a small Qwen2 under autocast to bf16."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    torch.manual_seed(0)
    base = random_qwen2(hidden=256, intermediate=512, layers=layers, vocab=1024, dtype=torch.bfloat16)
    inside = [m for m in base.model.modules() if any(isinstance(child, nn.Linear) for child in m.children())]
    for parent in inside if precision == "nf4" else []:
        for name, linear in [*parent.named_children()]:
            if isinstance(linear, nn.Linear):
                sizes = linear.in_features, linear.out_features
                made = Linear4bit(*sizes, linear.bias is not None, torch.bfloat16, quant_type="nf4")
                made.weight = Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
                made.bias = linear.bias
                setattr(parent, name, made.to("cpu"))
    model = methods.attach(base, method, AdapterConfig(), total_steps=100, seed=0)
    ids, mask = torch.randint(5, 900, (4, 12)), torch.ones(4, 12, dtype=torch.long)
    mask[0, :3] = 0
    count, calls = _Operations(), iter(range(10**6))

    def look(*_: Any) -> None:
        count.on = 6 <= next(calls) < 10

    options: Any = {"group_size": 2, "eos_ids": [1023], "pad_id": 0, "row_keys": row_keys(0, rows=8)}
    with torch.autocast("cpu", dtype=torch.bfloat16), ExitStack() as stack:
        way(model)  # found out once, before anything is counted
        if lean:
            stack.enter_context(methods.lean(model, copy=copy))
        else:
            stack.enter_context(mock.patch("rlvr_lite.sampling._decode.lean", return_value=nullcontext()))
        hook = output_head(model).backbone.register_forward_pre_hook(look)
        stack.callback(hook.remove)
        stack.enter_context(count)
        rollout(model, ids, mask, sampling=SamplingConfig(max_completion_length=14), every=16, **options)
    return count.found / 4


def counted(names: list[str]) -> Table:
    """Operations a token of 28 layers, by method and precision."""
    rows = []
    for name in names:
        for precision in ("bf16", "nf4"):
            row: dict[str, Any] = {"method": name, "base": precision}
            for label, lean, copy in (("layers' own", False, False), ("lean", True, False), ("lean, copy", True, True)):
                if copy and precision != "nf4":
                    continue
                two, four = (operations(name, precision, layers, lean, copy) for layers in (2, 4))
                row[label] = round(two + 26 * (four - two) / 2)
            rows.append(row)
    return Table.of(rows, "Operations a decoded token, 28 layers")


def in_turns(method: str, precision: str, tokens: int, repeats: int) -> dict[str, Any]:
    """CPU seconds of a rollout of 4 x 4 rows and so many tokens by each side, in turns, and of what is prepared for all of them."""
    torch.manual_seed(0)
    base = bases.load(os.environ["RLVR_LITE_SMOLLM2"], precision)  # type: ignore[arg-type]
    sizes = {k: v for k, v in {"rank": 32, "alpha": 64.0}.items() if k in methods.get(method).uses}
    model = methods.attach(base.model, method, AdapterConfig(**sizes), total_steps=100, seed=0).eval()
    ids, mask = torch.randint(5, 40_000, (4, 48)), torch.ones(4, 48, dtype=torch.long)
    mask[0, :12] = 0
    cast = nullcontext if base.compute_dtype == torch.float32 else lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    options: Any = {"group_size": 4, "eos_ids": [], "pad_id": 0, "row_keys": row_keys(0, rows=16)}
    drawing = SamplingConfig(max_completion_length=tokens)

    def lean() -> None:
        start = time.process_time()
        with methods.lean(model, copy=True):
            prepared.append(time.process_time() - start)
            rollout(model, ids, mask, sampling=drawing, **options)

    def own() -> None:
        with mock.patch("rlvr_lite.sampling._decode.lean", return_value=nullcontext()):
            rollout(model, ids, mask, sampling=drawing, **options)

    def plain() -> None:
        plain_rollout(model, ids, mask, sampling=drawing, **options)

    def generate() -> None:
        repeated = (x.repeat_interleave(4, 0) for x in (ids, mask))
        given = dict(zip(("input_ids", "attention_mask"), repeated, strict=True))
        limits = {"max_new_tokens": tokens, "min_new_tokens": tokens, "pad_token_id": 0, "disable_compile": True}
        with torch.no_grad():
            model.generate(**given, do_sample=True, top_k=0, top_p=1.0, **limits)  # type: ignore[operator]

    prepared: list[float] = []
    sides = {"lean": lean, "own": own, "plain": plain, "generate": generate}
    spent: dict[str, list[float]] = {name: [] for name in sides}
    with cast():
        way(model)
        for turn in range(repeats + 1):
            for name, side in sides.items():
                start = time.process_time()
                side()
                if turn:  # the first has costs of its own
                    spent[name].append(time.process_time() - start - (prepared[-1] if name == "lean" else 0))
    seconds = {name: statistics.median(times) for name, times in spent.items()} | {"prepared": min(prepared)}
    ratios = {f"lean / {name}": round(seconds["lean"] / seconds[name], 3) for name in ("own", "plain", "generate")}
    return {"method": method, "base": precision, **{k: round(v, 2) for k, v in seconds.items()}, **ratios}


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=["tiny", "smollm2"], default="tiny")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--count", nargs="+", metavar="METHOD", help="count operations instead")
    options.add_argument("--methods", nargs="+", metavar="METHOD", help="of SmolLM2, in turns instead")
    options.add_argument("--tokens", type=int, default=64, help="of each of their completions")
    options.add_argument("--precision", nargs="+", default=["fp32", "bf16", "nf4"])
    chosen = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if chosen.count:
        print(counted(chosen.count))
        return
    if chosen.methods:
        rows = []
        for precision in chosen.precision:
            for method in chosen.methods:
                rows.append(in_turns(method, precision, chosen.tokens, chosen.repeats))
                print(rows[-1], flush=True)
        print(Table.of(rows, "CPU seconds of a rollout, in turns"))
        return
    shapes = [(16, 8, 16, 56), (16, 8, 45, 256), (8, 8, 200, 256)] if chosen.model == "tiny" else [(4, 8, 100, 128)]
    rows = []
    for shape in shapes:
        rows.append(measure(chosen.model, *shape, chosen.repeats))
        print(rows[-1], flush=True)
    print(Table.of(rows, "Rollout on ragged lengths"))


if __name__ == "__main__":
    main()
