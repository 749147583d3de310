"""The claims of arXiv 2512.23165 as declared experiments, each with a rule that was fixed before anything ran."""

from rlvr_lite.paper._claims import Claim, Claims, Finding, claims, declared, estimate

__all__ = ["Claim", "Claims", "Finding", "claims", "declared", "estimate"]
