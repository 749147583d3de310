"""Studies: methods compared fairly, with a search for each, several seeds, and what may be said afterwards."""

from rlvr_lite.study.conduct import compare
from rlvr_lite.study.design import Arm, Cell, Design
from rlvr_lite.study.protocols import for_method, list_recipes, read_recipe, recipe
from rlvr_lite.study.study import Row, Study, Trial
from rlvr_lite.study.verdicts import Claim, Claims, claims

__all__ = [
    "Arm",
    "Cell",
    "Claim",
    "Claims",
    "Design",
    "Row",
    "Study",
    "Trial",
    "claims",
    "compare",
    "for_method",
    "list_recipes",
    "read_recipe",
    "recipe",
]
