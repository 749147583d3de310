"""Claims: every rule says each of its three words where it should, and the declared experiments hang together."""

from __future__ import annotations

import dataclasses
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rlvr_lite import bases, methods
from rlvr_lite.config import AdapterConfig, RunConfig
from rlvr_lite.errors import UserError
from rlvr_lite.paper import Evidence, Finding, claims, declared, estimate
from rlvr_lite.paper import _claims as verdicts
from rlvr_lite.paper import _rules as rules
from rlvr_lite.paper._experiments import EXPERIMENTS, FACTORS, cause_settings, setting
from rlvr_lite.paper._measure import put_back, ratios, shares, wrong_base
from rlvr_lite.study._design import make_variants

SEEDS, PROBLEMS = 5, 200


def outcomes(mean: float, *, noise: float = 0.01, number: int = 0, seeds: int = SEEDS) -> np.ndarray:
    """Scores of a row: problems as hard for each, a little noise of its own."""
    hard = np.random.default_rng(99).normal(0, 0.1, PROBLEMS)
    own = np.random.default_rng(number).normal(0, noise, (seeds, PROBLEMS))
    return np.clip(mean + hard + own, 0, 1)


def evidence(margin: float = 0.05, noise: float = 0.01, **means: float) -> Evidence:
    names = {name.replace("_", " "): mean for name, mean in means.items()}
    scores = {name: outcomes(mean, number=i, noise=noise) for i, (name, mean) in enumerate(names.items())}
    return Evidence(scores, base=outcomes(0.4, number=100, noise=noise), margin=margin)


def loud(**means: float) -> Evidence:
    """The same where training seeds scatter so much that nothing can be told."""
    scores = {}
    for i, (name, mean) in enumerate(means.items()):
        moved = np.random.default_rng(i).normal(0, 0.3, (3, 1))
        scores[name.replace("_", " ")] = np.clip(outcomes(mean, number=i, seeds=3) + moved, 0, 1)
    return Evidence(scores, base=outcomes(0.4, number=100, seeds=3), margin=0.05)


BETTER = rules.all_better(("a", "b"), "ref")
WORSE = rules.all_worse(("a", "b"), "ref")
SAME = rules.all_equivalent(("a", "b"), "ref")
BEHIND = rules.falls_behind("a", ["b"], "ref")
FALLS = rules.falls_more("a", "as ", "ref", "refs")
CASES = [
    (BETTER, evidence(a=0.7, b=0.8, ref=0.6), "supported"),
    (BETTER, evidence(a=0.7, b=0.6, ref=0.6), "not supported"),
    (BETTER, evidence(a=0.7, b=0.5, ref=0.6), "not supported"),
    (BETTER, loud(a=0.62, b=0.61, ref=0.6), "undecided"),
    (WORSE, evidence(a=0.5, b=0.4, ref=0.6), "supported"),
    (WORSE, evidence(a=0.5, b=0.6, ref=0.6), "not supported"),
    (WORSE, evidence(a=0.5, b=0.7, ref=0.6), "not supported"),
    (WORSE, loud(a=0.59, b=0.58, ref=0.6), "undecided"),
    (SAME, evidence(a=0.61, b=0.6, ref=0.6), "supported"),
    (SAME, evidence(a=0.6, b=0.5, ref=0.6), "not supported"),
    (SAME, loud(a=0.6, b=0.6, ref=0.6), "undecided"),
    (BEHIND, evidence(a=0.5, b=0.6, ref=0.6), "supported"),
    (BEHIND, evidence(a=0.5, b=0.7, ref=0.6), "supported"),
    (BEHIND, evidence(a=0.6, b=0.6, ref=0.6), "not supported"),
    (BEHIND, evidence(a=0.5, b=0.5, ref=0.6), "not supported"),
    (BEHIND, loud(a=0.55, b=0.6, ref=0.6), "undecided"),
    (rules.no_gain("a", "ref"), evidence(a=0.61, ref=0.6), "supported"),
    (rules.no_gain("a", "ref"), evidence(a=0.4, ref=0.6), "supported"),
    (rules.no_gain("a", "ref"), evidence(a=0.8, ref=0.6), "not supported"),
    (rules.no_gain("a", "ref"), loud(a=0.6, ref=0.6), "undecided"),
    (rules.not_worse("a", "ref"), evidence(a=0.59, ref=0.6), "supported"),
    (rules.not_worse("a", "ref"), evidence(a=0.8, ref=0.6), "supported"),
    (rules.not_worse("a", "ref"), evidence(a=0.4, ref=0.6), "not supported"),
    (rules.not_worse("a", "ref"), loud(a=0.6, ref=0.6), "undecided"),
    (FALLS, evidence(a=0.3, as_=0.6, ref=0.6, refs=0.62), "supported"),
    (FALLS, evidence(a=0.4, as_=0.6, ref=0.4, refs=0.6), "not supported"),
    (FALLS, evidence(a=0.8, as_=0.6, ref=0.5, refs=0.6), "not supported"),
    (FALLS, loud(a=0.5, as_=0.6, ref=0.58, refs=0.6), "undecided"),
    (rules.below_base("a", ["b"]), evidence(a=0.1, b=0.7), "supported"),
    (rules.below_base("a", ["b"]), evidence(a=0.7, b=0.1), "not supported"),
    (rules.below_base("a", ["b"]), loud(a=0.4, b=0.4), "undecided"),
    (rules.below_base("a", ["b"]), loud(a=0.2, b=0.4), "undecided"),
]


