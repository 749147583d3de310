"""The claims of "Evaluating Parameter Efficient Methods for RLVR" (arXiv 2512.23165), each with its rows, controls and rule.

Statements carry the paper's numbers: overall averages in percent on DeepSeek-R1-Distill-Qwen-1.5B.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlvr_lite.paper import _rules as rules
from rlvr_lite.paper._evidence import Evidence, Finding, Missing, Rule
from rlvr_lite.paper._experiments import EXPERIMENTS, FACTORS, Experiment, Setting, cause_settings, rank_at_its_rate
from rlvr_lite.paper._measure import DECODINGS

__all__ = ["DECODED", "Claim", "declared", "misplaced"]

_SHARES = {"lora": 1.55, "miss": 0.99, "vera": 0.0029, "ln_tuning": 0.0035, "rank1": 0.0015}
DECODED = tuple(f"lora at T {t:g}, top-p {p:g}" for t, p in DECODINGS)


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, or a control of one.

    Attributes:
        id: by which it is asked for.
        statement: what is claimed, with the paper's numbers (overall average in percent).
        rows: rows of studies that it needs.
        rule: from what was found to a verdict; fixed before the run.
        criterion: the same in words.
        controls: what is held equal or varied besides.
        spectra: rows whose updates are measured.
        rescored: residual rows that are also scored on the wrong base.
        decoded: whether the first row is also scored under both decodings.
        counted: methods whose parameters are counted.
    """

    id: str
    statement: str
    rows: tuple[str, ...]
    rule: Rule
    criterion: str
    controls: str = ""
    spectra: tuple[str, ...] = ()
    rescored: tuple[str, ...] = ()
    decoded: bool = False
    counted: tuple[str, ...] = ()

    def judge(self, evidence: Evidence) -> Finding:
        """What may be said; undecided where a row is missing."""
        try:
            return self.rule(evidence)
        except Missing as error:
            return Finding("undecided", f"no result for {error}")


