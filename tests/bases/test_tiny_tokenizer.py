import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from rlvr_lite.bases import EMBEDDED
from rlvr_lite.bases._tiny_tokenizer import BOXED, VOCABULARY_SIZE, build_tokenizer

PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))
shipped = AutoTokenizer.from_pretrained(EMBEDDED["tiny"])
built = build_tokenizer()
raw = Tokenizer.from_file(str(EMBEDDED["tiny"] / "tokenizer.json"))

texts = st.lists(st.text(PRINTABLE, max_size=20) | st.sampled_from([BOXED, "  ", "\n\n", "don't", "\\boxed"])).map(
    "".join
)


@given(texts)
@settings(deadline=None, max_examples=150)
def test_any_printable_text_survives_a_round_trip(text):
    ids = shipped(text)["input_ids"]
    assert shipped.decode(ids) == text
    assert len(ids) == len(text) - (len(BOXED) - 1) * text.count(BOXED)


@given(texts)
@settings(deadline=None, max_examples=100)
def test_shipped_built_and_raw_tokenizers_agree(text):
    assert shipped(text)["input_ids"] == built(text)["input_ids"] == raw.encode(text).ids
    assert raw.decode(raw.encode(text).ids, skip_special_tokens=False) == text


def test_each_token_alone_decodes_to_itself():
    for i in range(VOCABULARY_SIZE - 25):  # the last 25 are reserved
        text = shipped.decode([i])
        assert shipped(text)["input_ids"] == [i], text


def test_tokens_joined_one_by_one_are_the_text():
    text = "12-3=9\n9+4=13\n\\boxed{13}"
    assert "".join(shipped.decode([i]) for i in shipped(text)["input_ids"]) == text


def test_the_chat_opens_with_the_question_and_ends_every_answer():
    chat = [{"role": "user", "content": "3+4=?"}]
    prompt = shipped.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    assert prompt == "<|user|>3+4=?<|assistant|>"
    whole = shipped.apply_chat_template([*chat, {"role": "assistant", "content": "\\boxed{7}"}], tokenize=False)
    assert whole == prompt + "\\boxed{7}<|end|>"
    assert shipped(whole)["input_ids"][-1] == shipped.eos_token_id
    assert shipped.decode(shipped(whole)["input_ids"], skip_special_tokens=True) == "3+4=?\\boxed{7}"


def test_padding_is_on_the_left():
    batch = shipped(["1+1=?", "1+1+1=?"], padding=True)
    assert batch["input_ids"][0][:2] == [shipped.pad_token_id] * 2
    assert batch["attention_mask"][0] == [0, 0, 1, 1, 1, 1, 1]
    assert len(shipped) == VOCABULARY_SIZE


@pytest.mark.parametrize("token", ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|unk|>"])
def test_special_tokens_are_skipped(token):
    assert shipped.decode(shipped(f"1{token}2")["input_ids"], skip_special_tokens=True) == "12"
