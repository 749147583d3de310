"""Studies as they are: ``python -m tests.benchmarks.study eight|false-positives [--out DIR]``.

``eight`` compares eight methods on the bundled tiny model: a search with three seeds on one lattice, then ten seeds; the margin is a
share of what LoRA gains. ``false-positives`` trains one method with many
seeds and asks how often a study of three seeds would call it better than itself. All of them continue when called again.
``pictures --out STUDY FOLDER`` draws any study as the README shows it.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_lite.analysis.replication import compare_to_reference
from rlvr_lite.study import Study, compare
from rlvr_lite.study.figures import forest, learning_rate_curves, reward_curves
from rlvr_lite.table import Table
from tests.notebooks.render import FOLDER, save_small

EIGHT = "lora,dora,adalora,miss,lora_plus,pissa,rank1,full"


def eight(out: Path, engine: str, workers: int | None) -> Study:
    """Eight methods of arXiv 2512.23165, each at the best rate of its own search."""
    options: dict[str, Any] = {"tune": "lr", "search_seeds": 3, "seeds": 10, "margin": 0.08}
    return compare(EIGHT, out=out, engine=engine, workers=workers, precision="fp32", eval_problems=200, **options)  # type: ignore[arg-type]


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
    options.add_argument("what", choices=["eight", "false-positives", "pictures"])
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
        drawn = {"differences": forest, "rewards": reward_curves, "rates": learning_rate_curves}
        for name, figure in drawn.items():
            save_small(figure(Study.load(out))._repr_png_(), chosen.folder / f"study-{out.name}-{name}.png")
    else:
        study = eight(out, chosen.engine, chosen.workers)
        print(study, study.learning_rates, study.costs, sep="\n\n")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
