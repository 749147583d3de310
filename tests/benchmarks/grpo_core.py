"""The training part of a step, and the memory of the output head: ours against stock TRL, measured in the same run.

    python -m tests.benchmarks.grpo_core                       # a random model of the embedded base's size
    RLVR_LITE_SMOLLM2=folder python -m tests.benchmarks.grpo_core --model smollm2 --groups 5 --points 64,200,8
    python -m tests.benchmarks.grpo_core --memory              # at a vocabulary of 151,936

Times are CPU seconds of one thread, the best of the repeats, both sides alternating. The stated share of
a step's groups has no variance. ``ragged`` draws lengths whose mean is a third of C, otherwise every row has C tokens.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from torch import Tensor
from torch.nn import functional as F

from rlvr_lite.grpo import (
    Packer,
    RolloutBatch,
    completion_logprobs,
    keep_informative,
    policy_loss,
    row_weights,
    token_logprobs,
)
from rlvr_lite.table import Table
from rlvr_lite.training._generation_batch import micro_batches_of


def peft_model(name: str, seed: int, vocab: int = 128) -> tuple[Any, bool]:
    """A model with LoRA on all linear layers and a non-zero B, and whether it checkpoints gradients."""
    from peft import LoraConfig, get_peft_model

    if name == "smollm2":
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(os.environ["RLVR_LITE_SMOLLM2"], dtype=torch.float32)
    else:
        from tests.models import random_qwen2

        base = random_qwen2(seed=seed, hidden=128, layers=3, heads=4, kv_heads=2, intermediate=256, vocab=vocab)
    model = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.02, generator=generator)
    return model, name == "smollm2"


def stock_trainer(model: Any, checkpointing: bool, length: int) -> Any:
    """TRL's own trainer around the model; only its loss is used."""
    import trl
    from datasets import Dataset

    config = trl.GRPOConfig(
        tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=8,
        num_generations=8,
        max_completion_length=length,
        loss_type="dapo",
        epsilon_high=0.28,
        gradient_checkpointing=checkpointing,
        report_to="none",
    )
    data = Dataset.from_list([{"prompt": "x"}] * 8)
    trainer = trl.GRPOTrainer(model, lambda **_: [0.0], args=config, train_dataset=data, processing_class=_tokenizer())
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    if checkpointing:
        trainer.model.gradient_checkpointing_enable()
    return trainer


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(WordLevel({"<pad>": 0, "<eos>": 1, "x": 2}, unk_token="x"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="x")


def step_batch(
    vocab: int, prompt: int, length: int, group: int, dead: float, ragged: bool, seed: int, groups: int = 10
) -> RolloutBatch:
    """Some groups, of which the share ``dead`` has zero advantages."""
    generator = torch.Generator().manual_seed(seed)
    rows = groups * group
    prompts = torch.randint(2, vocab, (groups, prompt), generator=generator).repeat_interleave(group, 0)
    completions = torch.randint(2, vocab, (rows, length), generator=generator)
    lengths = torch.full((rows,), length)
    if ragged:
        lengths = ragged_lengths(rows, length, generator)
    mask = (torch.arange(length) < lengths[:, None]).long()
    advantages = torch.linspace(-1, 1, group).repeat(groups)
    advantages[: round(dead * groups) * group] = 0
    weights = row_weights(lengths, loss="dapo", max_length=length)
    return RolloutBatch(prompts, torch.ones_like(prompts), completions * mask, mask, advantages, weights)


def ragged_lengths(rows: int, longest: int, generator: torch.Generator) -> Tensor:
    """Lengths with a long tail: mean a third of the longest, which occurs."""
    lengths = torch.empty(rows).exponential_(generator=generator)
    for _ in range(20):  # clipping shortens the mean: scale until it fits
        lengths = (lengths * (longest / 3) / lengths.clamp(max=longest).mean()).clamp(min=1)
    lengths = lengths.clamp(max=longest).long()
    lengths[0] = longest
    return lengths


def stock_step(trainer: Any, batch: RolloutBatch) -> Tensor:
    """TRL's loss on all rows, with gradients."""
    loss = trainer._compute_loss(
        trainer.model,
        {
            "prompt_ids": batch.prompt_ids,
            "prompt_mask": batch.prompt_mask,
            "completion_ids": batch.completions,
            "completion_mask": batch.mask,
            "advantages": batch.advantages,
            "num_items_in_batch": batch.mask.sum(),
        },
    )
    loss.backward()
    return loss.detach()


def _score(model: Any, batch: RolloutBatch, packer: Packer) -> Tensor:
    return completion_logprobs(
        model, batch.prompt_ids, batch.prompt_mask, batch.completions, batch.mask, packer=packer
    )[0]


def our_step(model: Any, batch: RolloutBatch, packer: Packer) -> None:
    """The same gradient with every saving, in the micro-batches that the trainer takes."""
    for part in micro_batches_of(batch.rows(keep_informative(batch.advantages, batch.mask)), None):
        logprobs = _score(model, part, packer)
        loss, _ = policy_loss(logprobs, None, part.advantages, part.mask, loss="dapo", weights=part.weights)
        loss.backward()


def gradient(model: Any) -> Tensor:
    """All gradients end to end, taken away from the model."""
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])
    model.zero_grad()
    return found


