"""``evaluate``: a policy on benchmarks, from names to a saved :class:`Evaluation`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlvr_lite import tasks
from rlvr_lite.config import MOST_SAMPLES, Option, Precision, PromptStyle, SamplingConfig
from rlvr_lite.errors import UserError, unknown_name
from rlvr_lite.evaluation._loading import ProblemSet, load_problems
from rlvr_lite.evaluation._policies import Policy, describe_policy, load_policy
from rlvr_lite.evaluation._presets import PRESETS, Preset
from rlvr_lite.evaluation._results import EVALUATION_FILE, Evaluation, sample_file
from rlvr_lite.evaluation._samples import facts_file
from rlvr_lite.evaluation._scoring import graded_by, score_with
from rlvr_lite.records import make_folder, read_json, write_json
from rlvr_lite.runs import RunDirectory, holds, sweep, writer
from rlvr_lite.tasks import PAPER
from rlvr_lite.typed import checked

if TYPE_CHECKING:
    from rlvr_lite.sampling import Sampler

__all__ = ["evaluate"]

_DEFAULT_K = 8
_SETTINGS = "settings.json"


@checked
def evaluate(
    run_or_model: Any,
    benchmarks: Any = None,
    k: int | None = None,
    preset: Literal["paper", "quick", "greedy"] = "quick",
    *,
    sampling: SamplingConfig | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_completion_length: int | None = None,
    n: int | None = None,
    seed: int = 0,
    style: PromptStyle | None = None,
    adapter: str | Path | None = None,
    precision: Precision = "auto",
    revision: str | None = None,
    chat_template_kwargs: Mapping[str, Option] | None = None,
    engine: str | Sampler = "transformers",
    out: str | Path | None = None,
    progress: bool = True,
    wait: bool = False,
) -> Evaluation:
    """Score a policy on benchmarks: k answers a problem, with 95 % intervals.

    The same call, repeated after a kill, goes on where it stopped and ends with the same bytes. A run's adapter is
    checked against the fingerprint that training left, so that what is scored is what was trained.

    Args:
        run_or_model: a ``Run`` or its directory, a Hub model, a local model directory, a ``Base``, or a pair of model
            and tokenizer.
        benchmarks: names of ``list_benchmarks()``, ``TASK:SPLIT`` or ``NAME=FILE``, in a list or separated by commas;
            or problems of one's own in a list of rows, a data set or a data frame. ``None`` takes the six of the paper with preset ``paper``, a run's own task, MATH-500 otherwise.
        k: answers a problem; ``None`` takes the preset's.
        preset: ``paper`` (arXiv 2512.23165: T 0.6, top-p 0.95, 32,768 tokens, k of 32 or 4), ``quick`` (k = 8 and a
            greedy answer to at most 100 problems) or ``greedy``.
        sampling: replaces the preset's.
        temperature: replaces the sampling's, as do the next two.
        top_p: smallest set of tokens whose probability reaches this is kept.
        max_completion_length: longest answer in tokens; by default the preset's, or less where the task's answers are shorter or
            the base has no positions for more.
        n: problems a benchmark at most, always the same ones.
        seed: of the drawn answers; on a GPU the answers repeat as far as its kernels do.
        style: ``bare`` or ``instruct``; ``None`` takes a run's own, else what suits the size of the base.
        adapter: directory of an adapter on that model.
        precision: of the base; ``auto`` is the one a run was trained in.
        revision: of a Hub model.
        chat_template_kwargs: variables of the chat template, such as ``{"enable_thinking": False}``; ``None`` takes a run's.
        engine: who samples: ``transformers``, ``vllm`` (extra) for long answers, a name given to
            ``sampling.register_sampler``, or a ``Sampler``. vLLM holds no 4-bit base: a run trained on one is refused
            unless another ``precision`` is named.
        out: directory for ``evaluation.json`` and a ``.jsonl`` file of samples a benchmark; a run has its ``eval/``.
        progress: show bars with the running accuracy.
        wait: if another process evaluates into that directory, wait until it is done instead of refusing.

    Raises:
        UserError: something cannot be done as asked.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    from rlvr_lite.sampling import sampler_names

    if sampling is not None and not isinstance(sampling, SamplingConfig):
        raise UserError(f"sampling must be a SamplingConfig, got {type(sampling).__name__}")
    if isinstance(engine, str | None) and engine not in sampler_names():
        raise unknown_name("engine", str(engine), sampler_names())
    settings = _settings(PRESETS[preset], sampling, {"temperature": temperature, "top_p": top_p}, k, n)
    if out is not None and (what := holds(Path(out))):
        raise UserError(f"{out} holds {what}: choose an empty or new --out")
    policy = describe_policy(
        run_or_model,
        adapter=adapter,
        precision=precision,
        revision=revision,
        chat_template_kwargs=chat_template_kwargs,
    )
    if policy.facts.get("chat_template_kwargs") and engine == "vllm":
        raise UserError(
            "vllm renders the base's own chat template: leave chat_template_kwargs out, or --engine transformers"
        )
    names = _names(benchmarks, preset, policy)
    options = dict([policy.task]) if policy.task else {}
    sets = [load_problems(name, settings.n, task_options=options, near=policy.run) for name in names]
    if len({s.name for s in sets}) < len(sets):
        raise UserError(f"a benchmark is named twice among {', '.join(s.name for s in sets)}: name each once")
    longest = max_completion_length or (settings.sampling.max_completion_length if sampling is not None else 1)
    if engine == "transformers":  # another engine has a limit of its own
        _check_room(policy, sets, style or policy.style or "bare", longest)
    in_memory = policy.model is not None
    drawn_by, policy = _sampler(engine, policy)
    style = style or policy.style or "instruct"
    facts: dict[str, Any] = {
        "policy": _with_weights(policy) if out is not None and in_memory else dict(policy.facts),
        "parity": policy.parity,
        "preset": preset,
        "sampling": dataclasses.asdict(settings.sampling),
        "greedy": settings.greedy,
        "seed": seed,
        "style": style,
        "engine": drawn_by.name,
        "weights": drawn_by.weights,
        "versions": {package: version(package) for package in ("rlvr-lite", "torch", "transformers")},
    }
    deciding = {key: value for key, value in facts.items() if key not in ("parity", "versions")}
    deciding |= {"k": settings.k, "n": settings.n, "max_completion_length": max_completion_length}
    directory = _directory(out, policy, deciding)
    scores, sources = {}, {}
    with _alone(directory, wait, [s.name for s in sets]):
        for problems in sets:
            messages = lambda problem, task=problems.task: task.messages(problem, style)  # noqa: E731
            decoding = _decoding(settings.sampling, problems, sampling is None, max_completion_length)
            if sampling is None and max_completion_length is None:
                decoding = _with_room(decoding, drawn_by.longest([messages(p) for p in problems.problems]))
            scores[problems.name] = score_with(
                drawn_by,
                problems.problems,
                messages=messages,
                k=1 if decoding.greedy else settings.k or problems.k or _DEFAULT_K,
                sampling=decoding,
                greedy=settings.greedy,
                seed=seed,
                name=problems.name,
                log=directory / sample_file(problems.name) if directory else None,
                facts={"policy": facts["policy"], "style": style},
                grade=graded_by(problems.task),
                progress=progress,
            )
            sources[problems.name] = {
                "source": problems.source,
                "checksum": problems.checksum,
                "excluded": dict(problems.excluded),
                "max_completion_length": decoding.max_completion_length,
            }
        evaluation = Evaluation(facts, scores, sources, directory)
        if directory is not None:
            evaluation.save(directory)
        return evaluation


