"""From a run to what can leave it: written, loaded again as others would, and measured against the trained policy."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlvr_lite import methods
from rlvr_lite.errors import UserError, as_written, printable, unknown_name
from rlvr_lite.exports import _gguf_file as gguf_file
from rlvr_lite.exports import _hub as hub
from rlvr_lite.exports._model_card import card
from rlvr_lite.exports._provenance import EXPORT_FILE, REFERENCE_FILE, ROUNDING, open_form, same_tokens
from rlvr_lite.exports._reference import Distance, Reference, answer, distance, logits, prompts_of, with_held
from rlvr_lite.exports._trained import Trained, base_of, load_trained, quietly
from rlvr_lite.exports._writers import DTYPES, Written, merge, write_adapter, write_lora, write_merged
from rlvr_lite.records import atomic_directory, read_json, write_json, write_text
from rlvr_lite.runs import RunRecord, lock_beside, sweep, writer
from rlvr_lite.typed import checked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Form", "Target", "export"]

#: What an export is made of.
Form = Literal["adapter", "lora", "merged", "gguf"]
#: Where a policy can go: a directory of one of these forms, or a repository on the Hub.
Target = Literal["adapter", "lora", "merged", "gguf", "hub"]
_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "q8_0": 1.0625}
_DTYPE: Mapping[str, str] = {"merged": "bf16", "gguf": "fp16"}
_TOLERATED = 0.1  # of the effect of training
_PACKAGES = ("rlvr-lite", "torch", "transformers", "peft", "safetensors")


@dataclass(frozen=True)
class _Wish:
    """What was asked for, checked."""

    form: Form
    dtype: str | None
    rank: int | None
    script: Path | None

    @property
    def label(self) -> str:
        parts = [self.form, self.dtype, f"r{self.rank}" if self.rank else None]
        return "-".join(part for part in parts if part)


@checked
def export(
    run: Any,
    to: Target = "adapter",
    out: str | Path | None = None,
    *,
    dtype: str | None = None,
    rank: int | None = None,
    llama_cpp: str | Path | None = None,
    repo: str | None = None,
    form: Form = "adapter",
    public: bool = False,
    dry_run: bool = False,
    force: bool = False,
    progress: bool = True,
    wait: bool = False,
) -> Path:
    """Take the policy of a run home, and prove that what was written is that policy.

    ``adapter`` is the adapter for PEFT on the public base; ``lora`` any method as a plain LoRA, exact where its update
    has a low rank and the closest one elsewhere; ``merged`` a whole model; ``gguf`` the same as one file for llama.cpp;
    ``hub`` one of these pushed to the Hugging Face Hub. Every export holds a model card (``README.md``), where it comes
    from and how far it is from the trained policy (``export.json``), and that policy's answers to fixed prompts
    (``reference.json``) for :func:`verify_export`. Works on the CPU, in fp32.

    Args:
        run: a ``Run`` or its directory.
        to: what to make.
        out: directory to make; by default one in the run's folder ``export``.
        dtype: of merged (``bf16``, ``fp16``, ``fp32``) or gguf (also ``q8_0``); by default bf16 and fp16.
        rank: of lora; by default what is exact, or the method's own rank where no low one is.
        llama_cpp: folder of llama.cpp, to convert with its script instead of ours.
        repo: ``owner/name`` on the Hub. The token is read from the environment variable HF_TOKEN.
        form: what goes to the Hub.
        public: make a new repository of the Hub public.
        dry_run: make what would go to the Hub and show its card, but push nothing.
        force: also take a run whose proof failed; the export says so.
        progress: print what was measured.
        wait: if another process makes this export, wait until it is done instead of refusing.

    Returns:
        The directory.

    Raises:
        UserError: an unknown target or option, a run that is not finished or failed its proof, a base that is gone or
            was changed, an existing target, or too little space.
    """
    wish = _checked(to, form, dtype, rank, llama_cpp)
    if to == "hub":
        hub.check(repo, dry_run)
    elif repo is not None or public or dry_run:
        raise UserError(f"repo, public and dry_run are for hub, not for {to}: leave them out")
    facts = RunRecord.open(run).gate(force=force)
    if wish.form == "adapter" and methods.get(facts.config.method).trains_base:
        raise UserError(
            f"{facts.config.method} has no adapter: export to merged, or to lora for the best approximation"
        )
    target = Path(out) if out is not None else facts.files.root / "export" / wish.label
    with writer(lock_beside(target), f"export to {wish.label}", wait=wait):
        sweep(target.parent, names=(target.name,))
        if not (to == "hub" or wait) or not _is_made(target, facts, wish):
            with quietly():
                report = _make(facts, wish, target)
            if progress:
                print(report)
        if to == "hub":
            hub.push(target, repo, public=public, dry_run=dry_run, progress=progress)
    return target


def _checked(to: str, form: str, dtype: str | None, rank: int | None, llama_cpp: str | Path | None) -> _Wish:
    if to not in get_args(Target):
        raise unknown_name("export", to, get_args(Target))
    if form not in get_args(Form):
        raise unknown_name("form", form, get_args(Form))
    if to != "hub" and form not in ("adapter", to):
        raise UserError(f"form is for hub; you export to {to}: leave it out")
    chosen: Any = form if to == "hub" else to
    types = {"merged": tuple(DTYPES), "gguf": tuple(gguf_file.GGUF_TYPES)}.get(chosen)
    if dtype is not None and types is None:
        raise UserError(f"dtype is for merged and gguf; {chosen} keeps fp32: leave it out")
    if dtype is not None and types is not None and dtype not in types:
        raise unknown_name(f"dtype of {chosen}", dtype, types)
    if rank is not None and chosen != "lora":
        raise UserError(f"rank is for lora; {chosen} has none to choose: leave it out")
    if rank is not None and rank < 1:
        raise UserError(f"rank must be at least 1, got {rank}")
    if llama_cpp is not None and chosen != "gguf":
        raise UserError(f"llama_cpp is for gguf, not for {chosen}: leave it out")
    script = None if llama_cpp is None else gguf_file.script_of(Path(llama_cpp))
    if chosen == "gguf":
        gguf_file.library()
    return _Wish(chosen, dtype or _DTYPE.get(chosen), rank, script)


def _is_made(target: Path, run: RunRecord, wish: _Wish) -> bool:
    """Whether this very export stands there already, as after a dry run."""
    if not (target / EXPORT_FILE).is_file():
        return False
    with as_written(target / EXPORT_FILE, "delete the folder and export again"):
        stored = dict(read_json(target / EXPORT_FILE))
    return stored.get("label") == wish.label and stored.get("adapter") == run.adapter_hash


def _make(run: RunRecord, wish: _Wish, target: Path) -> str:
    if target.exists():
        raise UserError(f"{target} exists and is not overwritten: choose another out, or delete it")
    _check_space(run, wish, target.parent)
    trained = load_trained(run)
    reference, said = answer(trained.model, trained.tokenizer, prompts_of(run, trained.tokenizer))
    with trained.before() as base:
        effect = distance(said, logits(base, reference.ids, reference.answers))
    with atomic_directory(target) as folder:
        written = _WRITERS[wish.form](trained, folder, wish)
        facts = _facts(run, wish, trained, written)
        del trained
        model, tokenizer = open_form(folder, facts)
        rows = logits(model, reference.ids, reference.answers)
        measured = distance(said, rows)
        facts["tokenizer"] = _compared(reference, tokenizer)
        facts["notes"] = [*written.notes, *_notes(facts, measured, effect)]
        facts |= {"measured": measured.to_dict(), "effect": effect.to_dict()}
        facts["bytes"] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        write_text(folder / REFERENCE_FILE, json.dumps(with_held(reference, rows).to_dict(), allow_nan=False))
        write_json(folder / EXPORT_FILE, facts)
        write_text(folder / "README.md", card(facts))
    return _report(target, facts, reference, measured, effect)


def _check_space(run: RunRecord, wish: _Wish, parent: Path) -> None:
    stored = sum(path.stat().st_size for path in run.files.adapter.iterdir())
    needed = float(stored)
    if wish.dtype is not None:
        needed = run.adapter["base"]["parameters"] * _BYTES[wish.dtype]
    if wish.script is not None:
        needed += run.adapter["base"]["parameters"] * 4
    free = shutil.disk_usage(parent).free
    if free < needed * 1.02:
        raise UserError(
            f"{wish.label} needs {needed / 1e9:.2g} GB and {parent} has {free / 1e9:.2g} GB left: free some space or "
            "choose another out"
        )


def _write_gguf(trained: Trained, folder: Path, wish: _Wish) -> Written:
    assert wish.dtype is not None
    method = trained.run.config.method
    name = f"{method.replace(':', '-')}-{wish.dtype}.gguf"
    if wish.script is not None:
        gguf_file.convert(merge(trained), trained.tokenizer, folder / name, wish.dtype, wish.script)
    else:
        model = merge(trained)
        gguf_file.write_gguf(model, trained.tokenizer, folder / name, wish.dtype, f"{trained.run.config.base} {method}")
    return Written({"method": method, "dtype": wish.dtype, "file": name})


_WRITERS: Mapping[str, Callable[[Trained, Path, _Wish], Written]] = {
    "adapter": lambda trained, folder, wish: write_adapter(trained, folder),
    "lora": lambda trained, folder, wish: write_lora(trained, folder, wish.rank),
    "merged": lambda trained, folder, wish: write_merged(trained, folder, wish.dtype or "bf16"),
    "gguf": _write_gguf,
}


def _facts(run: RunRecord, wish: _Wish, trained: Trained, written: Written) -> dict[str, Any]:
    summary = run.summary
    return {
        "form": wish.form,
        "label": wish.label,
        **written.facts,
        "failed": run.doubt,
        "base": base_of(run),
        "adapter": run.adapter_hash,
        "config": dataclasses.asdict(run.config),
        "run": {
            "name": run.files.root.resolve().name,
            **{key: summary.get(key) for key in ("status", "steps", "trainable_parameters", "identity", "parity")},
            "evaluation": summary.get("evaluation", {}),
            "versions": summary.get("versions", {}),
        },
        "parity": trained.parity,
        "versions": {package: version(package) for package in _PACKAGES},
    }


def _compared(reference: Reference, tokenizer: PreTrainedTokenizerBase | None) -> str:
    if tokenizer is None:
        return "not read"
    return "same" if same_tokens(reference, tokenizer) else "differs"


def _notes(facts: Mapping[str, Any], measured: Distance, effect: Distance) -> list[str]:
    notes = []
    if facts["tokenizer"] == "differs":
        notes.append("transformers reads another tokenizer from this file than the one in training")
    if facts["tokenizer"] == "not read":
        notes.append("its tokenizer was not compared: transformers reads it from 5.18 on")
    lost = lost_share(measured, effect)
    if lost > _TOLERATED and measured.relative > ROUNDING:
        way = {"merged": "export with dtype fp32, or to adapter", "gguf": "export with dtype fp32"}
        advice = way.get(facts["form"], "give a larger rank, or export to another form")
        notes.append(f"warning: {lost:.0%} of what training did is lost on the way: {advice}")
    return notes


def lost_share(measured: Distance, effect: Distance) -> float:
    """``sqrt(KL(trained || export) / KL(trained || base))``: 0 if the export answers as trained, 1 if as far as the base.

    The root makes it grow with the difference of the logits, not with its square.
    """
    if measured.kl == 0:
        return 0.0
    return math.sqrt(measured.kl / effect.kl) if effect.kl > 0 else math.inf


def _report(target: Path, facts: Mapping[str, Any], reference: Reference, measured: Distance, effect: Distance) -> str:
    lines = [
        f"{facts['method']} on {facts['base']['name']} as {facts['label']}: {facts['bytes'] / 1e6:,.2f} MB, {target}",
        f"  logits differ from the trained policy's by at most {measured.logits:.2g} ({measured.relative:.1g} of the "
        f"largest); {measured.greedy:.1%} of {sum(map(len, reference.answers))} greedy tokens are the same",
        f"  KL to the trained policy {measured.kl:.1e} nats a token, from the base to it {effect.kl:.1e}: "
        f"{lost_share(measured, effect):.2%} of the effect lost (root of the ratio)",
        *(f"  {note}" for note in facts["notes"]),
    ]
    if facts["failed"]:
        lines.append(f"  warning: this run failed its proof: {facts['failed']}")
    return printable("\n".join(lines))
