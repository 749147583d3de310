"""Taking a policy home: adapter, plain LoRA, merged model, GGUF file or the Hub; proven to be the one that was trained."""

from rlvr_lite.exports._export import Form, Target, export
from rlvr_lite.exports.factors import LowRank, low_rank
from rlvr_lite.exports.provenance import Verification, load_export, verify_export
from rlvr_lite.exports.trained import base_in_training, updates_of

__all__ = [
    "Form",
    "LowRank",
    "Target",
    "Verification",
    "base_in_training",
    "export",
    "load_export",
    "low_rank",
    "updates_of",
    "verify_export",
]
