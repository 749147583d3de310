"""Training and evaluation take whoever follows the protocol."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from rlvr_lite.bases._tiny_tokenizer import build_tokenizer
from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import evaluate
from rlvr_lite.sampling import TransformersSampler
from tests.sampling.scripted import Scripted
from tests.training.helpers import dataset, policy, relative, step_gradient, trained, trainer


def test_training_takes_its_completions_from_the_sampler_it_is_given(tmp_path):
    model, tokenizer = policy(), build_tokenizer()
    made = trainer(tmp_path, model, sampler=Scripted(tokenizer, ["12", "345", "6"]), sampler_gap_limit=None)
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


class Off(TransformersSampler):
    """Says of every token that it was less likely than it was."""

    def sample(self, *arguments):
        found = super().sample(*arguments)
        return dataclasses.replace(found, logprobs=found.logprobs - 0.3 * found.mask)


def _off(model):
    return Off(model, build_tokenizer())


def test_a_gap_is_measured_and_corrected(tmp_path):
    found = {}
    for name, sampler, correction in (
        ("same", TransformersSampler, "truncated"),
        ("off", Off, "truncated"),
        ("uncorrected", Off, "none"),
    ):
        model = policy(spread=0.05)
        made = trainer(tmp_path / name, model, sampler=sampler(model, build_tokenizer()), sampler_correction=correction)
        found[name] = step_gradient(made)
        names = ("sampling_logp_difference/mean", "sampling_logp_difference/max", "effective_sample_size")
        measured = {key: made._metrics["train"][f"sampling/{key}"][-1] for key in names}
        expected = 0.0 if name == "same" else 0.3
        assert abs(measured["sampling_logp_difference/mean"] - expected) < 1e-4
        assert abs(measured["sampling_logp_difference/max"] - expected) < 1e-4
        assert 0 < measured["effective_sample_size"] < 1 + 1e-9
    assert relative(found["uncorrected"], found["same"]) < 1e-5
    weighed = {name: math.exp(0.3) * gradient for name, gradient in found["same"].items()}
    assert relative(found["off"], weighed) < 1e-4


def test_a_sampler_of_another_policy_stops_the_run(tmp_path):
    model = policy()
    made = trainer(tmp_path, model, sampler=_off(model), sampler_gap_limit=0.2)
    with pytest.raises(UserError, match=r"0.3 nats a token .* sampler_gap_limit=0.2"):
        made.train()
    with pytest.raises(UserError, match="sampler_correction"):
        trainer(tmp_path, sampler_correction="tis")


def test_a_model_that_does_not_score_as_it_samples_stops_before_its_first_update(tmp_path):
    model = policy()
    made = trainer(tmp_path, model)
    made.collector = dataclasses.replace(made.collector, sampler=_off(model))
    before = trained(model)
    with pytest.raises(UserError, match=r"0\.3 nats before the first update"):
        made.train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained(model).items())


def test_an_evaluation_of_which_every_answer_is_cut_has_no_gap(tmp_path):
    found = trainer(tmp_path, mask_truncated_completions=True, max_completion_length=1).evaluate(dataset(4))
    assert found["eval_completions/clipped_ratio"] == 1
    assert found["eval_sampling/sampling_logp_difference/mean"] == 0


class Small(TransformersSampler):
    """A card with room for five completions."""

    def __init__(self, model):
        super().__init__(model, build_tokenizer())
        self.asked = []

    def sample(self, prompts, k, config, keys):
        self.asked.append(len(prompts) * k)
        if len(prompts) * k > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().sample(prompts, k, config, keys)


def test_what_did_not_fit_is_not_tried_again_in_this_run_or_a_resumed_one(tmp_path):
    model = policy()
    whole = trainer(tmp_path / "whole", model).collector.collect(0).rollouts
    small = Small(model)
    made = trainer(tmp_path / "run", model, sampler=small)
    found = made.collector.collect(0).rollouts
    assert small.asked == [16, 8, 4, 4, 4, 4]
    assert torch.equal(found.completions, whole.completions)
    assert torch.equal(found.prompt_ids, whole.prompt_ids)
    small.asked.clear()
    made.collector.collect(1)
    assert small.asked == [4, 4, 4, 4]
    again = Small(model)
    trainer(tmp_path / "run", model, sampler=again).collector.collect(2)
    assert again.asked == [4, 4, 4, 4]


def test_it_samples_in_the_portions_of_the_plan(tmp_path):
    model = policy()
    whole = trainer(tmp_path / "whole", model).collector.collect(0).rollouts
    small = Small(model)
    found = trainer(tmp_path / "run", model, sampler=small, completions_at_once=3).collector.collect(0).rollouts
    assert small.asked == [3, 1] * 4
    assert torch.equal(found.completions, whole.completions)
    assert not (tmp_path / "run" / "memory.json").exists()
