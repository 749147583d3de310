"""vLLM as a sampler (extra ``vllm``), for long completions on a GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rlvr_lite.bases import EMBEDDED
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError, first_line
from rlvr_lite.records import read_json
from rlvr_lite.sampling._sampler import SampledPolicy, Sampler, Samples, register_sampler
from rlvr_lite.sampling._text import Messages

__all__ = ["TRIED", "VLLMSampler", "drawing", "drawn", "library", "lora_room", "started"]

#: Versions of vLLM whose own code the tests run; the extra ``vllm`` asks for the same.
TRIED = "==0.32.*"

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "auto": "auto"}
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # of adapters that vLLM can be built for
_OTHERWISE = "use --engine transformers"  # of evaluation
_PROMPT_END = 32  # tokens of a prompt that say whether it opens a thought


class VLLMSampler(Sampler):
    """Samples with vLLM from a model on disk.

    Every completion has its own seed, made from its key, so that repeating a call repeats the completions as far as
    vLLM's kernels allow; they are not those of the transformers loop.

    Args:
        model: Hub name or directory of the base, or of merged weights.
        adapter: directory of a plain LoRA adapter (PEFT format), if any.
        precision: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for that of the files.
        revision: of a Hub model.
        **options: passed to ``vllm.LLM``, such as ``gpu_memory_utilization=0.8``.

    Raises:
        UserError: vLLM is not installed or does not start, the base is asked for in 4 bits, or the adapter is not a
            plain LoRA.
    """

    name = "vllm"

    def __init__(
        self,
        model: str,
        adapter: Path | None = None,
        *,
        precision: str = "auto",
        revision: str | None = None,
        **options: Any,
    ):
        if precision not in _DTYPES:
            raise UserError(
                f"vLLM samples from 16-bit or 32-bit weights, not from the {precision} base that was trained on: use "
                "--engine transformers, or --precision bf16 to score the adapter on the unquantised base"
            )
        if adapter is not None:
            rank = _plain_lora_rank(adapter)
            options = {"enable_lora": True, "max_lora_rank": lora_room(rank) or rank, **options}
        self._vllm, self._llm = started(model, _DTYPES[precision], _OTHERWISE, revision=revision, **options)
        self._request = None
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            self._request = LoRARequest("policy", 1, str(adapter))
        self.precision = _held(self._llm) if precision == "auto" else precision
        self.weights = f"{self.precision} weights read by vLLM" + (
            ", the adapter as a LoRA" if adapter is not None else ""
        )

    def sample(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        """``k`` completions of each prompt; vLLM batches by itself.

        Raises:
            UserError: the engine failed, such as on a prompt that it has no room for.
        """
        parameters = [drawing(self._vllm, config, key) for key in keys]
        rows: list[Any] = [p if isinstance(p, str) else [dict(turn) for turn in p] for p in prompts for _ in range(k)]
        ask = self._llm.generate if isinstance(prompts[0], str) else self._llm.chat
        try:
            outputs = ask(rows, parameters, lora_request=self._request, use_tqdm=False)
        except Exception as error:  # such as a prompt beyond max_model_len, or an engine that died
            raise UserError(f"vLLM failed ({first_line(error)}): {_OTHERWISE}") from error
        return replace(drawn(outputs), prompts=[self._shown(output) for output in outputs])

    def _shown(self, output: Any) -> str:
        """The prompt after the chat template, at least its end; of a chat vLLM keeps only the tokens."""
        return str(output.prompt or self._llm.get_tokenizer().decode(output.prompt_token_ids[-_PROMPT_END:]))


def library(otherwise: str) -> Any:
    """The vLLM module.

    Args:
        otherwise: what to do without it, for the message.

    Raises:
        UserError: vLLM is not installed, cannot be imported, or is of another version than those tried.
    """
    # In a process of its own the engine could not be given weights; without a card it would fill the memory with its cache.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if not torch.cuda.is_available():
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    try:
        import vllm
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise UserError(
                f"vLLM cannot be imported ({first_line(error)}): install it anew, or {otherwise}"
            ) from error
        raise UserError(f"vLLM is not installed: pip install 'rlvr-lite[vllm]', or {otherwise}") from error
    except Exception as error:  # such as a build for another CUDA
        raise UserError(f"vLLM cannot be imported ({first_line(error)}): install it anew, or {otherwise}") from error
    found = str(getattr(vllm, "__version__", "of no version"))
    if not found.startswith(TRIED.strip("=*")):
        raise UserError(f"vLLM {found} has not been tried: pip install 'vllm{TRIED}', or {otherwise}")
    return vllm


def started(model: str, dtype: str, otherwise: str, **options: Any) -> tuple[Any, Any]:
    """The vLLM module, and an engine that tells log-probabilities of the tempered distribution.

    Args:
        model: Hub name or directory.
        dtype: as vLLM calls it.
        otherwise: what to do without it, for the message.
        **options: of ``vllm.LLM``.

    Raises:
        UserError: as :func:`library`, or it does not start.
    """
    vllm, given = library(otherwise), {"logprobs_mode": "processed_logprobs", **options}
    try:
        return vllm, vllm.LLM(model=model, dtype=dtype, **given)
    except Exception as error:  # of vLLM, CUDA or the Hub: anything may go wrong at the start
        raise UserError(f"vLLM does not start ({first_line(error)}): {otherwise}") from error


def lora_room(rank: int) -> int | None:
    """The smallest rank that vLLM can be built for and an adapter fits in; ``None`` if it fits in none.

    >>> lora_room(4), lora_room(260), lora_room(600)
    (8, 320, None)
    """
    return next((most for most in _RANKS if most >= rank), None)


def drawing(vllm: Any, config: SamplingConfig, key: int, **more: Any) -> Any:
    """How one completion is drawn, from its key."""
    return vllm.SamplingParams(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k or -1,
        min_p=config.min_p,
        max_tokens=config.max_completion_length,
        seed=key % 2**31,
        logprobs=0,  # of the sampled token alone
        **more,
    )


def drawn(outputs: Sequence[Any]) -> Samples:
    """What vLLM answered, a row each."""
    answers = [output.outputs[0] for output in outputs]
    width = max((len(answer.token_ids) for answer in answers), default=0)
    ids, mask = (torch.zeros(len(answers), width, dtype=torch.long) for _ in range(2))
    logprobs = torch.zeros(len(answers), width)
    for row, answer in enumerate(answers):
        length = len(answer.token_ids)
        ids[row, :length], mask[row, :length] = torch.tensor(list(answer.token_ids), dtype=torch.long), 1
        chosen = zip(answer.token_ids, answer.logprobs, strict=True)
        logprobs[row, :length] = torch.tensor([found[token].logprob for token, found in chosen])
    ended = torch.tensor([answer.finish_reason != "length" for answer in answers])
    return Samples(ids, mask, logprobs, [answer.text for answer in answers], ended)


def _held(llm: Any) -> str:
    """The precision that vLLM chose."""
    name = str(llm.llm_engine.model_config.dtype).removeprefix("torch.")
    return next((ours for ours, theirs in _DTYPES.items() if theirs == name), name)


def _plain_lora_rank(adapter: Path) -> int:
    """Rank of a plain LoRA; vLLM applies no other adapter (vllm issues 10849 and 16764 for DoRA)."""
    config = read_json(adapter / "adapter_config.json")
    if config.get("peft_type") != "LORA" or config.get("use_dora"):
        raise UserError(
            f"vLLM serves plain LoRA only: export {adapter} with to='merged' first, or use --engine transformers"
        )
    return int(config["r"])


def _build(policy: SampledPolicy) -> Sampler:
    if policy.base is None:
        raise UserError("vLLM loads models by name: give a run or a model's name, or use --engine transformers")
    base = str(EMBEDDED.get(policy.base, policy.base))
    return VLLMSampler(base, policy.adapter, precision=policy.precision, revision=policy.revision)


register_sampler("vllm", _build)
