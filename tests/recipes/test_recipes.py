"""Recipes: the paper's protocol to the letter, variants that fit their card and say where they depart."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from rlvr_lite import methods
from rlvr_lite.cli import main
from rlvr_lite.config import LINEAR_LAYERS, RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.planning import plan
from rlvr_lite.recipes import list_recipes, read_recipe, recipe
from rlvr_lite.resolve import check, merge
from rlvr_lite.study import Study, compare
from rlvr_lite.study import _conduct as conduct

NAMES = [row["recipe"] for row in list_recipes()]
VARIANTS = [name for name in NAMES if name.endswith("gb")]


def test_the_papers_protocol_is_carried_to_the_letter():
    small = recipe("paper-1.5b")
    assert (small.prompts_per_step, small.group_size, small.steps, small.micro_batch) == (16, 8, 1024, 4)
    assert (small.rank, small.alpha, small.targets, small.method_options) == (32, 64, LINEAR_LAYERS, {"dropout": 0.05})
    assert (small.learning_rate, small.warmup_steps, small.weight_decay, small.max_grad_norm) == (1e-5, 0, 0, 1)
    assert (small.loss, small.clip_low, small.clip_high, small.kl_coef) == ("dapo", 0.2, 0.28, 0)
    assert (small.max_completion_length, small.temperature, small.precision, small.seed) == (16384, 1, "bf16", 42)
    assert (small.task, small.rewards, small.advantage_scale) == ("dapo", ("accuracy",), "group")
    assert small.prompts_per_step * small.group_size * small.steps == 131_072
    large = recipe("paper-7b")
    same = {"base": small.base, "prompts_per_step": 16, "steps": 1024, "micro_batch": 4}
    assert dataclasses.replace(large, **same) == small
    assert (large.prompts_per_step, large.steps, large.micro_batch) == (4, 8192, 1)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_a_run_that_can_begin(name):
    check(recipe(name))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_departs_from_the_paper_in_what_it_lists_and_nothing_else(name):
    found = read_recipe(name)
    paper = recipe(found.extends)
    differs = {f.name for f in dataclasses.fields(RunConfig) if getattr(paper, f.name) != getattr(found.config, f.name)}
    assert differs == {deviation.field for deviation in found.deviations}
    assert all(deviation.why for deviation in found.deviations)
    assert len(found.deviations) == len(found.table)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_fits_its_card_by_the_plan(name):
    found = read_recipe(name)
    run = found.config
    fields = ("precision", "prompts_per_step", "group_size", "max_completion_length", "micro_batch", "rank")
    asked = {field: getattr(run, field) for field in fields}
    planned = plan(
        run.base, run.method, f"{found.memory_gib}GiB", prompt_length=512, gradient_checkpointing=True, **asked
    )
    assert planned.fits


def test_a_recipe_can_be_a_file_of_ones_own(tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'extends = "paper-1.5b"\n[[deviations]]\nfield = "targets"\n'
        f'paper = {list(LINEAR_LAYERS)}\nhere = ["q_proj", "v_proj"]\nwhy = "as VeRA in the code"\n'
    )
    assert recipe(mine).targets == ("q_proj", "v_proj")
    assert recipe(mine).steps == 1024
    mine.write_text('[config]\nmethod = "dora"\nsteps = 3\n')
    assert recipe(str(mine)) == RunConfig(method="dora", steps=3)


BAD = {
    "steps = [": "not TOML",
    "colour = 3": "colour",
    'title = "x"': r"no \[config\]",
    "[config]\nstep = 3": "did you mean steps",
    '[config]\nsteps = "many"': "steps must be a whole number",
    "[config]\nsteps = 0": "at least 1",
    "config = 3": "wrong type",
    'extends = "paper-1.5"': "did you mean",
    'extends = "paper-1.5b"\n[config]\nsteps = 3': "deviations",
    '[config]\nsteps = 3\n[[deviations]]\nfield = "steps"': "deviates from nothing",
    'extends = "paper-1.5b"\n[[deviations]]\nfield = "steps"\nhere = 3': "paper",
    'extends = "paper-1.5b"\n[[deviations]]\nfield = "steps"\npaper = 100\nhere = 3\nwhy = "x"': "has 1024",
    'extends = "paper-1.5b"\n[[deviations]]\nfield = "step"\npaper = 100\nhere = 3\nwhy = "x"': "did you mean",
    'extends = "paper-1.5b"\ndeviations = 3': "wrong type",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_recipe_that_means_nothing_is_refused_in_one_line(text, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=BAD[text]) as caught:
        recipe(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["paper-1.5", "nothing", "missing.toml"])
def test_an_unknown_recipe_names_those_there_are(name):
    with pytest.raises(UserError, match=r"paper-1\.5b"):
        recipe(name)


# ---- in use -----------------------------------------------------------------------------------------------------

SMALL = """
[config]
rank = 4
alpha = 8.0
targets = ["q_proj", "v_proj"]
method_options = { dropout = 0.05 }
steps = 3
seed = 42
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("lora", {"rank": 4, "alpha": 8, "targets": ("q_proj", "v_proj"), "method_options": {"dropout": 0.05}}),
        ("dora", {"rank": 4, "alpha": 8, "targets": ("q_proj", "v_proj"), "method_options": {}}),
        ("miss", {"rank": 4, "alpha": None, "targets": ("q_proj", "v_proj"), "method_options": {}}),
        ("full", {"rank": None, "alpha": None, "targets": None, "method_options": {}}),
    ],
)
def test_another_method_takes_of_a_recipe_what_it_knows(method, fields, small):
    found = recipe(small, method)
    assert {name: getattr(found, name) for name in fields} == fields
    assert (found.method, found.steps) == (method, 3)
    check(found)


