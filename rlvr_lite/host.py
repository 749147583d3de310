"""The machine a run is to use: driver, card and libraries as plain facts, and in one line each what stands in the way."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlvr_lite.errors import UserError

__all__ = [
    "Host",
    "Obstacle",
    "Process",
    "check_fork",
    "check_host",
    "describe",
    "obstacles",
    "others_of",
    "this_card",
    "this_host",
    "versions",
]

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "math-verify")
_GIB = 2**30
_MUCH = 0.1  # of a card's memory: what a desktop takes is less
_CONTEXT = _GIB  # at most, of this process, beside its tensors
_NVIDIA = "0x10de"
_SAID: set[str] = set()  # a process loads many bases


@dataclass(frozen=True)
class Process:
    """Somebody else's process on the card.

    Attributes:
        pid: its number.
        name: of its program.
        memory: bytes that it holds there.
    """

    pid: int
    name: str
    memory: int


@dataclass(frozen=True)
class Host:
    """What decides whether a card can be used.

    Attributes:
        nvidia: whether an NVIDIA card is on the bus, usable or not.
        driver: version of NVIDIA's driver; ``None`` without one.
        driver_cuda: the newest CUDA that it serves, such as ``(12, 8)``.
        torch_cuda: the CUDA that PyTorch was built for; ``None`` for its CPU build.
        visible: value of ``CUDA_VISIBLE_DEVICES``; ``None`` if it is not set.
        cards: that PyTorch finds.
        name: of the card.
        capability: its compute capability, such as ``(7, 5)``.
        memory: its bytes.
        free: bytes of them that nobody holds.
        own: bytes of them that this process holds for tensors.
        others: processes of others on it, as far as they can be seen.
        architectures: that PyTorch has kernels for, such as ``sm_75``.
        forked: whether CUDA was in use before this process was forked, so that it cannot be used here.
        bitsandbytes: CUDA versions that its wheel has libraries for, such as ``(12, 8)``; ``None`` if it is not installed.
    """

    nvidia: bool = False
    driver: str | None = None
    driver_cuda: tuple[int, int] | None = None
    torch_cuda: str | None = None
    visible: str | None = None
    cards: int = 0
    name: str = ""
    capability: tuple[int, int] = (0, 0)
    memory: int = 0
    free: int = 0
    own: int = 0
    others: tuple[Process, ...] = ()
    architectures: tuple[str, ...] = ()
    forked: bool = False
    bitsandbytes: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class Obstacle:
    """Something in the way.

    Attributes:
        about: ``driver``, ``capability``, ``memory``, ``fork`` or ``bitsandbytes``.
        said: what it is, in one line.
        remedy: what to do about it.
        fatal: whether nothing runs on the card as long as it is there.
        precision: the only precision that it matters to; ``None`` for all.
    """

    about: str
    said: str
    remedy: str
    fatal: bool = True
    precision: str | None = None

    def __str__(self) -> str:
        return f"{self.said}: {self.remedy}"


def obstacles(host: Host) -> list[Obstacle]:
    """What stands in the way of using the card; nothing on a machine without one.

    >>> host = Host(nvidia=True, driver="470.57", driver_cuda=(11, 4), torch_cuda="12.8")
    >>> print(obstacles(host)[0])
    NVIDIA's driver 470.57 serves CUDA up to 11.4, and PyTorch was built for 12.8: update the driver, or install a PyTorch built for CUDA 11
    """
    if host.forked:
        remedy = "start workers with 'spawn', or restart the notebook's kernel and load nothing before the fork"
        return [Obstacle("fork", "CUDA was in use before this process was forked, so it cannot be used here", remedy)]
    if not host.cards:
        return _unseen(host)
    return [*_kernels(host), *_crowded(host), *_four_bits(host)]


def _unseen(host: Host) -> list[Obstacle]:
    """Why PyTorch finds no card where there is one."""
    if not host.nvidia:
        return []
    if host.torch_cuda is None:
        return [Obstacle("driver", "PyTorch is a CPU build, so the card lies idle", "install a CUDA build of PyTorch")]
    if host.driver is None:
        remedy = "install NVIDIA's driver, or start the container with its GPUs (--gpus all)"
        return [Obstacle("driver", "there is an NVIDIA card, but no driver of it", remedy)]
    built = _major_minor(host.torch_cuda)
    if host.driver_cuda is not None and host.driver_cuda[0] < built[0]:
        served = ".".join(map(str, host.driver_cuda))
        said = f"NVIDIA's driver {host.driver} serves CUDA up to {served}, and PyTorch was built for {host.torch_cuda}"
        remedy = f"update the driver, or install a PyTorch built for CUDA {host.driver_cuda[0]}"
        return [Obstacle("driver", said, remedy)]
    if host.visible is not None:
        said = f"CUDA_VISIBLE_DEVICES={host.visible!r} hides every card"
        return [Obstacle("driver", said, "unset it, or name a card such as 0")]
    return [Obstacle("driver", "PyTorch finds no card though there is one", "see what nvidia-smi says, or reboot")]


def _kernels(host: Host) -> list[Obstacle]:
    """Whether PyTorch has code for the card, and what an old card lacks."""
    known = [_capability(name) for name in host.architectures if name.startswith("sm_")]
    shown = f"{host.name} has compute capability {host.capability[0]}.{host.capability[1]}"
    if known and host.capability < min(known):
        said = f"{shown}, and this PyTorch has kernels from {min(known)[0]}.{min(known)[1]} on"
        return [Obstacle("capability", said, "install an older PyTorch that still has them, or take a newer card")]
    newest = max(known, default=(99, 0))
    later = any(name.startswith("compute_") for name in host.architectures)
    if host.capability[0] > newest[0] and not later:
        said = f"{shown}, and this PyTorch has kernels up to {newest[0]}.{newest[1]}"
        return [Obstacle("capability", said, "install a newer PyTorch")]
    if host.capability < (7, 0):
        said = f"{shown}: no bf16, no tensor cores and no fused NF4 product, so that it is slow"
        return [Obstacle("capability", said, "take --precision fp16, or a card of 7.0 or newer", fatal=False)]
    return []


def _crowded(host: Host) -> list[Obstacle]:
    held, by = sum(process.memory for process in host.others), ""
    if host.others:
        most = max(host.others, key=lambda process: process.memory)
        by = f"most by {most.name}, process {most.pid}"
    elif not host.own:  # a container sees no process outside of it
        held, by = host.memory - host.free - _CONTEXT, "which cannot be seen from here, as in a container"
    if host.memory == 0 or held < _MUCH * host.memory:
        return []
    said = f"{held / _GIB:.1f} of {host.memory / _GIB:.1f} GiB of {host.name} are in use by others ({by})"
    return [Obstacle("memory", said, "end them, or name another card in CUDA_VISIBLE_DEVICES", fatal=False)]


def _four_bits(host: Host) -> list[Obstacle]:
    if host.bitsandbytes is None or host.torch_cuda is None:
        return []
    major = _major_minor(host.torch_cuda)[0]
    if any(found[0] == major for found in host.bitsandbytes):  # it takes any of the same major version
        return []
    has = ", ".join(f"{a}.{b}" for a, b in host.bitsandbytes) or "none"
    said = f"bitsandbytes has no library for CUDA {host.torch_cuda} (it has {has})"
    return [Obstacle("bitsandbytes", said, "pip install -U bitsandbytes, or take bf16 or fp16", precision="nf4")]


def check_host(precision: str) -> None:
    """Say in one line what stands in the way of this machine's card; nothing on a machine without one.

    Args:
        precision: of the base that is to be loaded.

    Raises:
        UserError: nothing in this precision can run on the card that PyTorch finds.
    """
    host = this_host()
    for found in obstacles(host):
        if found.precision in (None, precision):
            if found.fatal and (host.cards or host.forked):
                raise UserError(str(found))
            if str(found) not in _SAID:
                _SAID.add(str(found))
                logger.warning("%s", found)


def check_fork() -> None:
    """Refuse a process that cannot use CUDA because its parent did.

    Raises:
        UserError: it was forked after CUDA had been in use.
    """
    if _forked():
        raise UserError(str(obstacles(Host(forked=True))[0]))


def _forked() -> bool:
    import torch

    # Asking for cards is enough for PyTorch to call a fork bad, on machines without any too.
    return bool(getattr(torch.cuda, "_is_in_bad_fork", lambda: False)()) and _driver() is not None


def this_card() -> Any:
    """PyTorch's properties of the card that this process uses; ``None`` where it finds none.

    Raises:
        UserError: CUDA was in use before this process was forked.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    check_fork()
    return torch.cuda.get_device_properties(torch.cuda.current_device())


