"""The two-minute tour: train a few methods on the bundled tiny model, and a page that shows what they learned."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError, as_html, printable
from rlvr_lite.methods import get as get_method
from rlvr_lite.records import read_jsonl, write_text
from rlvr_lite.table import Table, cell_text
from rlvr_lite.training import Run, train, training_curves
from rlvr_lite.typed import checked

__all__ = ["demo"]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #009e73; --bad: #d55e00; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; } .scroll { overflow-x: auto; } code { overflow-wrap: anywhere; }
td, th { border-bottom: 1px solid var(--line); vertical-align: top; } caption { text-align: left; }
figure { margin: 1rem 0; } img { width: 100%; background: #fff; border-radius: 6px; }
@media (max-width: 40rem) { table { font-size: .85rem; } td, th { padding: .2em .35em !important; } }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; }
.answer { border: 1px solid var(--line); border-left: 4px solid var(--bad); border-radius: 6px; padding: .4rem .8rem; }
.right { border-left-color: var(--good); } pre { margin: .2rem 0; white-space: pre-wrap; } small { opacity: .75; }
"""
_NEXT = (
    ("rlvr-lite methods", "every adapter method, with its paper and size"),
    ("rlvr-lite train --method pissa --seed 1", "another method, another seed"),
    ("rlvr-lite train --task linear-equation --steps 60", "a task this base has never seen: watch it stay at zero"),
    ("rlvr-lite train --base DIR --task gsm8k --precision nf4", "a pretrained model in 4 bits, on a real task"),
    ("rlvr-lite show {run} --samples 5 --plot curves.png", "answers and curves of a run"),
)


@checked
def demo(
    out: Path, *, methods: Sequence[str] = ("lora", "dora", "full"), steps: int = 40, progress: bool = True
) -> dict[str, Run]:
    """Train ``methods`` on the base ``tiny``, print what they learned, and write a page about it.

    Calling it again continues what was interrupted, and repeats nothing that is done.

    Args:
        out: folder that takes a run a method, ``reward_curves.png`` and ``index.html``.
        methods: names of ``rlvr_lite.list_methods()``.
        steps: optimizer steps of each run.
        progress: show progress bars.

    Returns:
        The runs by method.

    Raises:
        UserError: no method is named, or a run cannot be done as asked.
    """
    if not methods:
        raise UserError("name at least one method, such as lora")
    for method in methods:
        get_method(method)  # before any is trained
    started = time.perf_counter()
    runs: dict[str, Run] = {}
    for method in methods:
        runs[method] = train(method, "tiny", "chain-sum", out=out / method, steps=steps, progress=progress)
        if runs[method].status == "stopped":
            print(f"stopped; the same command continues {runs[method].directory}")
            return runs
    table = _outcome(runs)
    examples = _examples(runs)
    curves = out / "reward_curves.png"
    steps_of = {name: run.metrics() for name, run in runs.items()}
    training_curves(steps_of).savefig(curves, dpi=130)
    write_text(out / "index.html", _page(table, examples, _picture(steps_of), _commands(runs)))
    print(f"\n{table}\n")
    for question, answers in examples.items():
        print(printable(question))
        for label, answer in answers.items():
            mark = "right" if answer["correct"] else "wrong"
            print(printable(f"  {label:<14} {mark}   {' | '.join(answer['completion'].splitlines())}"))
    print(
        f"\n{time.perf_counter() - started:.0f} s. Curves: {curves}\nPage:   {out / 'index.html'}\n\nWhat to try next:"
    )
    for command, why in _commands(runs):
        print(f"  {command:<58} {why}")
    return runs


def _outcome(runs: Mapping[str, Run]) -> Table:
    """A column a method, so that few methods fit a phone."""
    columns: dict[str, dict[str, Any]] = {}
    for name, run in runs.items():
        summary = run.summary
        before, after = summary["evaluation"]["before"], summary["evaluation"]["after"]
        column: dict[str, Any] = {"trained parameters": cell_text(summary["trainable_parameters"])}
        for metric in ("greedy", f"avg@{run.config.eval_k}"):
            column |= {f"{metric} before": _shown(before[metric]), f"{metric} after": _shown(after[metric])}
        columns[name] = column | {"proof": summary["identity"], "seconds": f"{summary['seconds'].get('train', 0):.0f}"}
    rows = [
        {"": what} | {name: column[what] for name, column in columns.items()} for what in next(iter(columns.values()))
    ]
    config = next(iter(runs.values())).config
    title = f"Accuracy on {config.eval_problems} held-out problems of {config.task}, with 95 % intervals"
    return Table.of(rows, title=title, note="One seed each: this shows that they learn, not which is better.")


def _shown(score: Mapping[str, float]) -> str:
    return f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


def _examples(runs: Mapping[str, Run], count: int = 3) -> dict[str, dict[str, dict[str, Any]]]:
    """Greedy answers to some problems: before training, and after it by each method.

    Problems that the base gets wrong come first, because there is something to see.
    """
    first = next(iter(runs.values()))
    before = _greedy(first, "before")
    after = {name: _greedy(run, "after") for name, run in runs.items()}
    problems = sorted(before, key=lambda problem: (before[problem]["correct"], problem))[:count]
    return {
        problem.rpartition(":")[2]: {
            "before": before[problem],
            **{f"after {n}": rows[problem] for n, rows in after.items()},
        }
        for problem in problems
    }


def _greedy(run: Run, when: str) -> dict[str, dict[str, Any]]:
    rows = read_jsonl(run.files.evaluations / f"{when}.jsonl")
    return {row["id"]: row for row in rows if row.get("index") == -1}


def _picture(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The curves side by side, and below each other on a narrow page."""
    wide, narrow = (training_curves(metrics, stacked=stacked) for stacked in (False, True))
    source = narrow.to_html("").partition('src="')[2].partition('"')[0]
    said = "Reward, share of zero-advantage groups, and length against the step, for each method"
    return f'<picture><source media="(max-width: 40rem)" srcset="{source}">{wide.to_html(said)}</picture>'


def _commands(runs: Mapping[str, Run]) -> list[tuple[str, str]]:
    run = next(iter(runs.values())).directory
    return [(command.format(run=run), why) for command, why in _NEXT]


def _page(
    table: Table,
    examples: Mapping[str, Mapping[str, Mapping[str, Any]]],
    curves: str,
    commands: Sequence[tuple[str, str]],
) -> str:
    """The page, self-contained: it opens without a network."""
    cards = "".join(
        f"<h3><code>{as_html(question)}</code></h3><div class=answers>"
        + "".join(
            f'<div class="answer {"right" if answer["correct"] else "wrong"}">'
            f"<small>{as_html(label)}: {'right' if answer['correct'] else 'wrong'}</small>"
            f"<pre>{as_html(answer['completion'])}</pre></div>"
            for label, answer in answers.items()
        )
        + "</div>"
        for question, answers in examples.items()
    )
    advice = "".join(f"<li><code>{as_html(c)}</code><br><small>{as_html(w)}</small></li>" for c, w in commands)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>rlvr_lite demo</title><style>{_STYLE}</style></head><body>
<h1>A small model learned to reason from verifiable rewards</h1>
<p>The bundled tiny model sees sums such as <code>3+4-2=?</code> and mostly blurts out an answer. It is rewarded only when
the number in <code>\\boxed{{}}</code> is right. Nobody shows it how to work a sum out.</p>
<div class=scroll>{table._repr_html_()}</div>
<h2>While training</h2>
<figure>{curves}</figure>
<h2>Answers before and after</h2>{cards}
<h2>What to try next</h2><ul>{advice}</ul>
</body></html>
"""