@pytest.mark.parametrize(("rule", "found", "word"), CASES, ids=range(len(CASES)))
def test_a_rule_says_what_the_intervals_allow(rule, found, word):
    said = rule(found)
    assert said.verdict == word
    assert said.low <= said.effect <= said.high
    assert len(said.sentence.splitlines()) == 1


def test_a_gain_within_the_margin_is_no_gain_and_one_beyond_it_is():
    """The margin decides: the same two rows, another margin."""
    rule = rules.no_gain("a", "ref")
    assert rule(evidence(a=0.63, ref=0.6, margin=0.05)).verdict == "supported"
    assert rule(evidence(a=0.63, ref=0.6, margin=0.01)).verdict == "not supported"


def test_holm_is_over_the_rows_of_the_claim():
    """A difference that alone would do is not enough among many; with more rows the same one is undecided."""
    rng = np.random.default_rng(3)
    ref = np.full((SEEDS, 40), 0.5)
    edge = ref + 0.02 + rng.normal(0, 0.055, (SEEDS, 40))
    none = {f"n{i}": ref + np.random.default_rng(i).normal(0, 0.2, (SEEDS, 40)) for i in range(30)}
    found = Evidence({"ref": ref, "edge": edge, **none})
    alone, among = found.family(["edge"], "ref")["edge"], found.family(["edge", *none], "ref")["edge"]
    assert alone.difference == among.difference
    assert alone.difference.p_value < 0.05 < 31 * alone.difference.p_value
    assert (alone.direction, among.direction) == ("better", "no significant difference")


def test_a_small_but_certain_gain_is_a_gain_and_within_the_margin_at_once():
    """Direction and equivalence are two findings: neither hides the other, and each claim asks for its own."""
    found = evidence(a=0.641, b=0.641, ref=0.6, noise=0.001)
    better, same = rules.all_better(("a",), "ref")(found), rules.all_equivalent(("a",), "ref")(found)
    assert (better.verdict, same.verdict) == ("supported", "supported")
    assert "better, within the equivalence margin" in better.sentence
    assert rules.all_worse(("a",), "ref")(found).verdict == "not supported"
    # part of the interval lies beyond the margin, part within: neither equivalent nor shown not to be
    between = Evidence({"ref": outcomes(0.6, number=9), "a": outcomes(0.6, number=9) + 0.05}, margin=0.05)
    scattered = dataclasses.replace(between, scores=dict(between.scores, a=between.scores["a"] + SPREAD))
    d = scattered.against("a", "ref")
    assert 0 < d.low < 0.05 < d.high
    assert rules.all_equivalent(("a",), "ref")(scattered).verdict == "undecided"


SPREAD = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])[:, None]


