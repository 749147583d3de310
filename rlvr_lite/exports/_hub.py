"""An export on the Hugging Face Hub: never without a name, and with no token but the environment's."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError, first_line, printable
from rlvr_lite.exports._model_card import card, licence_of
from rlvr_lite.exports._provenance import EXPORT_FILE
from rlvr_lite.records import MANIFEST, damage, hash_file, read_json, write_json, write_text

__all__ = ["check", "push"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def check(repo: str | None, dry_run: bool) -> None:
    """Refuse early what :func:`push` could not do.

    Raises:
        UserError: no usable name, or no token in the environment.
    """
    if repo is None:
        raise UserError("nothing is pushed without a name: give repo, such as you/my-adapter")
    if not _NAME.fullmatch(repo):
        raise UserError(f"{repo!r} is not a name on the Hub: give owner/name")
    if not dry_run and not os.environ.get("HF_TOKEN"):
        raise UserError("pushing needs a token with write access in the environment variable HF_TOKEN: set it")


def push(folder: Path, repo: str | None, *, public: bool, dry_run: bool, progress: bool) -> None:
    """Upload an export as it stands, with its card.

    Args:
        folder: the export.
        repo: ``owner/name``; made if it does not exist.
        public: whether a new repository is public.
        dry_run: show the card and the files, and touch nothing.
        progress: say where it went.

    Raises:
        UserError: the export is damaged, or the Hub refuses.
    """
    broken = damage(folder)
    if broken:
        raise UserError(f"{folder} is damaged ({broken}): delete it and export again")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if dry_run:
        listed = "\n".join(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}" for path in files)
        shown = (folder / "README.md").read_text(encoding="utf-8")
        print(printable(f"{shown}\n{listed}\nnot pushed to {repo}: a dry run"))
        return
    facts = read_json(folder / EXPORT_FILE)
    api = _api(os.environ["HF_TOKEN"])
    _complete(folder, card(facts, licence=_base_licence(api, facts)))
    try:
        api.create_repo(repo_id=repo, private=not public, exist_ok=True)
        api.upload_folder(
            folder_path=folder,
            repo_id=repo,
            commit_message=f"{facts['method']} as {facts['label']}, exported by rlvr-lite",
        )
    except Exception as error:  # the client passes on whatever its HTTP library raises
        raise UserError(
            f"the Hub refused {repo} ({first_line(error)}): check the name, HF_TOKEN and the network"
        ) from error
    if progress:
        print(f"pushed {folder} to {repo}{'' if public else ' (private, if it is new)'}")


def _complete(folder: Path, text: str) -> None:
    """Put a card that knows more in place of the first one, so that what is downloaded still proves itself."""
    if text == (folder / "README.md").read_text(encoding="utf-8"):
        return
    write_text(folder / "README.md", text)
    manifest = read_json(folder / MANIFEST)
    manifest["files"]["README.md"] = hash_file(folder / "README.md")
    write_json(folder / MANIFEST, manifest)


def _api(token: str) -> Any:
    from huggingface_hub import HfApi

    return HfApi(token=token)


def _base_licence(api: Any, facts: Any) -> str | None:
    """What the base's own card says, asked of the Hub where the base is from there."""
    known = licence_of(facts["base"]["name"])
    if known is not None or facts["base"]["revision"] is None:
        return known
    try:
        data = api.model_info(facts["base"]["name"], revision=facts["base"]["revision"]).card_data
        return None if data is None else data.get("license")
    except Exception:  # then the card says that it is not known
        return None
