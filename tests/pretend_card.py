"""A pretend CUDA card over the memory of the CPU, for a PyTorch without CUDA: ``with PretendCard() as card: ...``

Tensors made on or moved to "cuda" say that they lie there, an operation on tensors of two devices raises as it would on
a card, and every wait of the host for the device is counted by source line. It computes on the CPU, so it shows device
faults and needless waits, not the numbers or the speed of a card. One process should use nothing else: libraries keep
what they once found out about the machine.
"""

from __future__ import annotations

import os
import sys
import types
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import takewhile
from typing import Any
from unittest import mock

import bitsandbytes  # it would look for the library of a card that is not there
import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rlvr_lite import host
from tests.pretend_graph import pretend_graphs

GIB = 2**30
CPU = torch.device("cpu")
#: May be given tensors of two devices, or move between them.
_MIXED = {"__get__", "__set__", "copy_", "__setitem__", "__getitem__", "index_put_", "set_", "backward"}
_MIXED |= {"_has_compatible_shallow_copy_type", "is_same_size", "is_set_to", "__format__", "__repr__"}
_WAITS = {"__bool__", "__int__", "__float__", "__index__", "__contains__", "item", "tolist", "numpy", "nonzero"}
_WAITS |= {"masked_select", "equal", "unique", "unique_consecutive", "bincount", "is_nonzero", "allclose", "__array__"}
_SELF = __file__


