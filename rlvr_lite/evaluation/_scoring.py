"""From problems to a :class:`Score`: draw the answers, judge them, write them down as they come."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError, printable
from rlvr_lite.evaluation._samples import GREEDY, Sample, SampleLog
from rlvr_lite.evaluation._scores import Score
from rlvr_lite.progress import bar as progress_bar
from rlvr_lite.tasks import Problem, Task

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rlvr_lite.rewards import Verdict
    from rlvr_lite.sampling import Completion, Portion, Sampler

__all__ = ["Grade", "check_problems", "graded_by", "rescore", "score", "score_with"]

Messages = list[dict[str, Any]]
#: What judges answers, one problem an answer: verdicts, or rewards (``None``: there is none).
Grade = Callable[[Sequence[Problem], Sequence["Completion"]], "Sequence[Verdict | float | None]"]
#: Told after each batch: answers done, answers in all, share of the drawn ones that are right.
Progress = Callable[[int, int, float], None]


def check_problems(name: str, problems: Sequence[Problem], *, answers: bool = True) -> None:
    """Raise unless there are problems, their ids differ, and each has a prompt and, if asked, an answer."""
    if not problems:
        raise UserError(f"{name} has no problems: ask for at least one")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise UserError(f"{name} has the id {problem.id!r} twice: give each problem its own")
        seen.add(problem.id)
        if not problem.text.strip():
            raise UserError(f"{name}: problem {problem.id} has no text; fill it in or leave it out")
        if answers and not (problem.answer or "").strip():
            raise UserError(f"{name}: problem {problem.id} has no answer; fill it in or leave it out")


def score(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    *,
    messages: Callable[[Problem], Messages],
    k: int,
    sampling: SamplingConfig,
    greedy: bool = True,
    seed: int = 0,
    name: str = "score",
    log: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    grade: Grade | None = None,
    progress: bool | Progress = False,
) -> Score:
    """Score a policy in memory: a greedy answer and ``k`` drawn ones to each problem.

    An answer depends on ``(seed, problem id, index)`` and the policy only, not on the order of the problems, their
    number, the batching, or a kill and restart in between.

    Args:
        model: the policy, adapter included; sampled in eval mode.
        tokenizer: its tokenizer.
        problems: with different ids.
        messages: the chat that asks a problem, such as ``lambda p: task.messages(p, style)``.
        k: drawn answers a problem, at least 1.
        sampling: how they are drawn; at temperature 0 only the greedy answer is taken, and k must be 1.
        greedy: take a greedy answer besides.
        seed: of the drawn answers.
        name: of the benchmark, for messages and files.
        log: a ``.jsonl`` file that takes the samples one a line; if it holds some already, they are not drawn again.
        facts: what else decides the samples (the policy), compared with the log's when it is continued.
        grade: judges the answers; ``None`` compares them with the golds.
        progress: show a bar with the running accuracy, or a function that is told (done, total, accuracy).

    Raises:
        UserError: duplicate ids, an empty answer, k < 1, temperature 0 with k > 1, or a log begun under other facts.
    """
    from rlvr_lite.sampling import TransformersSampler

    return score_with(
        TransformersSampler(model, tokenizer),
        problems,
        messages=messages,
        k=k,
        sampling=sampling,
        greedy=greedy,
        seed=seed,
        name=name,
        log=log,
        facts=facts,
        grade=grade,
        progress=progress,
    )


def score_with(
    sampler: Sampler,
    problems: Sequence[Problem],
    *,
    messages: Callable[[Problem], Messages],
    k: int,
    sampling: SamplingConfig,
    greedy: bool = True,
    seed: int = 0,
    name: str = "score",
    log: Path | None = None,
    facts: Mapping[str, Any] | None = None,
    grade: Grade | None = None,
    progress: bool | Progress = False,
) -> Score:
    """:func:`score` with the answers drawn by ``sampler``."""
    from rlvr_lite.sampling import row_keys, sample_portions

    check_problems(name, problems, answers=grade is None)
    if k < 1:
        raise UserError(f"k must be at least 1 sample a problem, got {k}")
    if sampling.greedy and k > 1:
        raise UserError(f"temperature 0 gives the same answer {k} times: use k = 1, or a temperature above 0")
    passes = [(GREEDY, 1)] if greedy or sampling.greedy else []
    if not sampling.greedy:
        passes.append((0, k))
    ordered = sorted(problems, key=lambda problem: problem.id)
    prompts = [messages(problem) for problem in ordered]
    store: SampleLog | None = None
    room = sampler.room()
    if log is not None:
        described = {
            "benchmark": name,
            "problems": _digest([(problem.id, problem.prompt, problem.answer) for problem in ordered]),
            "prompts": _digest(prompts),
            "k": k,
            "greedy": bool(greedy),
            "sampling": dataclasses.asdict(sampling),
            "seed": seed,
            "engine": sampler.name,
            **(facts or {}),
        }
        store = SampleLog(log, described, {"room": room})
        room = store.notes["room"]  # the batches of the first start, whatever memory is free now
    found = store.read() if store else {}
    wanted = {(problem.id, first + i) for problem in ordered for first, count in passes for i in range(count)}
    found = {key: sample for key, sample in found.items() if key in wanted}
    with _reporter(progress, name, len(wanted)) as report:
        report(list(found.values()))
        for first, count in passes:
            decoding = sampling if first == 0 else dataclasses.replace(sampling, temperature=0.0, top_p=1.0, top_k=0)

            def asked(portion: Portion, first: int = first) -> list[tuple[Problem, int]]:
                return [(ordered[at], first + i) for at in portion.prompts for i in range(portion.start, portion.stop)]

            portions = [
                portion
                for portion in sampler.portions(prompts, count, decoding, room)
                if any((problem.id, index) not in found for problem, index in asked(portion))
            ]
            keys = [key for problem in ordered for key in row_keys(seed, "eval", problem.id, rows=count)]
            for portion, samples in sample_portions(sampler, portions, prompts, count, decoding, keys):
                judged = _judge(asked(portion), samples.completions(), grade or _by_gold)
                fresh = [sample for sample in judged if (sample.id, sample.index) not in found]
                if store:
                    store.append(fresh)
                found.update({(sample.id, sample.index): sample for sample in fresh})
                report(fresh)
    return Score.of(name, found.values())


def _judge(cells: Sequence[tuple[Problem, int]], drawn: Sequence[Completion], grade: Grade) -> list[Sample]:
    from rlvr_lite.rewards import thinking_open

    answers = [
        Sample(
            problem.id,
            index,
            completion.text,
            None,
            False,
            "",
            completion.tokens,
            completion.truncated,
            opened=thinking_open(completion.prompt),
        )
        for (problem, index), completion in zip(cells, drawn, strict=True)
    ]
    return _judged(answers, grade([problem for problem, _ in cells], drawn))


def _judged(samples: Sequence[Sample], verdicts: Sequence[Verdict | float | None]) -> list[Sample]:
    found = []
    for sample, verdict in zip(samples, verdicts, strict=True):
        if verdict is None or isinstance(verdict, float | int):
            value = None if verdict is None else float(verdict)
            found.append(dataclasses.replace(sample, correct=None, how="reward", reward=value or 0.0))
        else:
            found.append(
                dataclasses.replace(sample, extracted=verdict.extracted, correct=verdict.correct, how=verdict.how)
            )
    return found


def graded_by(task: Task) -> Grade | None:
    """How the answers to a task's problems are judged; ``None`` where it is by their golds."""
    if task.reads_answers:
        return None
    return lambda problems, drawn: task.verdicts(
        problems, [completion.text for completion in drawn], [completion.prompt for completion in drawn]
    )


