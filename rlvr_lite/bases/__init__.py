"""Frozen pretrained models to train adapters on, and the small one that ships with the package."""

from rlvr_lite.bases._base import Base
from rlvr_lite.bases._load import load
from rlvr_lite.bases._locate import EMBEDDED

__all__ = ["EMBEDDED", "Base", "load"]
