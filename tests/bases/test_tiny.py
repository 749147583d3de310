import json
import random
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_lite import bases, records
from rlvr_lite.bases import EMBEDDED, tiny
from rlvr_lite.bases._tiny_lessons import Lessons, draw_lesson, write_solution
from rlvr_lite.rewards import verify
from rlvr_lite.tasks import ChainSum, draw_chain

FOLDER = EMBEDDED["tiny"]
MANIFEST = records.read_json(FOLDER / records.MANIFEST)


def test_the_shipped_files_are_those_of_the_manifest_and_small():
    assert records.damage(FOLDER) is None
    assert set(MANIFEST["files"]) == {p.name for p in FOLDER.iterdir()} - {records.MANIFEST}
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 1_500_000
    records.refuse_pickles(FOLDER)


def test_the_card_shows_the_figures_of_the_manifest():
    text = (FOLDER / "README.md").read_text()
    for figures in MANIFEST["figures"].values():
        for figure in figures.values():
            assert f"{figure:.3f}" in text
    assert f"{MANIFEST['parameters']:,}" in text
    for stage in tiny.STAGES:
        assert f"{stage.steps:,}" in text


def test_the_manifest_holds_the_recipe_of_the_script():
    assert MANIFEST["stages"] == json.loads(json.dumps([asdict(stage) for stage in tiny.STAGES]))


def test_it_starts_with_something_left_to_sharpen():
    figures = MANIFEST["figures"]["test"]
    assert 0.20 <= figures["greedy"] <= 0.32
    assert 0.20 <= figures["avg@8"] <= 0.30
    assert 0.80 <= figures["pass@8"] <= 0.92


def test_the_figures_can_be_measured_again():
    model = bases.load("tiny").model
    again = tiny.measure(model, ChainSum().problems("test", 100))
    for name, figure in MANIFEST["figures"]["test"].items():
        assert again[name] == pytest.approx(figure, abs=0.10)  # 100 problems against 400


@given(seed=st.integers(0, 10**6), style=st.sampled_from(["step", "skip", "direct"]), operands=st.integers(2, 7))
@settings(max_examples=60, deadline=None)
def test_a_solution_without_slips_is_right_in_every_line(seed, style, operands):
    chain = draw_chain(random.Random(seed), operands, 9, 99)
    *lines, boxed = write_solution(random.Random(seed), chain, style, slip=0).split("\n")
    assert boxed == f"\\boxed{{{chain.totals[-1]}}}"
    assert verify(str(chain.totals[-1]), boxed).correct
    for line in lines:
        left, right = line.split("=")
        assert eval(left) == int(right)
    assert len(lines) == {"step": operands - 1, "direct": 0}.get(style, len(lines))


def test_slips_are_as_frequent_as_asked():
    rng = random.Random(0)
    chains = [draw_chain(rng, 2, 9, 99) for _ in range(2000)]
    wrong = sum(f"{{{c.totals[-1]}}}" not in write_solution(rng, c, "direct", slip=0.2) for c in chains)
    assert 0.15 < wrong / 2000 < 0.22  # a slip below zero ends at zero, which may be right


def test_no_lesson_shows_a_held_out_question():
    rng = random.Random(0)
    lessons = Lessons({"step": 1.0}, slip=0.0)
    questions = [draw_lesson(rng, lessons)[0].problem for _ in range(3000)]
    assert {ChainSum.split_of(question) for question in questions} == {"train"}
    lengths = [1 + sum(c in "+-" for c in q) for q in questions]
    assert set(lengths) == {2, 3, 4, 5, 6, 7}
    assert sum(n > 5 for n in lengths) / 3000 == pytest.approx(0.15, abs=0.03)


def test_training_depends_on_the_seed_alone_and_lowers_the_loss(capsys):
    stages = [tiny.Stage(stage.lessons, steps=4, learning_rate=4e-3, batch=8, warmup=2) for stage in tiny.STAGES]
    first, again, other = (tiny.train(stages, seed=seed, report=0).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    tiny.train([tiny.Stage(tiny.STAGES[0].lessons, steps=20, learning_rate=4e-3, batch=8, warmup=5)], report=10)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert losses[-1] < 3.5 < 4.85  # ln 128 = 4.85 at the start


def test_what_is_written_loads_as_a_base(tmp_path):
    model = tiny.build_model(seed=3)
    facts = {**MANIFEST, "seed": 3}
    del facts["files"]
    tiny.write(model, tmp_path / "made", facts)
    assert records.damage(tmp_path / "made") is None
    base = bases.load(str(tmp_path / "made"))
    assert torch.equal(base.model.lm_head.weight, model.lm_head.weight.float())
    assert base.eos_ids == (1,)
    assert base.pad_id == 0
    assert not list(tmp_path.glob(".*"))


def test_the_command_line_writes_a_base(tmp_path, monkeypatch, capsys):
    stage = tiny.Stage(tiny.STAGES[0].lessons, steps=1, learning_rate=1e-3, batch=2)
    monkeypatch.setattr(tiny, "STAGES", (stage,))
    monkeypatch.setattr(tiny, "measure", lambda model, problems: {"greedy": 0.0, "avg@8": 0.0, "pass@8": 0.0})
    monkeypatch.setattr("sys.argv", ["tiny", str(tmp_path / "out"), "--seed", "5"])
    tiny.main()
    assert records.read_json(tmp_path / "out" / records.MANIFEST)["seed"] == 5
    assert "out" in capsys.readouterr().out
