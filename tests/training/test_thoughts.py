"""A thought that the chat template opens in the prompt has to be closed before an answer counts, wherever it is judged."""

from __future__ import annotations

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from rlvr_lite import rewards, tasks
from rlvr_lite.bases._tiny_tokenizer import build_tokenizer
from rlvr_lite.config import SamplingConfig
from rlvr_lite.evaluation import graded_by, rescore, score
from rlvr_lite.evaluation._scoring import score_with
from rlvr_lite.rewards import Verdict
from rlvr_lite.sampling import Completion, TransformersSampler, render
from rlvr_lite.tasks import Problem
from rlvr_lite.training._grading import Graded
from rlvr_lite.training._preflight import preflight
from tests.sampling.scripted import Scripted
from tests.training.helpers import policy, trainer

LINES = [r"\boxed{0}", r"so</think>\boxed{0}"]
PROBLEMS = [Problem(f"p{i}", f"{i}-{i}=?", "0") for i in range(4)]


def ask(problem):
    return [{"role": "user", "content": problem.text}]


def opening(tokenizer):
    """As the template of DeepSeek-R1-Distill does."""
    tokenizer.chat_template = tokenizer.chat_template.replace("<|assistant|>'", "<|assistant|><think>'")
    return tokenizer


class Telling(Scripted):
    """The scripted sampler, which says what its completions continue."""

    def sample(self, prompts, k, config, keys):
        found = super().sample(prompts, k, config, keys)
        shown = [render(self.tokenizer, prompt) for prompt in prompts for _ in range(k)]
        return type(found)(found.ids, found.mask, found.logprobs, found.texts, found.ended, shown)


@pytest.mark.parametrize("opens", [False, True])
def test_rewards_of_training_are_told_the_prompt_after_its_template(tmp_path, opens):
    seen = []

    def own(completions, prompts, rendered_prompts, **columns):
        seen.extend(zip(prompts, rendered_prompts, strict=True))
        return [0.0] * len(completions)

    tokenizer = build_tokenizer()
    functions = [rewards.accuracy, rewards.format, own]
    made = trainer(tmp_path, policy(), functions, rows=1, sampler=Scripted(tokenizer, LINES), sampler_gap_limit=None)
    if opens:
        opening(made.collector.tokenizer)
    batch = made.collector.collect(0)
    expected = [0.0, 1.0] if opens else [1.0, 1.0]
    for name in ("accuracy", "format"):
        assert [sample["rewards"][name] for sample in batch.samples[:2]] == expected
    assert [sample.get("opened", False) for sample in batch.samples[:2]] == [opens, opens]
    for chat, text in seen:
        assert isinstance(chat, list)
        assert text.endswith("<|assistant|>" + "<think>" * opens)
    assert preflight(made).unreadable == (0.5 if opens else 0)
    assert not rewards.audit(batch.samples)


def test_the_grade_of_a_task_is_told_it_if_it_takes_it():
    task = tasks.get([{"problem": f"{i}-{i}=?", "answer": "0"} for i in range(60)])
    ids = [problem.id for problem in task.problems("train", 2)]
    chats = [[{"role": "assistant", "content": line}] for line in LINES]
    assert Graded(task)(chats, ids, rendered_prompts=["<|assistant|><think>\n"] * 2) == [0, 1]
    assert Graded(task)(chats, ids) == [1, 1]

    class Own(type(task)):
        def grade(self, problems, completions, prompts=None):
            return [Verdict(prompt.endswith("<think>"), "", "own", 0.0, "") for prompt in prompts]

    class Short(type(task)):
        def grade(self, problems, completions):
            return [Verdict(True, "", "short", 0.0, "") for _ in completions]

    drawn = [Completion("", 1, False, (), prompt) for prompt in ("a", "<think>")]
    for kind, expected in ((Own, [False, True]), (Short, [True, True])):
        copy = kind.__new__(kind)
        copy.__dict__.update(task.__dict__)
        assert [verdict.correct for verdict in graded_by(copy)(PROBLEMS[:2], drawn)] == expected


def test_evaluation_and_its_file_judge_alike(tmp_path):
    log, sampler = tmp_path / "a.jsonl", Telling(opening(build_tokenizer()), LINES)
    found = score_with(
        sampler, PROBLEMS, messages=ask, k=2, sampling=SamplingConfig(max_completion_length=24), greedy=False, log=log
    )
    assert [sample.correct for sample in found.samples] == [False, True] * 4
    assert all(json.loads(line)["opened"] for line in log.read_text().splitlines())
    assert rescore(log, PROBLEMS, "score").to_dict() == found.to_dict()
    ways = {"room": sampler.room, "portions": sampler.portions, "prepared": nullcontext}
    again = SimpleNamespace(name="scripted", **ways)  # it draws nothing
    whole = score_with(
        again, PROBLEMS, messages=ask, k=2, sampling=SamplingConfig(max_completion_length=24), greedy=False, log=log
    )
    assert whole.samples == found.samples


def test_our_own_sampler_tells_it():
    tokenizer = opening(build_tokenizer())
    chats = [ask(problem) for problem in PROBLEMS[:2]]
    drawn = TransformersSampler(policy(), tokenizer).sample(
        chats, 2, SamplingConfig(max_completion_length=2), [1, 2, 3, 4]
    )
    shown = [completion.prompt for completion in drawn.completions()]
    assert shown == [render(tokenizer, chat) for chat in chats for _ in range(2)]
    found = score(policy(), tokenizer, PROBLEMS, messages=ask, k=1, sampling=SamplingConfig(max_completion_length=2))
    assert all(sample.opened for sample in found.samples)
