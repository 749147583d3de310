"""The list of proven architectures is what the tests cover, and each of them is sampled as it is scored."""

from __future__ import annotations

import pytest
import torch

from rlvr_lite.bases import list_bases
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import Packer, completion_logprobs, remove_dropout
from rlvr_lite.sampling import way
from tests.sampling.test_ways import gap, own_logprobs
from tests.zoo import ZOO, random_model

ROWS = {row["model type"]: row for row in list_bases().rows}
#: Sums in chunks and step by step round apart.
LOOSE = {"qwen3_5", "qwen3_next", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "zamba2", "mamba2", "jamba"}


def test_the_list_and_the_tests_name_the_same_architectures() -> None:
    assert {ZOO[name]().model_type for name in ZOO} == set(ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_sampled_and_scored_are_the_models_own(name: str) -> None:
    config = ZOO[name]()
    model = random_model(config)
    ids = torch.arange(2, 18)[None]
    before = model.eval()(input_ids=ids).logits
    remove_dropout(model)
    assert torch.equal(model(input_ids=ids).logits, before)  # of the policy nothing else is gone
    row = ROWS[config.model_type]
    if row["status"] == "refused":
        with pytest.raises(UserError):
            way(model)
        return
    assert (way(model) == "recomputed") == ("without a cache" in (row["restrictions"] or ""))
    assert gap(model, ragged=False) <= (2e-4 if name in LOOSE else 2e-5)
    prompts, answers = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]]), torch.tensor([[11, 12, 13], [14, 15, 0]])
    seen, kept = (prompts > 0).long(), (answers > 0).long()
    found, _ = completion_logprobs(model.train(), prompts, seen, answers, kept, 0.7, packer=Packer())
    model.eval()
    for i, (prompt, answer) in enumerate((([5, 6], [11, 12, 13]), ([7, 8, 9, 10], [14, 15]))):
        torch.testing.assert_close(found[i, : len(answer)], own_logprobs(model, prompt, answer, 0.7), atol=2e-5, rtol=0)
