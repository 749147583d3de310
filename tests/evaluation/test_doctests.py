"""The examples in the docstrings of this room hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import rlvr_lite.evaluation

MODULES = [module.name for module in pkgutil.iter_modules(rlvr_lite.evaluation.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(f"rlvr_lite.evaluation.{name}")).failed == 0
