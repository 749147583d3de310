"""The character tokenizer of the bundled tiny model."""

from __future__ import annotations

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

__all__ = ["BOXED", "VOCABULARY_SIZE", "build_tokenizer"]

VOCABULARY_SIZE = 128
BOXED = "\\boxed{"
_SPECIAL = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|unk|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    r"""One token for each printable ASCII character, the newline and ``\boxed{``; 128 with the reserved ones.

    ``AutoTokenizer`` loads whatever a Qwen2 folder holds as a ``Qwen2Tokenizer``, which puts its own regular
    expression and byte-level alphabet in place of the file's. So this is one: a byte-level BPE without merges, which
    yields the single characters however a text was cut before, and joins them back to the same text.
    """
    pad, end, user, assistant, system, unknown = _SPECIAL
    characters = ["Ċ", "Ġ", *map(chr, range(33, 127))]  # newline and space as the byte-level alphabet writes them
    tokens = [*_SPECIAL, BOXED, *characters]
    tokens += [f"<|reserved{i}|>" for i in range(len(tokens), VOCABULARY_SIZE)]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        pad_token=pad,
        eos_token=end,
        unk_token=unknown,
        extra_special_tokens=[user, assistant, system],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
        chat_template=_TEMPLATE,
    )
    tokenizer.add_tokens([AddedToken(BOXED, normalized=False)])
    return tokenizer
