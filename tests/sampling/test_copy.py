"""A 16-bit copy of a base in 4 bits for the time of sampling: the same tokens, gone afterwards, planned and refused."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from rlvr_lite import bases, methods, planning
from rlvr_lite.analysis import memory
from rlvr_lite.cli import main
from rlvr_lite.config import AdapterConfig, RunConfig, SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.methods import _lean
from rlvr_lite.sampling import TransformersSampler, even_portions, joined, row_keys, sample_portions
from tests.methods import cells
from tests.models import random_qwen2
from tests.sampling.test_transformers import tokenizer
from tests.training.helpers import policy, trainer

CONFIG = SamplingConfig(max_completion_length=12)
PROMPTS = ["w5 w6 w7", "w8", "w9 w10"]


def policy_in_4_bits(name: str = "lora") -> nn.Module:
    return cells.trained("nf4-bf16", name).eval()


def drawn(sampler: TransformersSampler, rows: int | None = None):
    portions = even_portions(len(PROMPTS), 4, rows)
    parts = sample_portions(sampler, portions, PROMPTS, 4, CONFIG, row_keys(0, rows=12))
    return joined(list(parts), 4, 0)


def copies(model: nn.Module) -> int:
    return sum("forward" in vars(module) for module in model.modules())


@pytest.fixture
def made(monkeypatch):
    """Weak references to all that copies are held by."""
    found = []

    def watched(make):
        def making(*arguments):
            result = make(*arguments)
            found.append(weakref.ref(result[0] if isinstance(result, tuple) else result))
            return result

        return making

    monkeypatch.setattr(_lean, "_dequantised", watched(_lean._dequantised))
    monkeypatch.setattr(_lean, "_Stacked", watched(_lean._Stacked))
    return found


def alive(made) -> int:
    gc.collect()
    return sum(reference() is not None for reference in made)


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_tokens_and_their_log_probabilities_are_the_same_and_nothing_is_left(name, made):
    model = policy_in_4_bits(name)
    plain = drawn(TransformersSampler(model, tokenizer(), copy=False))
    for rows in (None, 4):
        copied = drawn(TransformersSampler(model, tokenizer(), copy=True), rows)
        if rows is None:
            assert torch.equal(copied.ids, plain.ids)
            assert torch.equal(copied.logprobs, plain.logprobs)
        del copied
        assert not copies(model)
        assert made
        assert alive(made) == 0


def test_it_is_made_once_for_all_portions(monkeypatch):
    from rlvr_lite.methods import _lean

    model, made = policy_in_4_bits(), []
    dequantised = _lean._dequantised
    monkeypatch.setattr(_lean, "_dequantised", lambda layer: made.append(layer) or dequantised(layer))
    drawn(TransformersSampler(model, tokenizer()), rows=4)  # auto, on a CPU
    assert len(made) == len(set(made)) == 14


def test_an_exception_frees_it(made):
    model = policy_in_4_bits()
    sampler = TransformersSampler(model, tokenizer(), copy=True)

    def broken(*_):
        assert copies(model)
        raise KeyboardInterrupt

    hook = model.get_base_model().model.layers[1].register_forward_hook(broken)
    with pytest.raises(KeyboardInterrupt):
        drawn(sampler)
    hook.remove()
    assert not copies(model)
    assert made
    assert alive(made) == 0


def test_without_room_for_it_sampling_goes_on_or_says_so(monkeypatch, caplog):
    from rlvr_lite.methods import _lean

    def exhausted(_):
        raise torch.OutOfMemoryError

    model = policy_in_4_bits()
    plain = drawn(TransformersSampler(model, tokenizer(), copy=False))
    monkeypatch.setattr(_lean, "_dequantised", exhausted)
    assert torch.equal(drawn(TransformersSampler(model, tokenizer())).ids, plain.ids)
    assert "without it" in caplog.text
    with pytest.raises(UserError, match="no room"):
        drawn(TransformersSampler(model, tokenizer(), copy=True))
    assert not copies(model)


def test_a_copy_of_what_is_not_in_4_bits_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="rollout_copy=True"):
        TransformersSampler(cells.fresh("fp32"), tokenizer(), copy=True)
    with pytest.raises(UserError, match="rollout_copy=True"):
        trainer(tmp_path, policy(), rollout_copy=True)
    with pytest.raises(UserError, match=r"rollout_copy=True .* fp32"):
        planning.plan("tiny", "lora", precision="fp32", rollout_copy=True)
    with pytest.raises(UserError, match="rollout_copy"):
        RunConfig(rollout_copy="sometimes")
    with pytest.raises(UserError, match="rollout_copy"):
        RunConfig(rollout_copy=1)


def test_the_plan_counts_it_and_makes_it_where_no_completion_has_to_wait():
    def plan(gpu, copy="auto"):
        options = {"precision": "nf4", "group_size": 8, "prompts_per_step": 8, "max_completion_length": 512}
        return planning.plan("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "lora", gpu=gpu, rollout_copy=copy, **options)

    large, small = "80gb", "5gb"
    without, copied = plan(large, False), plan(large)
    assert copied.step.copy
    assert not without.step.copy
    matrices = 2 * sum(size * count for size, count in copied.shape.matrices)
    more = sum(copied.phases["rollout"].values()) - sum(without.phases["rollout"].values())
    assert 0.9 * matrices < more <= matrices
    assert sum(copied.phases["backward"].values()) == sum(without.phases["backward"].values())
    assert not plan(small).step.copy
    assert plan(small, True).step.copy
    assert planning.Plan.from_json(copied.to_json()).step.copy


def test_the_dry_run_holds_what_the_plan_says():
    config = random_qwen2(hidden=256, intermediate=640, layers=6, vocab=512).config
    shape = bases.shape_of("base", config.to_dict())
    adapter = methods.resolve("lora", AdapterConfig(), "tiny")
    step = memory.Step(
        prompts=1, group_size=2, prompt_length=16, completion_length=16, micro_batch=2, rows=2, copy=True
    )
    dry = planning.dry_run(config, "nf4", "lora", adapter, step).peaks["rollout"]["total"]
    layout = methods.Layout.of_model(bases.blank(config))
    added = methods.footprint("lora", layout, adapter, size=2)
    assert sum(memory.phases(shape, "nf4", added, step)["rollout"].values()) == pytest.approx(dry, rel=0.1)


def test_the_command_line_takes_it(capsys, tmp_path):
    asked, out = ["plan", "tiny", "lora", "--precision", "nf4", "--gpu", "80gb", "--out"], tmp_path / "plan.json"
    for word, copied in (("auto", True), ("True", True), ("False", False)):
        main([*asked, str(out), "--rollout-copy", word])
        assert planning.Plan.from_json(out.read_text()).step.copy == copied
    with pytest.raises(SystemExit):
        main([*asked, str(out), "--rollout-copy", "maybe"])
    assert "rollout copy" in capsys.readouterr().err
