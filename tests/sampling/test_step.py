"""A step on fixed buffers, and its graphs: the tokens of the plain loop, one record a shape, a way on where there is none."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.analysis import memory
from rlvr_lite.analysis.memory import fixed_room
from rlvr_lite.config import SamplingConfig
from rlvr_lite.grpo import feed, output_head
from rlvr_lite.sampling import Rollout, growing_cache, next_hidden, rollout, row_keys
from rlvr_lite.sampling import _graphs as graphs
from rlvr_lite.sampling._step import fixed_cache
from tests.methods import cells
from tests.models import random_qwen2
from tests.pretend_graph import PretendGraph, pretend_graphs
from tests.zoo import ZOO, random_model

LONG = SamplingConfig(temperature=1.1, max_completion_length=44)
#: Architectures that are sampled with a cache over which a row of booleans says everything.
PLAIN = (
    "llama",
    "llama_tied_bias",
    "llama_yarn",
    "qwen2",
    "qwen3",
    "gemma",
    "phi3",
    "phi",
    "mistral",
    "gpt_neox",
    "opt",
)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[PretendGraph]]:
    """Graphs on the CPU, of widths short enough that a rollout has several."""
    monkeypatch.setattr(memory, "_WIDTH", 16)
    monkeypatch.setattr(graphs, "_RECORDING", ("cuda", "cpu"))
    with pretend_graphs() as made:
        yield made


def prompts(vocabulary: int = 96) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(9) >= torch.tensor([[0], [3], [7], [0]])).long()
    return torch.randint(2, vocabulary, (4, 9), generator=generator) * mask, mask


def drawn(model: nn.Module, fixed: bool, sampling: SamplingConfig = LONG, every: int = 4, **more: Any) -> Rollout:
    ids, mask = prompts(output_head(model).vocabulary)
    options: dict[str, Any] = {"group_size": 4, "eos_ids": [1, 17, 18, *range(40, 44)], "pad_id": 0} | more
    keys = row_keys(3, rows=4 * len(ids))
    return rollout(model, ids, mask, sampling=sampling, row_keys=keys, every=every, fixed=fixed, **options)


def agree(found: Rollout, expected: Rollout) -> None:
    assert torch.equal(found.tokens, expected.tokens)
    assert torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", methods.names())
def test_every_method_draws_the_same_tokens_from_one_graph_a_shape(name: str, recorded: list[PretendGraph]) -> None:
    model = cells.trained("fp32", name).eval()
    expected = drawn(model, fixed=False)
    assert not recorded
    with torch.no_grad(), methods.lean(model):
        agree(drawn(model, fixed=True), expected)
    assert len(recorded) >= 4  # widths, and rows that leave
    assert sum(graph.replays for graph in recorded) >= expected.tokens.shape[1] - 2 * len(recorded)


@pytest.mark.parametrize("name", ["lora", "dora", "oft"])
@pytest.mark.parametrize("copy", [False, True])
def test_so_it_is_in_four_bits_with_and_without_a_copy(name: str, copy: bool, recorded: list[PretendGraph]) -> None:
    model = cells.trained("nf4", name).eval()  # computes in fp32, where tokens are equal
    expected = drawn(model, fixed=False)
    with methods.lean(model, copy=copy):
        agree(drawn(model, fixed=True), expected)
    assert recorded


@pytest.mark.parametrize("name", PLAIN)
def test_architectures(name: str, recorded: list[PretendGraph], caplog: pytest.LogCaptureFixture) -> None:
    model = random_model(ZOO[name]())
    agree(drawn(model, fixed=True), drawn(model, fixed=False))
    assert recorded
    assert not [record for record in caplog.records if "CUDA graph" in record.getMessage()]


def test_a_graph_a_width_while_no_row_leaves(recorded: list[PretendGraph]) -> None:
    model = random_qwen2()
    found = drawn(model, fixed=True, eos_ids=[])
    widths = {fixed_room(9 + n, 1) for n in range(1, found.tokens.shape[1])}
    assert len(recorded) == len(widths) == 4
    agree(found, drawn(model, fixed=False, eos_ids=[]))


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(temperature=0, max_completion_length=30),
        SamplingConfig(top_k=9, min_p=0.02, max_completion_length=30),
    ],
    ids=["greedy", "top_k"],
)
def test_every_way_of_drawing(sampling: SamplingConfig, recorded: list[PretendGraph]) -> None:
    model = random_qwen2()
    agree(drawn(model, fixed=True, sampling=sampling), drawn(model, fixed=False, sampling=sampling))
    assert recorded


def test_a_weight_that_changes_between_rollouts_is_followed(recorded: list[PretendGraph]) -> None:
    model = cells.trained("fp32", "lora").eval()
    first = drawn(model, fixed=True)
    with torch.no_grad():
        for parameter in cells.trainable(model).values():
            parameter.mul_(3)
    second = drawn(model, fixed=True)
    assert not torch.equal(first.logprobs, second.logprobs[:, : first.logprobs.shape[1]])
    agree(second, drawn(model, fixed=False))


def test_what_cannot_be_recorded_is_said_once_and_goes_on(
    recorded: list[PretendGraph], caplog: pytest.LogCaptureFixture
) -> None:
    model = random_qwen2()
    expected = drawn(model, fixed=False)
    looks = model.model.layers[1].register_forward_hook(
        lambda _, __, output: output if bool((output == output).all()) else None
    )
    for _ in range(2):
        agree(drawn(model, fixed=True), expected)
    looks.remove()
    assert not any(graph.replays for graph in recorded)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "Qwen2ForCausalLM" in said[0]
    assert "not permitted when stream is capturing" in said[0]


@pytest.mark.parametrize("ends", [True, False], ids=["the record ends", "ending fails too"])
def test_no_memory_while_recording_is_no_reason_to_go_on(
    ends: bool, recorded: list[PretendGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, end = random_qwen2(), PretendGraph.capture_end

    def ended(graph: PretendGraph) -> None:
        broken = sys.exc_info()[0] is not None
        end(graph)
        if broken and not ends:
            raise RuntimeError("capture was invalidated")

    monkeypatch.setattr(PretendGraph, "capture_end", ended)
    drawn(model, fixed=False)
    calls = iter(range(100))

    def exhausted(*_: Any) -> None:
        if next(calls) == 8:
            raise torch.OutOfMemoryError("no room")

    model.model.layers[1].register_forward_hook(exhausted)
    with pytest.raises(torch.OutOfMemoryError):
        drawn(model, fixed=True)
    agree(drawn(model, fixed=True), drawn(model, fixed=False))


@pytest.mark.parametrize("name", ["mistral_sliding", "bloom", "mamba"])
def test_other_architectures_are_sampled_as_ever_and_that_is_said_once(
    name: str, recorded: list[PretendGraph], caplog: pytest.LogCaptureFixture
) -> None:
    model = random_model(ZOO[name]())
    expected = drawn(model, fixed=False)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            agree(drawn(model, fixed=True), expected)
    assert not recorded
    assert sum("CUDA graph" in record.getMessage() for record in caplog.records) == 1


def test_its_cache_has_the_room_that_the_plan_counts() -> None:
    model = random_qwen2()
    head, (ids, mask) = output_head(model), prompts()
    growing, slot = growing_cache(model.config), torch.tensor([9])
    with torch.no_grad():
        feed(head.backbone, ids, mask, past_key_values=growing, use_cache=True)
        cache = fixed_cache(growing, torch.arange(8) // 2, fixed_room(9, 200), slot)
        assert all(layer.keys is None for layer in growing.layers)
        held = sum(buffer.numel() for layer in cache.layers for buffer in layer.buffers)
        assert held == 8 * 256 * 2 * 2 * 2 * 16  # rows, room, keys and values, layers, heads, width
        seen = torch.zeros(8, 1, 1, 256, dtype=torch.bool)
        seen[..., :10] = True
        next_hidden(head, torch.full((8,), 5), seen, torch.full((8, 1), 9), cache)
        assert all((layer.keys[:, :, 10:] == 0).all() for layer in cache.layers)
        assert all((layer.keys[:, :, 9] != 0).any(-1).all() for layer in cache.layers)
