from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlvr_lite.errors import UserError
from rlvr_lite.evaluation import Evaluation, Sample, Score, compare_evaluations, power_table
from rlvr_lite.evaluation._lighteval import results


def make(
    name: str = "lora",
    seed: int = 0,
    chance: float = 0.4,
    k: int = 8,
    n: int = 40,
    benchmarks: Any = ("aa", "bb"),
    **facts: Any,
) -> Evaluation:
    """An evaluation of a made-up policy; problems have the same difficulties in each."""
    scores = {}
    for benchmark in benchmarks:
        difficulty = random.Random(benchmark)
        rng = random.Random(f"{name}/{seed}/{benchmark}")
        samples = []
        for problem in range(n):
            right = min(1.0, max(0.0, chance + difficulty.uniform(-0.3, 0.3)))
            for index in range(-1, k):
                ok = rng.random() < right
                answer = "7" if ok else str(rng.randrange(3))
                samples.append(
                    Sample(
                        f"{benchmark}-{problem}",
                        index,
                        f"<b>{answer}</b>",
                        answer,
                        ok,
                        "number",
                        10 + index,
                        index == 3,
                    )
                )
        scores[benchmark] = Score.of(benchmark, samples)
    decided = {
        "policy": {"base": "tiny", "revision": "abc", "precision": "fp32", "method": name, "seed": seed},
        "parity": 1e-7,
        "preset": "quick",
        "sampling": {"temperature": 0.6, "top_p": 0.95, "top_k": 0, "max_completion_length": 56},
        "greedy": True,
        "seed": 0,
        "style": "bare",
        "engine": "transformers",
        "versions": {},
        **facts,
    }
    source = {"source": "x.jsonl", "checksum": "00ff", "excluded": {}, "max_completion_length": 56}
    return Evaluation(decided, scores, dict.fromkeys(benchmarks, source))


def test_the_table_has_a_row_a_benchmark_and_their_average() -> None:
    evaluation = make()
    rows = list(evaluation.table)
    assert [row["benchmark"] for row in rows] == ["aa", "bb", "average"]
    assert str(evaluation["aa"].metrics()["avg@8"]) == rows[0]["avg@8"]
    means = [evaluation[b].metrics()["avg@8"].value for b in evaluation]
    average = evaluation.average()["avg"]
    assert average.value == pytest.approx(np.mean(means))
    narrower = [evaluation[b].metrics()["avg@8"] for b in evaluation]
    assert average.high - average.low < min(i.high - i.low for i in narrower)
    assert "T 0.6" in str(evaluation)


def test_benchmarks_of_different_k_share_columns() -> None:
    few, many = make(k=2, benchmarks=("aa",)), make(k=4, benchmarks=("bb",))
    both = Evaluation(few.facts, {**few.scores, **many.scores}, {**few.sources, **many.sources})
    assert [row.get("k") for row in both.table] == [2, 4, None]
    assert "avg@k" in both.table.columns


def test_the_macro_average_covers_its_truth() -> None:
    hits = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        scores = {}
        for benchmark, chance in (("aa", 0.3), ("bb", 0.6)):
            p = rng.beta(chance * 2, (1 - chance) * 2, 40)
            samples = [
                Sample(f"{i}", j, "", None, bool(rng.random() < p[i]), "", 1, False)
                for i in range(40)
                for j in range(4)
            ]
            scores[benchmark] = Score.of(benchmark, samples)
        average = Evaluation({}, scores, {}).average()["avg"]
        hits += average.low <= 0.45 <= average.high
    assert hits / 150 >= 0.9


def test_the_notebook_view_is_one_safe_piece_of_html() -> None:
    evaluation = make(name="<script>alert(1)</script>")
    page = evaluation._repr_html_()
    assert "<script>" not in page
    assert page.count("<img") == 1
    assert "data:image/png;base64," in page
    assert "alt=" in page


def test_the_heat_map_shows_every_answer() -> None:
    evaluation = make()
    panels = [axis.images[0].get_array() for axis in evaluation.plot().axes]
    for panel, score in zip(panels, evaluation.values(), strict=True):
        assert score.correct is not None
        assert panel.shape == score.correct.T.shape
        assert (panel == 2).sum() == score.correct.sum()
        share = (panel == 2).mean(axis=0)
        assert (np.diff(share) >= -1e-12).all()


