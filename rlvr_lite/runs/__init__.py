"""What a run on disk is: its files, its configuration, how it ended, and whether it may be built upon."""

from rlvr_lite.runs._record import ADAPTER_FACTS, STOPS, STUDY, RunDirectory, RunRecord, finish, holds, meant, reopen
from rlvr_lite.runs._sources import source_hash, written_as
from rlvr_lite.runs._writer import Busy, lock_beside, sweep, writer

__all__ = [
    "ADAPTER_FACTS",
    "STOPS",
    "STUDY",
    "Busy",
    "RunDirectory",
    "RunRecord",
    "finish",
    "holds",
    "lock_beside",
    "meant",
    "reopen",
    "source_hash",
    "sweep",
    "writer",
    "written_as",
]
