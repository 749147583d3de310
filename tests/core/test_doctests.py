"""The examples in all docstrings hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import rlvr_lite

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(rlvr_lite.__path__, "rlvr_lite.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