def test_pandas_gets_a_row_a_problem() -> None:
    pytest.importorskip("pandas")
    evaluation = make()
    frame = evaluation.to_pandas()
    assert len(frame) == 80
    means = frame.groupby("benchmark")["avg@8"].mean()
    assert means["aa"] == pytest.approx(evaluation["aa"].metrics()["avg@8"].value)


def test_a_saved_evaluation_comes_back_whole(tmp_path: Path) -> None:
    evaluation = make()
    path = evaluation.save(tmp_path / "deep")
    loaded = Evaluation.load(tmp_path / "deep")
    assert loaded.to_dict() == evaluation.to_dict()
    assert loaded.save(tmp_path / "again.json").read_bytes() == path.read_bytes()
    assert str(loaded) == str(evaluation)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="not an evaluation"):
        Evaluation.load(tmp_path / "other.json")
    with pytest.raises(UserError, match="does not exist"):
        Evaluation.load(tmp_path / "absent")


@pytest.mark.parametrize("name", ["policy", "sampling", "parity", "seed", "style", "benchmarks"])
@pytest.mark.parametrize("value", [None, [], "x", {"a": 1}], ids=str)
def test_facts_of_other_types_are_shown_or_one_line(tmp_path: Path, name: str, value: Any) -> None:
    make().save(tmp_path)
    path = tmp_path / "evaluation.json"
    stored = json.loads(path.read_text())
    stored.pop("sha256", None)  # a stranger's may have none
    path.write_text(json.dumps(stored | {name: value}))
    with suppress(UserError):
        assert str(Evaluation.load(tmp_path))


@pytest.mark.parametrize("name", ["greedy", "engine"])
def test_an_evaluation_that_lacks_a_fact_is_not_alike(tmp_path: Path, name: str) -> None:
    make().save(tmp_path)
    path = tmp_path / "evaluation.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key not in (name, "sha256")})
    )
    with pytest.raises(UserError, match=f"differ in {name}"):
        Evaluation.load(tmp_path).compare(make())


@pytest.mark.parametrize("number", ["1e999", "-Infinity", "NaN"])
def test_an_evaluation_with_a_number_that_json_has_not_is_damaged(tmp_path: Path, number: str) -> None:
    path = make().save(tmp_path)
    stored = json.loads(path.read_text())
    stored.pop("sha256", None)
    stored["sampling"]["min_p"] = "FORGED"
    path.write_text(json.dumps(stored).replace('"FORGED"', number))
    with pytest.raises(UserError, match="is damaged"):
        Evaluation.load(tmp_path)


def test_the_texts_are_found_again(tmp_path: Path) -> None:
    evaluation = make()
    assert len(evaluation.samples("aa")) == 40 * 9
    evaluation.save(tmp_path)
    (tmp_path / "aa.jsonl").write_text("\n".join(json.dumps(row) for row in evaluation.samples("aa")))
    loaded = Evaluation.load(tmp_path)
    assert loaded.samples("aa") == evaluation.samples("aa")
    with pytest.raises(UserError, match="bb"):
        loaded["bbb"]


def test_better_is_said_of_what_is_better() -> None:
    rows = {(row["benchmark"], row["metric"]): row for row in make("b", chance=0.6).compare(make("a", chance=0.35))}
    assert len(rows) == 8
    row = rows["aa", "avg@8"]
    assert row["verdict"] == "better"
    assert row["difference"] == pytest.approx(row["this"] - row["other"])
    assert row["low"] > 0
    assert all(row["p (Holm)"] >= row["p"] for row in rows.values())
    back = {(row["benchmark"], row["metric"]): row for row in make("a", chance=0.35).compare(make("b", chance=0.6))}
    assert back["aa", "avg@8"]["verdict"] == "worse"


def test_nothing_is_said_of_the_same_policy_twice() -> None:
    said = [row["verdict"] for seed in range(20) for row in make("a", seed).compare(make("b", seed))]
    assert said.count("no significant difference") >= 0.97 * len(said)
    same = make().compare(make(), margin=0.01)
    assert {row["verdict"] for row in same if row["metric"].startswith("avg")} == {"equivalent"}