def declared(at: Setting) -> tuple[Claim, ...]:
    """All claims at a scale."""
    tuned = "learning rate searched for each row; same targets, prompts, rollouts and problems"
    one_rate = "LoRA's tuned rate for all rows, as the paper keeps one rate"
    structural, vectors = ("dora", "adalora", "miss"), ("vera", "ia3", "ln_tuning")
    ranks = [f"rank {r}" for r in at.ranks]
    fixed = [label for label in _experiment("rank").labels(at) if "alpha" in label]
    high = f"rank {at.high_rank}"
    fixed_one = next(label for label in fixed if label.startswith("rank 1,"))
    return (
        Claim(
            "structural",
            "structural variants beat LoRA: DoRA 46.6, AdaLoRA 44.2, MiSS 43.4 against 42.5",
            ("lora", *structural),
            rules.all_better(structural, "lora"),
            "supported: all three better (Holm); not supported: one worse, or equivalent without being better",
            f"{tuned}; all seven targets for MiSS, a real rank schedule for AdaLoRA",
        ),
        Claim(
            "dora-beats-full",
            "DoRA beats full fine-tuning: 46.6 against 44.9",
            ("dora", "full"),
            rules.all_better(("dora",), "full"),
            "supported: better; not supported: worse, or equivalent without being better",
            tuned,
        ),
        Claim(
            "lora-plus",
            "LoRA+ improves on LoRA: 43.9 against 42.5",
            ("lora", "lora_plus"),
            rules.all_better(("lora_plus",), "lora"),
            "supported: better; not supported: worse, or equivalent without being better",
            f"{tuned}, so LoRA may take the higher rate too",
        ),
        Claim(
            "rslora",
            "rsLoRA brings no gain: 42.3 against 42.5",
            ("lora", "rslora"),
            rules.no_gain("rslora", "lora"),
            "supported: the interval ends below the equivalence margin; not supported: it lies above zero, and not below the margin",
            tuned,
        ),
        *(_collapse(at, method, number) for method, number in (("pissa", "0.2"), ("milora", "18.0"))),
        *(_cause(at, method) for method in ("pissa", "milora")),
        *(_wrong_base(at, method) for method in ("milora", "pissa")),
        Claim(
            "principal-directions",
            "principal directions are what harms (figure 3): started without singular values they harm too",
            ("rlpo", "random_directions"),
            rules.all_worse(("rlpo",), "random_directions"),
            "supported: RLPO worse than the same start in random directions; not supported: equivalent or better",
            tuned,
        ),
        Claim(
            "minor-directions",
            "minor directions are no remedy (MiLoRA 18.0): started without singular values they harm too",
            ("rlmo", "random_directions"),
            rules.all_worse(("rlmo",), "random_directions"),
            "supported: RLMO worse than the same start in random directions; not supported: equivalent or better",
            tuned,
        ),
        Claim(
            "off-principal",
            "updates of LoRA and full fine-tuning keep off the principal directions (figure 3)",
            ("lora", "full"),
            rules.off_principal(("lora left top", "full left top", "full right top")),
            "supported: energy in the leading tenth below a random update's, at every seed's mean; "
            "not supported: above it, or within a tenth of it",
            "against a random update of the same rank and norm; LoRA's input side keeps its random start and is left out",
            spectra=("lora", "full"),
        ),
        Claim(
            "pissa-principal",
            "PiSSA forces its update into the principal directions (figure 3)",
            ("pissa",),
            rules.ratio_above_one("pissa right top"),
            "supported: more energy in the leading tenth than a random update; not supported: less",
            spectra=("pissa",),
        ),
        Claim(
            "milora-swings-back",
            "MiLoRA's update swings back from the minor to the principal directions (figure 3)",
            ("milora",),
            rules.ratio_above_one("milora right top", "milora right bottom"),
            "supported: more energy in the leading tenth than in the last; not supported: less",
            spectra=("milora",),
        ),
        Claim(
            "vector-floor",
            "vector methods hit a floor: VeRA 40.7, IA3 22.3, LN tuning 41.8 against LoRA 42.5",
            ("lora", *vectors),
            rules.all_worse(vectors, "lora"),
            "supported: all three worse (Holm); not supported: one better or equivalent",
            f"{tuned}: at the paper's 1e-5 their parameters cannot leave the spacing of bf16",
        ),
        Claim(
            "rank1-floor",
            "rank 1 hits the floor: 40.5 against LoRA 42.5, base 40.5",
            ("lora", "rank1"),
            rules.all_worse(("rank1",), "lora"),
            "supported: worse; not supported: better or equivalent",
            tuned,
        ),
        Claim(
            "rank",
            "rank matters up to a point: r1 40.5, r8 42.3, r16 43.9, r32 42.5",
            ("lora", *ranks),
            rules.falls_behind("rank 1", ranks[1:], "lora"),
            "supported: rank 1 worse, none of the others (Holm); not supported: rank 1 equivalent or better, or another worse",
            f"{one_rate}; alpha = 2 r",
        ),
        Claim(
            "rank-fixed-alpha",
            "(control) the same with alpha fixed, where the best rate hardly moves with the rank",
            ("lora", *fixed),
            rules.falls_behind(fixed_one, [label for label in fixed if label != fixed_one], "lora"),
            "as rank",
            one_rate,
        ),
        Claim(
            "learning-rate",
            "the learning rate hardly matters: 42.3 at a half and at a tenth, against 42.5",
            ("lora", "rate / 2", "rate / 10"),
            rules.all_equivalent(("rate / 2", "rate / 10"), "lora"),
            "supported: both within the equivalence margin; not supported: one better or worse (Holm), and wholly outside of it",
            "around LoRA's tuned rate",
        ),
        Claim(
            "batch",
            "a quarter of the batch does as well: 43.0 at 32, 42.5 at 128",
            ("lora", at.small_batch),
            rules.not_worse(at.small_batch, "lora"),
            "supported: the interval starts above minus the equivalence margin; not supported: it lies below zero, and not above that",
            f"{one_rate}; equal rollouts ({at.rollouts:,}), not equal steps",
        ),
        Claim(
            "rank-batch",
            "high ranks fail at large batches (Structure Over Scale, 2026: rank 64 73.1 at batch 64, 8.7 at 128; rank 8 does not)",
            ("lora", at.small_batch, high, f"{high}, {at.small_batch}"),
            rules.falls_more(high, f"{high}, {at.small_batch}", "lora", at.small_batch),
            "supported: from a quarter of the batch to the whole, the high rank loses more than LoRA; not supported: no more "
            "than the equivalence margin",
            f"{one_rate}; alpha = 2 r; equal rollouts",
        ),
        Claim(
            "best-rate-rank",
            "the best learning rate falls as one over the rank where alpha = 2 r (muA, arXiv 2602.06204)",
            tuple(rank_at_its_rate(r) for r in at.searched_ranks),
            rules.best_rate_falls(*((rank_at_its_rate(r), r) for r in at.searched_ranks)),
            "supported: the ratio of both best rates within half a decade of that; not supported: within half a decade of 1",
            "learning rate searched for each rank, on one lattice",
        ),
        Claim(
            "sparse-update",
            "(control) an update of few entries does as well, for updates by reinforcement learning are sparse (arXiv 2505.11711)",
            ("lora", "shira"),
            rules.not_worse("shira", "lora"),
            "supported: SHiRA, random entries of the weights, starts above minus the equivalence margin; not supported: below "
            "zero, and not above that",
            f"{tuned}; as many trained parameters as LoRA",
        ),
        Claim(
            "loss",
            "the loss hardly matters: DAPO 42.5, Dr. GRPO 42.0, GRPO 40.5",
            ("lora", "loss grpo", "loss dr_grpo"),
            rules.all_equivalent(("loss grpo", "loss dr_grpo"), "lora"),
            "supported: both within the equivalence margin; not supported: one better or worse (Holm), and wholly outside of it",
            f"{one_rate}; same rank and kernel; on-policy, so only the normalisation differs",
        ),
        Claim(
            "decoding",
            "(control) the two decodings of the paper, T 0.6 / top-p 0.95 in its text and T 0.7 / 0.9 in its scripts, agree",
            ("lora",),
            rules.all_equivalent(DECODED[1:], DECODED[0]),
            "supported: within the equivalence margin; not supported: one better, and wholly outside of it",
            "the same policies scored twice",
            decoded=True,
        ),
        Claim(
            "trained-share",
            "trained shares: " + ", ".join(f"{method} {share:g} %" for method, share in _SHARES.items()),
            (),
            rules.shares_match(_SHARES),
            "supported: each within 5 % of what seven adapted layers of the stated rank have; not supported otherwise",
            counted=tuple(_SHARES),
        ),
        Claim(
            "order-at-7b",
            "7B repeats the order: LoRA 54.8, DoRA 55.0, MiSS 53.4, LoRA+ 55.5",
            (),
            rules.not_run("not run: planned with the recipe paper-7b; this study has one base"),
            "as structural and lora-plus",
        ),
    )