def test_a_row_whose_search_is_open_is_never_behind():
    """Its rate, not the method, may be what is poor; rows at one rate that was searched for another are no such case."""
    plain = evidence(a=0.4, b=0.4, ref=0.6)
    searched = dict.fromkeys(("a", "b", "ref"), 0.0)
    open_ = dataclasses.replace(plain, of_choice=searched, doubt=lambda row, effect: "edge" if row == "a" else "")
    assert rules.all_worse(("b",), "ref")(open_).verdict == "supported"
    assert rules.all_worse(("a",), "ref")(open_).verdict == "undecided"
    assert rules.all_better(("ref",), "a")(open_).verdict == "undecided"
    assert "search inconclusive" in rules.all_worse(("a",), "ref")(open_).sentence
    at_one_rate = dataclasses.replace(open_, of_choice={"ref": 0.0})
    assert rules.all_worse(("a",), "ref")(at_one_rate).verdict == "supported"
    wide = dataclasses.replace(plain, of_choice=dict.fromkeys(("a", "ref"), 0.2**2))
    assert rules.all_worse(("a",), "ref")(wide).verdict == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(1e-2, 6e-4, "supported"), (1e-2, 1e-3, "supported"), (1e-3, 1e-3, "not supported"), (5e-3, 1e-3, "undecided")],
)
def test_the_best_rate_falls_with_the_rank_as_far_as_the_lattice_tells(low, high, word):
    rule = rules.best_rate_falls(("r4", 4), ("r64", 64))
    found = Evidence(rates={"r4": low, "r64": high})
    assert rule(found).verdict == word
    open_ = dataclasses.replace(found, doubt=lambda row, effect: "on the edge" if row == "r64" else "")
    assert rule(open_) == Finding("undecided", "r64: on the edge")


def test_the_collapse_rule_names_the_settings_that_end_below_the_base():
    said = rules.below_base("a", ["b", "c", "d"])(evidence(a=0.7, b=0.1, c=0.6))
    assert "1 of 2 other settings end below it (b); 1 have no score" in said.sentence


CELLS = {key: " ".join(map(str, key)) for key in itertools.product(*FACTORS.values())}


def causes(direction: float, **costs: float) -> Evidence:
    """A method that loses ``direction`` to random directions and, at a factor's suspect level, that factor's cost."""
    scores = {"control": outcomes(0.7, number=1)}
    for i, (key, label) in enumerate(CELLS.items()):
        lost = sum(costs.get(f, 0) for f, level in zip(FACTORS, key, strict=True) if level == FACTORS[f][1])
        scores[label] = outcomes(0.7 - direction - lost, number=10 + i, seeds=3)
    row = CELLS["delta", "fp32", 0.0, "own"]
    scores["m"] = scores[row] = outcomes(0.7 - direction, number=2)
    return Evidence(scores, margin=0.05)


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (causes(0.3), "supported"),
        (causes(0.3, precision=0.1), "supported"),
        (causes(0.0), "not supported"),
        (causes(-0.1), "not supported"),
        (causes(0.1, precision=0.3), "not supported"),
        (causes(0.1, dropout=0.3, form=0.1), "not supported"),
    ],
)
def test_the_cause_is_what_costs_most(found, word):
    rule = rules.cause_is_direction("m", "control", CELLS, FACTORS)
    assert rule(found).verdict == word


def test_the_cause_rule_measures_each_factor_over_all_trials():
    said = rules.cause_is_direction("m", "control", CELLS, FACTORS)(causes(0.2, dropout=0.1, rate=0.05)).sentence
    assert "dropout -0.10" in said
    assert "rate -0.05" in said
    assert "precision +0.00" in said or "precision -0.00" in said


def spectra(**values: list[float]) -> Evidence:
    return Evidence(ratios={name.replace("_", " "): numbers for name, numbers in values.items()})


@pytest.mark.parametrize(
    ("rule", "found", "word"),
    [
        (rules.off_principal(["a", "b"]), spectra(a=[0.3, 0.32, 0.31], b=[0.5, 0.52, 0.51]), "supported"),
        (rules.off_principal(["a", "b"]), spectra(a=[0.3, 0.32, 0.31], b=[1.5, 1.52, 1.51]), "not supported"),
        (rules.off_principal(["a", "b"]), spectra(a=[0.3, 0.32, 0.31], b=[0.99, 1.01, 1.0]), "not supported"),
        (rules.off_principal(["a", "b"]), spectra(a=[0.3, 0.32, 0.31], b=[0.5, 1.5, 0.9]), "undecided"),
        (rules.off_principal(["a", "b"]), spectra(a=[0.3, 0.32, 0.31]), "undecided"),
        (rules.ratio_above_one("a"), spectra(a=[3.0, 3.2, 3.1]), "supported"),
        (rules.ratio_above_one("a"), spectra(a=[0.5, 0.6, 0.55]), "not supported"),
        (rules.ratio_above_one("a"), spectra(a=[0.5, 1.6, 1.1]), "undecided"),
        (rules.ratio_above_one("a", "b"), spectra(a=[3.0, 3.2, 3.1], b=[1.0, 1.2, 1.1]), "supported"),
        (rules.ratio_above_one("a", "b"), spectra(a=[1.0, 1.2, 1.1], b=[3.0, 3.2, 3.3]), "not supported"),
        (rules.ratio_above_one("a", "b"), spectra(a=[1.0, 1.2, 1.1], b=[1.0, 1.3, 0.9]), "undecided"),
    ],
)
def test_a_spectrum_is_judged_over_seeds(rule, found, word):
    claim = dataclasses.replace(declared(setting("tiny"))[0], rule=rule)
    assert claim.judge(found).verdict == word


