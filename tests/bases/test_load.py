import json
import shutil

import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from rlvr_lite import bases
from rlvr_lite.bases import EMBEDDED, native_dtype
from rlvr_lite.bases._base import linear4bit_layers
from rlvr_lite.errors import UserError

TINY = EMBEDDED["tiny"]
PRECISIONS = ("fp32", "bf16", "fp16", "nf4")


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded base that a test may spoil."""
    return shutil.copytree(TINY, tmp_path / "model")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A Llama without biases and with a head of its own."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("bases") / "llama"
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        initializer_range=0.1,
        pad_token_id=0,
        eos_token_id=[1, 5],
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    AutoTokenizer.from_pretrained(TINY).save_pretrained(path)
    return path


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def prompt(base):
    return base.tokenizer(
        ["<|user|>3+4-2=?<|assistant|>", "<|user|>1+1=?<|assistant|>"], padding=True, return_tensors="pt"
    )


def logits(base):
    with torch.no_grad():
        return base.model(**prompt(base)).logits.float()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_base_is_frozen_and_in_its_precision(precision):
    base = bases.load("tiny", precision)
    assert (base.name, base.precision, base.scale, base.backend) == ("tiny", precision, "tiny", "transformers")
    assert base.parameters == 460_416
    assert not base.model.training
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.model.config._attn_implementation == "sdpa"
    assert base.tokenizer.padding_side == "left"
    high = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "nf4": torch.float32}[precision]
    assert base.compute_dtype == high
    layers = list(linear4bit_layers(base.model))
    assert len(layers) == (21 if precision == "nf4" else 0)
    packed = {id(layer.weight) for layer in layers}
    assert {p.dtype for p in base.model.parameters() if id(p) not in packed} == {high}
    for layer in layers:
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested


def test_precisions_agree_as_far_as_they_are_precise():
    exact = logits(bases.load("tiny", "fp32"))
    for precision, most in (("bf16", 0.2), ("fp16", 0.03), ("nf4", 2.5)):
        difference = (logits(bases.load("tiny", precision)) - exact).abs().max()
        assert 0 < difference < most, (precision, difference)


def test_nf4_weights_are_the_weights_to_four_bits():
    import bitsandbytes as bnb

    exact = dict(bases.load("tiny", "fp32").model.named_modules())
    for name, layer in bases.load("tiny", "nf4").model.named_modules():
        if layer in set(linear4bit_layers(layer)):
            weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            error = (weight - exact[name].weight).norm() / exact[name].weight.norm()
            assert 0.01 < error < 0.15
            assert exact[name].bias is None or torch.equal(layer.bias, exact[name].bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_compute_type_of_nf4_can_be_chosen(dtype):
    base = bases.load("tiny", "nf4", compute_dtype=dtype)
    assert base.compute_dtype == dtype
    assert {layer.compute_dtype for layer in linear4bit_layers(base.model)} == {dtype}
    assert base.model(**prompt(base)).logits.dtype == dtype


@pytest.mark.parametrize("kind", ["tiny", "llama"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_generating_changes_neither_nf4_weights_nor_gradients(kind, dtype, llama):
    base = bases.load("tiny" if kind == "tiny" else str(llama), "nf4", compute_dtype=dtype)
    inputs = prompt(base)

    def gradient():
        embedded = base.model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
        output = base.model(inputs_embeds=embedded, attention_mask=inputs["attention_mask"]).logits
        output.float().log_softmax(-1)[..., 7].sum().backward()
        return embedded.grad

    before, weights = gradient(), [layer.weight.data.clone() for layer in linear4bit_layers(base.model)]
    assert before.norm() > 0
    base.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert torch.equal(gradient(), before)
    after = [layer.weight.data for layer in linear4bit_layers(base.model)]
    assert all(torch.equal(old, new) for old, new in zip(weights, after, strict=True))


def test_a_folder_and_its_own_head(llama):
    base = bases.load(str(llama), "nf4")
    assert base.eos_ids == (1, 5)
    assert base.revision is None
    assert base.model.lm_head.weight.dtype == torch.float32
    assert (
        base.parameters
        == bases.load(str(llama)).parameters
        == 128 * 64 * 2 + 2 * (64 * 64 * 3 + 64 * 128 * 3 + 128) + 64
    )


@pytest.mark.parametrize(
    ("capability", "dtype", "precision"), [((7, 5), torch.float16, "fp16"), ((8, 0), torch.bfloat16, "bf16")]
)
def test_a_card_is_asked_for_its_capability(monkeypatch, capability, dtype, precision):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *a, **k: True)
    assert native_dtype(torch.device("cuda")) == dtype
    assert native_dtype(torch.device("cpu")) == torch.float32


def test_an_already_quantised_folder_stays_nf4(tmp_path):
    made = bases.load("tiny", "nf4")
    made.model.save_pretrained(tmp_path / "nf4")
    made.tokenizer.save_pretrained(tmp_path / "nf4")
    base = bases.load(str(tmp_path / "nf4"), compute_dtype=torch.bfloat16)
    assert (base.precision, base.parameters) == ("nf4", 460_416)
    assert {layer.compute_dtype for layer in linear4bit_layers(base.model)} == {torch.bfloat16}
    assert torch.equal(logits(bases.load(str(tmp_path / "nf4"))), logits(made))
    with pytest.raises(UserError, match="is stored quantised"):
        bases.load(str(tmp_path / "nf4"), "fp32")


def test_a_base_without_pad_token_or_template_gets_one(folder):
    edit(folder / "tokenizer_config.json", pad_token=None)
    edit(folder / "generation_config.json", pad_token_id=None)
    (folder / "chat_template.jinja").unlink()
    base = bases.load(str(folder))
    assert base.pad_id == base.tokenizer.eos_token_id == base.model.generation_config.pad_token_id
    chat = [{"role": "user", "content": "1+1=?"}]
    assert base.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) == "1+1=?\n\n"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of huggingface_hub that holds one model, without any network."""
    repository = tmp_path / "hub" / "models--someone--model"
    for revision in ("a" * 40, "b" * 40):
        shutil.copytree(TINY, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return repository


def test_a_hub_model_is_pinned_to_its_commit(hub):
    assert bases.load("someone/model").revision == "a" * 40
    assert bases.load("someone/model", revision="b" * 40).revision == "b" * 40


def test_a_hub_model_without_network_names_both_ways_out(hub):
    with pytest.raises(UserError, match=r"connect to the network, or give the path of a local model folder"):
        bases.load("someone/other")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.GatedRepoError, "accept its terms on the Hub"),
        (errors.RepositoryNotFoundError, "no such model on the Hub"),
        (errors.RevisionNotFoundError, "has no revision v9"),
        (errors.HfHubHTTPError, "cannot be reached"),
        (RuntimeError, "cannot be reached"),
    ],
)
def test_each_answer_of_the_hub_has_its_own_line(monkeypatch, error, says):
    def snapshot_download(name, **options):
        raise error.__new__(error)  # their constructors want a response of one HTTP client or another

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(UserError, match=says):
        bases.load("someone/model", revision="v9")


