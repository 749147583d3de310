"""What each method costs beside LoRA: CPU time of forward+backward, and of sampling.

Printed by ``python -m tests.benchmarks.methods cost`` (hidden 768, 4 layers, r = 32, fp32, 512 tokens forward+backward, 32
sampled, one thread, median of the ratios of 5 rounds taken in turn with LoRA).
"""

from __future__ import annotations

__all__ = ["COSTS"]

COSTS: dict[str, tuple[float, float]] = {}