def test_shares_are_counted_and_compared():
    counted = shares(["lora", "vera", "rank1"])
    assert counted["lora"] == pytest.approx(2.078, abs=1e-3)
    assert counted["vera"] == pytest.approx(0.0367, abs=1e-4)
    rule = rules.shares_match({"lora": 1.55, "rank1": 0.0015})
    said = rule(Evidence(shares=counted))
    assert said.verdict == "not supported"
    assert said.effect == pytest.approx(43.3, abs=0.1)
    assert rules.shares_match({"lora": 2.05})(Evidence(shares=counted)).verdict == "supported"


# ---- declarations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_every_claim_finds_its_rows_and_no_row_is_without_a_claim(scale):
    at = setting(scale)
    labels = [label for experiment in EXPERIMENTS for label in experiment.labels(at)]
    assert len(set(labels)) == len(labels)
    found = declared(at)
    assert len({claim.id for claim in found}) == len(found)
    needed = {row for claim in found for row in claim.rows}
    assert needed == set(labels)
    for claim in found:
        assert set(claim.spectra) | set(claim.rescored) <= set(claim.rows)
        assert claim.criterion.startswith(("supported: ", "as "))


@pytest.mark.parametrize("scale", ["tiny", "small", "paper"])
def test_every_row_is_a_run_that_can_begin(scale):
    from rlvr_lite.config import replace_fields
    from rlvr_lite.resolve import check

    at = setting(scale)
    for experiment in EXPERIMENTS:
        for variant in make_variants(experiment.rows(at, lambda method: 1e-3 if method == "lora" else 2e-3), {}):
            check(replace_fields(at.config, dict(variant.overrides)))


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_no_run_is_declared_twice(scale):
    """The same configuration under two names would be trained twice; what it shares with the tuned rows is left out."""
    from rlvr_lite.config import SCALES, replace_fields

    at = setting(scale)
    rate = {"lora": 1e-3}
    configs = []
    for experiment in EXPERIMENTS:
        for label, fields in experiment.rows(at, lambda method: rate.get(method, 2e-3)).items():
            run = replace_fields(at.config, dict(fields))
            options = {k: v for k, v in run.method_options.items() if v}
            filled = {"rank": run.rank or SCALES[scale].rank, "alpha": run.alpha or SCALES[scale].alpha}
            filled["learning_rate"] = run.learning_rate or rate.get(label, 2e-3)  # searched by row
            configs.append(str(dataclasses.replace(run, method_options=options, **filled)))
    assert len(set(configs)) == len(configs)


def test_every_rule_can_be_applied_to_a_finished_study():
    at = setting("tiny")
    found = declared(at)
    rows = {label for claim in found for label in claim.rows}
    rows |= {f"{method} residual on the wrong base" for method in ("pissa", "milora")}
    rows |= {"lora at T 0.6, top-p 0.95", "lora at T 0.7, top-p 0.9"}
    scores = {label: outcomes(0.6, number=i) for i, label in enumerate(sorted(rows))}
    rates = {label: 1e-3 for label in rows if label.endswith("its own rate")}
    names = ("lora", "full", "pissa", "milora")
    energy = {f"{n} {s} {e}": [0.5, 0.6, 0.7] for n in names for s in ("left", "right") for e in ("top", "bottom")}
    counted = shares([name for claim in found for name in claim.counted])
    whole = Evidence(scores, outcomes(0.3, number=500), energy, counted, 0.05, rates=rates)
    for claim in found:
        assert "no result for" not in claim.judge(whole).sentence, claim.id
    nothing = Evidence(missing={"dora": "every learning rate failed"})
    for claim in found:
        assert claim.judge(nothing).verdict == "undecided", claim.id
    partly = dataclasses.replace(
        whole, scores={k: v for k, v in scores.items() if k != "dora"}, missing=nothing.missing
    )
    said = next(claim for claim in found if claim.id == "structural").judge(partly)
    assert said == Finding("undecided", "no result for dora: every learning rate failed")


