"""A fair comparison of methods: one call, which goes on where it was stopped."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

from rlvr_lite import bases, resolve
from rlvr_lite.config import Optim, RunConfig, scale_of
from rlvr_lite.errors import UserError, printable
from rlvr_lite.methods import check_optim
from rlvr_lite.options import with_options
from rlvr_lite.planning import plan_without_task, shape_of
from rlvr_lite.progress import bar as progress_bar
from rlvr_lite.sampling import vllm_library
from rlvr_lite.study._design import Design, Trial, Tune, Variant, make_variants, split_axes
from rlvr_lite.study._engines import Engine, EngineName, check_workers
from rlvr_lite.study._engines import engine as open_engine
from rlvr_lite.study._estimate import Estimate, estimate_of
from rlvr_lite.study._given import Given, take_functions
from rlvr_lite.study._store import Store
from rlvr_lite.study._study import Study
from rlvr_lite.tasks import StoredTask, Task, is_source, list_tasks
from rlvr_lite.tasks import get as get_task
from rlvr_lite.tasks import save as save_task
from rlvr_lite.training import Objective
from rlvr_lite.typed import checked

__all__ = ["compare", "estimate"]

_DECIDED = {"method": "name the methods first", "seed": "use seeds", "eval_before": "the base is always scored, once"}
_PATIENCE = 2.0  # seconds between looks at what another process is doing


@with_options(leave_out=_DECIDED)
@checked
def compare(
    methods: str | Sequence[str] | Mapping[str, Any],
    base: str | None = None,
    task: Any = None,
    *,
    seeds: int | Sequence[int] = 3,
    tune: Tune = "lr",
    budget: int | None = None,
    reference: str | None = None,
    margin: float = 0.0,
    search_seeds: int = 2,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    out: str | Path | None = None,
    config: RunConfig | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Study:
    """Compare methods on one base and task: same prompts in the same order, same budget, same problems, several seeds.

    Calling it again with the same directory continues a study that was stopped or killed, adds methods and seeds that
    are new, and returns one that is done. Several processes may call it at once on one directory.

    Args:
        methods: names of ``rlvr_lite.list_methods()``; or a mapping from a row's name to a method or to the fields of
            ``RunConfig`` in which that row differs, such as ``{"lora r8": {"method": "lora", "rank": 8}}``.
        base: ``tiny``, a Hub model id or a local model directory; by default that of ``config``, else tiny.
        task: whatever ``train`` takes: a name, a path, a data set, a data frame, rows or a ``Task``; by default that of
            ``config``, else chain-sum. Problems that come in memory are kept once, in the study's folder.
        seeds: how many training seeds, or which.
        tune: ``lr`` gives every row the same learning-rate search, on the validation split and with seeds of its own, on
            one lattice of rates for all rows, 10^(n/4): a coarse pass of half decades around the method's default (or
            around ``learning_rate``), then quarter decades around the winner until the best has a neighbour on both
            sides; ``none`` takes the default as it is.
        budget: completions a run may draw; rows of different batch then have equal rollouts. ``None``: equal steps.
        reference: row that the others are compared with; by default ``lora`` where it is there, else the first.
        margin: equivalence margin, as a share of what the reference gains over the untrained base; 0 for none.
        search_seeds: seeds of the fine pass of the search; with two or more, the luck of the choice is in the intervals.
        engine: ``local``, ``process`` or ``ray``.
        workers: runs at once of the latter two.
        address: of a running Ray cluster; by default one is started that listens to this machine alone. A cluster of
            several takes orders from whoever reaches it: start it with ``RAY_AUTH_MODE=token`` (Ray 2.52).
        out: directory of the study; by default one under ``runs/`` named after base and task.
        config: what all runs share, instead of the defaults.
        progress: show a progress bar.
        **overrides: fields of ``RunConfig`` that all runs share; ``None`` is not named, and one given as a list becomes
            an axis, with a row for each of its values. ``rewards`` may hold functions in TRL's signature, which are
            told from others by a hash of their source and sent to workers by import path or by value.

    Raises:
        UserError: something cannot be done as asked; nothing was trained.
    """
    check_workers(engine, workers, address)
    design, problems, handed, root = _prepared(
        methods,
        base,
        task,
        seeds,
        tune,
        budget,
        reference=reference,
        margin=margin,
        search_seeds=search_seeds,
        out=out,
        config=config,
        overrides=overrides,
    )
    assert problems is not None
    _check(design, problems, handed, local=engine != "ray")
    if engine != "local":
        handed.pack()  # what cannot be sent is refused before anything is written
    store = Store(root)
    design = store.open(design)
    if isinstance(problems, StoredTask) and problems.in_memory:
        save_task(problems, root)
    store.retry_failed(trial for trial in design.known(store.accuracies(design)))
    if progress and (left := estimate_of(design, root)).parts:
        print(f"To do: {left.line}.", flush=True)
    with open_engine(engine, root, handed, workers=workers, address=address) as workforce:
        _work(design, store, workforce, progress)
    study = Study(root, design)
    study.report()
    return study


@with_options(leave_out=_DECIDED)
def estimate(
    methods: str | Sequence[str] | Mapping[str, Any],
    base: str | None = None,
    task: Any = None,
    *,
    seeds: int | Sequence[int] = 3,
    tune: Tune = "lr",
    budget: int | None = None,
    reference: str | None = None,
    margin: float = 0.0,
    search_seeds: int = 2,
    out: str | Path | None = None,
    config: RunConfig | None = None,
    gpu: str | None = None,
    **overrides: Any,
) -> Estimate:
    """What a call of :func:`compare` would take: runs, generated tokens, hours and disk. Nothing is trained or written.

    What the study's directory has already is not counted again. Neither the weights of the base nor the task need be here.

    Args:
        methods: see :func:`compare`.
        base: see :func:`compare`.
        task: see :func:`compare`.
        seeds: see :func:`compare`.
        tune: see :func:`compare`.
        budget: see :func:`compare`.
        reference: see :func:`compare`.
        margin: see :func:`compare`.
        search_seeds: see :func:`compare`.
        out: see :func:`compare`.
        config: see :func:`compare`.
        gpu: a card that hours are given for, such as ``"A100 80GB"``; ``None`` takes this machine's device.
        **overrides: see :func:`compare`.

    Raises:
        UserError: something cannot be done as asked.
    """
    design, _, _, root = _prepared(
        methods,
        base,
        task,
        seeds,
        tune,
        budget,
        reference=reference,
        margin=margin,
        search_seeds=search_seeds,
        out=out,
        config=config,
        overrides=overrides,
        dry=True,
        gpu=gpu,
    )
    return estimate_of(Store(root).joined(design), root, gpu)


def _prepared(
    methods: str | Sequence[str] | Mapping[str, Any],
    base: str | None,
    task: Any,
    seeds: int | Sequence[int],
    tune: Tune,
    budget: int | None,
    *,
    reference: str | None,
    margin: float,
    search_seeds: int,
    out: str | Path | None,
    config: RunConfig | None,
    overrides: Mapping[str, Any],
    dry: bool = False,
    gpu: str | None = None,
) -> tuple[Design, Task | None, Given, Path]:
    """The design of a study, its task, what it is handed in memory, and its directory."""
    for name, instead in _DECIDED.items():
        if overrides.get(name) is not None:
            raise UserError(f"{name} means nothing in a comparison: {instead}")
    functions: dict[str, Callable[..., Any]] = {}
    named = {name: value for name, value in overrides.items() if value is not None}
    if "rewards" in named:
        given = named["rewards"]
        named["rewards"] = take_functions([given] if callable(given) else given, functions)
    if isinstance(methods, Mapping):
        methods = {label: _named_rewards(entry, functions) for label, entry in methods.items()}
    shared, axes = split_axes(named)
    start, problems = _shared(config, task, {"base": base, **shared}, searched=tune == "lr", dry=dry)
    usual = RunConfig().method
    if "learning_rate" in axes and tune == "lr":
        raise UserError("learning_rate is an axis, so it cannot be searched as well: set tune='none'")
    variants = make_variants(methods, axes)
    if config is not None:  # what not every method has goes to the rows that have it
        variants = tuple(_with_adapter(variant, config, shared) for variant in variants)
    labels = [variant.label for variant in variants]
    handed = Given(functions) if problems is None else Given.of(functions, problems)
    chosen = reference or (usual if usual in labels else labels[0] if labels else "")
    design = Design(
        variants=variants,
        shared=start,
        scale=_scale(start),
        seeds=_seeds(seeds),
        tune=tune,
        budget=budget,
        reference=chosen,
        margin=margin,
        search_seeds=search_seeds,
        sources=handed.sources(),
    )
    root = Path(out) if out is not None else Path("runs") / f"study-{Path(start.base).name}-{Path(start.task).stem}"
    if start.optim == "auto":
        optim = Store(root).optim() or _one_optim(design, gpu)
        design = dataclasses.replace(design, shared=dataclasses.replace(start, optim=optim))
    return design, problems, handed, root


def _seeds(given: Any) -> tuple[int, ...]:
    several = range(given) if isinstance(given, Integral) else given
    if isinstance(given, bool) or not (isinstance(several, Sequence) and all(isinstance(s, Integral) for s in several)):
        raise UserError(f"seeds must be how many, or a list of whole numbers; got {given!r}")
    return tuple(map(int, several))


def _one_optim(design: Design, gpu: str | None) -> Optim:
    """The optimizer of all rows: fp32 moments, unless one of them fits the card with 8-bit moments only."""
    try:
        chosen = {plan_without_task(design.config(variant), gpu).config.optim for variant in design.variants}
    except UserError:  # of a base whose sizes are not known here
        return "adamw_torch_fused"
    return "paged_adamw_8bit" if "paged_adamw_8bit" in chosen else "adamw_torch_fused"


def _named_rewards(entry: Any, functions: dict[str, Callable[..., Any]]) -> Any:
    """A row as it was entered, with reward functions replaced by their names."""
    if not isinstance(entry, Mapping) or "rewards" not in entry:
        return entry
    given = entry["rewards"]
    return {**entry, "rewards": take_functions([given] if callable(given) else given, functions)}


def _shared(
    config: RunConfig | None, task: Any, named: Mapping[str, Any], *, searched: bool, dry: bool
) -> tuple[RunConfig, Task | None]:
    """What all runs have in common, and their task: the number of problems is known, what not every method has is left to the rows."""
    bare: dict[str, Any] = {
        "method": "lora",
        "seed": 0,
        "rank": None,
        "alpha": None,
        "targets": None,
        "method_options": {},
        **({"learning_rate": None} if searched else {}),  # it is the configuration's method's own, no centre for others
    }
    options = named.get("task_options") or {}
    found: Task | None = None
    if not isinstance(task, str | Path | None) or any(map(is_source, options.values())):
        found = get_task(task, **options)
        named = {**named, "task_options": {}}
    label = found.name if found is not None else task
    asked = resolve.merge({**named, "task": label}, None if config is None else dataclasses.replace(config, **bare))
    try:
        found = found or get_task(asked.task, **asked.task_options)
    except UserError:
        if not dry or asked.task not in {row["task"] for row in list_tasks()}:
            raise
        problems = 100 if asked.eval_problems is None else asked.eval_problems
        return dataclasses.replace(
            asked, eval_problems=problems
        ), None  # known, and not here: enough to say what it takes
    return dataclasses.replace(asked, eval_problems=resolve.eval_problems(asked, found)), found


def _with_adapter(variant: Variant, config: RunConfig, shared: Mapping[str, Any]) -> Variant:
    """A row with what the shared configuration says of its adapter, where neither it nor a named field says otherwise."""
    fields = resolve.adapter_fields(config, variant.overrides["method"])
    return Variant(variant.label, {k: v for k, v in fields.items() if k not in shared} | dict(variant.overrides))


def _scale(config: RunConfig) -> str:
    """Order of size of the base, from its sizes alone."""
    try:
        return scale_of(shape_of(config).parameters)
    except UserError:  # not on this machine: its configuration is fetched
        from transformers import AutoConfig

        from rlvr_lite import methods

        folder = bases.locate(config.base, config.revision).folder
        return scale_of(methods.Layout.of_config(AutoConfig.from_pretrained(folder)).parameters)


def _check(design: Design, task: Task, given: Given, *, local: bool) -> None:
    """Refuse what would fail in every run, before the first."""
    splits = ["train", design.shared.eval_split, *(["validation"] if design.tune == "lr" else [])]
    for split in splits:
        if not task.at_most(split, 1):
            raise UserError(f"task {task.name} has no {split} problems: give it more rows")
    for variant in design.variants:
        config = design.config(variant)
        resolve.check(config)
        if local:
            check_optim(config.optim)
            if config.sampler == "vllm":
                vllm_library("leave the sampler out")
        Objective.of(given.rewards(config), config, task)


def _work(design: Design, store: Store, workforce: Engine, progress: bool) -> None:
    """Give out trials as they become known until none is open."""
    flying: dict[str, Trial] = {}
    elsewhere: dict[str, float] = {}
    scores: dict[str, float | None] = {}
    with progress_bar(desc="study", unit="run", shown=progress) as bar:
        while True:
            scores = store.accuracies(design, scores)
            trials = design.known(scores)
            left = [trial for trial in trials if trial.key not in scores]
            bar.n = len(trials) - len(left)
            bar.total = bar.n + sum(count for _, _, count in design.left(scores))
            bar.refresh()
            now = time.monotonic()
            ready = [c for c in left if c.key not in flying and elsewhere.get(c.key, 0.0) <= now]
            for trial in ready[: workforce.capacity - len(flying)]:
                bar.set_postfix_str(printable(trial.key), refresh=False)
                flying[trial.key] = trial
                workforce.submit(trial)
            if flying:
                trial, settled, lost = workforce.finished()
                del flying[trial.key]
                if lost:
                    store.fail(trial, lost)
                elif not settled:
                    elsewhere[trial.key] = time.monotonic() + _PATIENCE
            elif left:
                time.sleep(_PATIENCE)
            else:
                return
