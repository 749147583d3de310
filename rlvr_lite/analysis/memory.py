r"""Peak memory of every phase of a training step, from the shapes of a base alone.

With L layers of width H and inner width I, e bytes a number, N tokens of a micro-batch (each shared prompt once), C the
longest completion, V the vocabulary and t trained numbers:

==========  =======================================================================================================
held        weights + adapter + moments of the optimizer; on every phase's bill
rollout     KV cache ``2 L rows kv_heads head_dim room e`` with the room it has after its last growth, or that of fixed
            buffers on a GPU, and logits, which a CUDA graph holds once more
forward     ``L N H e`` kept for the backward pass, hidden states at the head, and a chunk of logits: ``8 B`` a logit
backward    kept layers + one block's activations ``N (a H + b I) + c C (P + C) + d W`` + gradients ``4 t``
optimizer   gradients ``4 t``
==========  =======================================================================================================

a, b, c, d depend on the method and the precision alone; each method states its own, taken from dry runs of two layers by
``python -m tests.benchmarks.plan calibrate``. Everything is bytes. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from rlvr_lite.analysis._shape import Shape

__all__ = [
    "BASE",
    "GIB",
    "PHASES",
    "Adapter",
    "Cost",
    "Shape",
    "Step",
    "copy_fits",
    "fixed_room",
    "last_growth",
    "micro_batch",
    "peak",
    "phases",
    "prompts_at_once",
    "quantised",
    "weights",
]

GIB = 2**30
#: In the order of a step.
PHASES = ("load", "rollout", "scoring", "forward", "backward", "optimizer")
_CHUNK = {"cuda": 2**25, "cpu": 2**23}  # logits formed at a time by grpo.token_logprobs
#: (a, b, c, d, f): ``N (a H + b I) + c C (P + C) + d W`` bytes of activations in a block's backward pass, recomputed, and
#: ``f N I`` without gradients, for N tokens of a micro-batch, widths H and I, completions of C tokens after prompts of P, and
#: W numbers in the block's matrices.
Cost = tuple[float, float, float, float, float]
#: ``f`` of a block without an adapter, by bytes of an activation.
BASE: Mapping[int, float] = {2: 7.7, 4: 15.4}
#: (a, b) of a block of a Llama without an adapter, by bytes of an activation.
_BARE: Mapping[int, tuple[float, float]] = {2: (20.3, 12.0), 4: (28.5, 24.0)}
#: Hidden states around the output head, bytes a token and feature, by bytes of an activation.
_HEAD: Mapping[int, float] = {2: 9.4, 4: 13.5}
_WIDTH = 128  # slots: fixed buffers have a multiple
_BLOCK = 64  # numbers that share a scale in NF4, and 256 scales share another


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What a method adds to a base.

    Attributes:
        method: its name.
        block: activations of a block by what its products compute in: ``nf4``, ``bf16`` (any 16 bits) and ``fp32``.
        trained: numbers that are trained, in fp32.
        frozen: bytes of what it adds without training it.
        moments: bytes of the optimizer's state.
        kept: bytes of what it casts and computes once for a rollout.
        trains_base: whether it is the base's own weights that are trained, in fp32.
    """

    method: str
    block: Mapping[str, Cost]
    trained: int
    frozen: int = 0
    moments: int = 0
    kept: int = 0
    trains_base: bool = False

    def __post_init__(self) -> None:
        costs = {kind: tuple(cost) for kind, cost in self.block.items()}  # lists, if they come from JSON
        object.__setattr__(self, "block", costs)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The sizes of one optimizer step.

    Attributes:
        prompts: whose completions are sampled at once.
        group_size: completions a prompt (G).
        prompt_length: tokens (P).
        completion_length: tokens of the longest completion (C).
        micro_batch: completions a backward pass.
        rows: completions of the whole step.
        checkpointing: whether activations are recomputed in the backward pass.
        copy: whether a 4-bit base is sampled from through a copy in the type of products.
        engine: whether vLLM samples, from weights of its own in the type of products, and sleeps in the other phases; the head
            of a base that is trained itself is not tied there.
        reference: whether the frozen base scores completions too (``kl_coef > 0``); full fine-tuning keeps a copy of it.
    """

    prompts: int
    group_size: int
    prompt_length: int
    completion_length: int
    micro_batch: int
    rows: int
    checkpointing: bool = True
    reference: bool = False
    copy: bool = False
    engine: bool = False

    @property
    def sampled(self) -> int:
        """Completions sampled at once."""
        return self.prompts * self.group_size

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch whose completions are all of full length: a shared prompt counts once."""
        prompts = -(-self.micro_batch // self.group_size)
        return prompts * self.prompt_length + self.micro_batch * (self.completion_length - 1)


def quantised(numbers: int) -> int:
    """Bytes of a matrix in NF4 with double quantisation (QLoRA, arXiv 2305.14314, §3): 4.127 bits a number.

    >>> quantised(4096 * 4096) * 8 / 4096**2
    4.127473831176758
    """
    scales = -(-numbers // _BLOCK)
    return -(-numbers // 2) + scales + 4 * -(-scales // 256) + 4 * (16 + 256 + 1)


def weights(shape: Shape, precision: str, *, full: bool = False) -> int:
    """Bytes of the base; ``full`` fine-tuning holds it in fp32."""
    if precision == "nf4":
        inside = sum(size * count for size, count in shape.matrices)
        held = sum(quantised(size) * count for size, count in shape.matrices) + 2 * (shape.parameters - inside)
        return held + shape.buffers
    return (4 if full or precision == "fp32" else 2) * shape.parameters + shape.buffers


def last_growth(prompt: int, completion: int) -> tuple[int, int]:
    """Tokens in the cache before and room after it grows for the last time (``sampling.growing_cache``).

    >>> last_growth(256, 2048)
    (1928, 2411)
    """
    room = prompt
    while True:
        following = max(room + 1 + 64, int((room + 1) * 1.25))
        if following >= prompt + completion - 1:
            return room, following
        room = following


def fixed_room(prompt: int, completion: int) -> int:
    """Slots a row in buffers of a fixed size (``sampling.FixedStep``): the last token of a completion is not read.

    >>> fixed_room(100, 29), fixed_room(100, 30)
    (128, 256)
    """
    return -(-(prompt + completion - 1) // _WIDTH) * _WIDTH


def phases(
    shape: Shape, precision: str, adapter: Adapter, step: Step, *, device: str = "cuda", compute: int | None = None
) -> dict[str, dict[str, int]]:
    """Bytes by phase and kind at the highest moment of each phase.

    Args:
        shape: of the base.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``nf4`` (whose layers compute in ``compute``).
        adapter: what the method adds.
        step: its sizes.
        device: ``cuda`` or ``cpu``.
        compute: bytes of an activation; by default 4 for ``fp32`` and 2 otherwise.
    """
    return _Bill(shape, precision, adapter, step, device, compute or (4 if precision == "fp32" else 2)).phases()


def peak(bill: Mapping[str, Mapping[str, int]]) -> tuple[str, int]:
    """The phase that needs most, and its bytes."""
    return max(((name, sum(kinds.values())) for name, kinds in bill.items()), key=lambda item: item[1])


def micro_batch(
    shape: Shape, precision: str, adapter: Adapter, step: Step, budget: int, *, device: str = "cuda"
) -> int:
    """The most completions a backward pass for which forward and backward stay within ``budget`` bytes; 0 if none do.

    Whole groups are preferred, because they share their prompt.
    """

    def fits(size: int) -> bool:
        bill = phases(shape, precision, adapter, dataclasses.replace(step, micro_batch=size), device=device)
        return all(sum(bill[phase].values()) <= budget for phase in ("forward", "backward"))

    sizes = set(range(1, step.group_size)) | set(range(step.group_size, step.rows + 1, step.group_size))
    return max((n for n in sizes | {step.rows} if n <= step.rows and fits(n)), default=0)


def prompts_at_once(
    shape: Shape, precision: str, adapter: Adapter, step: Step, budget: int, *, device: str = "cuda"
) -> int:
    """The most prompts, halving from all, whose completions can be sampled at once within ``budget`` bytes; 0 if none."""
    prompts = max(1, step.rows // step.group_size)
    while prompts:
        bill = phases(shape, precision, adapter, dataclasses.replace(step, prompts=prompts), device=device)
        if sum(bill["rollout"].values()) <= budget:
            return prompts
        prompts //= 2
    return 0


def copy_fits(shape: Shape, adapter: Adapter, step: Step, room: int) -> bool:
    """Whether as many completions of a 4-bit base are sampled at once with a copy of it as without.

    Args:
        shape: of the base.
        adapter: what the method adds.
        step: its sizes.
        room: bytes that may be filled.
    """
    with_copy = prompts_at_once(shape, "nf4", adapter, dataclasses.replace(step, copy=True), room)
    return with_copy > 0 and with_copy == prompts_at_once(shape, "nf4", adapter, step, room)


@dataclass(frozen=True)
class _Bill:
    """The terms of the sum; ``size`` is e, the bytes of an activation."""

    shape: Shape
    precision: str
    adapter: Adapter
    step: Step
    device: str
    size: int

    @property
    def _full(self) -> bool:
        return self.adapter.trains_base

    @property
    def _gradients(self) -> int:
        return 4 * self.adapter.trained

    @property
    def _casts(self) -> int:
        """What autocast keeps of trained fp32 numbers in 16 bits."""
        return 2 * self.adapter.trained if self.size == 2 else 0

    def phases(self) -> dict[str, dict[str, int]]:
        base = {"weights": weights(self.shape, self.precision, full=self._full)}
        if not self._full:
            base["adapter"] = 4 * self.adapter.trained + self.adapter.frozen
        held = base | {"optimizer": self.adapter.moments}
        if self._full and self.step.reference:
            held["reference"] = 4 * self.adapter.trained
        earlier = self._gradients if self.step.rows > self.step.micro_batch else 0
        last = max(self._backward_start(), self._backward_end(), key=lambda x: x[0] + x[1])
        bill = {
            "load": base,
            "rollout": held | self._rollout(),
            "forward": held | self._forward() | {"gradients": earlier},
            "backward": held | {"gradients": earlier + last[0], "activations": last[1]},
            "optimizer": held | {"gradients": self._gradients},
        }
        if self.step.reference:
            bill["scoring"] = held | self._scored()
        return {phase: bill[phase] for phase in PHASES if phase in bill}

    @property
    def _cost(self) -> Cost:
        kind = "fp32" if self.size == 4 else "nf4" if self.precision == "nf4" else "bf16"
        return self.adapter.block[kind]

    def _without_gradients(self, rows: int, length: int, *, adapted: bool) -> int:
        """Activations of a block where none are kept."""
        inner = self.shape.intermediate
        cost = self._cost[4] if adapted else BASE[self.size]
        if self._counted is None:
            return int(cost * rows * length * inner)
        token = self._counted[0] + self._counted[1] * length + (cost - BASE[self.size]) * inner
        return int(rows * length * token)

    @property
    def _counted(self) -> tuple[float, ...] | None:
        """What the bare block of this architecture takes, where it was counted."""
        return (self.shape.activations or {}).get("fp32" if self.size == 4 else "bf16")

    @property
    def _stream(self) -> int:
        """Bytes of a number between blocks: in the type of the embedding, which full training holds in fp32."""
        return 4 if self._full else self.size

    @property
    def _tokens(self) -> int:
        """Tokens of a micro-batch: a prompt counts once where its group shares it."""
        step = self.step
        return step.tokens if self.shape.packs else step.micro_batch * self._length

    @property
    def _length(self) -> int:
        """Tokens of the longest row."""
        return self.step.prompt_length + self.step.completion_length - 1

    def _pass(self, *, adapted: bool) -> int:
        """Activations of a block when a micro-batch is scored."""
        if self.shape.packs:
            return self._without_gradients(1, self._tokens, adapted=adapted)
        return self._without_gradients(self.step.micro_batch, self._length, adapted=adapted)

    @property
    def _kept(self) -> int:
        """What a block keeps for the backward pass when it is recomputed there: its input."""
        return self._tokens * self.shape.hidden * self._stream

    def _block(self) -> int:
        """Activations of a block at the highest moment of its backward pass."""
        a, b, c, d, _ = self._cost
        tokens, completion, shape = self._tokens, self.step.completion_length, self.shape
        quadratic = completion * (completion + self.step.prompt_length)
        a_token = a * shape.hidden + b * shape.intermediate
        if self._counted is not None:
            bare = _BARE[self.size]
            a_token += self._counted[2] + self._counted[3] * self._length
            a_token -= bare[0] * shape.hidden + bare[1] * shape.intermediate
        return int(tokens * a_token + c * quadratic + d * shape.block)

    def _backward_start(self) -> tuple[int, int]:
        """Gradients and activations when the last block is about to be finished."""
        layers = self.shape.layers
        if not self.step.checkpointing:
            return self._gradients // layers, layers * self._block()
        head = 4 * self.shape.vocabulary * self.shape.hidden if self._full else 0
        return self._gradients // layers + head, layers * self._kept + self._block()

    def _backward_end(self) -> tuple[int, int]:
        """The same at the first block."""
        return self._gradients, self._kept + self._block()

    def _logits(self, rows: int) -> int:
        chunk = max(16, _CHUNK[self.device] // self.shape.vocabulary)
        return 8 * min(chunk, rows) * self.shape.vocabulary

    def _forward(self) -> dict[str, int]:
        shape, step = self.shape, self.step
        layers = shape.layers * (self._kept if step.checkpointing else self._block())
        head = int(_HEAD[self.size] * step.tokens * shape.hidden)
        block = self._pass(adapted=True)
        logits = self._logits(step.micro_batch * step.completion_length)
        return {
            "activations": layers + self._casts + max(head, block - logits),
            "head": logits,
        }

    def _scored(self) -> dict[str, int]:
        block = self._pass(adapted=False)
        logits = self._logits(self.step.micro_batch * self.step.completion_length)
        return {"activations": max(0, block - logits), "head": logits}

    def _rollout(self) -> dict[str, int]:
        shape, step, e = self.shape, self.step, self.size
        before, room = last_growth(step.prompt_length, step.completion_length)
        half = (self._stream + e) / 2  # keys are rotated in the type of the stream
        states = 4 * shape.states * step.sampled
        logits = step.sampled * shape.vocabulary * (e + 8)

        def cached(tokens: int, more: int = 0) -> int:
            return int(half * step.sampled * (shape.cached(tokens) + more)) + states

        if step.engine:
            untied = self.adapter.trains_base and shape.config.get("tie_word_embeddings", True)
            held = e * (shape.parameters + shape.vocabulary * shape.hidden * untied)
            return {"engine": held, "KV cache": cached(self._length), "head": logits}
        prefill = self._without_gradients(step.prompts, step.prompt_length, adapted=True)
        kept = self.adapter.kept
        unpacked = max((size for size, _ in shape.matrices), default=0) * e if self.precision == "nf4" else 0
        if step.copy and self.precision == "nf4":
            kept, unpacked = kept + e * sum(size * count for size, count in shape.matrices), 0
        growing = {"KV cache": cached(room, shape.widest * before), "activations": kept + unpacked}
        drawing = {"KV cache": cached(room), "activations": kept, "head": logits}
        reading = {"KV cache": cached(step.prompt_length), "activations": kept + prefill}
        moments = [growing, drawing, reading]
        if self.device == "cuda" and not shape.states and not any(window for _, window in shape.caches):
            slots = fixed_room(step.prompt_length, step.completion_length)
            copies = int(half * step.sampled * shape.repeats * shape.widest * slots)
            moments.append({"KV cache": cached(slots), "activations": kept + unpacked, "head": 2 * logits})
            moments.append({"KV cache": cached(slots), "activations": kept + copies, "head": logits})
        return max(moments, key=lambda x: sum(x.values()))
