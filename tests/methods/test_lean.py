"""Layers for the time of a rollout: they say what they say otherwise, to the bit, and are what they were afterwards."""

from __future__ import annotations

import contextlib

import peft
import pytest
import torch
from packaging.version import Version
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.config import AdapterConfig
from rlvr_lite.methods import _memory
from tests.methods import cells

#: What is cast, folded or stacked; the others have nothing to gain.
LEAN = [
    n
    for n in methods.names()
    if n not in ("full", "ia3", "ln_tuning", "road", "c3a", "boft", "delora", "gralora", "shira", "quanta")
]
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16, "nf4-bf16": torch.bfloat16}
_QUICK = ("fp32", "nf4-bf16")
SHAPES = ((2, 14), (1, 1), (5, 1), (64, 1))


def cast(base: str):
    """As training computes on that base."""
    return torch.autocast("cpu", dtype=AUTOCAST[base]) if base in AUTOCAST else contextlib.nullcontext()


@torch.no_grad()
def says(model: nn.Module, base: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    with cast(base):
        return [model(torch.randint(2, 96, shape, generator=generator)).logits for shape in SHAPES]


def replaced(model: nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules())


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    ("name", "base"),
    [
        pytest.param(name, base, marks=() if base in _QUICK else pytest.mark.slow)
        for base in cells.BASES
        for name in LEAN
        if cells.BASES[base][0] not in methods.get(name).unsupported
    ],
)
def test_it_says_the_same_to_the_bit(name, base):
    model = cells.trained(base, name).eval()
    said, adapted = says(model, base), len(methods.attachment(model).build.layout.linears)
    if name == "oft" and base.startswith("nf4") and Version(peft.__version__) < Version("0.21"):
        adapted = 0  # a layer of its own, which is called as it is
    for copy in (False, True):
        with cast(base), methods.lean(model, copy=copy):
            assert replaced(model) >= adapted
            inside = says(model, base)
        assert same(inside, said)
        assert not replaced(model)
    assert same(says(model, base), said)


def test_a_copy_is_of_every_layer_in_four_bits_and_of_no_other():
    model = cells.trained("nf4-bf16", "lora", AdapterConfig(targets=("q_proj", "v_proj", "down_proj"))).eval()
    said = says(model, "nf4-bf16")
    with cast("nf4-bf16"), methods.lean(model, copy=True):
        assert same(says(model, "nf4-bf16"), said)
        for module in model.modules():
            if type(module) is nn.Linear:
                assert "forward" not in vars(module)
        names = {name.rpartition(".")[2] for name, module in model.named_modules() if "forward" in vars(module)}
        assert {"q_proj", "k_proj", "o_proj", "gate_proj"} <= names


def test_a_base_without_adapter_is_copied_as_well():
    model = cells.fresh("nf4-bf16")
    said = says(model, "nf4-bf16")
    with cast("nf4-bf16"), methods.lean(model, copy=True):
        assert replaced(model)
        assert same(says(model, "nf4-bf16"), said)
    assert not replaced(model)


@pytest.mark.parametrize("name", ["lora", "dora", "pissa", "oft", "hira"])
def test_an_exception_leaves_nothing_behind(name):
    model = cells.trained("fp32", name)
    said = cells.logits(model)

    def broken(*_):
        raise RuntimeError("out of memory")

    hook = model.get_base_model().model.layers[1].mlp.register_forward_hook(broken)
    with pytest.raises(RuntimeError, match="out of memory"), methods.lean(model):
        cells.logits(model)
    hook.remove()
    assert not replaced(model)
    assert all(getattr(module, "folded", None) is None for module in model.modules())
    assert torch.equal(cells.logits(model), said)


def test_an_exception_while_it_is_made_leaves_nothing_behind(monkeypatch):
    from rlvr_lite.methods import _lean

    model = cells.trained("nf4-bf16", "pissa").eval()
    said, made = says(model, "nf4-bf16"), _lean._dequantised
    left = iter(range(10))

    def exhausted(layer):
        if next(left, None) is None:
            raise torch.OutOfMemoryError("no room")
        return made(layer)

    monkeypatch.setattr(_lean, "_dequantised", exhausted)
    with pytest.raises(torch.OutOfMemoryError), cast("nf4-bf16"), methods.lean(model, copy=True):
        pass
    assert not replaced(model)
    assert same(says(model, "nf4-bf16"), said)


@pytest.mark.parametrize("name", ["lora", "dora", "pissa", "tinylora", "oft", "hra", "hira", "randlora", "miss"])
def test_every_update_is_followed(name):
    model = cells.trained("fp32", name).eval()
    said = []
    for _ in range(2):
        with methods.lean(model):
            said.append(cells.logits(model))
        assert torch.equal(said[-1], cells.logits(model))
        with torch.no_grad():
            for parameter in cells.trainable(model).values():
                parameter.mul_(1.3)
    assert not torch.equal(*said)


def test_within_another_it_changes_nothing():
    model = cells.trained("fp32", "pissa")
    with methods.lean(model):
        outer = replaced(model)
        with methods.lean(model):
            assert replaced(model) == outer
        assert replaced(model) == outer
    assert not replaced(model)


def test_a_disabled_adapter_stays_disabled():
    model = cells.trained("fp32", "lora")
    with model.disable_adapter():
        said = cells.logits(model)
        with methods.lean(model):
            assert torch.equal(cells.logits(model), said)
    assert not torch.equal(cells.logits(model), said)


@pytest.mark.parametrize("name", ["hira", "randlora"])
def test_a_model_too_large_to_hold_full_updates_builds_them_as_it_goes(name, monkeypatch):
    model = cells.trained("fp32", name)
    said = cells.logits(model)
    monkeypatch.setattr(_memory, "_KEPT_AT_MOST", 4 * 1000)
    with methods.lean(model):
        assert not replaced(model)
        assert torch.equal(cells.logits(model), said)


def test_adapters_of_plain_peft_are_lean_where_they_are_plain():
    """DoRA in PEFT's own way, a bias of B and a second adapter are called as they are."""
    from peft import LoraConfig, get_peft_model

    for options, lean in (({}, True), ({"use_dora": True}, False), ({"lora_bias": True}, False)):
        torch.manual_seed(0)
        config = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False, **options)
        model = get_peft_model(cells.fresh("fp32"), config, adapter_name="mine")
        said = cells.logits(model)
        with methods.lean(model):
            assert bool(replaced(model)) == lean
            assert torch.equal(cells.logits(model), said)
    model.add_adapter("second", LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    model.base_model.set_adapter(["mine", "second"])
    said = cells.logits(model)
    with methods.lean(model):
        assert torch.equal(cells.logits(model), said)