def test_the_factorial_has_every_combination_and_the_tuned_row_is_one_of_them():
    for scale, usual in (("tiny", "fp32"), ("paper", "bf16")):
        trials = cause_settings("pissa", setting(scale))
        assert len(trials) == len(set(trials.values())) == 16
        assert trials["delta", usual, 0.0, "own"] == "pissa"


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"scale": "tinny"}, "tiny"),
        ({"only": ["structure"]}, "structural"),
        ({"engine": "proces", "only": ["rslora"]}, "process"),
    ],
)
def test_what_does_not_exist_is_refused_and_nothing_is_written(asked, word, tmp_path):
    with pytest.raises(UserError, match=word):
        claims(out=tmp_path / "new", progress=False, **asked)
    assert not (tmp_path / "new" / "claims.json").exists()


def test_what_claims_take_is_said_before_they_start(tmp_path):
    whole = estimate("tiny", out=tmp_path / "c")
    one = estimate("tiny", out=tmp_path / "c", only=["rslora"])
    assert not (tmp_path / "c").exists()
    assert one.whole.runs == 2 * (5 + 8 + 5) < whole.whole.runs
    paper = estimate("paper", gpu="A100 80GB")
    assert paper.whole.runs > 400
    assert 5_000 < paper.hours < 200_000


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        claims(out=tmp_path / "file", only=["trained-share"])


def test_a_claim_that_needs_no_run_is_judged_at_once(tmp_path):
    found = claims(out=tmp_path / "claims", only=["trained-share", "order-at-7b"], progress=False)
    assert found["trained-share"].verdict == "not supported"
    assert found["order-at-7b"].verdict == "undecided"
    stored = json.loads((tmp_path / "claims" / "claims.json").read_text())
    assert [row["rule"] for row in stored["claims"]] == ["not supported", "undecided"]
    text = (tmp_path / "claims" / "claims.md").read_text()
    assert "## trained-share: not supported" in text
    with pytest.raises(UserError, match="trained-share"):
        found["trained-shares"]
    assert "<table" in found._repr_html_()
    assert repr(found) == f"Claims({str(tmp_path / 'claims')!r}, 1 not supported, 1 undecided)"


def test_a_method_without_a_working_rate_leaves_its_claims_undecided_and_the_others_run(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)

    class Row:
        def __init__(self, label, rate):
            self.label, self.learning_rate, self.problem, self.runs = label, rate, "every learning rate failed", {}
            self.optimum = None
            self.scores = None if rate is None else np.clip(rng.normal(0.5, 0.1, (3, 50)), 0, 1)

    class Fake:
        def __init__(self, entries):
            self.rows = {label: Row(label, None if label == "pissa" else 1e-3) for label in entries}
            self.base = np.full((3, 50), 0.3)

        def search_doubt(self, label, effect):
            return ""

    asked = {}

    def compare(entries, *args, out, **options):
        asked[out.name] = dict(entries)
        return Fake(entries)

    monkeypatch.setattr(verdicts, "compare", compare)
    found = claims(out=tmp_path, only=["pissa-collapses", "pissa-cause", "rslora", "loss"], progress=False)
    assert set(asked) == {"methods", "loss"}
    assert set(asked["methods"]) == {"lora", "rslora", "pissa", "random_directions"}
    assert found["pissa-collapses"] == Finding("undecided", "no result for pissa: every learning rate failed")
    assert found["pissa-cause"].verdict == "undecided"
    assert found["rslora"].effect is not None
    assert found["loss"].effect is not None
    assert found.said("rslora").endswith(" at 0.46M")
    assert found.said("pissa-cause") == "undecided at 0.46M"
    assert "seen at 0.46M" in (tmp_path / "claims.json").read_text()
    assert asked["loss"]["loss grpo"]["learning_rate"] == 1e-3


