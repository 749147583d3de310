"""The closed form: it counts what is there, and moves the way each size moves it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite import methods
from rlvr_lite.analysis.memory import (
    PHASES,
    Adapter,
    Step,
    last_growth,
    micro_batch,
    peak,
    phases,
    prompts_at_once,
    quantised,
    weights,
)
from rlvr_lite.bases import shape_of
from rlvr_lite.planning._bases import KNOWN
from rlvr_lite.sampling import growing_cache
from tests.models import random_qwen2

QWEN_1_5B = shape_of("qwen", KNOWN["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"])
LORA = Adapter(method="lora", block=methods.get("lora").memory, trained=36_929_536, moments=75_000_000)
STEP = Step(
    prompts=16, group_size=8, prompt_length=256, completion_length=2048, micro_batch=4, rows=128, checkpointing=True
)


def total(bill, phase):
    return sum(bill[phase].values())


def test_parameters_are_those_of_the_published_model():
    assert QWEN_1_5B.parameters == 1_777_088_000


def test_parameters_are_those_of_a_model_that_is_built():
    for tied in (True, False):
        model = random_qwen2(tied=tied)
        shape = shape_of("qwen", model.config.to_dict())
        assert shape.parameters == sum(p.numel() for p in model.parameters())
        held = (*model.parameters(), *model.buffers())
        assert weights(shape, "fp32") == sum(x.numel() * x.element_size() for x in held)


def test_nf4_takes_the_bytes_that_bitsandbytes_takes():
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(torch.randn(192, 320), quant_type="nf4", compress_statistics=True)
    parts = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    assert quantised(192 * 320) == sum(t.numel() * t.element_size() for t in parts)


@pytest.mark.parametrize(("prompt", "completion"), [(5, 3), (16, 200), (100, 64), (64, 900)])
def test_the_cache_has_the_room_that_the_real_one_takes(prompt, completion):
    model = random_qwen2()
    cache = growing_cache(model.config)
    heads = model.config.num_key_value_heads
    state = torch.zeros(2, heads, prompt, 16)
    layer = cache.layers[0]
    layer.update(state, state)
    before = room = prompt
    for _ in range(completion - 1):
        token = torch.zeros(2, heads, 1, 16)
        layer.update(token, token)
        if layer._buffers[0].shape[2] != room:
            before, room = room, layer._buffers[0].shape[2]
    assert last_growth(prompt, completion) == (before, room)


@given(
    field=st.sampled_from(["prompts", "group_size", "prompt_length", "completion_length", "micro_batch", "rows"]),
    factor=st.integers(2, 4),
    precision=st.sampled_from(["nf4", "bf16", "fp32"]),
    checkpointing=st.booleans(),
)
@settings(max_examples=60)
def test_no_phase_shrinks_when_a_size_grows(field, factor, precision, checkpointing):
    step = dataclasses.replace(STEP, checkpointing=checkpointing, reference=True)
    larger = dataclasses.replace(step, **{field: factor * getattr(step, field)})
    small, large = phases(QWEN_1_5B, precision, LORA, step), phases(QWEN_1_5B, precision, LORA, larger)
    if field == "group_size":  # a micro-batch of fewer prompts shares more of them
        small, large = ({p: b[p] for p in ("rollout",)} for b in (small, large))
    assert list(small) == list(large)
    assert all(total(large, phase) >= total(small, phase) for phase in small)


def test_phases_come_in_the_order_of_a_step_and_scoring_only_with_a_reference():
    without = phases(QWEN_1_5B, "nf4", LORA, STEP)
    assert list(without) == [p for p in PHASES if p != "scoring"]
    assert list(phases(QWEN_1_5B, "nf4", LORA, dataclasses.replace(STEP, reference=True))) == list(PHASES)


def test_peak_names_the_highest_phase():
    assert peak({"load": {"weights": 3}, "backward": {"weights": 3, "activations": 2}}) == ("backward", 5)


def test_full_fine_tuning_holds_master_weights_and_gradients_of_every_weight():
    full = Adapter(
        method="full",
        block=methods.get("full").memory,
        trains_base=True,
        trained=QWEN_1_5B.parameters,
        moments=2 * QWEN_1_5B.parameters,
    )
    bill = phases(QWEN_1_5B, "bf16", full, STEP)
    assert bill["load"] == {"weights": 4 * QWEN_1_5B.parameters + QWEN_1_5B.buffers}
    assert bill["backward"]["gradients"] > 7 * QWEN_1_5B.parameters  # an earlier micro-batch's and this one's
    compared = phases(QWEN_1_5B, "bf16", full, dataclasses.replace(STEP, reference=True))
    for phase, kinds in compared.items():
        assert kinds.get("reference", 0) == (0 if phase == "load" else 4 * QWEN_1_5B.parameters)
    assert not any("reference" in kinds for kinds in phases(QWEN_1_5B, "nf4", LORA, STEP).values())


def test_one_piece_a_step_keeps_no_earlier_gradients():
    whole = dataclasses.replace(STEP, rows=4)
    assert phases(QWEN_1_5B, "nf4", LORA, whole)["forward"]["gradients"] == 0
    assert phases(QWEN_1_5B, "nf4", LORA, STEP)["forward"]["gradients"] == 4 * LORA.trained


@pytest.mark.parametrize("gib", [4, 6, 8, 12, 24])
def test_the_micro_batch_is_the_largest_that_fits(gib):
    budget = gib * 2**30
    size = micro_batch(QWEN_1_5B, "nf4", LORA, STEP, budget)

    def needs(n):
        bill = phases(QWEN_1_5B, "nf4", LORA, dataclasses.replace(STEP, micro_batch=n))
        return max(total(bill, "forward"), total(bill, "backward"))

    assert size >= 1
    assert needs(size) <= budget
    following = size + 1 if size < STEP.group_size else size + STEP.group_size
    assert following > STEP.rows or needs(following) > budget


def test_no_micro_batch_fits_into_nothing():
    assert micro_batch(QWEN_1_5B, "nf4", LORA, STEP, 2**30) == 0
    assert prompts_at_once(QWEN_1_5B, "nf4", LORA, STEP, 2**30) == 0


def test_prompts_are_halved_until_the_cache_fits():
    assert [prompts_at_once(QWEN_1_5B, "nf4", LORA, STEP, g * 2**30) for g in (3, 5, 8, 40)] == [2, 4, 8, 16]


def test_a_method_nobody_listed_is_counted_as_lora():
    other = dataclasses.replace(LORA, method="one of your own")
    assert phases(QWEN_1_5B, "nf4", other, STEP) == phases(QWEN_1_5B, "nf4", LORA, STEP)
