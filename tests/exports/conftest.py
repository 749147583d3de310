"""Runs and exports that several files of this room look at; nobody changes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr_lite.training import Run
from tests.exports.helpers import made_run


@pytest.fixture(scope="session")
def run_of(tmp_path_factory) -> Callable[[str], Run]:
    """The run of a method on the embedded base, made once."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def get(method: str) -> Run:
        if method not in made:
            made[method] = made_run(folder / method.replace(":", "-"), method)
        return made[method]

    return get


@pytest.fixture(scope="session")
def exported(run_of, tmp_path_factory) -> Callable[..., Path]:
    """An export of such a run, made once."""
    folder, made = tmp_path_factory.mktemp("exports"), {}

    def get(method: str, to: str, **options) -> Path:
        key = "-".join([method.replace(":", "-"), to, *map(str, options.values())])
        if key not in made:
            made[key] = run_of(method).export(to, folder / key, progress=False, **options)
        return made[key]

    return get
