"""The bundled tiny model, from nothing: ``python -m rlvr_lite.bases.tiny [OUT]`` trains it in a few CPU minutes.

A Qwen2 of 0.46M parameters learns chain sums in two stages. The first teaches it to work them out, mostly right; the
second, shorter and sloppier, teaches it to blurt out an answer, mostly wrong. What is left knows how to reason but
seldom does, so that reinforcement learning has something to sharpen. Everything is drawn from one seed and ends after
a fixed number of steps, never after a time.
"""

from __future__ import annotations

import argparse
import platform
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from rlvr_lite.bases._tiny_card import card
from rlvr_lite.bases._tiny_lessons import Lessons, draw_lesson
from rlvr_lite.bases._tiny_tokenizer import VOCABULARY_SIZE, build_tokenizer
from rlvr_lite.records import atomic_directory, write_text
from rlvr_lite.rewards import verify
from rlvr_lite.tasks import ChainSum, Problem

__all__ = ["STAGES", "Stage", "build_model", "measure", "train", "write"]


@dataclass(frozen=True)
class Stage:
    """One stage of pretraining.

    Attributes:
        lessons: what is shown.
        steps: optimizer steps, the last 30 % of them with a falling learning rate.
        learning_rate: the highest one, reached after ``warmup`` steps.
        batch: worked answers a step.
        warmup: steps of linear warm-up.
    """

    lessons: Lessons
    steps: int
    learning_rate: float
    batch: int = 48
    warmup: int = 50

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        left = (self.steps - step) / (0.3 * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup, max(0.05, left))


#: What the shipped weights were made with.
STAGES = (
    Stage(Lessons({"step": 0.5, "skip": 0.3, "direct": 0.2}, slip=0.05), steps=1100, learning_rate=4e-3),
    Stage(Lessons({"step": 0.22, "skip": 0.13, "direct": 0.65}, slip=0.10), steps=120, learning_rate=2e-3),
)


def build_model(seed: int) -> Qwen2ForCausalLM:
    """The model before training: 3 layers of width 128, 4 query and 2 key-value heads, tied embeddings."""
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY_SIZE,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=0,
            eos_token_id=1,
            bos_token_id=None,
            attn_implementation="sdpa",
        )
    )


class _Batches:
    """Batches of worked answers, of like length so that little is padded."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, lessons: Lessons, size: int, rng: random.Random):
        self.tokenizer, self.lessons, self.size, self.rng = tokenizer, lessons, size, rng
        self.pool: list[list[tuple[list[int], int]]] = []

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and labels, both ``[B, T]``, right padded; only the answer is labelled."""
        if not self.pool:
            rows = sorted((self._row() for _ in range(16 * self.size)), key=lambda row: len(row[0]))
            self.pool = [rows[i : i + self.size] for i in range(0, len(rows), self.size)]
            self.rng.shuffle(self.pool)
        rows = self.pool.pop()
        length = max(len(tokens) for tokens, _ in rows)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([tokens + [pad] * (length - len(tokens)) for tokens, _ in rows])
        labels = ids.clone()
        for i, (tokens, prompt) in enumerate(rows):
            labels[i, :prompt] = labels[i, len(tokens) :] = -100
        return ids, labels

    def _row(self) -> tuple[list[int], int]:
        problem, solution = draw_lesson(self.rng, self.lessons)
        chat = [{"role": "user", "content": problem.problem}]
        prompt = self.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        whole = self.tokenizer.apply_chat_template([*chat, {"role": "assistant", "content": solution}], tokenize=False)
        return self.tokenizer(whole)["input_ids"], len(self.tokenizer(prompt)["input_ids"])


def _optimizers(model: Qwen2ForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(matrices, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def train(stages: Sequence[Stage] = STAGES, seed: int = 0, report: int = 100) -> Qwen2ForCausalLM:
    """Train the base from its random start.

    Args:
        stages: what to teach, in order, each with fresh optimizers.
        seed: decides the start and every lesson.
        report: print the loss every so many steps; 0 never.

    Returns:
        The model, in fp32.
    """
    model, tokenizer = build_model(seed), build_tokenizer()
    for number, stage in enumerate(stages, start=1):
        optimizers = _optimizers(model)
        batches = _Batches(tokenizer, stage.lessons, stage.batch, random.Random(f"{seed}/{number}"))
        for step in range(stage.steps):
            ids, labels = batches.next()
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            labelled = labels[:, 1:] != -100
            loss = cross_entropy(model.lm_head(hidden[labelled]), labels[:, 1:][labelled])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = stage.rate(step)
                optimizer.step()
                optimizer.zero_grad()
            if report and (step + 1) % report == 0:
                print(f"stage {number}, step {step + 1} of {stage.steps}: loss {loss.item():.3f}", flush=True)
    return model.eval()


@torch.no_grad()
def measure(model: Qwen2ForCausalLM, problems: Sequence[Problem], k: int = 8, seed: int = 0) -> dict[str, float]:
    """Accuracies in [0, 1]: greedy, the mean of ``k`` samples at temperature 1, and whether any of the ``k`` is right."""
    tokenizer = build_tokenizer()
    task = ChainSum()
    chats = [task.messages(problem, "bare") for problem in problems]
    texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    torch.manual_seed(seed)

    def right(**how: Any) -> torch.Tensor:
        config = GenerationConfig(max_new_tokens=task.max_completion_length, pad_token_id=0, eos_token_id=1, **how)
        rows = model.generate(**inputs, generation_config=config)[:, inputs["input_ids"].shape[1] :]
        answers = tokenizer.batch_decode(rows, skip_special_tokens=True)
        each = len(answers) // len(problems)
        golds = [str(problem.answer) for problem in problems for _ in range(each)]
        verdicts = [verify(gold, answer).correct for gold, answer in zip(golds, answers, strict=True)]
        return torch.tensor(verdicts, dtype=torch.float64).view(len(problems), each)

    sampled = right(do_sample=True, top_k=0, num_return_sequences=k)
    return {
        "greedy": right(do_sample=False).mean().item(),
        f"avg@{k}": sampled.mean().item(),
        f"pass@{k}": sampled.amax(1).mean().item(),
    }


def write(model: Qwen2ForCausalLM, out: Path, facts: dict[str, Any]) -> None:
    """Save the model in bf16 with its tokenizer, card and a manifest that holds ``facts`` and every file's hash."""
    model.generation_config = GenerationConfig(pad_token_id=0, eos_token_id=1)
    with atomic_directory(out, **facts) as folder:
        model.to(torch.bfloat16).save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        write_text(folder / "README.md", card(facts))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rlvr_lite.bases.tiny", description=__doc__.partition("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=Path("tiny_model"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums of many threads differ in the last bits
    wall, cpu = time.perf_counter(), time.process_time()
    model = train(STAGES, options.seed)
    seconds = {"wall": round(time.perf_counter() - wall), "cpu": round(time.process_time() - cpu)}
    model = model.to(torch.bfloat16).to(torch.float32)  # measure what is saved
    task = ChainSum()
    figures = {split: measure(model, task.problems(split, 400)) for split in ("validation", "test", "ood")}
    facts = {
        "seed": options.seed,
        "parameters": model.num_parameters(),
        "stages": [asdict(stage) for stage in STAGES],
        "problems_measured": 400,
        "figures": figures,
        "training_seconds": seconds,
        "made_with": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    write(model, options.out, facts)
    print(f"{options.out}: {figures}, {seconds}")


if __name__ == "__main__":
    main()
