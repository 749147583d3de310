"""An export's weights on disk, form by form, each in the format that others read."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlvr_lite import methods
from rlvr_lite.config import SCALES, AdapterConfig, scale_of
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.exports._factors import low_rank
from rlvr_lite.exports._trained import Trained, base_of, load_base, precision_of
from rlvr_lite.records import MANIFEST, read_json, write_json
from rlvr_lite.runs import RunRecord

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DTYPES", "Written", "merge", "write_adapter", "write_lora", "write_merged"]

DTYPES: Mapping[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_SHARD = "5GB"


@dataclass(frozen=True)
class Written:
    """What an export holds.

    Attributes:
        facts: of the form, such as rank and dtype; JSON-able.
        notes: what a user should know of it, a sentence each.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def write_adapter(trained: Trained, folder: Path) -> Written:
    """The adapter as it was saved, in PEFT's format, pointing at the public base instead of at a path of this machine."""
    run = trained.run
    for path in run.files.adapter.iterdir():
        if path.is_file() and path.name != MANIFEST:
            shutil.copyfile(path, folder / path.name)
    _name_base(folder, run)
    return Written({"method": run.config.method}, _residual_note(run))


def _residual_note(run: RunRecord) -> tuple[str, ...]:
    name = run.config.method
    if not name.endswith(":residual") or precision_of(run) == "fp32":
        return ()
    return (f"{name} rounded its residual weights to {precision_of(run)}, which an adapter on the whole base does not",)


def _name_base(folder: Path, run: RunRecord) -> None:
    path = folder / "adapter_config.json"
    base = base_of(run)
    with as_written(run.files.adapter / path.name, "train the run again"):
        config = dict(read_json(path).items())
    write_json(path, config | {"base_model_name_or_path": base["name"], "revision": base["revision"]})


def write_lora(trained: Trained, folder: Path, rank: int | None) -> Written:
    """A plain LoRA with scale 1, which every tool that knows LoRA reads.

    Raises:
        UserError: the method changes no matrix of a linear layer.
    """
    run = trained.run
    name = run.config.method
    base = load_base(base_of(run))[0] if methods.get(name).trains_base else None
    layout = methods.attachment(trained.model).build.layout
    default = run.adapter["adapter"]["rank"] or SCALES[scale_of(layout.parameters)].rank
    updates = methods.updates(trained.model, base)
    if not any(update.weight().ndim == 2 for update in methods.updates(trained.model, base)):
        raise UserError(f"{name} changes no matrix, and LoRA holds nothing else: export to adapter or merged")
    found = low_rank(updates, rank, default)
    ends = {module.rpartition(".")[2] for module in found.factors}
    targets = tuple(sorted(layout.shortest(full for full in layout.linears if full.rpartition(".")[2] in ends)))
    plain = methods.detach(trained.model) if base is None else base
    if moved := methods.moved_by_peft(plain, targets):
        raise UserError(f"PEFT would load {', '.join(moved)} of this base into its experts: export to merged")
    adapter = AdapterConfig(rank=found.rank, alpha=float(found.rank), targets=targets)
    lora = methods.attach(plain, "lora", adapter, total_steps=run.adapter["total_steps"], seed=run.adapter["seed"])
    with torch.no_grad():
        for module, (b, a) in found.factors.items():
            layer: Any = lora.get_submodule(f"base_model.model.{module}")
            layer.lora_A.default.weight.copy_(a)
            layer.lora_B.default.weight.copy_(b)
    methods.save(lora, folder, facts={"from": name})
    (folder / MANIFEST).unlink()  # the export has its own
    _name_base(folder, run)
    notes = (*_residual_note(run), *_lora_notes(name, found.error, found.left_out, found.rank))
    facts = {"method": name, "rank": found.rank, "exact": found.exact, "error": found.error}
    return Written(facts | {"left_out": len(found.left_out)}, notes)


def _lora_notes(name: str, error: float, left_out: tuple[str, ...], rank: int) -> tuple[str, ...]:
    notes = []
    if left_out:
        notes.append(f"LoRA cannot hold {len(left_out)} changed parameters of {name}, such as {left_out[0]}")
    if methods.get(name).trains_base:
        notes.append(f"embeddings and biases that {name} trained are left out too")
    if error >= 1e-5:
        notes.append(f"the update of {name} is not of rank {rank}: {error:.1%} of its norm is lost")
    return tuple(notes)


def merge(trained: Trained) -> nn.Module:
    """The plain model with the update folded in, in fp32; ``trained.model`` is used up."""
    return trained.model if methods.get(trained.run.config.method).trains_base else methods.merge(trained.model)


def write_merged(trained: Trained, folder: Path, dtype: str) -> Written:
    """The merged model in safetensors shards, with tokenizer, chat template and generation config."""
    run, model = trained.run, merge(trained)
    for name, parameter in model.named_parameters():
        largest = float(parameter.detach().abs().max())
        if not largest <= torch.finfo(DTYPES[dtype]).max:
            raise UserError(f"{name} holds {largest:.3g}, which {dtype} cannot: export with dtype bf16 or fp32")
    model.to(DTYPES[dtype]).save_pretrained(folder, max_shard_size=_SHARD)  # type: ignore[operator]
    trained.tokenizer.save_pretrained(folder)
    notes = ("it stands on the dequantised 4-bit weights of its base",) if precision_of(run) == "nf4" else ()
    return Written({"method": run.config.method, "dtype": dtype}, notes)
