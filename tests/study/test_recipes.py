"""Recipes: the paper's protocol to the letter, variants that fit their card and say where they depart."""

from __future__ import annotations

import dataclasses

import pytest

from rlvr_lite.config import LINEAR_LAYERS, RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.planning import plan
from rlvr_lite.study.protocols import list_recipes, read_recipe, recipe
from rlvr_lite.training.resolve import check_early

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
    check_early(recipe(name))


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
    "[config]\nstep = 3": "did you mean 'steps'",
    '[config]\nsteps = "many"': "wrong type",
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
