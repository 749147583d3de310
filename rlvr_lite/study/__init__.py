"""Studies: methods compared fairly, with a search for each, several seeds, and what may be said afterwards.

The pictures are in ``figures``.
"""

from rlvr_lite.study._conduct import compare, estimate
from rlvr_lite.study._design import Design, Trial, Variant
from rlvr_lite.study._engines import EngineName, check_workers
from rlvr_lite.study._estimate import Estimate
from rlvr_lite.study._row import Row, SearchResult
from rlvr_lite.study._study import Study

__all__ = [
    "Design",
    "EngineName",
    "Estimate",
    "Row",
    "SearchResult",
    "Study",
    "Trial",
    "Variant",
    "check_workers",
    "compare",
    "estimate",
]
