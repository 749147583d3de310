"""The method that CONTRIBUTING shows is one: its file, as printed, passes what the suite demands of every method."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from types import ModuleType

import pytest
import torch

import rlvr_lite
from rlvr_lite import methods, tasks
from rlvr_lite.config import LINEAR_LAYERS, AdapterConfig
from rlvr_lite.grpo import keep_informative, losses, policy_loss, row_weights
from rlvr_lite.grpo.losses import _registry as _losses
from rlvr_lite.methods import _registry
from rlvr_lite.sampling import _sampler as _samplers
from rlvr_lite.tasks import _registry as _tasks
from tests.docs.reader import REPOSITORY, blocks, section
from tests.grpo.reference import step_batch
from tests.methods import cells, test_contract, test_updates

DOCUMENT = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
NAME = "loha"
_QUICK = ("fp32", "nf4-bf16")
pytestmark = test_contract.pytestmark


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """Builds the file that a section shows: it is written as printed, and imported."""

    def build(title: str, name: str) -> ModuleType:
        (block,) = [block for block in blocks(section(DOCUMENT, title)) if block.language == "python"]
        path = tmp_path / f"{name}.py"
        path.write_text(block.text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(f"{name}_of_the_document", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    methods.names(), losses.names()  # the package's own are there before the tables are copied
    for home, table in ((_registry, "_METHODS"), (_losses, "_LOSSES"), (_samplers, "_KNOWN"), (_tasks, "_REGISTERED")):
        monkeypatch.setattr(home, table, dict(getattr(home, table)))
    return build


@pytest.fixture
def loha(shown):
    """The method of the document, known for one test."""
    return shown("A method in one file", NAME)


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
def test_the_documented_method_keeps_the_contract(test, base, tmp_path, loha):
    if not _applies(test, base) or ("4_bit" in test.__name__ or "four_bits" in test.__name__):
        pytest.skip("not asked of a method that has no 4-bit base")
    given = {"name": NAME, "base": base, "tmp_path": tmp_path, "record_property": lambda *_: None}
    wanted = inspect.signature(test).parameters
    test(**{key: value for key, value in given.items() if key in wanted})


def test_the_documented_method_is_found_attached_and_trained(loha):
    assert NAME in methods.names()
    sizes = methods.Layout.of_model(cells.fresh("fp32")).targets(LINEAR_LAYERS).values()
    model = cells.trained("fp32", NAME, AdapterConfig(rank=4), steps=2)
    proof = methods.identity(model, NAME, AdapterConfig(rank=4))
    assert proof.failures == []
    assert proof.trainable_parameters == sum(2 * 4 * (layer.out + layer.inp) for layer in sizes)


def test_the_document_says_what_the_package_has_not():
    assert not (REPOSITORY / "rlvr_lite" / "methods" / f"{NAME}.py").exists()


def _gmpo(logprobs, batch, low, high):
    """As the paper prints it, row by row and token by token."""
    total = 0.0
    for row in range(len(batch)):
        advantage, length = batch.advantages[row], int(batch.mask[row].sum())
        logs = []
        for t in range(length):
            log_ratio = logprobs[row, t] - batch.old_logprobs[row, t]
            clipped = torch.clamp(log_ratio, -low, high)
            logs.append(min(log_ratio, clipped) if advantage > 0 else max(log_ratio, clipped))
        if length:
            total = total - torch.stack(logs).mean().exp() * advantage / len(batch)
    return total


def test_the_documented_loss_is_its_formula_and_its_parts_add_up(shown):
    shown("A loss in one file", "gmpo")
    assert "gmpo" in losses.names()
    batch = step_batch()
    logprobs = (-3 + torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(7))).requires_grad_()
    expected = _gmpo(logprobs, batch, 0.4, 0.4)
    (gradient,) = torch.autograd.grad(expected, logprobs)
    weights = row_weights(batch.mask.sum(-1), loss="gmpo", max_length=16)
    kept = keep_informative(batch.advantages, batch.mask)
    parts = [
        policy_loss(
            logprobs[rows],
            batch.old_logprobs[rows],
            batch.advantages[rows],
            batch.mask[rows],
            loss="gmpo",
            clip_low=0.4,
            clip_high=0.4,
            weights=weights[rows],
        )[0]
        for rows in kept.split([1, 5, len(kept) - 6])
    ]
    torch.testing.assert_close(sum(parts), expected)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), logprobs)[0], gradient)
    with pytest.raises(ValueError, match="sequence"):
        losses.get("gmpo").at("sequence")


def test_the_documented_loss_trains(shown, tmp_path):
    shown("A loss in one file", "gmpo")
    run = rlvr_lite.train(
        loss="gmpo", steps=1, prompts_per_step=2, group_size=4, eval_problems=0, out=tmp_path / "run", progress=False
    )
    assert run.config.loss == "gmpo"


def test_the_documented_sampler_and_benchmark_score(shown, tmp_path):
    script = shown("A sampler in one file", "scripted").SCRIPT
    bench = shown("A benchmark to be scored on", "python_functions")
    found = rlvr_lite.evaluate(
        "tiny", "python-functions:test", k=8, engine="scripted", preset="quick", out=tmp_path / "eval", progress=False
    )
    score = dict(zip(found["python-functions:test"].ids, found["python-functions:test"].correct, strict=True))
    assert 0 < score["double"].mean() < 1  # the script knows this function, and says it to about half of the keys
    assert not score["last"].any()
    task = tasks.get("python-functions")
    problems = task.problems("test")
    verdicts = task.grade(problems, [script[0], script[1]])
    assert [verdict.correct for verdict in verdicts] == [True, False]
    hostile = (
        "import os; os._exit(0)",
        "raise SystemExit",
        "while True: pass",
        "x = [0] * 2**34",
    )
    for code in hostile:
        text = f"```python\ndef double(x): return 2 * x\n{code}\n```"
        assert task.grade(problems[:1], [text])[0].correct is False, code
    assert bench.PROBLEMS.keys() == {problem.id for problem in problems}
