"""Default learning rates by scale of the base, each with its source.

``tiny`` rates are the best of those measured on an embedded base (held-out avg@8, 40 steps of 16 prompts x 8 samples,
r = 16, alpha = 32). ``paper`` rates are those of the RLVR comparison (arXiv 2512.23165, 1e-5 for every adapter) for the methods that it tested;
the others have their own paper's, or a guess that says so. Bases between the two have no measurement of their own but LoRA's.
"""

from __future__ import annotations

from rlvr_lite.methods._spec import LearningRate

__all__ = ["PAPER", "VECTORS", "rates"]

_SMALL_LORA = 2e-4
PAPER = "arXiv 2512.23165 trains every adapter at 1e-5"  # of the methods that it has in its table
VECTORS = "lower end of the 1e-3 to 1e-2 of vector methods; at 1e-5 no entry moves by 0.01 in 1024 steps"


def rates(
    tiny: float,
    tiny_source: str,
    *,
    paper: float = 1e-5,
    paper_source: str = "not tested in arXiv 2512.23165: the 1e-5 of its adapters",
    small: float | None = None,
    small_source: str = "",
) -> dict[str, LearningRate]:
    """Rates of one method; without its own, ``small`` scales LoRA's 2e-4 by the ratio measured at ``tiny``.

    >>> rates(0.001, "measured")["small"].value
    0.0001
    """
    if small is None:
        small = float(f"{_SMALL_LORA * tiny / 2e-3:.0e}")
        small_source = f"LoRA's 2e-4 on SmolLM2-135M times the ratio to LoRA at tiny ({tiny:g} / 0.002)"
    return {
        "tiny": LearningRate(tiny, tiny_source),
        "small": LearningRate(small, small_source),
        "paper": LearningRate(paper, paper_source),
    }
