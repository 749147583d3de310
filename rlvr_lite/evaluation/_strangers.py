"""An adapter that somebody else made: taken apart before PEFT sees it, and counted afterwards.

PEFT drops tensors that it knows no place for and starts those that are missing anew, with no more than a warning, so
that an adapter of which nothing fits would be scored as the bare base.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.bases import EMBEDDED
from rlvr_lite.errors import UserError, first_line
from rlvr_lite.records import read_json, refuse_pickles

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_stranger", "load_stranger", "open_stranger"]

_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_PLAIN = re.compile(r"[\w.^$\\-]*")  # a name, anchored perhaps; nothing that can be matched in two ways
_PREFIX = "base_model.model."
#: What makes PEFT load further code, data or tokenizers, build another model than the base, or adapt some prompts only.
_REACHING = (
    "megatron_config",
    "corda_config",
    "eva_config",
    "layer_replication",
    "tokenizer_kwargs",
    "alora_invocation_tokens",
    "arrow_config",
)
_MIXED = ("XLORA", "POLY")
#: Named by PEFT in every adapter without a task type, for `AutoPeftModel` to import: not handed on, as the base is given.
_CLASS = "auto_mapping"
#: Names that PEFT matches with nothing.
_UNMATCHED = ("base_model_name_or_path", "revision", "peft_version")
#: What PEFT saves beside an adapter where tokens were added.
_EMBEDDINGS = {"embed_tokens", "lm_head"}
_FLOATS = ("float64", "float32", "float16", "bfloat16")


def check_stranger(adapter: Path, base: str, *, ours: bool = False) -> dict[str, Any]:
    """The configuration of an adapter from elsewhere, as PEFT may be given it; loads no weights.

    Args:
        adapter: its directory.
        base: name of the base that it is to sit on.
        ours: whether it may be of a method that PEFT has none of, as an export of this package may.

    Raises:
        UserError: it is not one of PEFT's methods on layers, reaches outside its folder, or was made for another base.
    """
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    refuse_pickles(adapter)
    config = read_json(adapter / _CONFIG)
    if not isinstance(config, dict):
        raise UserError(f"{adapter / _CONFIG} is not the configuration of an adapter: it is no JSON object")
    kind = config.get("peft_type")
    known = {
        str(getattr(name, "value", name)): cls
        for name, cls in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if ours or cls.__module__.startswith("peft.")  # not a method of ours, which only some processes tell PEFT of
    }
    if not isinstance(kind, str) or kind not in known or kind in _MIXED or hasattr(known[kind], "num_virtual_tokens"):
        raise UserError(f"the adapter in {adapter} is of type {kind!r}, which is no PEFT method on layers of a model")
    reaching = [name for name in _REACHING if config.get(name)]
    if reaching:
        raise UserError(f"the adapter in {adapter} sets {reaching[0]}, which is not loaded from others: remove it")
    fields = {field.name for field in dataclasses.fields(known[kind])}
    strange = [name for name, value in config.items() if name not in fields and value]
    if strange:
        raise UserError(
            f"the adapter in {adapter} sets {strange[0]}, which this version of PEFT does not know: update it"
        )
    _same_base(adapter, config.get("base_model_name_or_path"), base)
    usual = {field.name: field.default for field in dataclasses.fields(known[kind])}
    _refuse_unbounded(adapter, config, usual, _shapes(adapter))
    return {name: value for name, value in config.items() if name in fields and name != _CLASS}


def open_stranger(model: nn.Module, adapter: Path, base: str, *, ours: bool = False) -> Any:
    """An adapter on a base as PEFT reads it, which may leave tensors out: for what proves itself by its answers.

    A regular expression over names of modules is never matched, since a hostile one takes for ever: what it chose is
    read off the names of the tensors.

    Raises:
        UserError: PEFT cannot load it, or see :func:`check_stranger`, which says what ``ours`` is.
    """
    import peft

    config = check_stranger(adapter, base, ours=ours)
    if _is_pattern(config.get("target_modules")):
        config["target_modules"] = _places(_shapes(adapter), model)
    with _fitting(adapter):
        built = peft.PeftConfig.from_peft_type(**config)
        built.inference_mode = True
        return peft.PeftModel.from_pretrained(model, str(adapter), config=built).eval()


@contextmanager
def _fitting(adapter: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # PEFT meets files that it was not written for with errors of every kind
        raise UserError(f"the adapter in {adapter} does not fit this base ({first_line(error)})") from error


def load_stranger(model: nn.Module, adapter: Path, base: str) -> nn.Module:
    """An adapter that PEFT wrote, on a base, every tensor of it in its place.

    Raises:
        UserError: it does not fit, or see :func:`check_stranger`.
    """
    import peft

    found = open_stranger(model, adapter, base)
    with _fitting(adapter):
        tensors = peft.utils.load_peft_weights(str(adapter), device="cpu")
        expected = peft.get_peft_model_state_dict(found, save_embedding_layers=False)
        unknown = set(peft.set_peft_model_state_dict(found, tensors).unexpected_keys)
    missing = set(expected) - set(tensors)
    unknown |= {name for name in set(tensors) - set(expected) if not _EMBEDDINGS & set(name.split("."))}  # of the base
    if missing or unknown or not tensors:
        raise UserError(
            f"the adapter in {adapter} does not fit this base: of {len(expected)} tensors {len(missing)} are missing"
            f"{_such(missing)} and {len(unknown)} have no place{_such(unknown)}; give the base it was trained on"
        )
    kinds = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in tensors.items()}
    whole = {name for name, tensor in expected.items() if not tensor.is_floating_point()}  # such as SHiRA's places
    other = [name for name, kind in kinds.items() if (kind in _FLOATS) == (name in whole)]
    if other:
        raise UserError(
            f"the adapter in {adapter} holds {kinds[other[0]]}{_such(other)}, which is no type that PEFT saves there: "
            "save it in float32 or bfloat16"
        )
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"the adapter in {adapter} holds numbers that are not finite{_such(broken)}: it was not trained"
        )
    return found


def _is_pattern(targets: Any) -> bool:
    return isinstance(targets, str) and targets != "all-linear"


def _places(names: Iterable[str], model: nn.Module) -> list[str]:
    """The modules of a model that stored tensors belong to."""
    known = {name for name, _ in model.named_modules()}
    found = set()
    for name in names:
        parts = name.removeprefix(_PREFIX).split(".")
        fitting = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
        found |= {next((place for place in fitting if place in known), "")}
    return sorted(found - {""})


def _such(names: Any) -> str:
    return f" ({sorted(names)[0]})" if names else ""


def _same_base(adapter: Path, named: Any, base: str) -> None:
    folder = EMBEDDED.get(base)  # which is what PEFT notes of the base that ships with the package
    if named and _last(str(named)) not in {_last(base), _last(str(folder or base))}:
        raise UserError(
            f"the adapter in {adapter} was trained on {named}, not on {base}: give that base, or, if it is the same, "
            f"write its name into base_model_name_or_path of {_CONFIG}"
        )


def _last(name: str) -> str:
    """The model's own name in a Hub id, a path, or a path in the Hub's cache."""
    cached = re.search(r"models--(?:[^/\\]+--)?([^/\\]+)[/\\]snapshots", name)
    return (cached[1] if cached else re.split(r"[/\\]", name.rstrip("/\\"))[-1]).casefold()


def _shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes ``[..]`` of the stored tensors, from the head of the file."""
    from safetensors import SafetensorError, safe_open

    path = adapter / _WEIGHTS
    if not path.is_file():
        raise UserError(f"{adapter} has no {_WEIGHTS}: save the adapter with PEFT's save_pretrained")
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is truncated or not safetensors ({error}): copy the adapter again") from error


