"""What is evaluated: a trained run, a base with or without an adapter, or a model in memory; proven before it is scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.bases import EMBEDDED, hub_id
from rlvr_lite.config import SCALES, Option, Precision, PromptStyle
from rlvr_lite.errors import UserError, as_written
from rlvr_lite.evaluation._strangers import load_stranger
from rlvr_lite.records import damage, hash_file, is_file, read_json, refuse_pickles
from rlvr_lite.runs import ADAPTER_FACTS, RunRecord, meant
from rlvr_lite.typed import as_path

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

__all__ = ["Policy", "check_fingerprint", "describe_policy", "fingerprint", "load_policy", "recorded_fingerprint"]

#: Largest difference of logits, relative to the largest, that a reload may show in each precision.
PARITY_LIMIT: Mapping[str, float] = {"fp32": 1e-4, "nf4": 5e-2, "bf16": 5e-2, "fp16": 2e-2}
_EXACT = 1e-5  # what rounding alone may do in fp32
_SHOWN_LOGITS = 16


@dataclass(frozen=True)
class Policy:
    """A policy by name, or in memory once it is loaded.

    Attributes:
        facts: what tells it from others, JSON-able: base, revision, precision, method, hash of the adapter.
        base: name of the base; ``None`` for a model that came in memory.
        adapter: directory of the adapter, if there is one.
        run: the run directory it comes from, if there is one.
        style: how problems are put to it; ``None`` until the base is known.
        task: the task it was trained on, with its dials.
        model: the policy; ``None`` until loaded.
        tokenizer: its tokenizer.
        parity: difference to the trained policy, relative to the largest logit; ``None`` if nothing was recorded.
    """

    facts: Mapping[str, Any]
    base: str | None = None
    adapter: Path | None = None
    run: Path | None = None
    style: PromptStyle | None = None
    task: tuple[str, Mapping[str, Option]] | None = None
    model: nn.Module | None = field(default=None, repr=False)
    tokenizer: PreTrainedTokenizerBase | None = field(default=None, repr=False)
    parity: float | None = None


def describe_policy(
    run_or_model: Any,
    *,
    adapter: str | Path | None = None,
    precision: Precision = "auto",
    revision: str | None = None,
    chat_template_kwargs: Mapping[str, Option] | None = None,
) -> Policy:
    """What is to be evaluated, as far as names and files tell; loads no weights.

    Args:
        run_or_model: a ``Run`` or its directory; a Hub model or a local model directory; a ``Base``; or a pair of
            model and tokenizer.
        adapter: directory of an adapter on that base, of this package or of PEFT.
        precision: of the base; for a run ``auto`` is the one it was trained in.
        revision: of a Hub model.
        chat_template_kwargs: variables of the chat template; ``None`` takes a run's own.

    Raises:
        UserError: variables for a model in memory, whose tokenizer has them already; the run did not finish, its proof failed, or its adapter is damaged.
    """
    in_memory = isinstance(run_or_model, tuple) or hasattr(run_or_model, "tokenizer")
    if chat_template_kwargs and in_memory:
        raise UserError(
            "chat_template_kwargs are given to rlvr_lite.bases.load, or to the tokenizer, of a model in memory"
        )
    if isinstance(run_or_model, tuple) and len(run_or_model) == 2 and hasattr(run_or_model[0], "parameters"):
        model, tokenizer = run_or_model
        return Policy({"model": _name_of(model)}, model=model, tokenizer=tokenizer)
    if hasattr(run_or_model, "model") and hasattr(run_or_model, "tokenizer"):
        base = run_or_model
        facts = {"base": base.name, "revision": base.revision, "precision": base.precision}
        style = SCALES[base.scale].prompt_style
        return Policy(facts, base=base.name, style=style, model=base.model, tokenizer=base.tokenizer)
    path = as_path("run_or_model", getattr(run_or_model, "directory", run_or_model))
    if RunRecord.is_run(path):
        if adapter is not None:
            raise UserError(f"{path} is a run with an adapter of its own: leave --adapter out")
        return _run_policy(path, precision, chat_template_kwargs)
    if hasattr(run_or_model, "directory"):
        RunRecord.open(path)  # says what it is instead
    _check_base(str(run_or_model), path)
    chosen = Path(adapter) if adapter is not None else None
    named: dict[str, Any] = {"base": str(run_or_model), "revision": revision, "precision": precision}
    if chosen is not None:
        _check_adapter(chosen)
        named["adapter"] = _adapter_hash(chosen)
    if chat_template_kwargs:
        named["chat_template_kwargs"] = dict(chat_template_kwargs)
    return Policy(named, base=str(run_or_model), adapter=chosen)


def _check_base(name: str, path: Path) -> None:
    """Refuse what can be no base, before benchmarks are fetched for it."""
    if name in EMBEDDED or is_file(path / "config.json"):
        return
    if said := meant(path):
        raise UserError(said)
    if path.exists():
        raise UserError(f"{path} is neither a run nor a model: it has no config.json")
    hub_id(name)


def _run_policy(path: Path, precision: Precision, template: Mapping[str, Option] | None) -> Policy:
    run = RunRecord.open(path).gate()
    config, files = run.config, run.files
    facts: dict[str, Any] = {
        "base": config.base,
        "revision": config.revision,
        "precision": config.precision if precision == "auto" else precision,
        "method": config.method,
        "seed": config.seed,
        "adapter": _adapter_hash(files.adapter),
    }
    template = config.chat_template_kwargs if template is None else template
    if template:
        facts["chat_template_kwargs"] = dict(template)
    return Policy(
        facts,
        base=config.base,
        adapter=files.adapter,
        run=path,
        style=config.prompt_style,
        task=(config.task, config.task_options),
    )


def _check_adapter(path: Path) -> None:
    """Refuse what is no whole adapter; that of a run has been looked at by :meth:`RunRecord.gate`."""
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give the directory of an adapter")
    refuse_pickles(path)
    if (path / ADAPTER_FACTS).is_file() and (broken := damage(path)):
        raise UserError(f"the adapter in {path} is damaged: {broken}")


def _adapter_hash(path: Path) -> str:
    """Digest of an adapter's tensors."""
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise UserError(f"{path} holds no adapter: there is no safetensors file")
    return "+".join(hash_file(file)[:16] for file in files)


