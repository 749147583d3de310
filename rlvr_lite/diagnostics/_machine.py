"""Versions, driver, card, and the room that is left."""

from __future__ import annotations

import os
import platform
import re
import shutil
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from rlvr_lite.diagnostics._check import Finding, Skipped
from rlvr_lite.diagnostics._subject import Subject
from rlvr_lite.host import Host, Obstacle, obstacles, versions

__all__ = ["card", "disk", "driver", "four_bit_library", "memory", "package_versions", "report_line", "shared_card"]

_GIB = 2**30
_LEAST_MEMORY, _LEAST_DISK = 2 * _GIB, 2 * _GIB


def package_versions(subject: Subject) -> Finding:
    """Installed packages against the ranges that this one declares."""
    from transformers.utils.versions import require_version

    try:
        declared = [line for line in requires("rlvr-lite") or () if "extra ==" not in line]
    except PackageNotFoundError:
        raise Skipped("rlvr-lite runs from its sources, not installed: no ranges are declared") from None
    wrong = []
    for line in declared:
        try:
            require_version(line)
        except (ImportError, PackageNotFoundError) as error:
            wrong.append(re.split(r"[.;]? (?:but|Try)", " ".join(str(error).split()))[0])
    shown = "; ".join(wrong) if wrong else f"{len(declared)} of {len(declared)} packages in range"
    return Finding(shown, "the ranges of pyproject.toml", not wrong, "pip install -U rlvr-lite")


def driver(subject: Subject) -> Finding:
    """NVIDIA's driver, and whether this process may use it."""
    host = subject.host
    in_the_way = _about(host, "driver", "fork")
    if in_the_way:
        return Finding(in_the_way.said, "a card that PyTorch can use", False, in_the_way.remedy)
    if not host.cards:
        raise Skipped("no NVIDIA card in this machine")
    return Finding(f"driver {host.driver or 'unknown'}, PyTorch for CUDA {host.torch_cuda}")


def card(subject: Subject) -> Finding:
    """What the card can compute."""
    host = subject.host
    _there(host)
    if (found := _about(host, "capability")) is not None:
        return Finding(found.said, "bf16 and fused kernels", False, found.remedy)
    return Finding(f"{host.name}, compute capability {host.capability[0]}.{host.capability[1]}, 1 of {host.cards}")


def shared_card(subject: Subject) -> Finding:
    """Who else holds its memory."""
    host = subject.host
    _there(host)
    found = _about(host, "memory")
    if found is not None:
        return Finding(found.said, "10 % of its memory", False, found.remedy)
    return Finding(f"{host.free / _GIB:.1f} of {host.memory / _GIB:.1f} GiB free", "at most 10 % held by others")


def four_bit_library(subject: Subject) -> Finding:
    """Whether bitsandbytes' wheel has the library that PyTorch's CUDA asks for."""
    host = subject.host
    if host.bitsandbytes is None:
        raise Skipped("bitsandbytes is not installed: no NF4")
    found = _about(host, "bitsandbytes")
    if found is not None:
        return Finding(found.said, f"CUDA {host.torch_cuda}", False, found.remedy)
    has = ", ".join(f"{a}.{b}" for a, b in host.bitsandbytes) or "none"
    wanted = f"CUDA {host.torch_cuda}, of the same major version" if host.torch_cuda else ""
    return Finding(f"libraries for CUDA {has}", wanted)


def memory(subject: Subject) -> Finding:
    """Memory of the machine that is free."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(found[1]) * 1024 if found else 0
    remedy = "end other programs; a base is loaded through it"
    return Finding(f"{free / _GIB:.1f} GiB free", "2 GiB", free >= _LEAST_MEMORY, remedy)


def disk(subject: Subject) -> Finding:
    """Room where runs are written: the working folder."""
    free = shutil.disk_usage(os.getcwd()).free
    return Finding(f"{free / _GIB:.1f} GiB free here", "2 GiB", free >= _LEAST_DISK, "give --out on another disk")


def report_line(host: Host) -> str:
    """The sentence that a report of a fault needs."""
    known = ", ".join(f"{name} {version}" for name, version in versions().items())
    where = "no GPU"
    if host.cards:
        where = (
            f"{host.name} ({host.capability[0]}.{host.capability[1]}, {host.memory / _GIB:.0f} GiB, "
            f"driver {host.driver or 'unknown'}, CUDA {host.torch_cuda})"
        )
    return f"For a report: {known}; {platform.platform()}, {os.cpu_count()} cores; {where}."


def _there(host: Host) -> None:
    """There may be one that nothing runs on."""
    if not host.cards:
        raise Skipped("needs a CUDA GPU")


def _about(host: Host, *kinds: str) -> Obstacle | None:
    return next((found for found in obstacles(host) if found.about in kinds), None)
