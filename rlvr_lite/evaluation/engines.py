"""Who draws the answers: the rollout code of training, or vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from rlvr_lite.sampling import Completion

__all__ = ["Engine", "TransformersEngine", "VLLMEngine"]

Messages = Sequence[dict[str, str]]

_CPU_CACHE_BYTES = 2**30
_GPU_CACHE_SHARE = 0.7  # of what is free: logits, activations and fragments need the rest


class Engine(Protocol):
    """What evaluation asks of a sampler."""

    name: str
    max_rows: int

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        """Tokens of each prompt."""

    def room(self) -> int:
        """Tokens that the key-value cache holds."""

    def sample(
        self, prompts: Sequence[Messages], k: int, sampling: SamplingConfig, keys: Sequence[int]
    ) -> list[list[Completion]]:
        """``k`` answers to each prompt; ``keys`` are 64-bit, the k of a prompt next to each other."""


class TransformersEngine:
    """Sampling with :func:`rlvr_lite.sampling.generate`, as in training.

    Args:
        model: the policy, adapter included.
        tokenizer: its tokenizer.
    """

    name = "transformers"
    max_rows = 256  # more do not raise the throughput of a small model any further

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase):
        self._model, self._tokenizer = model, tokenizer

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        """Tokens of each prompt."""
        from rlvr_lite.sampling import encode

        return [int(n) for n in encode(self._tokenizer, prompts)[1].sum(-1)]

    def room(self) -> int:
        """Cache tokens in 70 % of the free memory of a GPU, in 1 GiB on a CPU."""
        import torch

        parameter = next(self._model.parameters())
        if parameter.device.type == "cuda":
            free = _GPU_CACHE_SHARE * torch.cuda.mem_get_info(parameter.device)[0]
        else:
            free = _CPU_CACHE_BYTES
        config: Any = self._model.config
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        item = parameter.element_size() if parameter.is_floating_point() else 2
        return int(free // (2 * config.num_hidden_layers * heads * head * item))

    def sample(
        self, prompts: Sequence[Messages], k: int, sampling: SamplingConfig, keys: Sequence[int]
    ) -> list[list[Completion]]:
        """``k`` answers to each prompt in one batch; every answer depends on its key alone."""
        from rlvr_lite.sampling import generate

        return generate(self._model, self._tokenizer, prompts, k, sampling, keys, max_rows=len(prompts) * k)


class VLLMEngine:
    """Sampling with vLLM (extra ``vllm``), for long answers on a GPU.

    Every answer has its own seed, made from its key, so that repeating a call repeats the answers as far as vLLM's
    kernels allow; they are not those of the transformers engine.

    Args:
        model: Hub name or directory of the base, or of merged weights.
        adapter: directory of a plain LoRA adapter (PEFT format), if any.
        revision: of a Hub model.
        **options: passed to ``vllm.LLM``, such as ``gpu_memory_utilization=0.8``.

    Raises:
        UserError: vLLM is not installed, or the adapter is not a plain LoRA.
    """

    name = "vllm"
    max_rows = 8192  # vLLM batches by itself; this is how much a kill may cost

    def __init__(self, model: str, adapter: Path | None = None, *, revision: str | None = None, **options: Any):
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                "engine 'vllm' is not installed: pip install 'rlvr-lite[vllm]', or use --engine transformers"
            ) from error
        self._vllm: Any = vllm
        self._request = None
        if adapter is not None:
            rank = _plain_lora_rank(adapter)
            options = {"enable_lora": True, "max_lora_rank": max(8, 1 << (rank - 1).bit_length()), **options}
            from vllm.lora.request import LoRARequest

            self._request = LoRARequest("policy", 1, str(adapter))
        self._llm = vllm.LLM(model=model, revision=revision, **options)

    def prompt_lengths(self, prompts: Sequence[Messages]) -> list[int]:
        """Zeros: vLLM batches by itself."""
        return [0] * len(prompts)

    def room(self) -> int:
        """As good as unlimited: vLLM plans its own cache."""
        return 2**62

    def sample(
        self, prompts: Sequence[Messages], k: int, sampling: SamplingConfig, keys: Sequence[int]
    ) -> list[list[Completion]]:
        """``k`` answers to each prompt."""
        from rlvr_lite.sampling import Completion

        parameters = [
            self._vllm.SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k or -1,
                max_tokens=sampling.max_new_tokens,
                seed=key % 2**31,
            )
            for key in keys
        ]
        chats = [[dict(turn) for turn in prompt] for prompt in prompts for _ in range(k)]
        outputs = self._llm.chat(chats, parameters, lora_request=self._request, use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        found = [Completion(a.text, len(a.token_ids), a.finish_reason == "length") for a in answers]
        return [found[i * k : (i + 1) * k] for i in range(len(prompts))]


def _plain_lora_rank(adapter: Path) -> int:
    """Rank of a plain LoRA; vLLM applies no other adapter (vllm issues 10849 and 16764 for DoRA)."""
    from rlvr_lite.records import read_json

    config = read_json(adapter / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise UserError(
            f"vLLM serves plain LoRA only: export {adapter} with to='merged' first, or use --engine transformers"
        )
    return int(config["r"])