@contextmanager
def _alone(directory: Path | None, wait: bool, benchmarks: Sequence[str]) -> Iterator[None]:
    """The only evaluation that writes into a directory."""
    if directory is None:
        yield
        return
    with writer(directory / ".lock", "evaluate", wait=wait):
        sweep(directory, names={EVALUATION_FILE, *(facts_file(directory / sample_file(b)).name for b in benchmarks)})
        yield


def _settings(
    preset: Preset, sampling: SamplingConfig | None, dials: dict[str, float | None], k: int | None, n: int | None
) -> Preset:
    given: dict[str, Any] = {name: value for name, value in dials.items() if value is not None}
    chosen = dataclasses.replace(sampling or preset.sampling, **given)
    if k is not None and not 1 <= k <= MOST_SAMPLES:
        raise UserError(f"k must be from 1 to {MOST_SAMPLES:,} samples a problem, got {k}")
    if chosen.greedy and (k or 1) > 1:
        raise UserError(f"temperature 0 gives the same answer {k} times: use k = 1, or a temperature above 0")
    return Preset(chosen, preset.k if k is None else k, preset.greedy, preset.n if n is None else n)


def _names(benchmarks: Any, preset: str, policy: Policy) -> list[Any]:
    if benchmarks is None:
        if preset == "paper":
            return list(PAPER)
        return [f"{policy.task[0]}:test"] if policy.task else ["math500"]
    if not isinstance(benchmarks, str) and (tasks.is_source(benchmarks) and not _are_names(benchmarks)):
        return [benchmarks]
    if not isinstance(benchmarks, Iterable):
        raise UserError(f"benchmarks must be names or problems, got {benchmarks!r}")
    names = benchmarks.split(",") if isinstance(benchmarks, str) else list(benchmarks)
    names = [
        name.strip() if isinstance(name, str) else name for name in names if not isinstance(name, str) or name.strip()
    ]
    if not names:
        raise UserError("no benchmark is named: give at least one, such as gsm8k")
    return names


