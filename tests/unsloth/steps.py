"""Two GRPO steps of this package's trainer on one backend, in a process of its own.

``python -m tests.unsloth.steps BACKEND MODEL OUT METHOD..`` writes what each run logged and trained with ``torch.save``.
With Unsloth, TRL has been rewritten by it, as it is on a GPU.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__" and sys.argv[1] == "unsloth":
    import tests.unsloth.standin  # noqa: F401

    os.environ["UNSLOTH_ALLOW_CPU"] = "0"  # under its switch for tests Unsloth leaves TRL alone
    from unsloth.models.llama import FastLlamaModel
    from unsloth.models.rl import PatchFastRL

    PatchFastRL("GRPO", FastLlamaModel)
    os.environ["UNSLOTH_ALLOW_CPU"] = "1"

import torch

torch.set_num_threads(1)

import trl  # noqa: E402

from rlvr_lite import bases, methods  # noqa: E402
from rlvr_lite.training import GRPOConfig, GRPOTrainer  # noqa: E402
from tests.training.helpers import dataset, letters  # noqa: E402
from tests.unsloth.probe import adapter_of  # noqa: E402


def steps(backend: str, folder: str, method: str) -> dict[str, Any]:
    """What a run of two steps logged, and the tensors it trained, before and after."""
    base = bases.load(folder, "fp32", backend=backend)
    model: Any = methods.attach(base.model, method, adapter_of(method), total_steps=2, seed=0)
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=4,
        num_generations=4,
        max_steps=2,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        max_completion_length=5,
        top_k=0,
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        gradient_checkpointing=False,
        disable_tqdm=True,
        beta=0.04,
    )
    trainer = GRPOTrainer(model, letters, config, dataset(2), processing_class=base.tokenizer, method=method)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    trainer.train()
    after = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    proof = methods.identity(model, method, adapter_of(method))
    kept = ("loss", "reward", "grad_norm", "kl", "sampling/sampling_logp_difference/max", "completions/mean_length")
    logs = [{k: row[k] for k in kept} for row in trainer.state.log_history if "loss" in row]
    rewritten = trl.GRPOTrainer.__module__ != "trl.trainer.grpo_trainer"
    return {"logs": logs, "before": before, "after": after, "failures": list(proof.failures), "rewritten": rewritten}


if __name__ == "__main__":
    _backend, _folder, _out, *_names = sys.argv[1:]
    torch.save({name: steps(_backend, _folder, name) for name in _names}, Path(_out))