def test_settings_at_a_rate_that_both_share_are_run_once(tmp_path, monkeypatch):
    """LoRA's rate is the method's own: half of the settings are the other half."""
    at = setting("tiny")
    experiment = next(e for e in EXPERIMENTS if e.name == "causes-milora")
    assert len(experiment.rows(at, {"lora": 1e-3, "milora": 1e-3}.__getitem__)) == 7
    assert len(experiment.rows(at, {"lora": 1e-3, "milora": 3e-3}.__getitem__)) == 15
    rows = {name: SimpleNamespace(learning_rate=1e-3) for name in ("lora", "milora")}
    scores = {"milora": outcomes(0.5), "milora bf16": outcomes(0.4)}
    verdicts._alias("milora", at, rows, scores)
    assert scores["milora at lora's rate"] is scores["milora"]
    assert scores["milora bf16 at lora's rate"] is scores["milora bf16"]
    assert "milora residual at lora's rate" not in scores


def test_what_claims_still_take_is_counted_at_the_rates_that_were_found(tmp_path, monkeypatch):
    """Or a call that goes on is refused where a method's own rate turned out to be LoRA's."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "study.json").touch()
    rows = {name: SimpleNamespace(learning_rate=1e-3) for name in ("lora", "milora")}
    monkeypatch.setattr(verdicts.Study, "load", lambda folder: SimpleNamespace(rows=rows))
    asked = {}

    def estimate_study(rows, *args, out, **options):
        asked[out.name] = rows
        return SimpleNamespace(parts={}, done=0)

    monkeypatch.setattr(verdicts, "estimate_study", estimate_study)
    estimate(out=tmp_path, only=["milora-cause"])
    experiment = next(e for e in EXPERIMENTS if e.name == "causes-milora")
    assert asked["causes-milora"] == experiment.rows(setting("tiny"), lambda method: 1e-3)
    assert len(asked["causes-milora"]) == 7


# ---- the real thing, small ----------------------------------------------------------------------------------------

MICRO = setting(
    "tiny",
    config=RunConfig(
        precision="fp32", eval_problems=6, eval_k=2, steps=3, prompts_per_step=6, task_options={"operands": 2}
    ),
    seeds=2,
    cause_seeds=2,
    ablation_seeds=2,
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_claims_run_end_to_end_and_a_second_call_trains_nothing(tmp_path, monkeypatch):
    only = ["wrong-base-milora", "milora-swings-back", "decoding", "batch"]
    found = claims(out=tmp_path, only=only, at=MICRO, engine="local", progress=False)
    assert [claim.id for claim in found.claims] == [c.id for c in declared(MICRO) if c.id in only]
    assert not any("no result" in f.sentence for f in found.findings)
    written = {path: path.read_bytes() for path in (tmp_path / "claims.json", tmp_path / "claims.md")}

    def refuse(*args, **kwargs):
        raise AssertionError("trained or drew answers again")

    monkeypatch.setattr("rlvr_lite.study._work.train", refuse)
    monkeypatch.setattr("rlvr_lite.sampling.TransformersSampler.sample", refuse)
    again = claims(out=tmp_path, only=only, at=MICRO, engine="local", progress=False)
    assert again.findings == found.findings
    assert estimate(out=tmp_path, only=only, at=MICRO).whole.runs == 0
    assert {path: path.read_bytes() for path in written} == written
    more = claims(out=tmp_path, only=[*only, "trained-share"], at=MICRO, engine="local", progress=False)
    assert len(more.claims) == len(found.claims) + 1

    from rlvr_lite.study import Study

    study = Study.load(tmp_path / "causes-milora")
    row = study.rows["milora residual"]
    assert wrong_base(row, tmp_path / "wrong-base" / "milora-residual").shape == row.scores.shape
    measured = ratios(Study.load(tmp_path / "methods").rows["milora"], tmp_path / "other")
    assert all(len(numbers) == 2 for numbers in measured.values())


@pytest.mark.parametrize("method", ["pissa:residual", "milora:residual"])
def test_the_wrong_base_is_the_base_with_the_start_of_the_adapter_added_to_it(method):
    tokens = torch.arange(3, 40)[None]
    model = methods.attach(bases.load("tiny").model, method, AdapterConfig(), total_steps=1, seed=0)
    put_back(model)
    expected = bases.load("tiny").model
    for name, module in model.named_modules():
        if hasattr(module, "original"):  # its residual is W - s B0 A0, so W + s B0 A0 is twice W less that
            weight = expected.get_submodule(name.removeprefix("base_model.model.")).weight
            weight.data = 2 * module.original - module.residual
    with torch.no_grad():
        found, wanted = model(tokens).logits, expected(tokens).logits
        assert torch.allclose(found, wanted, atol=1e-4)
        assert (found - bases.load("tiny").model(tokens).logits).abs().max() > 1e-3
