"""The claims of arXiv 2512.23165 as declared experiments, each with a rule that was fixed before anything ran."""

from rlvr_lite.paper._claims import Claim, Claims, claims, declared, estimate
from rlvr_lite.paper._evidence import Evidence, Finding

__all__ = ["Claim", "Claims", "Evidence", "Finding", "claims", "declared", "estimate"]
