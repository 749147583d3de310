"""Every method on every base, and what each costs beside LoRA.

``python -m tests.benchmarks.methods [cells] [cost] [dora] [--method NAME ...] [--rounds N]`` prints the tables asked for
(all three without a word). Costs are CPU seconds of one thread; the two sides of a ratio are measured in turn within one
process, and the median of the rounds' ratios is shown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from rlvr_lite import methods
from rlvr_lite.config import LINEAR_LAYERS, AdapterConfig
from rlvr_lite.errors import UserError
from rlvr_lite.table import Table
from tests.methods import cells
from tests.models import random_qwen2

TOKENS, SAMPLED, RANK = 512, 32, 32
_TRAIN = torch.randint(2, 1000, (1, TOKENS), generator=torch.Generator().manual_seed(0))
_PROMPT = _TRAIN[:, :32]


def cell(name: str, base: str) -> str:
    """What becomes of one method on one base: ``pass``, ``declared`` (refused, with a reason), or what went wrong."""
    try:
        untouched = cells.logits(cells.fresh(base))
        model = cells.attach(base, name)
    except UserError:
        return "declared" if cells.BASES[base][0] in methods.get(name).unsupported else "refused"
    start = (cells.logits(model) - untouched).abs().max().item()
    loss = cells.toy_loss(model).item()
    optimizer = methods.optimizer(model, name, methods.learning_rate(name, "tiny").value)
    cells.train(model, name, optimizer, range(1, 4))
    proof = methods.identity(model, name, AdapterConfig(), optimizer=optimizer)
    if proof.failures:
        return proof.failures[0]
    if not cells.toy_loss(model.eval()).item() < loss:
        return "does not learn"
    said = cells.logits(model)
    with tempfile.TemporaryDirectory() as folder:
        methods.save(model, Path(folder) / "adapter")
        off = (cells.logits(methods.load(cells.fresh(base), Path(folder) / "adapter")) - said).abs().max().item()
    if off > 1e-4:
        return f"reloaded {off:.1e} off"
    if name != "full":
        with methods.disabled(model):
            if not torch.equal(cells.logits(model), untouched):
                return "disabled is not the base"
    return "pass" if start == 0 else f"pass (step 0: {start:.0e})"


def cell_table(names: list[str]) -> Table:
    """Method x base."""
    rows = [{"method": name, **{base: cell(name, base) for base in cells.BASES}} for name in names]
    return Table.of(rows, title="Conformance: trains what it says, learns, reloads, and is the base when disabled")


def large(base: str, folder: Path) -> nn.Module:
    """The model that costs are measured on: hidden 768, 4 layers."""
    if not (folder / "config.json").exists():
        random_qwen2(hidden=768, layers=4, heads=12, kv_heads=4, intermediate=2048, vocab=1024).save_pretrained(folder)
    return cells.loaded_from(folder, base)


def attached(name: str, base: str, folder: Path) -> nn.Module:
    """A method at the paper's rank on the large model, after one step, so that nothing is zero."""
    method = methods.get(name)
    asked = AdapterConfig(
        rank=RANK if "rank" in method.uses and name != "tinylora" else None,
        alpha=2.0 * RANK if "alpha" in method.uses and name not in ("rank1", "randlora") else None,
    )
    model = methods.attach(large(base, folder), name, asked, total_steps=100, seed=0)
    backward(model)
    methods.optimizer(model, name, 1e-3).step()
    return model


def peft_dora(base: str, folder: Path) -> nn.Module:
    """PEFT's own DoRA at the same size."""
    config = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules=list(LINEAR_LAYERS), use_dora=True, task_type="CAUSAL_LM"
    )
    return get_peft_model(large(base, folder), config)


def backward(model: nn.Module) -> None:
    """Forward and backward of one sequence."""
    model.train()
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(_TRAIN).logits[0, :-1].float(), _TRAIN[0, 1:]).backward()


@torch.no_grad()
def sample(model: nn.Module) -> None:
    """Greedy generation from a prompt of 32 tokens."""
    model.eval()
    model.generate(
        input_ids=_PROMPT,
        attention_mask=torch.ones_like(_PROMPT),
        do_sample=False,
        max_new_tokens=SAMPLED,
        min_new_tokens=SAMPLED,
        pad_token_id=0,
    )


def ratio(work: Callable[[nn.Module], None], model: nn.Module, peer: nn.Module, rounds: int) -> float:
    """Median over the rounds of ``time(model) / time(peer)``, taken in turn after a warm-up."""
    work(model), work(peer)
    ratios = []
    for _ in range(rounds):
        times = []
        for side in (peer, model):
            start = time.process_time()
            work(side)
            times.append(time.process_time() - start)
        ratios.append(times[1] / times[0])
    return statistics.median(ratios)


def cost_table(names: list[str], rounds: int, folder: Path) -> Table:
    """Every method beside LoRA in fp32."""
    lora, rows = attached("lora", "fp32", folder), []
    for name in names:
        model = attached(name, "fp32", folder)
        row = {"method": name, "forward+backward": ratio(backward, model, lora, rounds)}
        rows.append({**row, "sampling": ratio(sample, model, lora, rounds)})
    title = f"Cost relative to LoRA, fp32, {TOKENS} tokens forward+backward, {SAMPLED} sampled, median of {rounds}"
    return Table.of(rows, title=title)


def dora_table(rounds: int, folder: Path) -> Table:
    """This package's DoRA and PEFT's beside LoRA."""
    rows = []
    for base in ("fp32", "nf4-bf16", "nf4"):
        lora = attached("lora", base, folder)
        for label, model in (("rlvr_lite", attached("dora", base, folder)), ("PEFT", peft_dora(base, folder))):
            row = {"base": base, "DoRA of": label, "forward+backward": ratio(backward, model, lora, rounds)}
            rows.append({**row, "sampling": ratio(sample, model, lora, rounds)})
    return Table.of(rows, title=f"DoRA relative to LoRA, r = {RANK}, {TOKENS} tokens, median of {rounds}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", choices=["cells", "cost", "dora", "all"], default="all")
    parser.add_argument("--method", nargs="*", default=methods.names())
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    wanted = ["cells", "cost", "dora"] if "all" in given.tables else given.tables
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if "cells" in wanted:
            print(cell_table(given.method), flush=True)
        if "cost" in wanted:
            print(cost_table(given.method, given.rounds, folder), flush=True)
        if "dora" in wanted:
            print(dora_table(given.rounds, folder), flush=True)


if __name__ == "__main__":
    main()
