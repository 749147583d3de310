"""The table of methods."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from rlvr_lite.config import AdapterConfig, scale_of
from rlvr_lite.errors import UserError
from rlvr_lite.methods._layout import DEEPSEEK_R1_DISTILL_QWEN_1_5B, Layout
from rlvr_lite.methods._registry import get, names
from rlvr_lite.methods._resolve import resolve
from rlvr_lite.methods._spec import Method
from rlvr_lite.table import Table

__all__ = ["list_methods"]


def list_methods(base_config: Any = None) -> Table:
    """Every method: what it is, what it trains on a base, where it runs and what it costs.

    Args:
        base_config: a transformers configuration, the directory of a model that has one, or a :class:`Layout`; without
            one the counts are those on DeepSeek-R1-Distill-Qwen-1.5B, and no heavy library is loaded.

    Raises:
        UserError: the directory holds no configuration.

    >>> [row["trainable"] for row in list_methods() if row["name"] == "lora"]
    [36929536]
    """
    if base_config is None:
        layout, base = DEEPSEEK_R1_DISTILL_QWEN_1_5B, "DeepSeek-R1-Distill-Qwen-1.5B"
    elif isinstance(base_config, Layout):
        layout, base = base_config, "the given layout"
    else:
        if isinstance(base_config, str | Path):
            base_config = _read_config(Path(base_config))
        if not hasattr(base_config, "to_dict"):
            raise UserError(f"base_config must be a configuration or the directory of a model, got {base_config!r}")
        layout, base = Layout.of_config(base_config), getattr(base_config, "name_or_path", "") or "the given base"
    return Table.of(
        [_row(get(name), layout) for name in names()],
        title=f"Adapter methods; trainable parameters on {base} ({layout.parameters:,})",
        note="cost: time relative to LoRA of forward+backward / of sampling, 512 tokens, fp32, one CPU thread",
    )


def _read_config(directory: Path) -> Any:
    """The transformers configuration in a model's directory."""
    from transformers import AutoConfig

    if not (directory / "config.json").is_file():
        raise UserError(f"{directory} has no config.json: give the directory of a model")
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{directory / 'config.json'} is not a model's configuration ({reason})") from error


def _row(method: Method, layout: Layout) -> dict[str, Any]:
    scale = scale_of(layout.parameters)
    adapter = resolve(method.name, AdapterConfig(), scale, layout)
    count = sum(prod(shape) for shape in method.expected(layout, adapter).values())
    return {
        "name": method.name,
        "family": method.family,
        "paper": f"{method.paper} ({method.arxiv})" if method.arxiv else method.paper,
        "trainable": count,
        "share %": round(100 * count / layout.parameters, 4),
        "rank": adapter.rank,
        "scale": method.scale_formula or None,
        "learning rate": method.learning_rates[scale].value,
        "bases": " ".join(p for p in ("fp32", "bf16", "fp16", "nf4") if p not in method.unsupported),
        "mergeable": method.mergeable,
        "cost": "{:.2f} / {:.2f}".format(*method.cost) if method.cost else None,
    }
