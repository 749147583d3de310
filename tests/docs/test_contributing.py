"""The method that CONTRIBUTING shows is one: its file, as printed, passes what the suite demands of every method."""

from __future__ import annotations

import importlib.util
import inspect
import sys

import pytest

from rlvr_lite import methods
from rlvr_lite.config import LINEAR_LAYERS, AdapterConfig
from rlvr_lite.methods import _registry
from tests.docs.reader import REPOSITORY, blocks, section
from tests.methods import cells, test_contract, test_updates

TEXT = section((REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8"), "A method in one file")
NAME = "loha"
_QUICK = ("fp32", "nf4-bf16")
pytestmark = test_contract.pytestmark


@pytest.fixture(autouse=True)
def loha(tmp_path, monkeypatch):
    """The method of the document, known for one test."""
    (block,) = [block for block in blocks(TEXT) if block.language == "python"]
    path = tmp_path / "loha.py"
    path.write_text(block.text, encoding="utf-8")
    methods.names()  # the package's own are there before the table is copied
    monkeypatch.setattr(_registry, "_METHODS", dict(_registry._METHODS))
    spec = importlib.util.spec_from_file_location("loha_of_the_document", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)


def _applies(test, base: str | None) -> bool:
    """Whether the contract asks this of the method on this base."""
    precision = cells.BASES[base][0] if base else "fp32"
    refused = precision in methods.get(NAME).unsupported
    return refused == (test is test_contract.test_a_base_it_cannot_sit_on_is_refused_before_anything_is_loaded)


CONTRACT = [
    pytest.param(test, base, id=f"{test.__name__}-{base or 'any'}")
    for module in (test_contract, test_updates)
    for name, test in vars(module).items()
    if name.startswith("test_") and "name" in inspect.signature(test).parameters
    for base in (_QUICK if "base" in inspect.signature(test).parameters else (None,))
]


@pytest.mark.slow
@pytest.mark.parametrize(("test", "base"), CONTRACT)
def test_the_documented_method_keeps_the_contract(test, base, tmp_path, request):
    if not _applies(test, base) or ("4_bit" in test.__name__ or "four_bits" in test.__name__):
        pytest.skip("not asked of a method that has no 4-bit base")
    given = {"name": NAME, "base": base, "tmp_path": tmp_path, "record_property": lambda *_: None}
    wanted = inspect.signature(test).parameters
    test(**{key: value for key, value in given.items() if key in wanted})


def test_the_documented_method_is_found_attached_and_trained():
    assert NAME in methods.names()
    sizes = methods.Layout.of_model(cells.fresh("fp32")).targets(LINEAR_LAYERS).values()
    model = cells.trained("fp32", NAME, AdapterConfig(rank=4), steps=2)
    proof = methods.identity(model, NAME, AdapterConfig(rank=4))
    assert proof.failures == []
    assert proof.trainable_parameters == sum(2 * 4 * (layer.out + layer.inp) for layer in sizes)


def test_the_document_says_what_the_package_has_not():
    assert not (REPOSITORY / "rlvr_lite" / "methods" / f"{NAME}.py").exists()