def this_host() -> Host:
    """The facts of this machine."""
    import torch

    driver, forked = _driver(), _forked()
    known: dict[str, Any] = {"nvidia": _on_the_bus(), "driver": driver, "driver_cuda": _driver_cuda(), "forked": forked}
    known |= {"torch_cuda": torch.version.cuda, "visible": os.environ.get("CUDA_VISIBLE_DEVICES")}
    known |= {"bitsandbytes": _bitsandbytes()}
    if forked or (card := this_card()) is None:
        return Host(**known)
    free, total = torch.cuda.mem_get_info()
    return Host(
        **known,
        cards=torch.cuda.device_count(),
        name=card.name,
        capability=(card.major, card.minor),
        memory=total,
        free=free,
        own=torch.cuda.memory_reserved(),
        others=_others(),
        architectures=tuple(torch.cuda.get_arch_list()),
    )


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in ("rlvr-lite", *_LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe() -> dict[str, Any]:
    """Versions, platform and device, as JSON."""
    import torch

    facts: dict[str, Any] = {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": "cpu",
    }
    if not _forked() and (card := this_card()) is not None:
        facts |= {
            "device": card.name,
            "capability": f"{card.major}.{card.minor}",
            "device_memory_bytes": card.total_memory,
        }
    return facts


def _major_minor(text: str) -> tuple[int, int]:
    """The first two numbers of a version.

    >>> _major_minor("12.8"), _major_minor("13")
    ((12, 8), (13, 0))
    """
    parts = [int(part) for part in re.findall(r"\d+", text)[:2]]
    return parts[0], parts[1] if len(parts) > 1 else 0


def _capability(name: str) -> tuple[int, int]:
    """The capability of an architecture.

    >>> _capability("sm_75"), _capability("sm_120"), _capability("sm_90a")
    ((7, 5), (12, 0), (9, 0))
    """
    digits = re.findall(r"\d+", name)[0]
    return int(digits[:-1]), int(digits[-1])


def _on_the_bus() -> bool:
    """Whether the kernel sees an NVIDIA card: a display or 3D controller (PCI class 0x03) of that vendor."""
    if Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia").exists():
        return True
    for vendor in Path("/sys/bus/pci/devices").glob("*/vendor"):
        try:
            if vendor.read_text().strip() == _NVIDIA and (vendor.parent / "class").read_text().startswith("0x03"):
                return True
        except OSError:
            continue
    return False


def _driver() -> str | None:
    rows = _nvidia_smi("--query-gpu=driver_version")
    if rows:
        return rows[0][0]
    try:
        found = re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return None
    return found[1] if found else None


def _driver_cuda() -> tuple[int, int] | None:
    try:
        library = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(number)) != 0:
            return None
    except (OSError, AttributeError):
        return None
    return number.value // 1000, number.value % 1000 // 10


