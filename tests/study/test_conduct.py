"""A study goes on where it was stopped, repeats nothing, and says no more than the data show."""

from __future__ import annotations

import random
import threading

import pytest

from rlvr_lite import methods
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.study import Study, compare
from rlvr_lite.study._store import Store
from tests.study import fake_engine

SETTINGS = {"seeds": 3, "eval_problems": 40, "eval_k": 4, "progress": False, "steps": 4}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """``study(name, methods, ...)`` runs one on a fake engine and returns it with the trials that were done."""

    def run(name, methods=("lora", "dora", "ln_tuning"), work=fake_engine.settle, capacity=1, **changes):
        root = tmp_path / name
        engine = fake_engine.FakeEngine(root, capacity, work)
        monkeypatch.setattr("rlvr_lite.study._conduct.open_engine", lambda *a, **k: fake_engine.opened(engine))
        monkeypatch.setattr("rlvr_lite.study._study.Study.report", lambda self: None)
        return compare(methods, out=root, **SETTINGS | changes), engine.done

    return run


def test_the_leaderboard_finds_the_best_and_the_worst(study):
    found, done = study("s")
    assert found.complete
    assert len(done) == len(set(done)) == 3 + 3 * (7 + 3)
    board = {row["row"]: row for row in found.leaderboard}
    assert list(board) == ["dora", "lora", "ln_tuning", "untrained base"]
    assert board["lora"]["verdict"] == "reference"
    assert board["ln_tuning"]["verdict"] == "worse"
    assert found.rows["dora"].learning_rate == 3e-3


def test_a_study_killed_anywhere_ends_with_the_same_leaderboard(study):
    whole, done = study("whole")
    expected = str(whole.leaderboard)
    for moment in random.Random(0).sample(range(len(done)), 6):
        count = 0

        def work(root, trial, stop=moment):
            nonlocal count
            if count == stop:
                raise KeyboardInterrupt
            count += 1
            fake_engine.settle(root, trial)

        with pytest.raises(KeyboardInterrupt):
            study(f"killed-{moment}", work=work)
        again, rest = study(f"killed-{moment}")
        assert str(again.leaderboard) == expected
        assert len(rest) == len(done) - moment


def test_workers_in_any_order_give_the_same_leaderboard(study):
    assert str(study("one")[0].leaderboard) == str(study("four", capacity=4)[0].leaderboard)


def test_a_new_method_or_seed_runs_only_what_is_new(study):
    _, first = study("s", ("lora", "dora"))
    _, again = study("s", ("lora", "dora"))
    assert again == []
    grown, more = study("s", ("lora", "miss"), seeds=4)
    assert set(more).isdisjoint(first)
    assert list(grown.rows) == ["lora", "dora", "miss"]
    assert sorted(key for key in more if not key.startswith("miss")) == ["/base-seed-3", "dora/seed-3", "lora/seed-3"]


def test_a_directory_of_another_study_is_refused(study, tmp_path):
    study("s", ("lora",))
    with pytest.raises(UserError, match="eval_k = 4, not 2"):
        study("s", ("lora",), eval_k=2)
    with pytest.raises(UserError, match="tune = 'lr', not 'none'"):
        study("s", ("lora",), tune="none")
    with pytest.raises(UserError, match="another row 'lora'"):
        study("s", {"lora": {"method": "lora", "rank": 4}})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        study("mine", ("lora",))
    with pytest.raises(UserError, match="is not a study"):
        Study.load(tmp_path / "mine")


def test_a_method_that_breaks_is_reported_in_its_row_and_the_rest_goes_on(study):
    def work(root, trial):
        if trial.config.method == "dora" and trial.stage != "base":
            Store(root).fail(trial, RuntimeError("out of\npatience"))
        else:
            fake_engine.settle(root, trial)

    found, _ = study("s", work=work)
    board = {row["row"]: row for row in found.leaderboard}
    assert board["dora"]["verdict"] == "every learning rate failed: RuntimeError: out of patience"
    assert board["dora"][found.metric] is None
    assert board["ln_tuning"]["verdict"] == "worse"
    mended, done = study("s")  # what broke off is tried again
    assert mended.rows["dora"].problem == ""
    assert all(key.startswith("dora") for key in done)


def test_a_seed_that_fails_leaves_its_row_without_a_verdict(study):
    def work(root, trial):
        if trial.key == "dora/seed-1":
            Store(root).fail(trial, "stopped: max_hours (1) reached")
        else:
            fake_engine.settle(root, trial)

    found, _ = study("s", work=work)
    assert found.accuracy("dora") is None
    assert "seed 1 failed: stopped" in found.rows["dora"].problem
    assert found.comparison("ln_tuning") is not None


def test_two_calls_at_once_do_no_cell_twice(tmp_path, monkeypatch):
    engines = [fake_engine.FakeEngine(tmp_path / "s") for _ in range(2)]
    waiting = iter(engines)
    monkeypatch.setattr("rlvr_lite.study._conduct.open_engine", lambda *a, **k: fake_engine.opened(next(waiting)))
    monkeypatch.setattr("rlvr_lite.study._conduct._PATIENCE", 0.05)
    monkeypatch.setattr("rlvr_lite.study._study.Study.report", lambda self: None)
    boards: list[str] = []

    def call() -> None:
        boards.append(str(compare(["lora", "dora"], out=tmp_path / "s", **SETTINGS).leaderboard))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [key for engine in engines for key in engine.done]
    assert len(done) == len(set(done)) == 3 + 2 * (7 + 3)
    assert boards[0] == boards[1]


def test_the_same_method_under_two_names_is_no_difference(study):
    found, _ = study("s", {"lora": "lora", "lora again": "lora"})
    assert found.comparison("lora again").verdict == "no difference shown"


def test_the_good_band_and_the_edge_are_told(study):
    found, _ = study("s", {"lora": "lora", "far": {"method": "lora", "learning_rate": 2e-5}})
    table = {row["row"]: row for row in found.learning_rates}
    assert table["far"]["at the edge"]
    assert not table["lora"]["at the edge"]
    assert table["lora"]["good from"] <= 2e-3 <= table["lora"]["to"]


@pytest.mark.parametrize(
    ("methods", "changes", "says"),
    [
        (("lora",), {"learning_rate": [1e-3, 1e-2]}, "tune='none'"),
        (("lora",), {"rnak": [1]}, "did you mean 'rank'"),
        (("ln_tuning",), {"rank": 4}, "has no rank"),
        (("lora",), {"task": "no-such-task"}, "unknown task"),
        (("full",), {"precision": "nf4"}, "4-bit"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(study, tmp_path, methods, changes, says):
    with pytest.raises(UserError, match=says):
        study("s", methods, **changes)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("named", [{}, {"learning_rate": 1e-2}])
def test_a_search_begins_at_each_methods_own_rate_unless_the_caller_names_one(study, named):
    """The rate of a configuration is its method's, and would leave another method's best outside of what is tried."""
    found, _ = study("s", ("lora", "ln_tuning"), config=RunConfig(learning_rate=1e-5), **named)
    tried = {label: {trial.learning_rate for trial in row.search} for label, row in found.rows.items()}
    own = {label: methods.learning_rate(label, "tiny").value for label in tried}
    for label, rates in tried.items():
        assert sorted(rates)[len(rates) // 2] == pytest.approx(named.get("learning_rate", own[label]))