def _are_names(benchmarks: Any) -> bool:
    """Whether a list names benchmarks rather than holding the rows of one."""
    return isinstance(benchmarks, list | tuple) and not any(isinstance(entry, Mapping) for entry in benchmarks)


def _decoding(
    sampling: SamplingConfig, problems: ProblemSet, from_preset: bool, max_completion_length: int | None
) -> SamplingConfig:
    """The sampling of one benchmark: a task whose answers are short needs no long ones."""
    if max_completion_length is not None:
        return dataclasses.replace(sampling, max_completion_length=max_completion_length)
    if from_preset and problems.max_completion_length:
        longest = min(sampling.max_completion_length, problems.max_completion_length)
        return dataclasses.replace(sampling, max_completion_length=longest)
    return sampling


def _check_room(policy: Policy, sets: Sequence[ProblemSet], style: PromptStyle, longest: int) -> None:
    """Refuse answers that were asked to be longer than the base has positions for, before a weight is loaded."""
    if policy.model is not None or policy.base is None:
        return
    from rlvr_lite import bases, sampling
    from rlvr_lite.grpo import position_limit

    revision = policy.facts.get("revision")
    located = bases.locate(policy.base, revision)
    positions = position_limit(bases.config_object(policy.base, located.config))
    for problems in sets:
        prompts = [problems.task.messages(problem, style) for problem in problems.problems]
        template = policy.facts.get("chat_template_kwargs")
        length, counted = sampling.longest_prompt(located.folder, prompts, template=template)
        sampling.check_room(positions, length if counted else 1, longest)


def _with_room(sampling: SamplingConfig, room: int | None) -> SamplingConfig:
    """A preset's length, no longer than the base has positions for; without any, sampling refuses the prompt."""
    longest = min(sampling.max_completion_length, room or sampling.max_completion_length)
    return dataclasses.replace(sampling, max_completion_length=longest)


def _sampler(engine: str | Sampler, policy: Policy) -> tuple[Sampler, Policy]:
    """Who samples, and the policy as it is sampled from."""
    from rlvr_lite.bases import EMBEDDED
    from rlvr_lite.sampling import SampledPolicy, sampler

    held = policy

    def load() -> Any:
        nonlocal held
        held = load_policy(policy)
        return held.model, held.tokenizer

    if not isinstance(engine, str):
        return engine, policy
    name = None if policy.model is not None else policy.base
    precision, revision = policy.facts.get("precision", "auto"), policy.facts.get("revision")
    base = str(EMBEDDED.get(name, name)) if name is not None else None
    made = sampler(engine, SampledPolicy(base, revision, policy.adapter, precision, load))
    if held is policy and policy.model is None:  # it loaded the policy itself: what it holds is what is scored
        held = dataclasses.replace(policy, facts={**policy.facts, "precision": made.precision})
    return made, held


def _with_weights(policy: Policy) -> dict[str, Any]:
    """Facts of a model in memory with a digest of its weights, which its name does not give."""
    import torch

    assert policy.model is not None
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {**policy.facts, "weights": digest.hexdigest()[:16]}


def _directory(out: str | Path | None, policy: Policy, settings: dict[str, Any]) -> Path | None:
    """Where the files go. A run's ``eval/`` belongs to its first settings; others get a folder of their own in it."""
    if out is None and policy.run is None:
        return None
    home = Path(out) if out is not None else RunDirectory(policy.run or Path()).evaluations
    make_folder(home)
    if out is not None:
        return home
    with writer(home / ".settings.lock", "evaluate", wait=True):  # two settings at once take two folders
        sweep(home, names=(_SETTINGS,))
        return _own_folder(home, settings)


def _own_folder(home: Path, settings: dict[str, Any]) -> Path:
    stored = json.loads(json.dumps(settings))
    record = home / _SETTINGS
    if record.exists() and read_json(record) != stored:
        digest = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:8]
        home = home / f"{settings['preset']}-{digest}"
        make_folder(home)
        record = home / _SETTINGS
    if not record.exists():
        write_json(record, stored)
    return home
