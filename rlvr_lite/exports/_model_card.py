"""The model card of an export, made from what was recorded and measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr_lite import methods
from rlvr_lite.analysis.statistics import Interval
from rlvr_lite.evaluation import BENCHMARKS
from rlvr_lite.table import Table
from rlvr_lite.tasks import NAMED

__all__ = ["card", "licence_of"]

_TORCH = {"bf16": "bfloat16", "fp16": "float16"}
_GENERATED = ("chain-sum", "linear-equation")
_METRICS = re.compile(r"greedy|(avg|pass|maj)@\d+")
_LOAD = {
    "adapter": """\
base = {base}
model = PeftModel.from_pretrained(base, {here})""",
    "merged": "model = AutoModelForCausalLM.from_pretrained({here}, dtype={dtype!r})",
    "gguf": "model = AutoModelForCausalLM.from_pretrained({here}, gguf_file={file!r})  # or: llama-cli -m {file}",
}
_NF4 = """, quantization_config=BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="bfloat16"
    )"""


def licence_of(base: str) -> str | None:
    """The licence of a base where this machine knows it: the embedded one, or a folder whose card names it."""
    from rlvr_lite import bases

    folder = bases.EMBEDDED.get(base, Path(base).expanduser())
    path = folder / "README.md"
    if not path.is_file():
        return None
    found = re.search(r"^license:\s*(\S+)\s*$", path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return found.group(1) if found else None


def card(facts: Mapping[str, Any], *, licence: str | None = None) -> str:
    """Markdown with front matter, for ``README.md``.

    Args:
        facts: what ``export.json`` holds.
        licence: of the base; by default what this machine knows.
    """
    base = facts["base"]
    licence = licence or licence_of(base["name"])
    parts = [
        _front(facts, licence),
        f"# {facts['method']} on {_shown(base['name'])}, {facts['label']}",
        _warning(facts),
        _what(facts),
        "## How to load it\n\n" + _loading(facts),
        "## How good it is\n\n" + _scores(facts),
        "## What was proven\n\n" + _proofs(facts),
        "## How it was trained\n\n" + _recipe(facts["config"]),
        "## Licences\n\n" + _licences(facts, licence),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(facts: Mapping[str, Any], licence: str | None) -> str:
    base, method = facts["base"]["name"], facts["method"].partition(":")[0]
    lines = ["---"]
    lines += [f"license: {licence}"] if licence else []
    if _is_hub_name(base):
        relation = {"adapter": "adapter", "lora": "adapter", "merged": "finetune", "gguf": "quantized"}[facts["form"]]
        lines += [f"base_model: {base}", f"base_model_relation: {relation}"]
    library = {"merged": "transformers", "gguf": "gguf"}.get(facts["form"], "peft")
    lines += [f"library_name: {library}", "pipeline_tag: text-generation"]
    return "\n".join([*lines, f"tags: [rlvr, grpo, rlvr-lite, {method}]", "---"])


def _is_hub_name(base: str) -> bool:
    from rlvr_lite import bases

    return base not in bases.EMBEDDED and base.count("/") == 1 and not Path(base).expanduser().exists()


def _shown(base: str) -> str:
    """A base by name; of a folder only its last part, which is nobody's business beyond."""
    from rlvr_lite import bases

    return base if base in bases.EMBEDDED or _is_hub_name(base) else Path(base).name


def _warning(facts: Mapping[str, Any]) -> str:
    notes = [f"> **This run failed its proof**: {facts['failed']}. Do not report it."] if facts["failed"] else []
    notes += [f"> {note[0].upper()}{note[1:]}." for note in facts["notes"]]
    return "\n>\n".join(notes)


def _what(facts: Mapping[str, Any]) -> str:
    config, method = facts["config"], methods.get(facts["method"])
    source = f"{method.paper} (arXiv {method.arxiv})" if method.arxiv else method.paper
    return (
        f"A policy trained with reinforcement learning from verifiable rewards (GRPO, loss `{config['loss']}`) on "
        f"`{config['task']}`. Method: `{facts['method']}`, {method.summary}; {source}. Trained parameters: "
        f"{facts['run']['trainable_parameters'] or 0:,}. Base: `{_shown(facts['base']['name'])}`"
        + (f", revision `{facts['base']['revision']}`" if facts["base"]["revision"] else "")
        + f", held in {facts['base']['precision']}, hash `{facts['base']['hash'][:16]}`."
    )


