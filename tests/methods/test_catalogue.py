"""Names, defaults, sizes and refusals: everything that is settled before a weight is loaded."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

import pytest
import torch
import tyro
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

import rlvr_lite
from rlvr_lite import methods
from rlvr_lite.config import LINEAR_LAYERS, SCALES, AdapterConfig, RunConfig, scale_of
from rlvr_lite.errors import UserError
from rlvr_lite.grpo import losses
from rlvr_lite.methods import DEEPSEEK_R1_DISTILL_QWEN_1_5B as DEEPSEEK
from rlvr_lite.methods import Layout
from tests.methods import cells
from tests.methods.cells import THE_PAPERS

BEYOND = ["rlpo", "rlmo", "nora", "geora", "tinylora", "lora_xs", "mica", "olora", "oft", "hra", "randlora"]

#: Counted by PEFT on the real shapes (rank 32, the seven linear layers), independently of this package.
REAL_COUNTS = {
    "full": 1_777_088_000,
    "lora": 36_929_536,
    "rank1": 1_154_048,
    "rslora": 36_929_536,
    "lora_plus": 36_929_536,
    "lora_fa": 20_643_840,
    "dora": 37_574_656,
    "adalora": 55_403_712,
    "miss": 20_643_840,
    "pissa": 36_929_536,
    "milora": 36_929_536,
    "vera": 651_392,
    "ia3": 852_992,
    "ln_tuning": 87_552,
    "rlpo": 36_929_536,
    "rlmo": 36_929_536,
    "random_directions": 36_929_536,
    "nora": 36_929_536,
    "geora": 36_929_536,
    "olora": 36_929_536,
    "mica": 16_285_696,
    "lora_xs": 200_704,
    "tinylora": 12_544,
    "oft": 7_888_384,
    "hra": 16_285_696,
    "randlora": 10_665_984,
    "c3a": 5_117_952,
    "road": 645_120,
    "hira": 36_929_536,
}


def count(name: str, layout: Layout, scale: str) -> int:
    adapter = methods.resolve(name, AdapterConfig(), scale)
    return sum(prod(shape) for shape in methods.get(name).expected(layout, adapter).values())


def test_the_papers_fourteen_come_first_and_eleven_more_are_there():
    names = [n for n in methods.names() if ":" not in n]
    assert names[:14] == THE_PAPERS
    assert set(BEYOND) <= set(names)


@pytest.mark.parametrize("name", [n for n in methods.names() if ":" not in n and n in REAL_COUNTS])
def test_sizes_on_the_real_base_are_those_peft_counts(name):
    assert count(name, DEEPSEEK, "paper") == REAL_COUNTS[name]


def test_the_bundled_shapes_are_those_of_the_real_configuration():
    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=False,
    )
    made = Layout.of_config(config)
    assert (made.linears, made.norms, dict(made.tensors)) == (DEEPSEEK.linears, DEEPSEEK.norms, dict(DEEPSEEK.tensors))
    assert made.parameters == 1_777_088_000


@pytest.mark.parametrize("kind", [Qwen2Config, LlamaConfig, Qwen3Config])
def test_a_layout_needs_no_weights_and_matches_the_model(kind):
    config = kind(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, head_dim=8
    )
    layout = Layout.of_config(config)
    assert len(layout.linears) == 14
    assert len(layout.norms) == (9 if kind is Qwen3Config else 5)
    assert not any("lm_head" in name for name in layout.linears)


def test_a_four_bit_base_has_the_layout_it_stands_for():
    assert Layout.of_model(cells.fresh("nf4")) == Layout.of_model(cells.fresh("fp32"))


def test_no_two_methods_train_the_same_tensors_unless_they_say_so():
    seen: dict = {}
    for name in methods.names():
        adapter = methods.resolve(name, AdapterConfig(), "paper")
        signature = frozenset(methods.get(name).expected(DEEPSEEK, adapter).items())
        label = methods.get(name).trains_like or name
        assert seen.setdefault(signature, label) == label, name


def test_listing_loads_no_heavy_library():
    code = "import sys, rlvr_lite.methods as m; m.list_methods(); m.resolve('dora', m._resolve.AdapterConfig(), 'tiny')"
    heavy = "print([n for n in ('torch', 'transformers', 'peft', 'numpy') if n in sys.modules])"
    out = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_table_says_what_runs_where():
    rows = {row["name"]: row for row in methods.list_methods()}
    assert list(rows) == methods.names()
    assert rows["lora"]["trainable"] == 36_929_536
    assert rows["full"]["bases"] == "fp32 bf16 fp16"
    assert rows["dora"]["bases"] == "fp32 bf16 fp16 nf4"
    for base in (cells.fresh("fp32").config, cells.folder(), str(cells.folder())):
        own = {row["name"]: row for row in methods.list_methods(base)}
        assert own["lora"]["trainable"] == count("lora", Layout.of_model(cells.fresh("fp32")), "tiny")


@pytest.mark.parametrize("content", [None, "{}", "{"])
def test_the_table_on_a_directory_without_a_model_says_so(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"config\.json") as caught:
        methods.list_methods(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", methods.names())
def test_every_scale_has_a_learning_rate_with_a_source(name):
    for scale in SCALES:
        rate = methods.learning_rate(name, scale)
        assert 0 < rate.value < 1
        assert len(rate.source) > 10


def test_an_unknown_method_offers_the_nearest():
    with pytest.raises(UserError, match=r"'dora'|'lora'"):
        methods.get("dorra")


adapters = st.builds(
    AdapterConfig,
    rank=st.none() | st.integers(1, 64),
    alpha=st.none() | st.floats(0.1, 100),
    targets=st.none() | st.lists(st.sampled_from(LINEAR_LAYERS), min_size=1, unique=True).map(tuple),
)


@given(st.sampled_from(methods.names()), adapters, st.sampled_from(sorted(SCALES)))
def test_resolving_fills_everything_or_refuses_in_one_line(name, asked, scale):
    method = methods.get(name)
    unused = {s for s in ("rank", "alpha", "targets") if getattr(asked, s) is not None} - method.uses
    if asked.rank == method.fixed_rank:
        unused -= {"rank"}
    if unused:
        with pytest.raises(UserError, match="leave it out"):
            methods.resolve(name, asked, scale)
        return
    full = methods.resolve(name, asked, scale)
    assert methods.resolve(name, full, scale) == full
    for setting in ("rank", "alpha", "targets"):
        value, wanted = getattr(full, setting), getattr(asked, setting)
        assert (value is not None) == (setting in method.uses or (setting == "rank" and method.fixed_rank is not None))
        assert wanted is None or value == wanted


@pytest.mark.parametrize(
    ("name", "asked", "word"),
    [
        ("full", {"rank": 8}, "rank"),
        ("full", {"targets": ("q_proj",)}, "targets"),
        ("rank1", {"rank": 8}, "rank"),
        ("vera", {"alpha": 8}, "alpha"),
        ("ia3", {"rank": 8}, "rank"),
        ("ln_tuning", {"targets": ("q_proj",)}, "targets"),
        ("oft", {"rank": 8}, "block_size"),
        ("lora", {"options": {"ratio": 2.0}}, "dropout"),
        ("rank1", {"options": {"ratio": 2.0}}, "options"),
        ("lora_plus", {"options": {"ration": 2.0}}, "'ratio'"),
        ("lora_plus", {"options": {"ratio": "high"}}, "float"),
        ("adalora", {"options": {"every": 2.5}}, "int"),
        ("tinylora", {"options": {"u": True}}, "int"),
    ],
)
def test_a_setting_the_method_does_not_use_is_refused(name, asked, word):
    with pytest.raises(UserError, match=word):
        methods.resolve(name, AdapterConfig(**asked), "tiny")


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("lora_plus", "ratio", 0.5),
        ("lora_plus", "ratio", float("inf")),
        ("adalora", "every", 0),
        ("adalora", "orthogonal", -0.1),
        ("adalora", "orthogonal", float("nan")),
        ("vera", "d_initial", 0.0),
        ("oft", "block_size", -4),
        ("c3a", "block_size", -1),
        ("road", "block_size", -2),
        ("geora", "rho", 1.5),
        ("nora", "normalize", "alway"),
        ("nora", "start", "blok"),
        ("tinylora", "u", 0),
        ("tinylora", "tying", 1.5),
        ("tinylora", "values", "rigt"),
    ],
)
def test_an_option_that_means_nothing_is_refused(name, option, value):
    with pytest.raises(UserError, match=option) as caught:
        methods.resolve(name, AdapterConfig(options={option: value}), "tiny")
    assert "\n" not in str(caught.value)


def test_options_on_the_command_line_are_numbers_where_they_look_like_it():
    words = ["ratio", "2", "rho", "0.5", "start", "blocks"]
    asked = tyro.cli(RunConfig, args=["--method-options", *words]).method_options
    assert asked == {"ratio": 2, "rho": 0.5, "start": "blocks"}
    methods.resolve("lora_plus", AdapterConfig(options={"ratio": asked["ratio"]}), "tiny")


@pytest.mark.parametrize("name", methods.names())
def test_every_option_says_what_it_may_be(name):
    method = methods.get(name)
    assert method.allowed.keys() == method.options.keys()
    for option, default in method.options.items():
        methods.resolve(name, AdapterConfig(options={option: default}), "tiny")


@pytest.mark.parametrize(
    ("name", "asked", "word"),
    [
        ("hra", {"rank": 7}, "even"),
        ("oft", {"options": {"block_size": 48}}, "must divide"),
        ("c3a", {"options": {"block_size": 24}}, "must divide"),
        ("vera", {"rank": 9000}, "at most"),
    ],
)
def test_sizes_that_do_not_suit_the_base_are_refused_from_its_shapes_alone(name, asked, word):
    adapter = methods.resolve(name, AdapterConfig(**asked), "paper")
    with pytest.raises(UserError, match=word):
        methods.check_fits(name, adapter, DEEPSEEK)


def test_the_largest_rank_that_is_offered_fits_every_layer():
    with pytest.raises(UserError, match="at most 256") as refused:  # k_proj and v_proj; q_proj would take 1,536
        methods.check_fits("lora", methods.resolve("lora", AdapterConfig(rank=4000), "paper"), DEEPSEEK)
    assert "k_proj" in str(refused.value)
    methods.check_fits("lora", methods.resolve("lora", AdapterConfig(rank=256), "paper"), DEEPSEEK)


def test_an_unknown_scale_is_refused():
    with pytest.raises(UserError, match="tiny"):
        methods.resolve("lora", AdapterConfig(), "tinny")


@pytest.mark.parametrize("name", [n for n in methods.names() if "targets" in methods.get(n).uses])
def test_targets_narrow_every_method_alike(name):
    asked = AdapterConfig(targets=("q_proj", "down_proj"))
    model = cells.attach("fp32", name, asked)
    assert methods.identity(model, name, asked).failures == []
    assert {n.split(".")[6] for n in cells.trainable(model)} <= {"q_proj", "down_proj"}


@pytest.mark.parametrize("name", [n for n in methods.names() if "targets" in methods.get(n).uses])
def test_targets_that_match_nothing_are_refused_with_what_there_is(name):
    with pytest.raises(UserError, match="q_proj"):
        cells.attach("fp32", name, AdapterConfig(targets=("query",)))


@pytest.mark.parametrize("name", [n for n in methods.names() if "rank" in methods.get(n).uses])
def test_a_rank_the_layers_have_no_room_for_is_refused(name):
    with pytest.raises(UserError, match="at most"):
        cells.attach("fp32", name, AdapterConfig(rank=1000))


@pytest.mark.parametrize(
    "given_",
    [
        *[{"rank": rank} for rank in (0, -1, 2.5, "8", True)],
        *[{"alpha": alpha} for alpha in (0, -1.0, float("nan"), float("inf"), "16")],
        *[{"targets": targets} for targets in ((), "", " , ", (3,), 7)],
    ],
)
def test_sizes_that_mean_nothing_are_refused(given_):
    with pytest.raises(UserError):
        AdapterConfig(**given_)


def test_one_word_is_one_target_and_never_its_letters():
    assert AdapterConfig(targets="q_proj").targets == ("q_proj",)
    assert AdapterConfig(targets="q_proj, v_proj").targets == ("q_proj", "v_proj")


def test_a_base_without_linear_layers_is_refused():
    with pytest.raises(UserError, match="no linear layers"):
        methods.resolve("lora", AdapterConfig(rank=2), "tiny", Layout({}, {"norm": 8}, {"norm.weight": (8,)}))


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen3Config, PhiConfig])
@pytest.mark.parametrize("name", ["lora", "dora", "pissa", "vera", "ln_tuning", "adalora"])
def test_other_architectures_are_trained_as_expected(kind, name):
    config = kind(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        pad_token_id=0,
    )
    base = AutoModelForCausalLM.from_config(config).eval()
    targets = ("q_proj", "v_proj", "dense", "fc1") if kind is PhiConfig else None
    size = {"rank": 4} if "rank" in methods.get(name).uses else {}
    asked = AdapterConfig(**size, targets=targets if "targets" in methods.get(name).uses else None)
    untouched = cells.logits(base, vocabulary=64)
    model = methods.attach(base, name, asked, total_steps=5, seed=0)
    assert methods.identity(model, name, asked).failures == []
    assert torch.equal(cells.logits(model, vocabulary=64), untouched)


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "vera", "ln_tuning", "miss"])
def test_a_real_base_is_trained_as_expected(name, smollm2):
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.bfloat16).eval()
    assert scale_of(Layout.of_model(base).parameters) == "small"
    untouched = cells.logits(base)
    model = cells.attach(base, name)
    assert methods.identity(model, name, AdapterConfig()).failures == []
    assert torch.equal(cells.logits(model), untouched)


def test_a_second_method_on_the_same_model_is_refused():
    model = cells.attach("fp32", "lora")
    for busy in (model, model.get_base_model()):
        with pytest.raises(UserError, match="already"):
            methods.attach(busy, "dora", AdapterConfig(), total_steps=1, seed=0)


def test_a_base_that_was_repacked_for_inference_is_refused():
    """bitsandbytes does so in the first forward on CPUs with AVX512_BF16; gradients through it are wrong."""
    base = cells.fresh("nf4")
    base.model.layers[0].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(UserError, match="repacked"):
        methods.attach(base, "lora", AdapterConfig(), total_steps=1, seed=0)


def test_attaching_keeps_four_bit_weights_from_being_repacked():
    base = cells.fresh("nf4")
    quantised = [m for m in base.modules() if hasattr(m, "support_avx512bf16_for_cpu")]
    for module in quantised:
        module.support_avx512bf16_for_cpu = True
    cells.attach(base, "lora")
    assert len(quantised) == 14
    assert not any(module.support_avx512bf16_for_cpu for module in quantised)


def test_a_model_without_a_method_says_so():
    with pytest.raises(UserError, match="attach"):
        methods.trainable_state(cells.fresh("fp32"))


def test_the_optimizer_of_another_method_is_refused():
    with pytest.raises(UserError, match="carries lora, not lora_plus"):
        methods.optimizer(cells.attach("fp32", "lora"), "lora_plus", 1e-3)


def test_a_run_of_no_steps_is_refused():
    with pytest.raises(UserError, match="total_steps"):
        cells.attach("fp32", "lora", steps=0)


def test_full_has_no_frozen_policy():
    model = cells.attach("fp32", "full")
    with pytest.raises(UserError, match="full"), methods.disabled(model):
        pass
    with pytest.raises(UserError, match="load the base"):
        methods.detach(model)


def test_one_base_serves_one_method_after_another():
    base = cells.fresh("nf4-bf16")
    untouched, modules = cells.logits(base), {n for n, _ in base.named_modules()}
    for name in ("pissa", "dora", "ln_tuning", "vera"):
        model = cells.attach(base, name)
        assert methods.identity(model, name, AdapterConfig()).failures == []
        base = methods.detach(model)
        assert torch.equal(cells.logits(base), untouched)
        assert {n for n, _ in base.named_modules()} == modules


def test_a_method_registered_twice_is_a_programming_error():
    with pytest.raises(ValueError, match="twice"):
        methods.register(methods.get("lora"))


def test_an_identity_is_json():
    model = cells.attach("fp32", "dora")
    proof = methods.identity(model, "dora", AdapterConfig(), optimizer=methods.optimizer(model, "dora", 1e-3))
    assert json.loads(json.dumps(dataclasses.asdict(proof)))["method"] == "dora"
    assert proof.proven
    assert proof.learning_rates == {"matrices": 1e-3, "vectors": 1e-3}


#: Where a word that is also a method's name means something else, or the paper's own tables are kept.
_DATA = {"paper", "recipes"}
_OTHERWISE = {
    ("exports", "lora"): "a form of export",
    ("commands", "lora"): "a form of export",
    ("bases", "full"): "a pass without a cache",
    ("tasks", "dapo"): "a data set",
    ("exports", "dapo"): "a data set",
}


def _tested_words(tree: ast.Module) -> Iterator[str]:
    """Words that a file compares with, or looks up by: in comparisons, ``match``, keys of tables and subscripts."""
    for node in ast.walk(tree):
        parts: list[ast.AST | None] = []
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = [*node.keys]
        elif isinstance(node, ast.Subscript):
            parts = [node.slice]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            parts = [*node.args[:1]]
        inner = [p.elts if isinstance(p, ast.Tuple | ast.List | ast.Set) else [p] for p in parts]
        yield from (p.value for ps in inner for p in ps if isinstance(p, ast.Constant) and isinstance(p.value, str))


def test_no_code_tests_the_name_of_a_method_or_a_loss() -> None:
    package = Path(rlvr_lite.__file__).parent
    words = {*methods.names(), *losses.names()}
    found = set()
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).parts[0]
        if room in _DATA or path.parent.name == "losses" or (room == "methods" and not path.name.startswith("_")):
            continue
        tested = set(_tested_words(ast.parse(path.read_text(encoding="utf-8")))) & words
        found |= {(str(path.relative_to(package)), w) for w in tested if (room, w) not in _OTHERWISE}
    assert not found