def _refuse_unbounded(
    adapter: Path, config: Mapping[str, Any], usual: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """No size beyond those of the tensors and PEFT's ``usual`` ones, and no pattern that takes for ever to match."""
    largest = max((side for shape in shapes.values() for side in shape), default=0)
    by_module = [config.get(name) or {} for name in ("rank_pattern", "alpha_pattern")]
    if not all(isinstance(found, dict) for found in by_module):
        raise UserError(f"the adapter in {adapter} has a rank_pattern or alpha_pattern that is no mapping")
    ranks = [config.get(name) for name in ("r", "init_r", "target_r") if config.get(name) != usual.get(name)]
    for rank in (*ranks, *by_module[0].values()):
        if isinstance(rank, int | float) and not 0 < rank <= max(largest, 1):
            raise UserError(f"the adapter in {adapter} names a rank of {str(rank)[:20]}, which no tensor of it has")
    for alpha in (config.get("lora_alpha"), config.get("alpha"), *by_module[1].values()):
        if isinstance(alpha, int | float) and alpha <= 0:
            raise UserError(
                f"the adapter in {adapter} names an alpha of {alpha}, with which it is not what was trained"
            )
    for name, value in config.items():
        if name in _UNMATCHED or (name == "target_modules" and isinstance(value, str)):
            continue
        for leaf in _leaves(value):
            if isinstance(leaf, str) and not _PLAIN.fullmatch(leaf):
                raise UserError(
                    f"the adapter in {adapter} has the pattern {leaf!r} in {name}: name the modules instead"
                )
            if isinstance(leaf, float) and not math.isfinite(leaf):
                raise UserError(f"the adapter in {adapter} is configured with a number that is not finite, in {name}")
    targets = config.get("target_modules")
    if isinstance(targets, list) and not all(isinstance(name, str) for name in targets):
        raise UserError(f"the adapter in {adapter} names target_modules that are no names")


def _leaves(value: Any) -> Iterator[Any]:
    """All that a value of JSON holds, keys too."""
    rest = [value]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += [*value, *value.values()]
        elif isinstance(value, list):
            rest += value
        else:
            yield value
