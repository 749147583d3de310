"""vLLM beside the model that is trained: one engine for the run, which is given the policy before every rollout."""

from __future__ import annotations

import logging
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlvr_lite import methods
from rlvr_lite.config import SamplingConfig
from rlvr_lite.errors import UserError, first_line
from rlvr_lite.grpo import output_head
from rlvr_lite.sampling._portions import Portion
from rlvr_lite.sampling._sampler import Sampler, Samples
from rlvr_lite.sampling._text import Messages, render, tokenize, unpadded
from rlvr_lite.sampling._transformers import TransformersSampler
from rlvr_lite.sampling._vllm import drawing, drawn, lora_room, started

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["ColocatedVLLM"]

#: Of a training run.
_OTHERWISE = "leave the sampler out"

_LOG = logging.getLogger(__name__)


class ColocatedVLLM(Sampler):
    """Samples the policy that is trained with a vLLM engine on the same card.

    The engine reads the base once, as it is computed with: that of a run in NF4 is dequantised to the type of its
    products. Adapters that are plain LoRAs are handed over as such, without merging, which would round small updates away;
    every policy is a new LoRA with a name of its own, since vLLM keeps what it once read. Other methods hand over ``W + dW``
    from the untouched base, and a base that is trained itself its weights, for which the engine's head is not tied to its
    embeddings: it would stay what it was. The cache of prompts is emptied with each policy, and on a GPU the engine sleeps
    while nothing is sampled.

    An engine that fails while it samples is given up with one line, and the model itself is sampled from then on.

    Args:
        model: the policy: a ``PeftModel``, or a model whose own weights are trained.
        own: samples from the model itself, with the template and the ends that are to be followed.
        tokenizer: its tokenizer.
        longest: tokens of a prompt and its completion; ``None`` for what the base has positions for.
        memory: share of the card that vLLM may fill.
        sleep: whether it gives the card's memory back while nothing is sampled.
        **options: passed to ``vllm.LLM``.

    Raises:
        UserError: vLLM is not installed, or does not start with this base; an adapter that is no LoRA was not attached by
            ``rlvr_lite.methods``.
    """

    name = "vllm"

    def __init__(
        self,
        model: nn.Module,
        own: TransformersSampler,
        tokenizer: PreTrainedTokenizerBase,
        *,
        longest: int | None = None,
        memory: float = 0.3,
        sleep: bool = True,
        **options: Any,
    ):
        self._model, self._own, self._tokenizer = model, own, tokenizer
        self._dtype, rank = _products(model, own), _lora_rank(model)
        cuda = next(model.parameters()).device.type == "cuda"
        if rank is None and not _whole(model):
            methods.attachment(model)  # of others nobody knows what they change
        room = rank and lora_room(rank)
        if rank and not room:
            _LOG.warning("rank %d is more than vLLM's LoRA takes: it is given merged weights, which round", rank)
        self._lora = bool(room)
        options = {"enable_lora": True, "max_lora_rank": room, "max_loras": 1, **options} if room else options
        options = {"enable_sleep_mode": cuda and sleep, "enforce_eager": not cuda, "max_model_len": longest, **options}
        self._folder = Path(tempfile.mkdtemp(prefix="rlvr-lite-vllm-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="rlvr-lite-base-") as base:
            _write_base(model, tokenizer, self._dtype, Path(base))
            said = str(self._dtype).removeprefix("torch.")
            self._vllm, self._llm = started(base, said, _OTHERWISE, gpu_memory_utilization=memory, **options)
        self._sleeps, self._given, self._request = bool(options["enable_sleep_mode"]), 0, None
        if self._sleeps:
            self._llm.sleep(level=1)
        self.precision = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[said]
        self.weights = "vLLM's copy of the policy"
        if not _whole(model):
            self.weights += ", the adapter as a LoRA" if self._lora else ", adapter and base as one"
        if own.precision == "nf4":
            self.weights += ", the base dequantised"
            _LOG.warning("vLLM samples from the 4-bit base dequantised to %s", said)

    @contextmanager
    def prepared(self) -> Iterator[None]:
        """The engine is awake and holds the policy as it stands; afterwards it sleeps."""
        if self._llm is not None:
            try:
                if self._sleeps:
                    torch.cuda.empty_cache()  # what training freed is the engine's for now
                    self._llm.wake_up()
                self._hand_over()
            except Exception as error:
                self._give_up(error)
        if self._llm is None:
            with self._own.prepared():
                yield
            return
        try:
            yield
        finally:
            if self._sleeps and self._llm is not None:
                self._llm.sleep(level=1)

    def _hand_over(self) -> None:
        self._given += 1
        if self._lora:
            from vllm.lora.request import LoRARequest

            if self._request is not None:
                self._llm.llm_engine.remove_lora(self._given - 1)
            self._model.save_pretrained(str(self._folder), save_embedding_layers=False)  # type: ignore[operator]
            self._request = LoRARequest(f"policy-{self._given}", self._given, str(self._folder))
            self._llm.llm_engine.add_lora(self._request)  # read now: the folder is written anew for the next
        else:
            fresh = _base(self._model, self._dtype, updated=True)
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": fresh})
        self._llm.reset_prefix_cache()

    def sample(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        """``k`` completions of each prompt, from the tokens that the scorer reads."""
        if self._llm is not None:
            try:
                return self._sampled(prompts, k, config, keys)
            except Exception as error:  # of an engine that died
                self._give_up(error)
        return self._own.sample(prompts, k, config, keys)

    def _sampled(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, keys: Sequence[int]) -> Samples:
        rendered = [render(self._tokenizer, prompt, self._own.template) for prompt in prompts]
        ids, mask = tokenize(self._tokenizer, rendered, prompts)
        rows = [row[shown.bool()].tolist() for row, shown in zip(ids, mask, strict=True)]
        asked: list[Any] = [{"prompt_token_ids": row} for row in rows for _ in range(k)]
        ends = [*self._own.ends]
        parameters = [drawing(self._vllm, config, key, stop_token_ids=ends, ignore_eos=True) for key in keys]
        outputs = self._llm.generate(asked, parameters, lora_request=self._request, use_tqdm=False)
        samples = drawn(outputs)
        said = self._tokenizer.batch_decode(unpadded(samples.ids, samples.mask), skip_special_tokens=True)
        return replace(samples, texts=said, prompts=[text for text in rendered for _ in range(k)])

    def metrics(self) -> dict[str, float]:
        """Whether it is the engine that samples."""
        return {"sampling/vllm": float(self._llm is not None)}

    def _give_up(self, error: Exception) -> None:
        _LOG.warning("vLLM failed (%s): the model itself is sampled from now on", first_line(error))
        self._llm, self.precision, self.weights = None, self._own.precision, self._own.weights

    def room(self) -> int:
        """Its own affair while the engine lives."""
        return self._own.room() if self._llm is None else super().room()

    def longest(self, prompts: Sequence[Messages]) -> int | None:
        """The base's positions less the longest prompt."""
        return self._own.longest(prompts)

    def portions(self, prompts: Sequence[Messages], k: int, config: SamplingConfig, room: int) -> Iterable[Portion]:
        """All at once while the engine lives."""
        chosen = self._own.portions if self._llm is None else super().portions
        return chosen(prompts, k, config, room)


def _products(model: nn.Module, own: TransformersSampler) -> torch.dtype:
    """In which the policy multiplies: its weights may be kept in more."""
    weight = output_head(model).weight
    with own.autocast():
        kind = weight.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _whole(model: nn.Module) -> bool:
    return not hasattr(model, "peft_config")


def _lora_rank(model: nn.Module) -> int | None:
    """Rank of the plain LoRA that the adapter is; ``None`` for other adapters and none."""
    config = getattr(model, "active_peft_config", None)
    if config is None or str(config.peft_type).rpartition(".")[2] != "LORA" or getattr(config, "use_dora", False):
        return None
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "lora_variant")]
    if any(layer.lora_variant or layer.merged for layer in layers) or getattr(config, "modules_to_save", None):
        return None
    if getattr(config, "lora_bias", False) or config.bias != "none":
        return None
    return max(side.out_features for layer in layers for side in layer.lora_A.values())


def _untouched(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Tensor]]:
    """Name, module, name within it and tensor of what the base holds, without adapters; names are the base's own."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = _whole(model)
    base: Any = model if whole else model.get_base_model()  # type: ignore[operator]
    around = [name for name, module in base.named_modules() if isinstance(module, BaseTunerLayer)]
    seen: set[int] = set()
    for name, module in base.named_modules():
        outer = next((a for a in around if name == a or name.startswith(f"{a}.")), None)
        if outer is not None and name != f"{outer}.base_layer":
            continue
        for own, tensor in module.named_parameters(recurse=False):
            if whole or id(tensor) not in seen:  # a tied head is not written twice
                seen.add(id(tensor))
                yield f"{name.replace('.base_layer', '')}.{own}", module, own, tensor


def _changed(model: nn.Module) -> dict[str, Any]:
    """What the method changes, by the names of parameters; empty where the base itself is trained."""
    if _whole(model):
        return {}
    try:
        methods.attachment(model)
    except UserError:  # a plain LoRA of PEFT's
        return {}
    return {u.name if u.name.endswith(".bias") else f"{u.name}.weight": u for u in methods.updates(model)}


def _base(model: nn.Module, dtype: torch.dtype, *, updated: bool = False) -> Iterator[tuple[str, Tensor]]:
    """The base's tensors, dequantised and rounded once; ``updated`` as ``W + dW`` where the method changes W."""
    from peft.utils.integrations import dequantize_module_weight

    changed = _changed(model)
    for name, module, own, tensor in _untouched(model):
        value = tensor.detach()
        if name in changed:
            update = changed[name]
            value = update.weight().double() + update.delta().to(value.device) if updated else update.weight()
        elif own == "weight" and hasattr(tensor, "quant_state"):
            value = dequantize_module_weight(module)
        yield name, value.detach().to(dtype)


def _write_base(model: nn.Module, tokenizer: Any, dtype: torch.dtype, folder: Path) -> None:
    from safetensors.torch import save_file

    config = output_head(model).causal_lm.config
    state = {name: value.cpu().contiguous() for name, value in _base(model, dtype)}
    facts = {k: v for k, v in config.to_dict().items() if k != "quantization_config"} | {"dtype": str(dtype)[6:]}
    if _whole(model):
        state = {name: value.clone() for name, value in state.items()}  # a tied head is a tensor of its own there
        facts["tie_word_embeddings"] = False
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    type(config).from_dict(facts).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