def timed(model: Any, step: Callable[[], object]) -> tuple[float, Tensor]:
    """CPU seconds of a step and its gradient."""
    start = time.process_time()
    step()
    return time.process_time() - start, gradient(model)


#: Completion length, prompt length and group size: the grid, and the point for which the savings are claimed.
GRID = [(64, 200, 8), *itertools.product((32, 128, 256), (45, 200), (4, 8))]


def steps(name: str, points: Sequence[tuple[int, int, int]], repeats: int, ragged: bool, groups: int) -> Table:
    """Each point at three shares of groups without variance."""
    model, checkpointing = peft_model(name, seed=0)
    vocab = model.get_base_model().config.vocab_size
    trainer = stock_trainer(model, checkpointing, 256)
    packer = Packer()
    warm = step_batch(vocab, 45, 32, 4, 0.0, ragged, 0, groups=1)
    timed(model, lambda: stock_step(trainer, warm)), timed(model, lambda: our_step(model, warm, packer))
    rows = []
    for length, prompt, group in points:
        for dead in (0.0, 0.3, 0.6):
            batch = step_batch(vocab, prompt, length, group, dead, ragged, length + prompt + group, groups)
            with torch.no_grad():  # proves packing for this shape, once in a run
                _score(model, batch.rows(torch.arange(group)), packer)
            stock, own = float("inf"), float("inf")
            for _ in range(repeats):
                seconds, theirs = timed(model, lambda b=batch: stock_step(trainer, b))  # type: ignore[misc]
                stock = min(stock, seconds)
                seconds, ours = timed(model, lambda b=batch: our_step(model, b, packer))  # type: ignore[misc]
                own = min(own, seconds)
            row = {"C": length, "P": prompt, "G": group, "zero share": dead, "TRL s": stock, "ours s": own}
            row |= {"ratio": own / stock, "gradient difference": float((ours - theirs).norm() / theirs.norm())}
            rows.append(row)
            print(row, flush=True)
    refused = ", ".join(f"{reason}: {count}" for reason, count in packer.refused.items()) or "nothing"
    kind = "lengths with mean C/3" if ragged else "every row C tokens"
    return Table.of(
        rows,
        f"Training part of a step, {name}, {groups} groups, {kind}",
        f"packed {packer.packed} batches; refused {refused}",
    )


def _resident() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def peak_extra(work: Callable[[], object]) -> float:
    """MiB by which the resident memory rose above its start, sampled each millisecond."""
    start = peak = _resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return (peak - start) / 2**20


