"""Sequences that a base has no positions for, and logits that are not numbers, stop in one line."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import remove_dropout
from rlvr_lite.sampling import Rollout, rollout
from tests.zoo import ZOO, random_model


def sample(model: Any, length: int = 10, most: int = 5) -> Rollout:
    ids = torch.arange(5, 5 + length)[None]
    sampling = SamplingConfig(max_completion_length=most)
    return rollout(
        model, ids, torch.ones_like(ids), group_size=2, sampling=sampling, eos_ids=[1], pad_id=0, row_keys=[1, 2]
    )


def changed(name: str, **changes: Any) -> Any:
    config = ZOO[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    return random_model(config)


LONGROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 16, "factor": 32.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("opt", {"max_position_embeddings": 16}),
        ("llama", {"max_position_embeddings": 16}),
        ("gpt2", {"n_positions": 16}),
        ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}),
        ("llama", {"max_position_embeddings": 16,
                   "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}}),
    ],
)  # fmt: skip
def test_a_sequence_beyond_the_positions_is_one_line(name: str, changes: dict[str, Any]) -> None:
    model = changed(name, **changes)
    sample(model, 10, 6)
    with pytest.raises(UserError, match="set max_completion_length to at most 6"):
        sample(model, 10, 7)
    with pytest.raises(UserError, match="shorten the prompt"):
        sample(model, 17, 1)


@pytest.mark.parametrize("name", ["bloom", "mamba", "falcon_alibi"])
def test_where_there_are_no_positions_there_is_no_limit(name: str) -> None:
    sample(random_model(ZOO[name]()), 30, 5)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize("greedy", [False, True])
def test_logits_that_are_no_numbers_stop_at_once(value: float, greedy: bool) -> None:
    model = random_model(ZOO["llama"]())
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(value)
    with pytest.raises(UserError, match=r"not finite in float32: model\.layers\.1\.\S+ is the first"):
        sample(model)


def test_dropout_of_layers_and_of_settings_is_found_and_removed() -> None:
    ids = torch.arange(5, 25)[None]
    for name in ("llama_dropout", "phi", "starcoder2", "gpt2", "opt", "mixtral", "phimoe"):
        model = random_model(ZOO[name]())
        found = remove_dropout(model)
        assert found, name
        with torch.no_grad():
            assert torch.equal(model.train()(ids).logits, model.eval()(ids).logits), name
        assert not remove_dropout(model)
