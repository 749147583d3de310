"""Sizes of a decoder, as far as memory depends on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Shape"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder: those of a Llama or Qwen 2 by arithmetic, of any other as ``bases.shape_of`` has counted them.

    Attributes:
        vocabulary: V.
        hidden: H.
        intermediate: I, inside the feed-forward part.
        layers: L.
        heads: of queries.
        kv_heads: of keys and values.
        head_dim: width of each.
        tied: whether the output head is the embedding.
        qkv_bias: whether the projections of queries, keys and values have biases.
        numbers: of the whole model, as counted.
        matrices: its linear layers but the head, as pairs of size and how many there are.
        caches: of each layer the numbers it caches a token, and how many tokens it keeps (0: all).
        states: numbers a row that linear attention and convolutions keep, whatever the length.
        packs: whether a group's prompt is computed once in training.
        scores: whether attention keeps its scores ``[B, heads, T, T]`` (eager attention).
        config: the contents of its ``config.json``.
    """

    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool = False
    qkv_bias: bool = False
    numbers: int | None = None
    matrices: tuple[tuple[int, int], ...] | None = None
    caches: tuple[tuple[int, int], ...] | None = None
    states: int = 0
    packs: bool = True
    scores: bool = False
    config: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("matrices", "caches"):  # JSON knows lists only
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(map(tuple, value)))

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Shape:
        """From the contents of a ``config.json``.

        >>> small = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2}
        >>> Shape.of_config(small | {"num_attention_heads": 2, "model_type": "qwen2"}).parameters
        1880
        """
        heads = config["num_attention_heads"]
        return cls(
            vocabulary=config["vocab_size"],
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=config.get("model_type") == "qwen2" or bool(config.get("attention_bias", False)),
        )

    @property
    def linears(self) -> tuple[int, ...]:
        """Numbers in each of the seven matrices of a block: q, k, v, o, gate, up, down."""
        queries, keys = self.heads * self.head_dim * self.hidden, self.kv_heads * self.head_dim * self.hidden
        inner = self.hidden * self.intermediate
        return queries, keys, keys, queries, inner, inner, inner

    @property
    def held(self) -> tuple[tuple[int, int], ...]:
        """Matrices that 4 bits hold, as pairs of size and how many there are."""
        return self.matrices if self.matrices is not None else tuple((n, self.layers) for n in self.linears)

    @property
    def block(self) -> float:
        """Numbers in the matrices of a block."""
        return sum(size * count for size, count in self.held) / self.layers

    def cached(self, tokens: int) -> int:
        """Numbers in the cache of a row after so many tokens, states left out."""
        layers = self.caches or ((2 * self.kv_heads * self.head_dim, 0),) * self.layers
        return sum(size * (min(tokens, kept) if kept else tokens) for size, kept in layers)

    @property
    def widest(self) -> int:
        """Numbers that one layer caches a token."""
        return max((size for size, _ in self.caches or ((2 * self.kv_heads * self.head_dim, 0),)), default=0)

    @property
    def others(self) -> int:
        """Numbers outside those matrices: embedding, head, norms, biases."""
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim if self.qkv_bias else 0
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * (2 * self.hidden + bias) + self.hidden

    @property
    def parameters(self) -> int:
        """All numbers; a tied head counts once."""
        if self.numbers is not None:
            return self.numbers
        return self.layers * sum(self.linears) + self.others
