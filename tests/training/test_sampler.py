"""Training and evaluation take whoever follows the protocol."""

from __future__ import annotations

import torch

from rlvr_lite.bases._tiny_tokenizer import build_tokenizer
from rlvr_lite.evaluation import evaluate
from tests.sampling.scripted import Scripted
from tests.training.helpers import policy, trainer


def test_training_takes_its_completions_from_the_sampler_it_is_given(tmp_path):
    model, tokenizer = policy(), build_tokenizer()
    made = trainer(tmp_path, model, sampler=Scripted(tokenizer, ["12", "345", "6"]))
    batch = made.collector.collect(0)
    assert [sample["completion"] for sample in batch.samples[:4]] == ["12", "345", "6", "12"]
    assert torch.equal(batch.rollouts.sampled_logprobs, -batch.rollouts.mask.float())
    assert not any(sample["truncated"] for sample in batch.samples)
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    made.train()
    after = [p for p in made.model.parameters() if p.requires_grad]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_evaluation_finds_a_sampler_by_its_name():
    found = evaluate("tiny", "chain-sum:test", k=2, n=4, engine="scripted", progress=False)
    assert {row["completion"] for row in found["chain-sum:test"].rows()} == {"\\boxed{1}", "\\boxed{2}"}
    assert found.facts["engine"] == "scripted"
    assert found.facts["weights"] == "none: it recites"


def test_evaluation_takes_a_sampler_itself():
    sampler = Scripted(build_tokenizer(), ["7"])
    found = evaluate("tiny", "chain-sum:test", k=2, n=4, engine=sampler, progress=False)
    assert {row["completion"] for row in found["chain-sum:test"].rows()} == {"7"}