class PretendCard(TorchFunctionMode):
    """The card, while its context lasts.

    Args:
        capability: compute capability.
        memory: bytes; what is known to lie there beyond them is an out-of-memory error. What autograd made is not known.
        cards: in the machine; ``CUDA_VISIBLE_DEVICES`` decides which of them PyTorch finds, as on a real one.
        forked: this process is one that was forked from another, which was using CUDA.
        driver: version of NVIDIA's, and the CUDA that it serves; ``None`` for a machine without.
        built: the CUDA that PyTorch was built for; one newer than the driver's leaves no card to be found.
        others: bytes that other processes hold, which nvidia-smi lists if ``listed``.

    Attributes:
        graphs: that were recorded.
        waits: of the host for the card, by ``what file:line`` of this package or of the library that waits.
    """

    def __init__(
        self,
        capability: tuple[int, int] = (8, 6),
        memory: int = 12 * GIB,
        cards: int = 1,
        forked: bool = False,
        driver: tuple[str, tuple[int, int]] | None = ("570.1", (12, 8)),
        built: str = "12.8",
        others: int = 0,
        listed: bool = True,
    ):
        super().__init__()
        self.capability, self.memory, self.forked, self.current = capability, memory, forked, 0
        named = torch.cuda._parse_visible_devices()
        #: The cards that can be seen; one that does not exist hides those named after it.
        self.seen = list(takewhile(lambda name: isinstance(name, int) and name < cards, named))
        served = driver is not None and int(built.partition(".")[0]) <= driver[1][0]
        self.cards, self.held, self.most, self.others = len(self.seen) if served else 0, 0, 0, others
        self.used = False  # CUDA begins with the first use
        self._driver, self._built, self._listed = driver, built, listed
        self.waits: Counter[str] = Counter()
        self._places: dict[int, tuple[torch.device, Any, int]] = {}
        self._patches = ExitStack()

    def __enter__(self) -> PretendCard:
        self._patch()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patches.close()

    # ---- where a tensor lies ----------------------------------------------------------------------------------

    def place(self, tensor: Tensor) -> torch.device | None:
        """Where a tensor says it lies; ``None`` for one that autograd or a file made."""
        if tensor.device.type != "cpu":
            return tensor.device
        try:
            known = self._places.get(tensor.untyped_storage()._cdata)
        except (NotImplementedError, RuntimeError):
            return tensor.device
        return None if known is None else known[0]

    def _put(self, tensor: Tensor, device: torch.device) -> None:
        if tensor.device.type != "cpu":
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes() if device.type == "cuda" else 0
        self.used = self.used or device.type == "cuda"
        self._gone(key)
        self._places[key] = device, weakref.ref(storage, lambda _: self._gone(key)), size
        self.held += size
        self.most = max(self.most, self.held)

    def _gone(self, key: int) -> None:
        if (known := self._places.pop(key, None)) is not None:
            self.held -= known[2]

    # ---- every call of torch ----------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").partition(".")[0]  # an operator's has its overload
        owner = getattr(getattr(func, "__self__", None), "__name__", "")
        if name == "__get__":
            return self._attribute(func, owner, args)
        if name in ("to", "cuda", "cpu") and args and isinstance(args[0], Tensor):
            return self._move(name, *args, **kwargs)
        if name == "pin_memory":
            return args[0]
        kwargs.pop("pin_memory", None)
        if name == "backward":
            return self._backward(*args, **kwargs)
        tensors = list(_tensors((args, kwargs.values())))
        here = {place for x in tensors if x.dim() and (place := self.place(x)) is not None and place.type != "meta"}
        if len(here) > 1 and name not in _MIXED:
            raise RuntimeError(f"pretend card: {name} was given tensors on {', '.join(sorted(map(str, here)))}")
        target = self._target(kwargs)
        if target is None:
            places = [place for x in tensors if (place := self.place(x)) is not None]
            target = next((x for x in places if x.type == "cuda"), places[0] if places else None)
        cuda = target is not None and target.type == "cuda"
        if cuda and (name in _WAITS or (name in ("__getitem__", "__setitem__") and _picks_by_truth(args[1]))):
            self._wait(name)
        try:
            made = func(*args, **kwargs)
        except RuntimeError as error:
            if cuda and "can't allocate memory" in str(error):
                raise torch.OutOfMemoryError(f"pretend card: {error}") from error
            raise
        for x in _tensors(made):
            if self.place(x) is None and (target or not tensors):  # what autograd made stays open
                self._put(x, target or CPU)
        if cuda and self.held + self.others > self.memory:
            raise torch.OutOfMemoryError(f"pretend card: {self.held + self.others:,} bytes of {self.memory:,}")
        return made

    def _backward(self, tensors: Any, gradients: Any = None, keep: bool | None = None, *_: Any, **kwargs: Any) -> None:
        """With this mode on, since it computes forward passes anew and calls functions that ask for devices."""
        tensors = (tensors,) if isinstance(tensors, Tensor) else tuple(tensors)
        gradients = kwargs.get("grad_tensors", kwargs.get("gradient", gradients))
        ones = tuple(map(torch.ones_like, tensors))
        given = ones if gradients is None else (gradients,) if isinstance(gradients, Tensor) else tuple(gradients)
        keep = bool(kwargs.get("retain_graph", keep))
        super().__enter__()
        try:
            run = torch.autograd.graph._engine_run_backward
            run(tensors, given, keep, False, (), allow_unreachable=True, accumulate_grad=True)
        finally:
            super().__exit__(None, None, None)

    def _attribute(self, func: Any, name: str, args: Any) -> Any:
        value = func(*args)
        if name == "device":
            return self.place(args[0]) or value
        if name == "is_cuda":
            return (self.place(args[0]) or args[0].device).type == "cuda"
        if name == "is_cpu":
            return (self.place(args[0]) or args[0].device).type == "cpu"
        if isinstance(value, Tensor) and self.place(value) is None:
            known = self.place(args[0])
            if known is not None:
                self._put(value, known)
        return value

    def _target(self, kwargs: dict[str, Any]) -> torch.device | None:
        """The device that was asked for; a pretend one is taken out of the arguments."""
        if kwargs.get("device") is None:
            return None
        device = self._whole(kwargs["device"])
        if device.type == "cuda":
            kwargs["device"] = CPU
        return device

    def _whole(self, device: Any) -> torch.device:
        device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
        return torch.device("cuda", self.current) if device.type == "cuda" and device.index is None else device

    def _move(self, name: str, tensor: Tensor, *rest: Any, **kwargs: Any) -> Tensor:
        before = self.place(tensor)
        target, left = None, []
        for x in rest:
            if isinstance(x, torch.device | str) or (isinstance(x, int) and not isinstance(x, bool)):
                target = self._whole(x)
            elif isinstance(x, Tensor):
                target, left = self.place(x) or CPU, [*left, x.dtype]
            else:
                left.append(x)
        if kwargs.get("device") is not None:
            target = self._whole(kwargs.pop("device"))
        kwargs.pop("device", None)
        if name != "to":
            target, left, kwargs = target or self._whole("cuda" if name == "cuda" else "cpu"), [], {}
        if (target is not None and target.type == "meta") or tensor.device.type == "meta":
            return tensor.to(target or tensor.device, *left, **kwargs)
        if left and not isinstance(left[0], torch.dtype):
            left = []
        kwargs.pop("non_blocking", None)
        made = tensor.to(*left, **kwargs) if left or kwargs else tensor
        if target is None or target == before:
            if self.place(made) is None and before is not None:
                self._put(made, before)
            return made
        if target.type == "cpu" and before is not None:
            self._wait("copy to the CPU")
        if made.untyped_storage()._cdata == tensor.untyped_storage()._cdata:
            made = torch.ops.aten._to_copy.default(made)
        self._put(made, target)
        return made

    def _wait(self, what: str) -> None:
        frame, nearest = sys._getframe(1), ""
        while frame is not None:
            file = frame.f_code.co_filename
            where = f"{'/'.join(file.split('/')[-2:])}:{frame.f_lineno}"
            if file != _SELF and not nearest:
                nearest = where
            if "/rlvr_lite/" in file:
                nearest = where
                break
            frame = frame.f_back  # type: ignore[assignment]
        self.waits[f"{what} {nearest}"] += 1

    # ---- torch.cuda -------------------------------------------------------------------------------------------

    def _patch(self) -> None:
        cuda = torch.cuda
        stream = types.SimpleNamespace(
            synchronize=lambda: None, wait_stream=lambda s: None, is_capturing=lambda: False, cuda_stream=0
        )
        self._patches.enter_context(mock.patch.object(torch.accelerator, "current_stream", return_value=stream))
        answers: dict[str, Any] = {
            "is_available": self.cards > 0,
            "_is_in_bad_fork": self.forked,
            "device_count": self.cards,
            "get_arch_list": ["sm_75", "sm_80", "sm_86", "sm_90"],
            "current_stream": stream,
            "default_stream": stream,
        }
        answers |= dict.fromkeys(("init", "empty_cache", "ipc_collect", "manual_seed", "manual_seed_all"))
        given = {name: (lambda *a, value=value, **k: value) for name, value in answers.items()}
        asked: dict[str, Any] = {  # of a card that is in use, or is from here on
            "_lazy_init": lambda: None,
            "current_device": lambda: self.current,
            "set_device": lambda device: setattr(self, "current", self._whole(device).index),
            "get_device_properties": self._facts_of,
            "get_device_capability": lambda device=None: self.capability,
            "get_device_name": lambda device=None: self._facts_of(device).name,
            "is_bf16_supported": lambda *_: self.capability >= (8, 0),
            "mem_get_info": lambda device=None: (self.memory - self.held - self.others, self.memory),
            "memory_allocated": lambda device=None: self.held,
            "memory_reserved": lambda device=None: self.held,
            "max_memory_allocated": lambda device=None: self.most,
            "max_memory_reserved": lambda device=None: self.most,
            "reset_peak_memory_stats": lambda device=None: setattr(self, "most", self.held),
            "synchronize": lambda device=None: self._wait("synchronize"),
            "get_rng_state": lambda device="cuda": torch.get_rng_state(),
            "set_rng_state": self._set_rng_state,
            "get_rng_state_all": lambda: [torch.get_rng_state() for _ in range(self.cards)],
        }
        given["is_initialized"] = lambda: self.used and not self.forked
        given |= {name: self._usable(value) for name, value in asked.items()}
        self.graphs = self._patches.enter_context(pretend_graphs())
        for name, value in given.items():
            self._patches.enter_context(mock.patch.object(cuda, name, value))
        self._patches.enter_context(mock.patch.object(torch.version, "cuda", self._built))
        machine = {"_on_the_bus": True, "_driver_cuda": self._driver and self._driver[1]}
        for name, value in machine.items():
            self._patches.enter_context(mock.patch.object(host, name, return_value=value))
        self._patches.enter_context(mock.patch.object(host, "_nvidia_smi", self._nvidia_smi))
        # A tensor that is saved for the backward pass says where it really lies.
        metadata = torch.utils.checkpoint._allowed_determinism_checks_to_fns
        self._patches.enter_context(mock.patch.dict(metadata, default=lambda x: {"shape": x.shape, "dtype": x.dtype}))
        # What bitsandbytes asks of its library for a card.
        paging = {"get_paged": self._paged, "fill": lambda x, value: x.fill_(value), "prefetch_tensor": lambda x: None}
        for name, value in paging.items():
            self._patches.enter_context(mock.patch.object(bitsandbytes.functional, name, value))
        self._patches.enter_context(
            mock.patch.object(cuda.amp.common, "amp_definitely_not_available", return_value=False)
        )
        for kernel in ("flash", "efficient", "cudnn"):
            name = f"can_use_{kernel}_attention"
            usable = lambda asked, debug=False, kernel=kernel: self._attends(kernel, asked)  # noqa: E731
            self._patches.enter_context(mock.patch.object(torch.backends.cuda, name, usable))
        for name in ("is_autocast_enabled", "get_autocast_dtype"):
            real = getattr(torch, name)
            self._patches.enter_context(mock.patch.object(torch, name, lambda *a, real=real: real(*map(_to_cpu, a))))
        real_autocast = torch.autocast

        class Autocast(real_autocast):  # type: ignore[misc, valid-type]
            def __init__(self, device_type: str, *args: Any, **kwargs: Any):
                super().__init__(_to_cpu(device_type), *args, **kwargs)

        for owner in (torch, torch.amp, torch.amp.autocast_mode):
            self._patches.enter_context(mock.patch.object(owner, "autocast", Autocast))
        # transformers would load weights in threads, which know nothing of this.
        self._patches.enter_context(mock.patch.dict(os.environ, HF_DEACTIVATE_ASYNC_LOAD="1"))

    def _usable(self, call: Any) -> Any:
        """A call of torch.cuda that fails where this process, or the machine, has no card to use."""

        def called(*args: Any, **kwargs: Any) -> Any:
            if self.forked:
                raise RuntimeError("pretend card: Cannot re-initialize CUDA in forked subprocess")
            if not self.cards:
                raise RuntimeError("pretend card: No CUDA GPUs are available")
            self.used = True
            return call(*args, **kwargs)

        return called

    def _facts_of(self, device: Any = None) -> Any:
        """Of the card, whose name has the number that the machine knows it by."""
        index = self.current if device is None else self._whole(device).index
        return types.SimpleNamespace(
            name=f"Pretend card {self.seen[index]}",
            major=self.capability[0],
            minor=self.capability[1],
            total_memory=self.memory,
            multi_processor_count=28,
            uuid="pretend",
        )

    def _nvidia_smi(self, query: str) -> list[list[str]]:
        if self._driver is None:
            return []
        if "driver_version" in query:
            return [[self._driver[0]]]
        return (
            [["GPU-pretend", "7", "/usr/bin/other", str(self.others // 2**20)]] if self._listed and self.others else []
        )

    def _paged(self, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Memory that card and host share; it counts for neither."""
        made: Any = torch.zeros(shape, dtype=dtype, device=CPU)
        self._gone(made.untyped_storage()._cdata)
        made.is_paged, made.page_deviceid = True, device.index
        return made

    def _set_rng_state(self, state: Tensor, device: Any = 0) -> None:
        index = device if isinstance(device, int) else self._whole(device).index
        if not 0 <= index < self.cards:
            raise RuntimeError(f"pretend card: no card {index}")

    def _attends(self, kernel: str, asked: Any) -> bool:
        """As PyTorch 2.13 decides: which masks, types and capabilities a kernel takes, and grouped heads."""
        half = asked.query.dtype in (torch.float16, torch.bfloat16)
        if kernel == "efficient":
            return not asked.enable_gqa
        return half and asked.attn_mask is None and self.capability >= (8, 0)


def _to_cpu(device: Any) -> Any:
    return "cpu" if device == "cuda" else device


def _picks_by_truth(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in parts)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, type({}.values())):
        yield from _tensors(list(value))
