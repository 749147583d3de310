"""vLLM as a sampler (extra ``vllm``), for long completions on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError
from rlvr_lite.records import read_json
from rlvr_lite.sampling._sampler import SampledPolicy, Sampler, Samples, register_sampler
from rlvr_lite.sampling._text import Messages

__all__ = ["VLLMSampler"]

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "auto": "auto"}
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
        options = {"logprobs_mode": "processed_logprobs", **options}  # those of the tempered distribution
        try:
            self._llm = vllm.LLM(model=model, revision=revision, dtype=_DTYPES[precision], **options)
        except Exception as error:  # of vLLM, CUDA or the Hub: anything may go wrong at the start
            first = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(f"vLLM does not start ({first}): use --engine transformers") from error
        self.precision = _held(self._llm) if precision == "auto" else precision
        self.weights = f"{self.precision} weights read by vLLM" + (
            ", the adapter as a LoRA" if adapter is not None else ""
        )

    def sample(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        """``k`` completions of each prompt; vLLM batches by itself."""
        parameters = [
            self._vllm.SamplingParams(
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k or -1,
                min_p=config.min_p,
                max_tokens=config.max_completion_length,
                seed=key % 2**31,
                logprobs=0,  # of the sampled token alone
            )
            for key in keys
        ]
        rows: list[Any] = [p if isinstance(p, str) else [dict(turn) for turn in p] for p in prompts for _ in range(k)]
        ask = self._llm.generate if isinstance(prompts[0], str) else self._llm.chat
        outputs = ask(rows, parameters, lora_request=self._request, use_tqdm=False)
        answers = [output.outputs[0] for output in outputs]
        width = max((len(answer.token_ids) for answer in answers), default=0)
        ids, mask = (
            torch.zeros(len(answers), width, dtype=torch.long),
            torch.zeros(len(answers), width, dtype=torch.long),
        )
        logprobs = torch.zeros(len(answers), width)
        for row, answer in enumerate(answers):
            length = len(answer.token_ids)
            ids[row, :length], mask[row, :length] = torch.tensor(list(answer.token_ids), dtype=torch.long), 1
            chosen = zip(answer.token_ids, answer.logprobs, strict=True)
            logprobs[row, :length] = torch.tensor([found[token].logprob for token, found in chosen])
        ended = torch.tensor([answer.finish_reason != "length" for answer in answers])
        texts = [answer.text for answer in answers]
        return Samples(ids, mask, logprobs, texts, ended, [self._shown(output) for output in outputs])

    def _shown(self, output: Any) -> str:
        """The prompt after the chat template, at least its end; of a chat vLLM keeps only the tokens."""
        return str(output.prompt or self._llm.get_tokenizer().decode(output.prompt_token_ids[-_PROMPT_END:]))


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
    return VLLMSampler(policy.base, policy.adapter, precision=policy.precision, revision=policy.revision)


register_sampler("vllm", _build)
