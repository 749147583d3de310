"""Taking a policy home: adapter, plain LoRA, merged model, GGUF file, Hub; proven to be the one that was trained."""

from rlvr_lite.delivery.conversation import Chat, Reply, chat
from rlvr_lite.delivery.exporting import Form, Target, export
from rlvr_lite.delivery.factors import LowRank, low_rank
from rlvr_lite.delivery.provenance import Verification, load_export, verify_export

__all__ = [
    "Chat",
    "Form",
    "LowRank",
    "Reply",
    "Target",
    "Verification",
    "chat",
    "export",
    "load_export",
    "low_rank",
    "verify_export",
]
