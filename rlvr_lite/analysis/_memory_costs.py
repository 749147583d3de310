"""Bytes that one block's activations take, by method and precision; printed by ``python -m tests.benchmarks.plan calibrate``.

A cost is (a, b, c, d) in ``N (a H + b I) + c C (P + C) + d W``: N tokens of a micro-batch, widths H and I, completions of C tokens
after prompts of P, W numbers in the block's matrices. Methods that are not listed are counted as ``lora``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BLOCK", "FORWARD", "HEAD", "Cost", "like"]

Cost = tuple[float, float, float, float]

#: Methods that compute as another does.
_LIKE = {
    "rank1": "lora",
    "rslora": "lora",
    "lora_plus": "lora",
    "rlpo": "lora",
    "rlmo": "lora",
    "milora": "pissa",
    "olora": "pissa",
    "geora": "pissa",
    "milora:residual": "pissa:residual",
}


def like(method: str) -> str:
    """The method whose costs another one shares.

    >>> like("milora"), like("dora"), like("one of your own")
    ('pissa', 'dora', 'lora')
    """
    name = _LIKE.get(method, method)
    return name if name in BLOCK else "lora"


#: Backward pass of a block that is recomputed: what it keeps, and the gradients in flight at the highest moment.
BLOCK: Mapping[str, Mapping[str, Cost]] = {
    "adalora": {
        "nf4": (48.96, 13.28, 0.0, 0.0),
        "bf16": (48.96, 13.28, 0.0, 0.0),
    },
    "c3a": {
        "bf16": (55.85, 25.62, 7.24, 0.02),
    },
    "dora": {
        "nf4": (47.32, 19.75, 5.92, 0.0),
        "bf16": (47.32, 19.75, 5.92, 0.0),
    },
    "hira": {
        "nf4": (38.9, 13.64, 0.0, 4.57),
        "bf16": (38.89, 13.64, 0.0, 2.56),
    },
    "hra": {
        "nf4": (38.87, 19.56, 0.0, 0.01),
        "bf16": (38.87, 19.56, 0.0, 0.01),
    },
    "ia3": {
        "nf4": (33.93, 28.85, 6.69, 0.0),
        "bf16": (27.12, 25.31, 4.06, 0.0),
    },
    "ln_tuning": {
        "nf4": (23.79, 11.77, 0.0, 0.02),
        "bf16": (23.79, 11.77, 0.0, 0.02),
    },
    "lora": {
        "nf4": (42.14, 13.42, 0.0, 0.0),
        "bf16": (42.14, 13.42, 0.0, 0.0),
        "fp32": (44.0, 22.9, 0.0, 0.0),
    },
    "lora_fa": {
        "nf4": (29.08, 13.65, 0.0, 0.0),
        "bf16": (29.08, 13.65, 0.0, 0.0),
    },
    "lora_xs": {
        "nf4": (29.13, 13.69, 0.0, 0.03),
        "bf16": (29.13, 13.69, 0.0, 0.03),
    },
    "mica": {
        "nf4": (41.45, 13.59, 0.0, 0.0),
        "bf16": (41.45, 13.59, 0.0, 0.0),
    },
    "miss": {
        "nf4": (26.77, 11.64, 0.0, 0.03),
        "bf16": (26.71, 11.67, 0.0, 0.0),
    },
    "nora": {
        "nf4": (42.06, 13.47, 0.0, 0.0),
        "bf16": (42.06, 13.47, 0.0, 0.0),
    },
    "oft": {
        "nf4": (37.62, 15.67, 0.0, 0.05),
        "bf16": (38.17, 21.64, 0.76, 0.04),
    },
    "pissa": {
        "nf4": (42.57, 13.52, 0.0, 0.0),
        "bf16": (42.57, 13.52, 0.0, 0.0),
    },
    "pissa:residual": {
        "bf16": (42.14, 13.42, 0.0, 0.0),
    },
    "randlora": {
        "nf4": (46.4, 12.81, 0.0, 2.62),
        "bf16": (44.25, 12.83, 0.0, 2.62),
    },
    "road": {
        "nf4": (56.45, 29.84, 9.99, 0.0),
        "bf16": (56.45, 29.84, 9.99, 0.0),
    },
    "tinylora": {
        "nf4": (28.49, 13.71, 0.0, 0.01),
        "bf16": (28.49, 13.71, 0.0, 0.01),
    },
    "vera": {
        "nf4": (32.25, 20.51, 2.69, 0.0),
        "bf16": (32.25, 20.51, 2.69, 0.0),
    },
}

#: A block without gradients, by bytes of an activation: with an adapter, and the base alone.
FORWARD: Mapping[int, tuple[float, float]] = {2: (9.7, 7.7), 4: (20.0, 16.0)}
#: Hidden states around the output head, bytes a token and feature, by bytes of an activation.
HEAD: Mapping[int, float] = {2: 9.2, 4: 16.0}
