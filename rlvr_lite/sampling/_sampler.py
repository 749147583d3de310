"""Who samples: one protocol, which transformers' loop, vLLM and any third sampler follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import unknown_name
from rlvr_lite.sampling._portions import Portion
from rlvr_lite.sampling._text import Completion, Messages

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

__all__ = ["SampledPolicy", "Sampler", "Samples", "register_sampler", "sampler", "sampler_names"]

_ROWS = 8192  # of a sampler that batches by itself: this is how much a kill may cost
_ANY_ROOM = 2**62


@dataclass(frozen=True)
class Samples:
    """Sampled completions, the k of a prompt next to each other: B = P*k rows.

    Attributes:
        ids: int64 ``[B, T]``, the end token included, padded on the right.
        mask: int64 ``[B, T]``, 1 at sampled tokens.
        logprobs: float32 ``[B, T]``, of each token under softmax(logits / temperature) over the tokens kept; 0 at
            padding.
        texts: B texts, without special tokens.
        ended: bool ``[B]``, whether there is an end token; the others were cut at max_completion_length.
        prompts: B texts that the completions continue, after the chat template; none where the sampler does not tell.
    """

    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    texts: Sequence[str]
    ended: Tensor
    prompts: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def completions(self) -> list[Completion]:
        """Text, length, end, tokens and prompt of each row."""
        lengths, ended, prompts = self.mask.sum(-1).tolist(), self.ended.tolist(), self.prompts or [""] * len(self)
        rows = zip(self.texts, lengths, ended, self.ids.tolist(), prompts, strict=True)
        return [
            Completion(text, length, not end, tuple(ids[:length]), prompt) for text, length, end, ids, prompt in rows
        ]


class Sampler(Protocol):
    """What training, evaluation and chat ask of a sampler; a subclass has to write ``sample`` only.

    Attributes:
        name: how it is called on the command line and in records.
        precision: in which it computes, and what it holds: ``fp32``, ``bf16``, ``fp16``, ``nf4``.
        weights: of which it samples, in words.
    """

    name: str
    precision: str
    weights: str

    def sample(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        """Sample ``k`` completions of each prompt, all at once.

        Args:
            prompts: P chats or texts.
            k: completions a prompt.
            config: temperature, top_p, top_k, min_p, max_completion_length.
            keys: P*k 64-bit keys, the k of a prompt next to each other; a completion depends on its own key, the prompt
                and the policy only.
        """

    def metrics(self) -> Mapping[str, float]:
        """What a training run notes of it with every generation batch."""
        return {}

    def prepared(self) -> AbstractContextManager[None]:
        """What holds while several calls of ``sample`` draw from one and the same policy."""
        return nullcontext()

    def room(self) -> int:
        """Tokens that the key-value cache may hold; without a limit if the sampler sees to its memory itself."""
        return _ANY_ROOM

    def longest(self, prompts: Sequence[Messages]) -> int | None:
        """The longest completion in tokens that each of ``prompts`` has positions for; ``None`` where nothing limits it."""
        return None

    def portions(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, room: int) -> Iterable[Portion]:
        """What is sampled together so that no more than ``room`` tokens are cached."""
        step = max(1, _ROWS // k)
        for start in range(0, len(prompts), step):
            yield Portion(tuple(range(start, min(start + step, len(prompts)))), 0, k)


@dataclass(frozen=True)
class SampledPolicy:
    """What a sampler is made of by name.

    Attributes:
        base: a Hub model or a local directory; ``None`` for a model that came in memory.
        revision: of a Hub model.
        adapter: directory of the adapter, if there is one.
        precision: in which the base is to be held.
        load: model and tokenizer in memory, the adapter included.
    """

    base: str | None
    revision: str | None
    adapter: Path | None
    precision: str
    load: Callable[[], tuple[nn.Module, PreTrainedTokenizerBase]]


_KNOWN: dict[str, Callable[[SampledPolicy], Sampler]] = {}


def register_sampler(name: str, build: Callable[[SampledPolicy], Sampler]) -> None:
    """Make a sampler known by name, to ``evaluate(engine=name)`` and the command line."""
    _KNOWN[name] = build


def sampler_names() -> list[str]:
    """Those that are known."""
    return list(_KNOWN)


def sampler(name: str, policy: SampledPolicy) -> Sampler:
    """The sampler of that name for a policy.

    Raises:
        UserError: no sampler has this name, or this one cannot sample from the policy.
    """
    if name not in _KNOWN:
        raise unknown_name("engine", name, _KNOWN)
    return _KNOWN[name](policy)
