"""Studies: methods compared fairly, with a search for each, several seeds, and what may be said afterwards."""

from rlvr_lite.study.conduct import compare
from rlvr_lite.study.design import Arm, Cell, Design
from rlvr_lite.study.study import Row, Study, Trial

__all__ = ["Arm", "Cell", "Design", "Row", "Study", "Trial", "compare"]
