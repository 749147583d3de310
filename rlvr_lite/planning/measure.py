"""The same step on a real card, phase by phase: what a plan is checked against."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rlvr_lite import bases, grpo, methods
from rlvr_lite.analysis.memory import GIB, PHASES
from rlvr_lite.errors import UserError
from rlvr_lite.host import this_card
from rlvr_lite.planning._dry_run import Runner
from rlvr_lite.planning._planned import Plan
from rlvr_lite.records import write_json
from rlvr_lite.table import Table

__all__ = ["Report", "measure"]


@dataclasses.dataclass(frozen=True)
class Report:
    """A plan beside what a card measured.

    Attributes:
        plan: as planned.
        measured: bytes of ``torch.cuda.max_memory_allocated`` by phase, and of paged moments.
        reserved: bytes of ``torch.cuda.max_memory_reserved`` over all phases.
        used: bytes of the card in use at the end, the context included.
        device: the card's name, capability and memory.
    """

    plan: Plan
    measured: dict[str, int]
    reserved: int
    used: int
    device: dict[str, Any]

    @property
    def table(self) -> Table:
        """Planned and measured by phase, in GiB."""
        rows = []
        for phase, measured in self.measured.items():
            planned = sum(self.plan.phases.get(phase, {}).values())
            rows.append(
                {
                    "phase": phase,
                    "planned": round(planned / GIB, 3),
                    "measured": round(measured / GIB, 3),
                    "planned / measured": round(planned / measured, 3),
                }
            )
        note = f"GiB; reserved {self.reserved / GIB:.2f}, in use on the card {self.used / GIB:.2f}"
        return Table.of(rows, title=f"{self.plan.title}, measured on {self.device['name']}", note=note)

    def __str__(self) -> str:
        return str(self.table)

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        write_json(path, dataclasses.asdict(self))


class _CudaMeter:
    """What :class:`Meter` counts, asked of the allocator."""

    def __init__(self) -> None:
        self.peaks: dict[str, int] = {}
        self._paged = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The allocator's highest moment within this context."""
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        try:
            yield
        finally:
            torch.cuda.synchronize()
            self.peaks[name] = max(self.peaks.get(name, 0), torch.cuda.max_memory_allocated() + self._paged)

    @contextmanager
    def kind(self, name: str) -> Iterator[None]:
        """The allocator knows no kinds."""
        yield

    def add(self, tensor: Any, kind: str | None = None) -> None:
        """The allocator has counted it, but for memory that is paged between the card and the host."""
        if kind == "paged":
            self._paged += tensor.nbytes


def measure(plan: Plan) -> Report:
    """Load the base, attach the method and run the plan's step on this machine's card.

    Raises:
        UserError: there is no CUDA GPU, or the step does not fit.
    """
    if (facts := this_card()) is None:
        raise UserError("measuring needs a CUDA GPU, and PyTorch finds none: take --dry-run, which needs none")
    config, meter = plan.config, _CudaMeter()
    torch.cuda.empty_cache()
    try:
        with meter.phase("load"):
            base = bases.load(config.base, config.precision, revision=config.revision)
            model = methods.attach(base.model, config.method, config.adapter, total_steps=100, seed=config.seed)
        eight_bit = config.optim == "paged_adamw_8bit"
        runner = Runner(model, config.method, base.compute_dtype, plan.step, "cuda", grpo.Packer(), meter, eight_bit)
        runner.first_pass()
        runner.step_once()
    except torch.OutOfMemoryError as error:
        reached = ", ".join(f"{phase} {size / GIB:.2f} GiB" for phase, size in meter.peaks.items())
        raise UserError(f"the step does not fit this card ({reached}): take what Plan.fit() gives") from error
    free, total = torch.cuda.mem_get_info()
    device = {"name": facts.name, "capability": f"{facts.major}.{facts.minor}", "memory": facts.total_memory}
    measured = {phase: meter.peaks[phase] for phase in PHASES if phase in meter.peaks}
    return Report(plan, measured, torch.cuda.max_memory_reserved(), total - free, device)