def _by_gold(problems: Sequence[Problem], drawn: Sequence[Completion]) -> list[Verdict]:
    from rlvr_lite.rewards import verify_batch

    golds, texts = [problem.answer or "" for problem in problems], [completion.text for completion in drawn]
    return verify_batch(golds, texts, prompts=[completion.prompt for completion in drawn])


def rescore(path: Path, problems: Sequence[Problem], name: str | None = None) -> Score:
    """The score of the completions in a file of samples, each judged anew; nothing is drawn or written.

    Args:
        path: ``eval/NAME.jsonl`` of an evaluation.
        problems: with the golds; those that the file has no answer to are ignored.
        name: of the benchmark.

    Raises:
        UserError: the file holds no samples, or answers to problems that are not given.
    """
    from rlvr_lite.rewards import verify_batch

    samples = Score.read(path, name).samples
    golds = {problem.id: problem.answer or "" for problem in problems}
    unknown = next((sample.id for sample in samples if sample.id not in golds), None)
    if unknown is not None:
        raise UserError(f"{path} answers a problem {unknown!r} that is not among those given: name its benchmark")
    verdicts = verify_batch(
        [golds[sample.id] for sample in samples],
        [sample.completion for sample in samples],
        prompts=["<think>" if sample.opened else "" for sample in samples],
    )
    return Score.of(name or path.stem, _judged(samples, verdicts))


@contextmanager
def _reporter(progress: bool | Progress, name: str, total: int) -> Iterator[Callable[[Sequence[Sample]], None]]:
    """Yields a function that takes the samples of a batch as they are done."""
    done, right = 0, 0.0
    bar: Any = None
    if progress is True:
        bar = progress_bar(total=total, desc=printable(name), unit="answer")

    def report(samples: Sequence[Sample]) -> None:
        nonlocal done, right
        done += len(samples)
        right += sum(sample.value for sample in samples)
        accuracy = right / done if done else 0.0
        if bar is not None:
            rewarded = any(sample.reward is not None for sample in samples)
            shown = f"reward {accuracy:.3g}" if rewarded else f"{accuracy:.1%} right"
            bar.set_postfix_str(shown, refresh=False)
            bar.update(len(samples))
        elif callable(progress):
            progress(done, total, accuracy)

    try:
        yield report
    finally:
        if bar is not None:
            bar.close()


def _digest(rows: Iterable[Any]) -> str:
    """Short checksum of what is asked, so that a changed file or prompt is noticed on resume."""
    text = "\n".join(json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