def _others() -> tuple[Process, ...]:
    """Of every process on the card that PyTorch uses but this one."""
    import torch

    uuid = str(getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", ""))
    rows = _nvidia_smi("--query-compute-apps=gpu_uuid,pid,process_name,used_memory")
    return others_of(rows, uuid, os.getpid())


def others_of(rows: Sequence[Sequence[str]], uuid: str, own: int) -> tuple[Process, ...]:
    """Processes of a table of nvidia-smi (card, process, program, MiB) on one card.

    >>> others_of([["GPU-1", "7", "python", "9000"], ["GPU-2", "8", "python", "5"], ["GPU-1", "9", "x", "[N/A]"]], "1", 1)
    (Process(pid=7, name='python', memory=9437184000),)
    """
    found = []
    for card, pid, name, memory in (row for row in rows if len(row) == 4):
        if uuid and uuid not in card:
            continue
        if pid.isdigit() and int(pid) != own and memory.isdigit():
            found.append(Process(int(pid), name.rpartition("/")[2], int(memory) * 2**20))
    return tuple(found)


def _nvidia_smi(query: str) -> list[list[str]]:
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[part.strip() for part in line.split(",")] for line in done.stdout.splitlines() if line.strip()]


def _bitsandbytes() -> tuple[tuple[int, int], ...] | None:
    """CUDA versions of the libraries in its wheel."""
    spec = find_spec("bitsandbytes")
    if spec is None or spec.origin is None:
        return None
    names = (path.stem for path in Path(spec.origin).parent.glob("libbitsandbytes_cuda*.*"))
    digits = (re.search(r"cuda(\d+)", name) for name in names)
    return tuple(sorted(_capability(match[1]) for match in digits if match))
