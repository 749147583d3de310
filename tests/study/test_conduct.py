"""A study goes on where it was stopped, repeats nothing, and says no more than the data show."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from rlvr_lite import methods
from rlvr_lite.config import RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.planning import card
from rlvr_lite.recipes import recipe
from rlvr_lite.study import Study, compare, estimate
from rlvr_lite.study._lattice import COARSE, place_of, rate_at
from rlvr_lite.study._report_words import verdict_words
from rlvr_lite.study._store import Store
from rlvr_lite.training import train
from tests.study import fake_engine
from tests.study.fake import make_design

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
    assert len(done) == len(set(done)) == len(found.trials)
    board = {row["row"]: row for row in found.leaderboard}
    assert list(board) == ["dora", "lora", "ln_tuning", "untrained base"]
    assert board["lora"]["verdict"] == "reference"
    assert board["ln_tuning"]["verdict"] == "worse"
    assert found.rows["dora"].learning_rate == 3.2e-3
    assert board["dora"]["rates tried"] == "0.0018 to 0.0056, best inside"


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


def test_all_rows_have_one_optimizer(study, monkeypatch):
    """In fp32; in 8 bits for all where one row fits the card in no other way, also for rows that come later."""
    assert study("cpu")[0].design.shared.optim == "adamw_torch_fused"
    monkeypatch.setattr("rlvr_lite.planning._planned._this_card", lambda: card("RTX 5090"))
    options = {"base": "Qwen2.5-1.5B", "precision": "bf16", "tune": "none", "seeds": 1, "engine": "ray"}
    small, _ = study("small", ("lora", "dora"), **options)
    assert {row.config.optim for row in small.rows.values()} == {"adamw_torch_fused"}
    assert "AdamW with fp32 moments in all rows" in str(small.leaderboard)
    for methods_ in (("lora", "full"), ("lora", "full", "lora_fa")):
        large, _ = study("large", methods_, **options)
        assert {row.config.optim for row in large.rows.values()} == {"paged_adamw_8bit"}
    assert "AdamW with moments in 8 bits" in str(large.leaderboard)
    later, _ = study("small", ("lora", "dora", "full"), **options)
    assert {row.config.optim for row in later.rows.values()} == {"adamw_torch_fused"}


def test_moments_in_8_bits_are_refused_on_a_cpu(study, tmp_path):
    if torch.cuda.is_available():
        return
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        study("s", optim="paged_adamw_8bit")
    assert not (tmp_path / "s").exists()
    with pytest.raises(UserError, match="needs a CUDA GPU"):
        train(optim="paged_adamw_8bit", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


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


@pytest.mark.parametrize("data", ["null", "[]", "{}", '{"error"', '{"error": null}', '{"error": [1]}', ""])
def test_a_failure_whose_note_is_damaged_is_a_failure(tmp_path, data):
    store, trial = Store(tmp_path), make_design(("lora",), tune="none").known({})[-1]
    store.fail(trial, "no room")
    next(tmp_path.rglob("failure.json")).write_text(data)
    assert store.state(trial) == "failed"
    assert "failure.json is damaged" in store.reason(trial)


def test_rows_of_any_name_have_folders_of_their_own_in_the_study(tmp_path):
    labels = ["lora", "LoRA", ".", "..", "../../x", "a/b", "a-b", "A/b", ".lock", "\ud800", "\0", "x" * 300, "x" * 301]
    store, plan = Store(tmp_path), make_design(dict.fromkeys(labels, "lora"), tune="none")
    paths = {store.path(trial) for trial in plan.known({})}
    assert len({str(path).lower() for path in paths}) == len(paths) == 2 * (1 + len(labels))
    rows = {path.parent for path in paths} - {tmp_path}
    assert {folder.resolve().parent for folder in rows} == {tmp_path / "runs"}
    assert len({store.lease(trial) for trial in plan.known({})}) == len(paths)


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
    assert len(done) == len(set(done))
    assert boards[0] == boards[1]


def test_the_same_method_under_two_names_is_no_difference(study):
    found, _ = study("s", {"lora": "lora", "lora again": "lora"})
    assert found.comparison("lora again").words == "no significant difference"


def test_a_row_whose_every_rate_collapses_is_not_ranked(study):
    found, _ = study("s", {"lora": "lora", "far": {"method": "lora", "learning_rate": 2e-8}}, margin=0.5)
    table = {row["row"]: row for row in found.learning_rates}
    assert "untrained base" in found.search_doubt("far")  # every rate it tried collapses
    assert not table["lora"]["at the edge"]
    assert table["lora"]["good from"] <= 2e-3 <= table["lora"]["to"]
    board = {row["row"]: row for row in found.leaderboard}
    assert board["far"]["verdict"] == "search inconclusive"  # it would have been worse
    assert board["far"]["P(best)"] is None
    assert list(board)[-2:] == ["far", "untrained base"]
    assert any(line.startswith("far: ") and "search is inconclusive" in line for line in verdict_words(found))


def test_nothing_is_better_than_a_reference_whose_search_is_open(study):
    found, _ = study("s", {"far": {"method": "lora", "learning_rate": 2e-8}, "lora": "lora"}, reference="far")
    assert found.comparison("lora").difference.low > 0
    assert found.comparison("lora").verdict == "search inconclusive"


def test_the_margin_is_a_share_of_what_the_reference_gains(study):
    found, _ = study("s", {"lora": "lora", "lora again": "lora"}, margin=0.25, seeds=5)
    assert found.gain == pytest.approx(found.rows["lora"].scores.mean() - found.base.mean())
    assert found.margin == pytest.approx(0.25 * found.gain)
    said = f"equivalence margin {found.margin:.3g}, 0.25 of the {found.gain:.3g} that lora gains"
    assert said in " ".join(str(found.leaderboard).split())


def test_a_study_on_another_lattice_is_not_continued(study):
    study("s", ("lora",))
    with pytest.raises(UserError, match="search_seeds = 2, not 3"):
        study("s", ("lora",), search_seeds=3)
    with pytest.raises(UserError, match=r"around a learning rate of 0\.0018, not 0\.01"):
        study("s", ("lora",), learning_rate=1e-2)


def test_a_default_rate_that_has_moved_does_not_continue_another_search(study, tmp_path):
    study("s", ("lora",))
    path = tmp_path / "s" / "study.json"
    path.write_text(path.read_text().replace('"searched around": 0.0018', '"searched around": 0.01'))
    with pytest.raises(UserError, match=r"around a learning rate of 0\.01, not 0\.0018"):
        study("s", ("lora",))


def test_an_estimate_counts_what_is_left_and_nothing_that_is_done(study, tmp_path):
    asked = {k: v for k, v in SETTINGS.items() if k != "progress"}
    whole = estimate(["lora", "dora"], out=tmp_path / "s", **asked)
    assert repr(whole) == f"Estimate({whole.line})"
    assert not (tmp_path / "s").exists()
    assert whole.whole.runs == 2 * (5 + 8 + 3)
    study("s", ("lora",))
    more = estimate(["lora", "dora"], out=tmp_path / "s", **asked)
    assert more.whole.runs == 5 + 8 + 3  # the finished row and the base are not counted again
    assert more.done == 5 + 6 + 3
    assert set(more.parts) == {"learning-rate search", "comparison"}
    study("s", ("lora", "dora"))
    assert estimate(["lora", "dora"], out=tmp_path / "s", **asked).whole.runs == 0


def test_an_estimate_needs_neither_the_base_nor_the_task_on_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("RLVR_LITE_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = estimate(["lora", "vera"], config=recipe("paper-1.5b"), gpu="A100 80GB", seeds=2)
    assert found.whole.device == "A100 80GB"
    assert 100 < found.hours < 10_000
    faster = estimate(["lora", "vera"], config=recipe("paper-1.5b"), gpu="H100", seeds=2)
    assert faster.whole.tokens == found.whole.tokens
    assert faster.hours < found.hours


@pytest.mark.parametrize(
    ("methods", "changes", "says"),
    [
        (("lora",), {"learning_rate": [1e-3, 1e-2]}, "tune='none'"),
        (("lora",), {"rnak": [1]}, "did you mean rank"),
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
        middle = place_of(named.get("learning_rate", own[label]))
        assert {rate_at(middle + step) for step in COARSE} <= rates
        assert all(rate == rate_at(place_of(rate)) for rate in rates)