def _collapse(at: Setting, method: str, number: str) -> Claim:
    own = cause_settings(method, at)
    others = tuple(label for label in own.values() if label != method)
    return Claim(
        f"{method}-collapses",
        f"{method} collapses: {number} against 40.5 of the untrained base",
        (method, *others),
        rules.below_base(method, others),
        "supported: at its tuned rate below the untrained base; not supported: above it",
        "delta and residual form, fp32 and bf16, dropout 0 and 0.05, its own tuned rate and LoRA's",
    )


def _cause(at: Setting, method: str) -> Claim:
    trials = cause_settings(method, at)
    return Claim(
        f"{method}-cause",
        f"{method} fails for its directions, not for form, precision, dropout or rate",
        (method, "random_directions", *(label for label in trials.values() if label != method)),
        rules.cause_is_direction(method, "random_directions", trials, FACTORS),
        "supported: worse than random directions, and no factor costs more; not supported: equivalent or better, or a "
        "factor costs more (Holm over all)",
        "each factor over all settings of the others; random orthonormal directions as the control",
    )


def _wrong_base(at: Setting, method: str) -> Claim:
    row = _residual(at, method)
    return Claim(
        f"wrong-base-{method}",
        f"(control, a defect) {method}'s factors scored on the weights before the start was taken out lose accuracy",
        (method, row),
        rules.all_worse((misplaced(row),), row),
        "supported: worse than the same policies on their own base; not supported: equivalent or better",
        "the same checkpoints scored twice",
        rescored=(row,),
    )


def _residual(at: Setting, method: str) -> str:
    return cause_settings(method, at)["residual", at.config.precision, 0.0, "own"]


def misplaced(row: str) -> str:
    """The row that a residual row becomes on the wrong base."""
    return f"{row} on the wrong base"


def _experiment(name: str) -> Experiment:
    return next(experiment for experiment in EXPERIMENTS if experiment.name == name)
