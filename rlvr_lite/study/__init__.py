"""Studies: methods compared fairly, with a search for each, several seeds, and what may be said afterwards."""

from rlvr_lite.study.conduct import compare
from rlvr_lite.study.design import Design, Trial, Variant
from rlvr_lite.study.study import Row, SearchResult, Study

__all__ = [
    "Design",
    "Row",
    "SearchResult",
    "Study",
    "Trial",
    "Variant",
    "compare",
]