def _compared(sides: dict[str, Callable[[], object]], title: str) -> Table:
    """Extra memory and time of each side, as shares of TRL's; each side has run once before, in small."""
    rows: list[dict[str, Any]] = []
    for label, work in sides.items():
        start = time.process_time()
        rows.append({"path": label, "extra MiB": peak_extra(work), "CPU s": time.process_time() - start})
    peer = next(row for row in rows if row["path"] == "TRL")
    for row in rows:
        row |= {"memory / TRL": row["extra MiB"] / peer["extra MiB"], "time / TRL": row["CPU s"] / peer["CPU s"]}
    return Table.of(rows, title)


def head_memory(vocab: int = 151_936, length: int = 256, rows: int = 4, width: int = 128) -> Table:
    """Log-probabilities and entropies from hidden states, forward and backward."""
    from trl.trainer import utils

    torch.manual_seed(0)
    weight = torch.randn(vocab, width) * 0.05

    def full(hidden: Tensor, targets: Tensor) -> Tensor:
        return F.log_softmax(hidden @ weight.t(), -1).gather(-1, targets[:, None]).squeeze(-1)

    def stock(hidden: Tensor, targets: Tensor) -> Tensor:
        chunk = utils._CHUNKED_LOGPROB_CHUNK_SIZE
        return utils._ChunkedLogProbFunction.apply(
            hidden, weight, None, targets, 1.0, chunk, None, 1.0, ("log_probs", "entropy")
        )[0]

    def own(hidden: Tensor, targets: Tensor) -> Tensor:
        return token_logprobs(hidden, weight, None, targets)[0]

    def work(score: Callable[[Tensor, Tensor], Tensor], positions: int) -> None:
        hidden = torch.randn(positions, width, generator=torch.Generator().manual_seed(1)).requires_grad_()
        score(hidden, torch.arange(positions)).sum().backward()

    sides: dict[str, Callable[[], object]] = {}
    for label, score in {"ours": own, "TRL": stock, "full logits": full}.items():
        work(score, 16)
        sides[label] = lambda score=score: work(score, rows * length)  # type: ignore[misc]
    title = f"Output head: {rows} rows of {length} tokens, vocabulary {vocab:,}, fp32, forward and backward"
    return _compared(sides, title)


def step_memory(vocab: int = 151_936, length: int = 256, rows: int = 4, prompt: int = 45) -> Table:
    """The training part of a step on a small model with a large vocabulary, one group, every row kept."""
    model, _ = peft_model("tiny", seed=0, vocab=vocab)
    trainer, packer = stock_trainer(model, False, length), Packer()
    small = step_batch(vocab, 2, 3, rows, 0.0, False, seed=0, groups=1)
    batch = step_batch(vocab, prompt, length, rows, 0.0, False, seed=1, groups=1)
    stock_step(trainer, small), our_step(model, small, packer)  # also leaves gradients in place
    sides = {"ours": lambda: our_step(model, batch, packer), "TRL": lambda: stock_step(trainer, batch)}
    return _compared(
        sides, f"Training part of a step: {rows} rows of {prompt} + {length} tokens, vocabulary {vocab:,}, fp32"
    )


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", choices=["tiny", "smollm2"], default="tiny")
    options.add_argument("--points", nargs="+", metavar="C,P,G", help="instead of the whole grid")
    options.add_argument("--ragged", action="store_true", help="lengths with a long tail")
    options.add_argument("--memory", action="store_true", help="memory instead of the grid of times")
    options.add_argument("--groups", type=int, default=10)
    options.add_argument("--repeats", type=int, default=3)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if chosen.memory:
        print(head_memory(), step_memory(), sep="\n\n")
    else:
        points = [tuple(map(int, point.split(","))) for point in chosen.points] if chosen.points else GRID
        print(steps(chosen.model, points, chosen.repeats, chosen.ragged, chosen.groups))


if __name__ == "__main__":
    main()