def _name_of(model: Any) -> str:
    config = getattr(model, "config", None)
    return str(getattr(config, "name_or_path", "") or type(model).__name__)


def load_policy(policy: Policy) -> Policy:
    """The policy with its weights: the base, and on it the adapter, proven to be the trained one where a run says so.

    Raises:
        UserError: the base or the adapter cannot be loaded, do not belong together, or the reloaded policy answers
            otherwise than the trained one did.
    """
    if policy.model is not None:
        return policy
    from rlvr_lite import bases, methods

    assert policy.base is not None
    facts = dict(policy.facts)
    template = facts.get("chat_template_kwargs")
    base = bases.load(policy.base, facts["precision"], revision=facts["revision"], chat_template_kwargs=template)
    model: nn.Module = base.model
    recorded = None if policy.run is None or policy.adapter is None else recorded_fingerprint(policy.adapter)
    if recorded is not None and not recorded["precision"] == base.precision == facts["precision"]:
        recorded = None  # asked for in another precision than it was trained in
    away = fingerprint_distance(base.model, base.tokenizer, recorded) if recorded is not None else None
    if policy.adapter is not None and (policy.adapter / ADAPTER_FACTS).is_file():
        model = methods.load(base.model, policy.adapter)
    elif policy.adapter is not None:
        model = load_stranger(base.model, policy.adapter, policy.base)
    facts["precision"], facts["revision"] = base.precision, base.revision
    if policy.adapter is not None and recorded is None:
        _refuse_overflow(policy.adapter, model, base.tokenizer)
    parity = None
    if recorded is not None:
        parity = check_fingerprint(model, base.tokenizer, recorded, base_distance=away)
    style = policy.style or SCALES[base.scale].prompt_style
    return replace(policy, facts=facts, style=style, model=model, tokenizer=base.tokenizer, parity=parity)


