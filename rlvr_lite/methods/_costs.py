"""What each method costs beside LoRA: CPU time of forward+backward, and of sampling.

Printed by ``python -m tests.benchmarks.methods cost`` (hidden 768, 4 layers, r = 32, fp32, 512 tokens forward+backward, 32
sampled, one thread, median of the ratios of 2 rounds taken in turn with LoRA; of 3 for hira, hra, oft, randlora and
random_directions).
"""

from __future__ import annotations

__all__ = ["COSTS"]

COSTS: dict[str, tuple[float, float]] = {
    "full": (1.13, 0.82),
    "lora": (0.99, 1.00),
    "rank1": (0.96, 0.94),
    "rslora": (1.00, 1.00),
    "lora_plus": (1.02, 1.00),
    "lora_fa": (0.99, 1.03),
    "dora": (1.11, 1.16),
    "adalora": (1.04, 1.09),
    "miss": (0.93, 0.93),
    "pissa": (1.07, 1.15),
    "pissa:residual": (1.02, 1.10),
    "milora": (1.11, 1.15),
    "milora:residual": (1.05, 1.11),
    "vera": (0.93, 1.03),
    "ia3": (0.90, 0.85),
    "ln_tuning": (0.86, 0.81),
    "lora_xs": (0.97, 1.04),
    "tinylora": (0.96, 1.01),
    "hra": (1.04, 1.00),
    "oft": (1.02, 1.07),
    "road": (1.12, 1.07),
    "nora": (1.02, 1.04),
    "geora": (1.10, 1.14),
    "mica": (0.99, 1.03),
    "olora": (1.10, 1.12),
    "random_directions": (0.99, 1.00),
    "rlmo": (0.99, 1.01),
    "rlpo": (0.99, 1.01),
    "c3a": (2.33, 1.32),
    "hira": (2.06, 1.98),
    "randlora": (2.01, 2.14),
}
