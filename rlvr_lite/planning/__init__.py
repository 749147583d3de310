"""What a run needs in memory: planned from the base's shapes, dry-run on fake tensors, or measured on a card (``measure``)."""

from rlvr_lite.planning._cards import CARDS, Card, card
from rlvr_lite.planning._planned import Plan, plan

__all__ = ["CARDS", "Card", "Plan", "card", "plan"]