@pytest.mark.parametrize("error", [errors.RepositoryNotFoundError, RuntimeError])
def test_a_folder_that_is_not_in_one_that_is_here_is_no_matter_of_the_hub(monkeypatch, tmp_path, error):
    def snapshot_download(name, **options):
        raise error.__new__(error)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    with pytest.raises(UserError, match=r"there is no such folder") as refused:
        bases.load("someone/model")
    assert "Hub cannot" not in str(refused.value)


def test_a_broken_installation_is_noticed(folder, monkeypatch):
    (folder / "model.safetensors").write_bytes(b"")
    monkeypatch.setitem(EMBEDDED, "tiny", folder)
    with pytest.raises(UserError, match="install the package again"):
        bases.load("tiny")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("tinny", {}, "unknown base 'tinny': did you mean 'tiny'"),
        ("gpt", {}, "or a Hub id owner/model"),
        ("./nowhere", {}, "there is no such folder"),
        ("/nowhere/at/all", {}, "there is no such folder"),
        ("a/b/c", {}, "there is no such folder"),
        ("some one/model!", {}, "there is no such folder"),
        ("tiny", {"revision": "main"}, "leave --revision out"),
        ("tiny", {"precision": "int8"}, "unknown precision 'int8'"),
        ("tiny", {"backend": "vllm"}, "unknown backend"),
        ("tiny", {"device": "gpu"}, "unknown device 'gpu'"),
        ("tiny", {"precision": "fp32", "compute_dtype": torch.bfloat16}, "compute_dtype is for nf4"),
    ],
)
def test_bad_requests_are_one_line(name, options, says):
    with pytest.raises(UserError, match=says) as error:
        bases.load(name, **options)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_a_card_that_is_not_there():
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        bases.load("tiny", device="cuda")


