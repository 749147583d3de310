"""A real base in three precisions: load, one greedy answer, and whether either changed it.

``python -m tests.benchmarks.bases [FOLDER]`` with a folder of SmolLM2-135M-Instruct (or RLVR_LITE_SMOLLM2). Loading is
timed (CPU seconds, one thread) against plain transformers in the same run, each three times in turn, and the medians
are compared.
"""

from __future__ import annotations

import gc
import hashlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging

from rlvr_lite import bases
from rlvr_lite.table import Table


def digest(model: torch.nn.Module) -> str:
    """A hash of every tensor's bytes."""
    sha = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        sha.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def plain(folder: str, precision: str) -> Any:
    """What a user of transformers alone would write."""
    dtype = {"bf16": torch.bfloat16}.get(precision, torch.float32)
    four = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=four if precision == "nf4" else None
    )


def seconds(call: Callable[[], Any]) -> float:
    """CPU time of one call, on one thread: a busy machine does not change it much."""
    gc.collect()  # the model before this one is not on its bill
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    folder = sys.argv[1] if len(sys.argv) > 1 else os.environ["RLVR_LITE_SMOLLM2"]
    plain(folder, "nf4")  # files in the page cache, libraries imported
    rows = []
    for precision in ("fp32", "bf16", "nf4"):
        ours, theirs = [], []
        for _ in range(3):
            ours.append(seconds(lambda p=precision: bases.load(folder, p)))
            theirs.append(seconds(lambda p=precision: plain(folder, p)))
        base = bases.load(folder, precision)  # type: ignore[arg-type]
        chat = [{"role": "user", "content": "What is the capital of France?"}]
        inputs = base.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        before = digest(base.model)
        answers = []
        took = seconds(
            lambda b=base, i=inputs, a=answers: a.append(b.model.generate(**i, max_new_tokens=16, do_sample=False))
        )
        text = base.tokenizer.decode(answers[0][0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        rows.append(
            {
                "precision": precision,
                "parameters": base.parameters,
                "weights MB": round(sum(p.numel() * p.element_size() for p in base.model.parameters()) / 1e6, 1),
                "load CPU s": round(statistics.median(ours), 2),
                "load vs transformers": round(statistics.median(ours) / statistics.median(theirs), 2),
                "answer CPU s": round(took, 2),
                "unchanged": digest(base.model) == before,
                "answer": text,
            }
        )
    print(Table.of(rows, title=folder))


if __name__ == "__main__":
    main()