def _loading(facts: Mapping[str, Any]) -> str:
    form = "adapter" if facts["form"] == "lora" else facts["form"]
    dtype = _TORCH.get(facts.get("dtype", ""), "float32")
    call = _LOAD[form].format(
        base=_base_call(facts["base"]), here="'PATH_OR_NAME'", dtype=dtype, file=facts.get("file")
    )
    names = [name for name in ("AutoModelForCausalLM", "BitsAndBytesConfig") if name in call]
    imports = ["import rlvr_lite"] if "rlvr_lite" in call else []
    imports += ["from peft import PeftModel"] if form == "adapter" else []
    imports += [f"from transformers import {', '.join(names)}"] if names else []
    code = "\n".join([*imports, "", call])
    return f"```python\n{code}\n```\n\n`rlvr-lite verify-export PATH` proves that it is the policy of its run."


def _base_call(base: Mapping[str, Any]) -> str:
    from rlvr_lite import bases

    if base["name"] in bases.EMBEDDED:
        return f"rlvr_lite.bases.load({base['name']!r}).model"
    revision = f", revision={base['revision']!r}" if base["revision"] else ""
    how = _NF4 if base["precision"] == "nf4" else f", dtype={_TORCH.get(base['precision'], 'float32')!r}"
    return f"AutoModelForCausalLM.from_pretrained({_shown(base['name'])!r}{revision}{how})"


def _scores(facts: Mapping[str, Any]) -> str:
    scores = facts["run"]["evaluation"]
    rows = []
    for metric in [name for name in next(iter(scores.values()), {}) if _METRICS.fullmatch(name)]:
        cells = {when: str(Interval(**score[metric])) for when, score in scores.items() if metric in score}
        rows.append({"metric": metric, **cells})
    if not rows:
        return "It was not evaluated when it was trained."
    sizes = {score["problems"] for score in scores.values()}
    note = f"Held-out problems of `{facts['config']['task']}`: {', '.join(map(str, sorted(sizes)))}; 95 % intervals."
    return f"{Table.of(rows).to_markdown()}\n\n{note}"


def _proofs(facts: Mapping[str, Any]) -> str:
    run, measured, effect = facts["run"], facts["measured"], facts["effect"]
    parity = "not recorded" if facts["parity"] is None else f"{facts['parity']:.1g} of the largest logit"
    return "\n".join(
        [
            f"- Identity (what was trained is what `{facts['method']}` trains): {run['identity']}.",
            f"- Parity (the saved adapter on a fresh base against the policy in training): {parity}.",
            f"- This export against that policy, loaded again from its files: logits differ by at most "
            f"{measured['logits']:.2g} ({measured['relative']:.1g} of the largest), {measured['greedy']:.1%} of greedy "
            f"tokens are the same, KL {measured['kl']:.1e} nats a token. From the base to the policy it is "
            f"{effect['kl']:.1e}.",
        ]
    )


def _recipe(config: Mapping[str, Any]) -> str:
    names = "steps learning_rate warmup_steps prompts_per_step group_size max_completion_length temperature loss"
    names += " advantage_scale clip_low clip_high kl_coef rewards rank alpha targets method_options precision seed"
    rows = [{"setting": name, "value": _plain(config[name])} for name in names.split()]
    rows = [row for row in rows if row["value"]]
    return Table.of(rows).to_markdown()


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {one}" for key, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else "" if value is None else str(value)


def _licences(facts: Mapping[str, Any], licence: str | None) -> str:
    task = facts["config"]["task"]
    known = NAMED.get(task) or BENCHMARKS.get(task)
    data = known.licence if known else None
    if task in _GENERATED:
        data = "made by a program of rlvr-lite (Apache-2.0); nobody else's text"
    unknown = "not known here: look it up before you pass this on"
    return f"- Base: {licence or unknown}.\n- Training data (`{task}`): {data or unknown}."