def _refuse_overflow(adapter: Path, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """An adapter that nothing is known of is looked at on a text before it is scored."""
    from rlvr_lite.sampling import check_overflow, encode

    try:
        check_overflow(model, encode(tokenizer, ["1 + 1 ="])[0].to(next(model.parameters()).device))
    except UserError as error:
        raise UserError(f"the adapter in {adapter} does not fit this base: {error}") from error


def recorded_fingerprint(adapter: Path) -> dict[str, Any] | None:
    """The fingerprint that was saved with the adapter of a run; ``None`` if none was.

    Raises:
        UserError: what stands there is none.
    """
    import numpy as np

    path = adapter / ADAPTER_FACTS
    with as_written(path):
        found = read_json(path)["facts"].get("fingerprint")
        if found is None:
            return None
        tokens, values = np.asarray(found["tokens"]), np.asarray(found["logits"])
        texts = [text for text in found["prompts"] if isinstance(text, str)]
        if found["precision"] not in PARITY_LIMIT or not len(texts) == len(tokens) == len(found["prompts"]) > 0:
            raise ValueError("of no prompts, or of a precision that is none")
        numbers = tokens.dtype.kind == "i" and values.dtype.kind in "if"  # what torch makes a tensor of
        if not numbers or tokens.ndim != 2 or tokens.shape != values.shape or tokens.min() < 0:
            raise ValueError("tokens without logits")
    return dict(found)


def fingerprint(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any], precision: str
) -> dict[str, Any]:
    """What a policy answers, small enough to be kept with its adapter: the highest logits after each prompt.

    Taken of the policy in training and checked again whenever its saved form is evaluated, it proves that the two are
    the same: a checkpoint on a changed base, or without its norms, passes for an adapter but not for this.

    Args:
        model: the policy.
        tokenizer: its tokenizer.
        prompts: messages or texts.
        precision: of the base.

    Returns:
        JSON-able: texts of the prompts, and for each the ids and values of its 16 highest logits.
    """
    import torch

    from rlvr_lite.sampling import render

    texts = [render(tokenizer, prompt) for prompt in prompts]
    logits = _logits(model, tokenizer, texts)
    top = torch.topk(logits, min(_SHOWN_LOGITS, logits.shape[-1]), dim=-1)
    values = [[float(f"{value:.7g}") for value in row] for row in top.values.tolist()]
    return {"precision": precision, "prompts": texts, "tokens": top.indices.tolist(), "logits": values}


def fingerprint_distance(model: nn.Module, tokenizer: PreTrainedTokenizerBase, recorded: Mapping[str, Any]) -> float:
    """Largest difference of a policy's logits from a recorded fingerprint, relative to its largest logit."""
    import torch

    expected = torch.tensor(recorded["logits"])
    logits, tokens = _logits(model, tokenizer, recorded["prompts"]), torch.tensor(recorded["tokens"])
    if int(tokens.max()) >= logits.shape[-1]:  # of another vocabulary
        return math.inf
    found = logits.gather(-1, tokens)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


def check_fingerprint(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    recorded: Mapping[str, Any],
    *,
    base_distance: float | None = None,
) -> float:
    """The distance of a policy from a recorded fingerprint, if it is small enough for the two to be the same.

    Args:
        model: the policy, reloaded.
        tokenizer: its tokenizer.
        recorded: what :func:`fingerprint` gave of the trained one.
        base_distance: distance of the base without the adapter, which has to be at least twice as far away: in low
            precision a small update could otherwise be missing unnoticed.

    Raises:
        UserError: this is not the policy that was trained.
    """
    distance, limit = fingerprint_distance(model, tokenizer, recorded), PARITY_LIMIT[recorded["precision"]]
    if base_distance is not None and base_distance > _EXACT:
        limit = min(limit, base_distance / 2)
    if not distance <= max(limit, _EXACT):
        raise UserError(
            f"the saved policy is not the trained one: its logits differ by {distance:.2g} of the largest, more than "
            f"{limit:.1g}; train the run again"
        )
    return distance


def _logits(model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Any:
    """Logits ``[P, V]``, float32 on the CPU, after each text, each computed by itself."""
    import torch

    from rlvr_lite.grpo import output_head
    from rlvr_lite.sampling import encode, eval_mode

    head = output_head(model)
    rows = []
    with torch.no_grad(), eval_mode(model):
        for text in texts:
            ids, mask = encode(tokenizer, [text])
            place = head.weight.device
            hidden = head.backbone(input_ids=ids.to(place), attention_mask=mask.to(place)).last_hidden_state
            rows.append(head.logits(hidden[:, -1]).float().cpu())
    return torch.cat(rows)