def test_seeds_pair_with_seeds() -> None:
    mine = [make("b", seed, chance=0.6) for seed in range(3)]
    others = [make("a", seed, chance=0.35) for seed in range(3)]
    row = next(row for row in compare_evaluations(mine, others) if row["metric"] == "avg@8")
    assert row["this"] == pytest.approx(np.mean([e["aa"].metrics()["avg@8"].value for e in mine]))
    assert row["verdict"] == "better"
    with pytest.raises(UserError, match="one a seed"):
        compare_evaluations(mine, others[:2])


def _other_source(evaluation: Evaluation, **facts: Any) -> Evaluation:
    sources = {name: {**source, **facts} for name, source in evaluation.sources.items()}
    return Evaluation(evaluation.facts, evaluation.scores, sources)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (make(benchmarks=("cc",)), "share no benchmark"),
        (make(k=4), "k = "),
        (make(n=30), "other problems"),
        (make(style="instruct"), "style"),
        (make(sampling={"temperature": 1.0}), "sampling"),
        (_other_source(make(), checksum="beef"), "checksum"),
        (_other_source(make(), max_completion_length=7), "max_completion_length"),
    ],
)
def test_what_was_not_evaluated_alike_is_not_compared(other: Evaluation, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make().compare(other)


def test_lighteval_reads_the_numbers(tmp_path: Path) -> None:
    evaluation = make()
    stored = json.loads(evaluation.to_lighteval(tmp_path / "results.json").read_text())
    assert stored == json.loads(json.dumps(results(evaluation)))
    assert set(stored) == {"config_general", "results", "versions", "config_tasks", "summary_tasks", "summary_general"}
    row = stored["results"]["rlvr_lite|aa|0"]
    assert row["avg@n:n=8"] == evaluation["aa"].metrics()["avg@8"].value
    shares = evaluation["aa"].by_problem()["avg@8"]  # of each problem: its answers are one cluster
    assert row["avg@n:n=8_stderr"] == pytest.approx(shares.std(ddof=1) / len(shares) ** 0.5)
    assert {"pass@1", "pass@k:k=8&n=8", "maj@n:n=8"} <= set(row)
    assert stored["results"]["all"]["pass@1"] == pytest.approx(
        np.mean([stored["results"][f"rlvr_lite|{b}|0"]["pass@1"] for b in evaluation])
    )
    assert stored["config_general"]["model_name"] == "tiny"
    assert list(stored["versions"]) == ["rlvr_lite|aa|0", "rlvr_lite|bb|0"]


def test_power_is_told_before_a_run() -> None:
    rows = {row["benchmark"]: row for row in power_table(seeds=(1, 3, 10))}
    assert rows["aime24"]["problems"] == 30
    assert rows["aime24"]["k"] == 32
    assert rows["math500"]["10 seeds"] < rows["aime24"]["10 seeds"] < rows["aime24"]["3 seeds"]
    fewer = next(iter(power_table("math500", problems=50, seeds=(3,))))
    assert fewer["3 seeds"] > next(iter(power_table("math500", seeds=(3,))))["3 seeds"]
    many = next(iter(power_table("math500", comparisons=13, seeds=(3,))))
    assert many["3 seeds"] > next(iter(power_table("math500", seeds=(3,))))["3 seeds"]
    own = next(iter(power_table("chain-sum:test", problems=100, seeds=(3,))))
    assert (own["problems"], own["k"]) == (100, 8)
    with pytest.raises(UserError, match="math500"):
        power_table(["math50"])
    with pytest.raises(UserError, match="k must"):
        power_table("math500", 0)


def test_what_could_not_be_judged_is_counted_and_said() -> None:
    samples = [Sample("p", i, "", "7", ok, "number", 1, False) for i, ok in enumerate((True, None, False, None), -1)]
    score = Score.of("aa", samples)
    assert score.unjudged == 2
    assert score.metrics()["avg@3"].value == 0
    assert Score.from_dict("aa", score.to_dict(outcomes=True)).unjudged == 2
    plain = make(benchmarks=("aa",))
    assert "could not be judged" in str(Evaluation(plain.facts, {"aa": score}, plain.sources))
    assert "could not be judged" not in str(plain)