def only_pickle(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def one_weight_less(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def own_code(folder):
    edit(folder / "config.json", model_type="strange", auto_map={"AutoModelForCausalLM": "code.Strange"})
    (folder / "code.py").write_text("raise SystemExit('ran')")


def more_tokens(folder):
    edit(folder / "tokenizer_config.json", extra_special_tokens=["<|new|>"])


def without_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()


@pytest.mark.parametrize("spoil", [more_tokens, without_tokenizer])
def test_the_tokenizer_is_looked_at_before_a_weight_is_loaded(folder, spoil, monkeypatch):
    spoil(folder)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(UserError):
        bases.load(str(folder))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (only_pickle, "no safetensors, only pytorch_model.bin"),
        (lambda f: (f / "config.json").unlink(), "has no config.json"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "is an adapter, not a base"),
        (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 20), "cannot be loaded"),
        (own_code, "needs code of its own"),
        (lambda f: edit(f / "config.json", model_type="t5", architectures=["T5Model"]), "encoder-decoder"),
        (lambda f: edit(f / "config.json", hidden_size=64), "cannot be loaded"),
        (lambda f: edit(f / "config.json", num_hidden_layers=4), "transformers cannot read"),
        (lambda f: edit(f / "config.json", model_type="bert"), "is an encoder"),
        (lambda f: edit(f / "config.json", model_type="qwen9"), "does not know"),
        (lambda f: (f / "config.json").write_text(json.dumps({"model_type": "gemma3"})), "more than text"),
        (one_weight_less, "lacks 1 weights"),
        (lambda f: edit(f / "tokenizer_config.json", eos_token=None), "has no end token"),
        (more_tokens, "128 embeddings for the 129 tokens"),
        (without_tokenizer, "no usable tokenizer"),
        (lambda f: (f / "config.json").write_text("[1]"), "no JSON object"),
        (lambda f: edit(f / "config.json", num_hidden_layers=0, layer_types=[]), "no layers"),
    ],
)
def test_bad_folders_are_one_line(folder, spoil, says):
    spoil(folder)
    with pytest.raises(UserError, match=says) as error:
        bases.load(str(folder))
    assert "\n" not in str(error.value)


def test_a_file_is_no_base(folder):
    with pytest.raises(UserError, match="is a file"):
        bases.load(str(folder / "config.json"))


@pytest.mark.smollm2
@pytest.mark.parametrize("precision", ["fp32", "bf16", "nf4"])
def test_a_real_model_answers_in_each_precision_and_stays_what_it_is(smollm2, precision):
    base = bases.load(str(smollm2), precision)
    assert (base.scale, base.precision, base.parameters) == ("small", precision, 134_515_008)
    before = [p.detach().clone() for p in base.model.parameters()]
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = base.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = base.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in base.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    assert all(torch.equal(old, new) for old, new in zip(before, base.model.parameters(), strict=True))
