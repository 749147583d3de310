"""How long a sequence of a decoder may be."""

from __future__ import annotations

from typing import Any

__all__ = ["position_limit"]

#: Rotary frequencies that change once any row of a batch is longer than the original length (transformers chooses them by
#: the longest position of a batch, and keeps cached keys as they are): beyond it a row depends on its neighbours.
_BY_LENGTH = ("longrope", "dynamic")


def position_limit(config: Any) -> tuple[int | None, str]:
    """The most tokens of prompt and completion together, and why; ``None`` where there is no limit.

    Args:
        config: a transformers configuration.

    >>> from types import SimpleNamespace
    >>> position_limit(SimpleNamespace(max_position_embeddings=512))
    (512, 'it has 512 positions')
    >>> rope = {"rope_type": "longrope", "original_max_position_embeddings": 64}
    >>> position_limit(SimpleNamespace(max_position_embeddings=512, rope_parameters=rope))[0]
    64
    >>> position_limit(SimpleNamespace(max_position_embeddings=512, alibi=True))
    (None, '')
    """
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
    known = [n for name in names if isinstance(n := getattr(config, name, None), int) and n > 0]
    if not known or getattr(config, "alibi", False):
        return None, ""
    most = known[0]
    ropes = getattr(config, "rope_parameters", None) or {}
    nested = [rope for rope in ropes.values() if isinstance(rope, dict)]  # one a kind of layer
    for rope in nested or [ropes]:
        kind = rope.get("rope_type")
        original = rope.get("original_max_position_embeddings") or getattr(
            config, "original_max_position_embeddings", None
        )
        if kind in _BY_LENGTH:
            limit = original or most
            return limit, f"its rotary frequencies ({kind}) change beyond {limit} tokens"
        if kind == "yarn" and original:
            most = max(most, int(original * float(rope.get("factor") or 1)))
    return most, f"it has {most} positions"
