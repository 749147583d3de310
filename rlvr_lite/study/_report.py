"""The report of a study: one HTML file that needs no network, the same parts in a notebook, and Markdown."""

from __future__ import annotations

import base64
import functools
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

from rlvr_lite.errors import UserError, as_html, printable
from rlvr_lite.records import make_folder, write_text
from rlvr_lite.study import figures
from rlvr_lite.study._report_page import page, table
from rlvr_lite.study._report_words import config_text, differing, method_words, verdict_words
from rlvr_lite.study._store import Store
from rlvr_lite.table import Table, cell_text

if TYPE_CHECKING:
    from rlvr_lite.figure import Figure
    from rlvr_lite.study._design import Trial
    from rlvr_lite.study._study import Study

__all__ = ["notebook_parts", "to_markdown", "write_report"]


@dataclass(frozen=True)
class _Picture:
    """A figure with what stands below it."""

    title: str
    draw: Callable[[Study], Figure]
    caption: str


_FRONT = (
    "The line joins the rows that no other beats in both; with more than twelve rows only those and the reference are "
    "named. Steps of it may be noise: see the verdicts."
)
_MEMORY = "Accuracy against memory"
_PICTURES = (
    _Picture(
        "Accuracy against trained share",
        figures.accuracy_against_share,
        "Accuracy after training with its 95 % interval over seeds and problems, against the share of the base's "
        "parameters that was trained.",
    ),
    _Picture(
        "Differences to the reference",
        figures.forest,
        "Each row minus the reference, with the paired 95 % interval. Shaded: the equivalence margin, where one was "
        "set.",
    ),
    _Picture(
        "Reward while training",
        figures.reward_curves,
        "Mean reward of the rollouts, mean of five steps; the band goes from the lowest to the highest seed. In small "
        "panels the dashed line is the reference.",
    ),
    _Picture(
        "Learning rates",
        figures.learning_rate_curves,
        "Accuracy on the validation split. Open marks: the coarse pass, half the steps; full marks: the fine one, all steps, mean of its seeds. Shaded: rates "
        "inside the interval of the best. Dotted: the rate that was chosen.",
    ),
    _Picture(
        _MEMORY,
        functools.partial(figures.pareto, cost="memory"),
        f"Accuracy against the most bytes held at once. {_FRONT}",
    ),
    _Picture(
        "Accuracy against time",
        functools.partial(figures.pareto, cost="time"),
        f"Accuracy against the training time of a run. {_FRONT}",
    ),
)
_NOTEBOOK = 4  # pictures that a notebook shows


def write_report(study: Study, path: Path) -> Path:
    """Write the whole report as one HTML file.

    Args:
        study: finished or not.
        path: of the file; its folder is made.

    Raises:
        UserError: it cannot be written.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file in it, such as {path / 'report.html'}")
    parts = [
        ("summary", "What may be said", _summary(study)),
        ("leaderboard", "Leaderboard", table(study.leaderboard)),
        ("figures", "Figures", f'<div class="pictures">{"".join(_figure(study, p) for p in _pictures(study))}</div>'),
        ("reward", "Reward while training", table(figures.reward_areas(study))),
        ("rates", "Learning rates", table(study.learning_rates)),
        ("costs", "Costs", table(_costs(study))),
        ("proofs", "Proofs", _proofs(study)),
        ("configurations", "Configurations", _configurations(study)),
        ("machine", "Versions and machine", table(_machine(study))),
    ]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in parts)
    body = "".join(f'<section id="{name}"><h2>{title}</h2>{part}</section>\n' for name, title, part in parts)
    head = f"<h1>{as_html(study.title)}</h1>{_state(study)}<nav aria-label='Sections'>{links}</nav>"
    write_text(path, page(study.title, f"<header>{head}</header><main>{body}</main>"))
    return path


def _pictures(study: Study) -> list[_Picture]:
    """Those that say something: none of memory where all rows hold the same."""
    return [picture for picture in _PICTURES if picture.title != _MEMORY or study.memory_differs]


def notebook_parts(study: Study) -> str:
    """The leaderboard, what may be said, and the main figures, for the output of a notebook cell."""
    style = "width:100%;max-width:32rem;background:#fff;border-radius:8px"
    shelf = "".join(f"<div>{_drawn(study, picture, style)}</div>" for picture in _PICTURES[:_NOTEBOOK])
    return f"<div>{study.leaderboard._repr_html_()}{_list(verdict_words(study))}{shelf}</div>"


def to_markdown(study: Study) -> str:
    """Title, what may be said, the leaderboard and how it was made, in GitHub's Markdown."""
    board = study.leaderboard
    rows = [{_plain(key): _plain(cell_text(value)) if isinstance(value, str) else value for key, value in row.items()}
            for row in board]  # fmt: skip
    safe = replace(board, columns=tuple(map(_plain, board.columns)), rows=tuple(rows))
    said = "\n".join(f"- {_plain(line)}" for line in verdict_words(study))
    how = "\n".join(f"- {_plain(line)}" for line in method_words(study))
    return f"## {_plain(study.title)}\n\n{said}\n\n{safe.to_markdown()}\n\n{_plain(board.note)}\n\n{how}\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = escape(" ".join(printable(text).split()), quote=False)
    for mark in ("\\", "`", "*", "~", "]("):
        line = line.replace(mark, "\\" + mark)
    return " ".join(f"\\{word}" if word.startswith("_") else word for word in line.split(" "))


# ---- parts --------------------------------------------------------------------------------------------------------


