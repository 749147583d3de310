"""A finished, stopped or failed run, read from its directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_lite.analysis.statistics import Interval
from rlvr_lite.errors import as_html, as_written, printable
from rlvr_lite.runs import RunRecord
from rlvr_lite.table import Table

if TYPE_CHECKING:
    import pandas

    from rlvr_lite.config import RunConfig
    from rlvr_lite.conversation import Chat, Reply
    from rlvr_lite.evaluation import Evaluation
    from rlvr_lite.exports import Target
    from rlvr_lite.figure import Figure

__all__ = ["Run"]


@dataclass(frozen=True)
class Run(RunRecord):
    """One training run on disk: its record, and what can be done with it.

    Attributes:
        directory: holds ``config.json``, ``metrics.jsonl``, ``rollouts.jsonl``, ``identity.json``, ``adapter/``,
            ``checkpoints/``, ``eval/``, ``summary.json`` and ``manifest.json``.
    """

    @classmethod
    def load(cls, directory: str | Path) -> Run:
        """The run in ``directory``.

        Raises:
            UserError: there is none.
        """
        return cls.open(directory)

    def accuracy(self) -> Table:
        """Accuracy before and after training, with 95 % intervals over problems."""
        scores = self.summary.get("evaluation", {})
        rows = []
        with as_written(self.files.summary):
            for name in next(iter(scores.values()), {}):
                values = {when: score[name] for when, score in scores.items() if isinstance(score.get(name), dict)}
                if all("low" in v for v in values.values()) and values:
                    rows.append({"metric": name, **{when: str(Interval(**v)) for when, v in values.items()}})
        return Table.of(rows, title=f"{self.config.method} on {self.config.task}, base {self.config.base}")

    def to_pandas(self) -> pandas.DataFrame:
        """The numbers of every step, a row a step and a column a metric, as in ``metrics.jsonl`` (needs pandas)."""
        import pandas

        frame = pandas.DataFrame(self.metrics())
        return frame.select_dtypes("number")

    def plot(self) -> Figure:
        """Reward, share of groups without variance, and length, step by step."""
        from rlvr_lite.training._figures import training_curves

        with as_written(self.files.metrics.path):
            return training_curves({self.config.method: self.metrics()})

    def evaluate(self, benchmarks: Any = None, **options: Any) -> Evaluation:
        """Score the trained policy.

        Args:
            benchmarks: as in ``rlvr_lite.evaluate``; by default the test problems of the run's task.
            **options: the further arguments of ``rlvr_lite.evaluate``.
        """
        from rlvr_lite import evaluation

        return evaluation.evaluate(self, benchmarks or (f"{self.config.task}:test",), **options)

    def export(self, to: Target = "adapter", out: str | Path | None = None, **options: Any) -> Path:
        """Take the trained policy home.

        Args:
            to: adapter, lora, merged, gguf or hub.
            out: the directory to make; by default one in the run's folder ``export``.
            **options: the further arguments of ``rlvr_lite.export``.
        """
        from rlvr_lite import exports

        return exports.export(self, to, out, **options)

    def chat(self, question: str | None = None, **options: Any) -> Reply | Chat:
        """Try the trained policy beside its base.

        Args:
            question: what to ask; without one both are loaded, to be asked often.
            **options: the further arguments of ``rlvr_lite.chat``.
        """
        from rlvr_lite import conversation

        return conversation.chat(self, question, **options)

    def __str__(self) -> str:
        summary, config = self.summary, self.config
        head = f"{config.method} on {config.task} ({config.base}), seed {config.seed}: {self.status}"
        if not summary:
            head, broken = f"{head}, {len(self.metrics())} of {config.steps} steps", self.damage()
            facts = [f"damaged: {broken}"] if broken else []
        else:
            with as_written(self.files.summary):
                facts = self._outcome(summary, config)
        return printable("\n".join([head, *facts, str(self.directory)]))

    def _outcome(self, summary: dict[str, Any], config: RunConfig) -> list[str]:
        facts = [
            f"{summary['steps']} of {config.steps} steps, learning rate {config.learning_rate:g}",
            f"{summary['trainable_parameters']:,} trained parameters, identity {summary['identity']}",
        ]
        broken = self.damage()
        reason = summary.get("reason") or ""
        reason = "" if reason in summary["identity"] else reason  # said already
        facts += [said for said in (reason, broken and f"damaged: {broken}") if said]
        facts += summary.get("lost", [])
        return [*facts, *([str(self.accuracy())] if summary.get("evaluation") else [])]

    def _repr_html_(self) -> str:
        head, *facts = str(self).split("\n")
        if self.summary.get("evaluation"):
            facts = facts[: len(facts) - len(str(self.accuracy()).split("\n")) - 1]
        body = "".join(f"<div>{as_html(line)}</div>" for line in facts)
        table = self.accuracy()._repr_html_() if self.summary.get("evaluation") else ""
        return f"<div><b>{as_html(head)}</b>{body}{table}</div>"
