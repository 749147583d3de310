"""From the name of a base to a folder of safetensors on this machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.records import MANIFEST, damage, read_json

__all__ = ["EMBEDDED", "WELL_KNOWN", "Located", "full_name", "locate", "read_config"]

#: Bases that ship in the package, by name.
EMBEDDED = {"tiny": Path(__file__).with_name("tiny_model")}

_FAMILIES = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen": ("1.5B", "7B"),
    "Qwen/Qwen2.5": ("0.5B", "1.5B", "3B", "7B"),
    "Qwen/Qwen2.5-Math": ("1.5B", "7B"),
    "HuggingFaceTB/SmolLM2": ("135M", "360M", "1.7B"),
    "meta-llama/Llama-3.2": ("1B", "3B"),
}
#: Hub ids of models that also go by their name alone, as in ``Qwen2.5-0.5B``.
WELL_KNOWN = tuple(
    f"{family}-{size}{form}"
    for family, sizes in _FAMILIES.items()
    for size in sizes
    for form in (("",) if "Distill" in family else ("", "-Instruct"))
)
_BY_NAME = {name.casefold().rpartition("/")[2]: name for name in WELL_KNOWN} | {n.casefold(): n for n in WELL_KNOWN}

_WANTED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
_UNWANTED = ["*/*", "consolidated*"]  # other formats and second copies of the weights


@dataclass(frozen=True)
class Located:
    """A folder with a model, and what pins its contents."""

    folder: Path
    revision: str | None
    config: dict[str, Any]


def full_name(name: str) -> str:
    """The Hub id of a well-known model by its name alone, in any case; every other name as it is, a folder's first.

    >>> full_name("qwen2.5-0.5b")
    'Qwen/Qwen2.5-0.5B'
    """
    if name in EMBEDDED or _exists(name):
        return name
    return _BY_NAME.get(name.casefold(), name)


def locate(name: str, revision: str | None = None) -> Located:
    """The folder of a base; a Hub model is fetched into the cache of huggingface_hub.

    Args:
        name: ``tiny``, the path of a folder, a Hub id ``owner/model``, or a well-known model's name alone.
        revision: of a Hub model, a branch, tag or commit; the newest by default.

    Raises:
        UserError: nothing is there, it cannot be fetched, or it holds no safetensors.
    """
    if name in EMBEDDED:
        _refuse_revision(name, revision)
        broken = damage(EMBEDDED[name])
        if broken:
            raise UserError(f"base {name} is broken ({broken}): install the package again")
        files = read_json(EMBEDDED[name] / MANIFEST)["files"]
        return _checked(name, EMBEDDED[name], files["model.safetensors"])
    if _exists(name):
        _refuse_revision(name, revision)
        return _checked(name, Path(name).expanduser(), None)
    name = hub_id(name)
    folder = _fetch(name, revision)
    return _checked(name, folder, folder.name)


def hub_id(name: str) -> str:
    """The Hub id that a name stands for which is neither bundled nor a folder.

    Raises:
        UserError: it can be none: it is a path, or a name alone that is not well known.
    """
    name = full_name(name)
    if name.count("/") > 1 or name.endswith("/") or name.startswith((".", "~", "/", "runs/")) or "\\" in name:
        raise _no_folder(name)
    if "/" not in name:
        short = [known.rpartition("/")[2] for known in WELL_KNOWN]
        raise UserError(
            f"{unknown_name('base', name, [*EMBEDDED, *short])} (or give a model folder, or a Hub id owner/model)"
        )
    return name


def _exists(name: str) -> bool:
    """Whether a name is that of something on this machine; the empty one, which ``Path`` takes for this folder, is not."""
    try:
        return bool(name) and Path(name).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # too long, of nobody's home, with a NUL
        return False


def _no_folder(name: str) -> UserError:
    return UserError(
        f"base {name[:200]}: there is no such folder; give one that save_pretrained wrote, a Hub id or 'tiny'"
    )


def _refuse_revision(name: str, revision: str | None) -> None:
    if revision is not None:
        raise UserError(f"base {name} is no Hub model, so it has no revision {revision}: leave --revision out")


def _fetch(name: str, revision: str | None) -> Path:
    """The Hub's folder of a model; where ``owner`` is a folder here and the Hub does not help, a path was meant."""
    from huggingface_hub import errors, snapshot_download

    fetch = partial(snapshot_download, name, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED)
    try:
        return Path(fetch())
    except errors.GatedRepoError as error:
        raise UserError(f"base {name} is gated: accept its terms on the Hub, then run `hf auth login`") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"base {name} has no revision {revision}: leave --revision out to take the newest") from error
    except errors.HFValidationError as error:
        raise _no_folder(name) from error
    except errors.RepositoryNotFoundError as error:
        if _exists(name.partition("/")[0]):
            raise _no_folder(name) from error
        raise UserError(f"base {name}: no model folder here and no such model on the Hub; check the name") from error
    except Exception as error:  # no network, in the words of whichever HTTP client huggingface_hub uses
        with suppress(Exception):
            return Path(fetch(local_files_only=True))
        if _exists(name.partition("/")[0]):
            raise _no_folder(name) from error
        raise UserError(
            f"base {name}: no model folder here, and the Hugging Face Hub cannot be reached ({type(error).__name__}): "
            "connect to the network, or give the path of a local model folder"
        ) from error


def _checked(name: str, folder: Path, revision: str | None) -> Located:
    if not folder.is_dir():
        raise UserError(f"base {name} is a file: give the folder that holds it")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"base {name} is an adapter, not a base: give the base it was trained on")
    if not (folder / "config.json").is_file():
        raise UserError(f"base {name} has no config.json: give a folder that save_pretrained wrote")
    if not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".gguf")))
        raise UserError(
            f"base {name} has no safetensors{f', only {found}' if found else ''}: load and save it once with "
            "save_pretrained, where you trust it"
        )
    return Located(folder, revision, read_config(name, folder / "config.json"))


def read_config(name: str, path: Path) -> dict[str, Any]:
    """The contents of a base's ``config.json``.

    Raises:
        UserError: it is missing, or no JSON object.
    """
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"base {name} has a config.json that is no JSON object: fetch or save it once more")
    return config