def _state(study: Study) -> str:
    if study.complete:
        return ""
    return "<p><strong>This study is under way: rows without all their seeds are not compared yet.</strong></p>"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{as_html(line)}</li>' for line in lines)}</ul>"


def _summary(study: Study) -> str:
    return (
        f'<div class="summary">{_list(verdict_words(study))}</div><h3>How it was made</h3>{_list(method_words(study))}'
    )


def _figure(study: Study, picture: _Picture) -> str:
    return (
        f"<figure>{_drawn(study, picture)}<figcaption><b>{picture.title}.</b> {picture.caption}</figcaption></figure>"
    )


def _drawn(study: Study, picture: _Picture, style: str = "") -> str:
    """An image with its alternative text, or why there is none."""
    try:
        figure = picture.draw(study)
    except UserError as error:
        return f"<p>{as_html(picture.title)}: {as_html(str(error))}.</p>"
    buffer = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": picture.title}):
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a row's name in a script that the font lacks
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    look = f' style="{style}"' if style else ""
    return f'<img{look} alt="{as_html(_alternative(study, picture))}" src="data:image/svg+xml;base64,{data}">'


def _alternative(study: Study, picture: _Picture) -> str:
    """What a listener needs of a picture: its subject, and the rows with their numbers."""
    values = {label: interval for label in study.rows if (interval := study.accuracy(label)) is not None}
    best = sorted(values, key=lambda label: -values[label].value)
    numbers = ", ".join(f"{label} {values[label].value:.3f}" for label in best)
    end = f" {study.metric}: {numbers}." if numbers else ""
    return f"{picture.title}. {picture.caption}{end} The tables of this page hold the numbers."


def _costs(study: Study) -> Table:
    """The study's costs with the trained share of the base, and seconds with the search."""
    whole = figures.base_parameters(study)
    rows = []
    for cells in study.costs:
        trained, wide = cells.get("trained"), dict(cells)
        share = None if whole is None or trained is None else f"{100 * trained / whole:.3g} %"
        seconds = [run.outcome["seconds"] for run in study.rows[str(cells["row"])].runs.values()]
        spent = sum(sum(v for name, v in s.items() if name != "step") for s in seconds)
        total = round(study.search_seconds[str(cells["row"])] + spent, 1) if seconds else None
        head = {"row": wide.pop("row"), "trained": wide.pop("trained", None), "share of base": share}
        rows.append({**head, **wide, "search and runs s": total})
    return replace(study.costs, columns=Table.of(rows).columns, rows=tuple(rows))


def _proofs(study: Study) -> str:
    """Identity and parity of every run: those of the comparison open, those of the search folded."""
    store = Store(study.directory)
    trials = [trial for trial in study.trials if trial.stage != "base"]
    columns = ("row", "seed", "learning rate", "status", "identity", "parity", "reason")
    final = [_proof(store, trial) for trial in trials if trial.stage == "final"]
    search = [_proof(store, trial) for trial in trials if trial.stage == "search"]
    said = (
        "<p>Identity: the trained tensors are those that the method's definition names, and each of them had a "
        "gradient. Parity: the largest difference between the logits of the trained policy and those of the saved "
        "adapter on a fresh base. A run that fails either is not compared.</p>"
    )
    title = "Identity and parity of the compared runs"
    parts = said + table(Table(columns, tuple(final), title)) if final else said + "<p>No run is known yet.</p>"
    if search:
        inner = table(Table(columns, tuple(search), "Identity and parity of the runs of the search"))
        parts += f"<details><summary>{len(search)} runs of the learning-rate search</summary>{inner}</details>"
    return parts


def _proof(store: Store, trial: Trial) -> dict[str, Any]:
    state, summary = store.state(trial), store.run(trial).summary
    parity = summary.get("parity")
    return {
        "row": trial.variant,
        "seed": trial.config.seed,
        "learning rate": trial.config.learning_rate,
        "status": state,
        "identity": summary.get("identity"),
        "parity": None if parity is None else f"{parity:.1e}",
        "reason": (store.reason(trial) if state == "failed" else "") or None,
    }


def _configurations(study: Study) -> str:
    configs = {label: row.config for label, row in study.rows.items()}
    fields = differing(list(configs.values()))
    rows = [
        {"row": label, **{name: _value(getattr(config, name)) for name in fields}} for label, config in configs.items()
    ]
    note = "All other fields are the same in every row."
    whole = "".join(
        f"<details><summary>{as_html(label)}</summary><pre>{as_html(config_text(config))}</pre></details>"
        for label, config in configs.items()
    )
    return f"{table(Table.of(rows, 'Fields in which rows differ', note))}<h3>Each row in full</h3>{whole}"


def _value(value: Any) -> Any:
    plain = value is None or isinstance(value, int | float | str)
    return value if plain else ", ".join(map(str, value.items() if isinstance(value, dict) else value)) or "none"


def _machine(study: Study) -> Table:
    """Versions, machine and base of all compared runs; several values where they differ."""
    found: dict[str, dict[str, None]] = {}
    for row in study.rows.values():
        for run in row.runs.values():
            facts = dict(run.env)
            facts.pop("asked", None)
            for name, value in facts.items():
                parts = value if isinstance(value, dict) else {"": value}
                for part, text in parts.items():
                    label = part if name == "versions" else f"{name} {part}".strip()
                    found.setdefault(label, {})[cell_text(text)] = None
    rows = [{"what": name, "value": ", ".join(values)} for name, values in found.items()]
    return Table(("what", "value"), tuple(rows), "Versions and machine", "" if rows else "No run is done yet.")
