"""Taking a policy home: adapter, plain LoRA, merged model, GGUF file or the Hub; proven to be the one that was trained."""

from rlvr_lite.exports._export import Form, Target, export
from rlvr_lite.exports._factors import LowRank, low_rank
from rlvr_lite.exports._provenance import Verification, load_export, verify_export
from rlvr_lite.exports._trained import Trained, base_in_training, load_trained, quietly, updates_of

__all__ = [
    "Form",
    "LowRank",
    "Target",
    "Trained",
    "Verification",
    "base_in_training",
    "export",
    "load_export",
    "load_trained",
    "low_rank",
    "quietly",
    "updates_of",
    "verify_export",
]
