"""Export a policy, and prove an export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from rlvr_lite.errors import UserError

__all__ = ["export", "verify_export"]

_Run = Annotated[Path, tyro.conf.Positional]


def export(
    run: _Run,
    *,
    to: str = "adapter",
    out: Path | None = None,
    dtype: str | None = None,
    rank: int | None = None,
    llama_cpp: Path | None = None,
    repo: str | None = None,
    form: Literal["adapter", "lora", "merged", "gguf"] = "adapter",
    public: bool = False,
    dry_run: bool = False,
    force: bool = False,
    wait: bool = False,
) -> None:
    """Take a trained policy home: as an adapter, a plain LoRA, a merged model, a GGUF file, or to the Hub.

    Args:
        run: the run's directory.
        to: adapter, lora, merged, gguf or hub.
        out: directory to make; by default one in the run's folder export. Nothing is overwritten.
        dtype: of merged (bf16, fp16, fp32) or gguf (also q8_0); by default bf16 and fp16.
        rank: of lora; by default what is exact, or the method's own rank where no low one is.
        llama_cpp: folder of llama.cpp, to convert with its script instead of ours.
        repo: owner/name on the Hub; the token is read from the environment variable HF_TOKEN.
        form: what goes to the Hub.
        public: make a new repository of the Hub public.
        dry_run: show the card of what would go to the Hub, and push nothing.
        force: also take a run whose proof failed; the export says so.
        wait: if another process makes this export, wait until it is done.
    """
    from rlvr_lite.exports import export as deliver

    deliver(
        run,
        to,  # type: ignore[arg-type]
        out,
        dtype=dtype,
        rank=rank,
        llama_cpp=llama_cpp,
        repo=repo,
        form=form,
        public=public,
        dry_run=dry_run,
        force=force,
        wait=wait,
    )


def verify_export(directory: Annotated[Path, tyro.conf.Positional]) -> None:
    """Prove that an export is the policy of its run: files unchanged, and the same answers to fixed prompts.

    Args:
        directory: of the export.
    """
    from rlvr_lite.exports import verify_export as verify_delivery

    found = verify_delivery(directory)
    if not found.proven:
        raise UserError(str(found))
    print(found)