@pytest.mark.parametrize("name", [name for name in methods.names() if ":" not in name])
def test_the_papers_protocol_can_begin_with_every_method(name):
    precision = "bf16" if name in ("full", "c3a") else "auto"
    check(dataclasses.replace(recipe("paper-1.5b", name), precision=precision))


def test_an_option_that_no_method_has_is_not_left_out_in_silence():
    with pytest.raises(UserError, match="did you mean 'dropout'"):
        merge({"method": "dora"}, RunConfig(method_options={"dropuot": 0.1}))


def designed(monkeypatch, tmp_path, *entries, **options):
    """The design of a comparison, without its runs."""
    monkeypatch.setattr(conduct, "_work", lambda *args: None)
    monkeypatch.setattr(Study, "report", lambda self: None)
    return compare(*entries, out=tmp_path / "study", progress=False, **options).design


def test_a_comparison_starts_from_a_recipe_and_gives_each_row_what_it_knows(small, monkeypatch, tmp_path):
    design = designed(monkeypatch, tmp_path, ["lora", "ia3", "dora"], config=recipe(small))
    lora, ia3, dora = (design.config(variant) for variant in design.variants)
    assert (lora.rank, lora.method_options) == (4, {"dropout": 0.05})
    assert (ia3.rank, ia3.targets, ia3.method_options) == (None, ("q_proj", "v_proj"), {})
    assert (dora.rank, dora.alpha, dora.method_options) == (4, 8, {})
    assert {config.steps for config in (lora, ia3, dora)} == {3}
    for config in (lora, ia3, dora, design.shared):
        check(config)


def test_what_a_row_or_the_call_says_overrules_the_recipe(small, monkeypatch, tmp_path):
    rows = {"lora": "lora", "large": {"method": "lora", "rank": 9}}
    design = designed(monkeypatch, tmp_path, rows, config=recipe(small), steps=2, targets=["up_proj"])
    lora, large = (design.config(variant) for variant in design.variants)
    assert (lora.rank, large.rank, lora.steps, lora.targets) == (4, 9, 2, ("up_proj",))


def test_a_comparison_takes_base_and_task_from_the_recipe(monkeypatch, tmp_path):
    path = tmp_path / "equations.toml"
    path.write_text('[config]\ntask = "linear-equation"\n')
    assert designed(monkeypatch, tmp_path, ["lora"], config=recipe(path)).shared.task == "linear-equation"


@pytest.fixture
def asked(monkeypatch):
    """The configuration that a command would run."""
    found = {}

    def note(
        method=None, base=None, task=None, *, config=None, out=None, progress=True, wait=False, smoke=False, **options
    ):
        found["config"] = merge({"method": method, "base": base, "task": task, **options}, config)
        raise KeyboardInterrupt

    monkeypatch.setattr("rlvr_lite.training.train", note)
    monkeypatch.setattr("rlvr_lite.study.compare", lambda *args, **options: found.update(options) or sys.exit(0))
    return found


def typed(words):
    with pytest.raises(SystemExit):
        main(words)


def test_options_on_the_command_line_overrule_the_recipe_even_where_they_are_the_default(small, asked):
    typed(["train", "--recipe", str(small), "--seed", "0", "--rank", "8"])
    assert asked["config"] == RunConfig(
        rank=8, alpha=8, targets=("q_proj", "v_proj"), method_options={"dropout": 0.05}, steps=3, seed=0
    )
    typed(["train", f"--recipe={small}", "--method", "ia3"])
    assert (asked["config"].method, asked["config"].rank, asked["config"].steps) == ("ia3", None, 3)
    typed(["train", "--steps", "5"])
    assert asked["config"] == RunConfig(steps=5)


def test_compare_takes_a_recipe_on_the_command_line(small, asked):
    with pytest.raises(SystemExit):
        main(["compare", "lora,dora", "--recipe", str(small), "--steps", "2"])
    assert (asked["steps"], asked["config"].rank) == (2, 4)


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--recipe", "nothing"],
        ["compare", "lora", "--recipe", "nothing"],
        ["recipes", "nothing"],
        ["claims", "--only", "x"],
    ],
)
def test_a_name_that_is_not_there_ends_in_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_recipes_are_listed_and_shown(capsys):
    main(["recipes"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in NAMES)
    main(["recipes", "paper-7b-24gb"])
    assert "16,384" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["paper-1.5b", "paper-7b", "paper-1.5b-12gb"])
def test_lora_plus_has_the_ratio_of_the_papers_code_in_its_protocol(name):
    assert recipe(name, "lora_plus").method_options == {"ratio": 2.0}
    assert recipe(name).method_options == {"dropout": 0.05}


def test_an_alpha_goes_with_its_rank():
    """64 over rank 32 is a scale of 2; over rank 1 it would be 64."""
    found = recipe("paper-1.5b", "rank1")
    assert methods.resolve("rank1", found.adapter, "paper").alpha == 2
    assert recipe("paper-1.5b", "dora").alpha == 64


def test_what_a_protocol_gives_to_a_method_is_checked(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("[config]\nsteps = 3\n[methods.lora_plus]\nmethod_options = { ratoi = 2.0 }\n")
    with pytest.raises(UserError, match="ratio"):
        recipe(path, "lora_plus")
