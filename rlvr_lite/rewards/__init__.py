"""The answer verifier and the reward functions."""

from rlvr_lite.rewards.functions import accuracy, get
from rlvr_lite.rewards.verdict import Verdict
from rlvr_lite.rewards.verify import verify, verify_batch

__all__ = ["Verdict", "accuracy", "get", "verify", "verify_batch"]
