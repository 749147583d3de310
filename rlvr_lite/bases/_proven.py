"""The architectures that the tests train, sample and score: exact to 1e-5 in fp32, or with what is said."""

from __future__ import annotations

from rlvr_lite.table import Table

__all__ = ["PROVEN", "REFUSED", "list_bases"]

_PACKED = ("llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
_EAGER = ("bloom", "codegen", "gemma2", "gpt_neo", "gpt_oss", "gptj", "mamba", "mamba2", "mpt", "xglm")
_MIXTURES = (
    "deepseek_v2", "deepseek_v3", "ernie4_5_moe", "glm4_moe", "gpt_oss", "granitemoe", "granitemoehybrid", "jamba",
    "llama4_text", "minimax", "mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_moe", "qwen3_next",
)  # fmt: skip
_STATES = (
    "bamba", "falcon_h1", "granitemoehybrid", "jamba", "lfm2", "mamba", "mamba2", "nemotron_h", "qwen3_5_text",
    "qwen3_next", "zamba2",
)  # fmt: skip
_FUSED = ("bamba", "falcon_h1", "granitemoehybrid", "mamba", "mamba2", "nemotron_h", "zamba2")
_OTHERS = (
    "apertus", "arcee", "biogpt", "cohere", "cohere2", "diffllama", "ernie4_5", "exaone4", "falcon", "gemma",
    "gemma3_text", "gemma3n_text", "gemma4_text", "glm", "glm4", "gpt2", "gpt_bigcode", "gpt_neox", "granite", "helium",
    "hunyuan_v1_dense", "hyperclovax", "minicpm3", "ministral3", "nanochat", "nemotron", "olmo", "olmo3", "opt",
    "persimmon", "phi", "seed_oss", "stablelm", "starcoder2",
)  # fmt: skip
#: Model types that tests sample and score, against the model's own logits.
PROVEN: tuple[str, ...] = tuple(sorted({*_PACKED, *_EAGER, *_MIXTURES, *_STATES, *_OTHERS}))
_NO_CACHE = ("minimax",)
#: What stands in the way of architectures that transformers can build.
REFUSED = {"recurrent_gemma": "as its recurrent layers read the padding of a batch"}


def list_bases() -> Table:
    """Architectures that are proven, and with what restriction; others are looked at when they are loaded.

    >>> next(row for row in list_bases().rows if row["model type"] == "qwen3")["restrictions"]
    """
    rows = [{"model type": kind, "status": "proven", "restrictions": _restrictions(kind)} for kind in PROVEN]
    rows += [{"model type": kind, "status": "refused", "restrictions": why} for kind, why in sorted(REFUSED.items())]
    return Table.of(
        rows,
        title=f"Architectures: {len(PROVEN)} proven on tiny random models, sampled and scored log-probabilities alike",
        note=(
            "others are checked when loaded: output head, cache and padding against the model's own forward pass, or "
            "refused in one line"
        ),
    )


def _restrictions(kind: str) -> str | None:
    said = []
    if kind in _NO_CACHE:
        said.append("sampled without a cache: every token costs a full forward pass")
    if kind in _EAGER:
        said.append("no sdpa attention")
    if kind in _MIXTURES:
        said.append("experts held as one tensor carry no adapter and stay in 16 bits under nf4")
    if kind in _FUSED:
        said.append("output layers of Mamba carry no adapter: fused kernels read their weights past it")
    if kind in _STATES:
        said.append("linear attention or convolutions: stepwise and chunked sums round apart, by up to 1e-4")
    if kind not in _PACKED:
        said.append("each completion reads its prompt in training")
    return "; ".join(said) or None
