"""Bytes that one block's activations take, by method and precision; printed by ``python -m tests.benchmarks.plan calibrate``.

A cost is (a, b, c, d, f): ``N (a H + b I) + c C (P + C) + d W`` in the backward pass and ``f N I`` without gradients, for N tokens of a
micro-batch, widths H and I, completions of C tokens after prompts of P, and W numbers in the block's matrices. Methods that
are not listed are counted as ``lora``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BASE", "BLOCK", "HEAD", "Cost", "like"]

Cost = tuple[float, float, float, float, float]

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


#: A block's backward pass, recomputed: what it keeps and the gradients in flight at the highest moment; and its forward pass.
BLOCK: Mapping[str, Mapping[str, Cost]] = {
    "adalora": {
        "nf4": (48.96, 13.28, 0.0, 0.0, 13.8),
        "bf16": (48.96, 13.28, 0.0, 0.0, 11.7),
        "fp32": (34.45, 23.97, 0.0, 0.12, 18.1),
    },
    "c3a": {
        "bf16": (55.85, 25.62, 7.24, 0.02, 23.9),
        "fp32": (47.18, 31.96, 0.0, 0.11, 28.2),
    },
    "dora": {
        "nf4": (47.32, 19.75, 5.92, 0.0, 15.9),
        "bf16": (47.32, 19.75, 5.92, 0.0, 15.9),
        "fp32": (50.99, 30.96, 0.0, 0.07, 18.1),
    },
    "full": {
        "bf16": (0.41, 13.85, 23.35, 1.4, 7.7),
        "fp32": (6.37, 25.54, 24.41, 0.09, 15.7),
    },
    "hira": {
        "nf4": (38.9, 13.64, 0.0, 4.57, 19.4),
        "bf16": (38.89, 13.64, 0.0, 2.56, 15.9),
        "fp32": (29.14, 22.44, 11.46, 4.97, 26.8),
    },
    "hra": {
        "nf4": (38.87, 19.56, 0.0, 0.01, 16.2),
        "bf16": (38.87, 19.56, 0.0, 0.01, 13.5),
        "fp32": (34.39, 24.05, 0.0, 0.19, 15.4),
    },
    "ia3": {
        "nf4": (33.93, 28.85, 6.69, 0.0, 16.2),
        "bf16": (27.12, 25.31, 4.06, 0.0, 13.2),
        "fp32": (44.1, 34.43, 0.0, 0.0, 15.4),
    },
    "ln_tuning": {
        "nf4": (23.79, 11.77, 0.0, 0.02, 7.7),
        "bf16": (23.79, 11.77, 0.0, 0.02, 7.7),
        "fp32": (34.63, 23.63, 0.0, 0.06, 15.4),
    },
    "lora": {
        "nf4": (42.14, 13.42, 0.0, 0.0, 9.7),
        "bf16": (42.14, 13.42, 0.0, 0.0, 9.7),
        "fp32": (33.86, 24.03, 0.0, 0.13, 18.1),
    },
    "lora_fa": {
        "nf4": (29.08, 13.65, 0.0, 0.0, 9.7),
        "bf16": (29.08, 13.65, 0.0, 0.0, 9.7),
        "fp32": (27.04, 23.59, 0.0, 0.03, 18.1),
    },
    "lora_xs": {
        "nf4": (29.13, 13.69, 0.0, 0.03, 9.7),
        "bf16": (29.13, 13.69, 0.0, 0.03, 9.7),
        "fp32": (27.11, 23.64, 0.0, 0.07, 18.1),
    },
    "mica": {
        "nf4": (41.45, 13.59, 0.0, 0.0, 9.7),
        "bf16": (41.45, 13.59, 0.0, 0.0, 9.7),
        "fp32": (32.85, 24.13, 0.0, 0.16, 18.1),
    },
    "miss": {
        "nf4": (26.77, 11.64, 0.0, 0.03, 9.7),
        "bf16": (26.71, 11.67, 0.0, 0.0, 9.7),
        "fp32": (27.04, 23.59, 0.0, 0.03, 18.1),
    },
    "nora": {
        "nf4": (42.06, 13.47, 0.0, 0.0, 9.7),
        "bf16": (42.06, 13.47, 0.0, 0.0, 9.7),
        "fp32": (33.95, 24.02, 0.0, 0.14, 18.1),
    },
    "oft": {
        "nf4": (37.62, 15.67, 0.0, 0.05, 15.2),
        "bf16": (38.17, 21.64, 0.76, 0.04, 15.2),
        "fp32": (33.21, 24.18, 0.0, 0.24, 15.4),
    },
    "pissa": {
        "nf4": (42.57, 13.52, 0.0, 0.0, 9.7),
        "bf16": (42.57, 13.52, 0.0, 0.0, 9.7),
        "fp32": (35.16, 23.98, 0.0, 0.17, 18.1),
    },
    "pissa:residual": {
        "bf16": (42.14, 13.42, 0.0, 0.0, 9.7),
        "fp32": (33.86, 24.03, 0.0, 0.13, 18.1),
    },
    "randlora": {
        "nf4": (46.4, 12.81, 0.0, 2.62, 13.9),
        "bf16": (44.25, 12.83, 0.0, 2.62, 13.9),
        "fp32": (42.27, 22.71, 0.0, 1.01, 18.8),
    },
    "road": {
        "nf4": (56.45, 29.84, 9.99, 0.0, 24.6),
        "bf16": (56.55, 29.84, 9.81, 0.0, 24.6),
        "fp32": (57.49, 37.58, 4.42, 0.0, 28.2),
    },
    "tinylora": {
        "nf4": (28.49, 13.71, 0.0, 0.01, 9.7),
        "bf16": (28.49, 13.71, 0.0, 0.01, 9.7),
        "fp32": (26.09, 23.7, 0.0, 0.07, 18.1),
    },
    "vera": {
        "nf4": (32.25, 20.51, 2.69, 0.0, 13.9),
        "bf16": (32.25, 20.51, 2.69, 0.0, 13.9),
        "fp32": (44.4, 30.41, 0.0, 0.0, 18.1),
    },
}

#: ``f`` of a block without an adapter, by bytes of an activation.
BASE: Mapping[int, float] = {2: 7.7, 4: 15.4}
#: Hidden states around the output head, bytes a token and feature, by bytes of an activation.
HEAD: Mapping[int, float] = {2: 9.4, 4: 13.5}
