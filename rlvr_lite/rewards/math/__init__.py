"""The verifier of mathematical answers; its policy stands in :mod:`rlvr_lite.rewards`."""
