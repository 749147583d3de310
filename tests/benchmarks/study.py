"""Studies as they are: ``python -m tests.benchmarks.study fourteen|real|false-positives [--out DIR]``.

``fourteen`` compares the paper's methods on the embedded base, three seeds, each tuned. ``real`` compares four on
SmolLM2-135M-Instruct (its folder in RLVR_LITE_SMOLLM2), two seeds. ``false-positives`` trains one method with many
seeds and asks how often a study of three seeds would call it better than itself. All of them continue when called again.
``pictures --out STUDY FOLDER`` draws any study as the README shows it.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np

from rlvr_lite.analysis.replication import compare_to_reference
from rlvr_lite.study import Study, compare
from rlvr_lite.study.figures import forest, reward_curves
from rlvr_lite.table import Table
from tests.methods.cells import THE_PAPERS
from tests.notebooks.render import FOLDER, save_small

PAPER = "full,lora,rank1,rslora,lora_plus,lora_fa,dora,adalora,miss,pissa,milora,vera,ia3,ln_tuning"  # fmt: skip


def fourteen(out: Path, engine: str, workers: int | None) -> Study:
    """The methods of arXiv 2512.23165 on the embedded base."""
    return compare(THE_PAPERS, out=out, engine=engine, workers=workers, zone=0.02)  # type: ignore[arg-type]


def real(out: Path, engine: str, workers: int | None) -> Study:
    """Four methods on a pretrained model and sums of two numbers, which it solves once in eight tries."""
    return compare(
        "lora,dora,pissa,ln_tuning",
        os.environ["RLVR_LITE_SMOLLM2"],
        "chain-sum",
        seeds=2,
        tune="none",
        out=out,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
        steps=16,
        prompts_per_step=8,
        max_completion_length=24,
        task_options={"operands": 2, "hi": 20},
        precision="bf16",
        eval_problems=32,
        eval_k=4,
    )


def false_positives(out: Path, engine: str, workers: int | None, seeds: int = 12, studies: int = 200) -> Table:
    """How often is LoRA said to be better or worse than itself, under another name and with other seeds?

    Each simulated study draws three recorded seeds for one name, three others for the other, and problems with
    replacement; nothing pairs the seeds, so both noises are as large as between two methods that are equally good.
    """
    study = compare("lora", seeds=seeds, tune="none", out=out, engine=engine, workers=workers)  # type: ignore[arg-type]
    scores = study.rows["lora"].scores
    assert scores is not None
    rng = np.random.default_rng(0)
    rows = []
    for names in (2, 4):
        said = {"better": 0, "worse": 0, "no difference shown": 0}
        any_better = 0
        for _ in range(studies):
            picked = rng.permutation(seeds)[: 3 * names].reshape(names, 3)
            problems = rng.integers(0, scores.shape[1], scores.shape[1])
            drawn = {f"lora {i}": scores[s][:, problems] for i, s in enumerate(picked)}
            verdicts = [c.verdict for c in compare_to_reference(drawn, "lora 0")]
            for verdict in verdicts:
                said[verdict] += 1
            any_better += "better" in verdicts
        total = sum(said.values())
        shares = {verdict: count / total for verdict, count in said.items()}
        rows.append({"names": names, "studies": studies, **shares, "any better": any_better / studies})
    spread = f"accuracy of the {seeds} seeds {scores.mean(axis=1).min():.3f} to {scores.mean(axis=1).max():.3f}"
    return Table.of(rows, title="One method under several names", note=spread)


def main() -> None:
    """Run one of them and print what it found."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("what", choices=["fourteen", "real", "false-positives", "pictures"])
    options.add_argument("folder", type=Path, nargs="?", default=FOLDER / "pictures", help="of the pictures")
    options.add_argument("--out", type=Path)
    options.add_argument("--engine", default="local")
    options.add_argument("--workers", type=int)
    chosen = options.parse_args()
    warnings.simplefilter("ignore", FutureWarning)
    out = chosen.out or Path("runs") / f"study-{chosen.what}"
    started = time.perf_counter()
    if chosen.what == "false-positives":
        print(false_positives(out, chosen.engine, chosen.workers))
    elif chosen.what == "pictures":
        for name, figure in {"differences": forest, "rewards": reward_curves}.items():
            save_small(figure(Study.load(out))._repr_png_(), chosen.folder / f"study-{out.name}-{name}.png")
    else:
        study = (fourteen if chosen.what == "fourteen" else real)(out, chosen.engine, chosen.workers)
        print(study, study.learning_rates, study.costs, sep="\n\n")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
