"""Time to a given Recall@20 on pruned data, the pruning included, beside all the data.

    .venv/bin/spark-submit benchmarks/training.py --input ../shared/data/yoochoose100k/events.parquet

The newest sessions of the input are held out, as the evaluation does; a recommender is trained for some
lengths on all the rest and on what pruning keeps of it, each length a training of its own (the learning
rate falls to nought at its end), and ranks all items after some 10,000 prefixes of the held-out sessions.
Lengths double, and are of as many batches for all the data as for a part of it. The time of a level is read
off between the two lengths around it, along the logarithm of the time.

Both clocks are the wall's, of the same cores: training has a thread for each, pruning is the whole command,
Spark's start included. It is run twice for each ratio, each time from nothing but what the former run left:
first with the training of its experts and the scoring of every session, then as from the second ratio,
recommender or night on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.meter import limited  # noqa: E402
from benchmarks.page import training_table  # noqa: E402
from prune_lib.evaluation.cases import Cases  # noqa: E402
from prune_lib.evaluation.data import make_split  # noqa: E402
from prune_lib.evaluation.files import Split, Subset  # noqa: E402
from prune_lib.evaluation.ranking import rank_cases  # noqa: E402
from prune_lib.evaluation.subsets import subset_of  # noqa: E402
from prune_lib.evaluation.targets.neural import Recipe, fit_neural  # noqa: E402
from prune_lib.evaluation.targets.settings import FitSettings  # noqa: E402
from prune_lib.session import get_spark  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.reading import open_input  # noqa: E402

TARGETS = ("gru4rec", "sasrec")
RATIOS = (0.1, 0.3)
#: Lengths of training, in passes over all the data: as many batches are more passes over a part. A tenth is
#: learned by heart long before the longest of them.
LENGTHS = {
    1.0: (0.25, 0.5, 1, 2, 4, 8, 16),
    0.3: (0.25, 0.5, 1, 2, 4, 8),
    0.1: (0.25, 0.5, 1, 2, 4),
}
_RATE = 5e-3
# Ranking all items after each of diginetica's 69,000 prefixes takes longer than most of the trainings.
_CASES = 10_000

Row = dict[str, Any]


def trained(target: str, split: Split, subset: Subset, steps: int) -> Row:
    """One training of so many batches: its seconds and its Recall@20."""
    fit = FitSettings()
    started = time.monotonic()
    fitted = fit_neural(
        subset.feed(),
        np.load(subset.folder / "popularity.npy"),
        Recipe(
            target=target,
            dim=fit.dim,
            layers=fit.layers,
            dropout=fit.dropout,
            negatives=fit.negatives,
            negative_power=fit.negative_power,
            batch_size=fit.batch_size,
            max_length=fit.max_length,
            learning_rate=_RATE,
            embedding_ratio=fit.embedding_ratio,
        ),
        steps=steps,
        seed=0,
        threads=os.cpu_count() or 1,
    )
    seconds = time.monotonic() - started
    ranks = rank_cases(fitted.model, _some(Cases.load(split.folder / "cases.npz"))).ranks
    return {"steps": steps, "seconds": seconds, "recall": float((ranks <= 20).mean())}


def _some(cases: Cases) -> Cases:
    """About `_CASES` of them, of sessions spread over all: the same for every training."""
    step = max(1, cases.n_cases // _CASES)
    return Cases.from_sessions(cases.sessions(0, cases.n_sessions)[::step])


def pruned(split: Split, ratio: float, workspace: Path) -> tuple[str, Row]:
    """The pruned table, and seconds of `jobs/prune.py` with nothing there and with experts and scores there.

    Raises:
        RuntimeError: the job failed.
    """
    job = [str(Path(sys.executable).parent / "spark-submit"), "--master", f"local[{os.cpu_count()}]"]
    job += [str(Path(__file__).resolve().parents[1] / "jobs" / "prune.py"), "--json", "--ratio", f"{ratio:g}"]
    job += ["--input", split.sessions, "--workspace", str(workspace)]
    if split.has_order:
        job += ["--order-column", "place"]
    seconds = []
    for _ in range(2):
        ended = limited(job, seconds=7200.0, gib=20.0)
        if ended.result is None or ended.stopped:
            raise RuntimeError(f"jobs/prune.py --ratio {ratio:g}: {ended.stopped}")
        seconds.append(ended.seconds)
    return str(workspace / "pruned"), {"first": seconds[0], "again": seconds[1]}


def measured(spark: Any, asked: argparse.Namespace, folder: Path) -> list[Row]:
    """A row for each training."""
    columns = ColumnNames(order=asked.order_column)
    split = make_split(
        spark, open_input(spark, asked.input, columns=columns), None, folder, name="validation", share=0.1
    )
    rows: list[Row] = []
    one_pass = 0
    for ratio in (1.0, *RATIOS):
        table, pruning = None, Row()
        if ratio < 1.0:
            table, pruning = pruned(split, ratio, folder / f"workspace-{ratio:g}")
        subset = subset_of(spark, split, table, ratio, folder / f"subset-{ratio:g}", FitSettings().max_length)
        one_pass = one_pass or subset.feed().batch_count(FitSettings().batch_size)
        for target in TARGETS:
            for length in LENGTHS[ratio]:
                row = trained(target, split, subset, max(1, round(length * one_pass)))
                rows.append({"target": target, "ratio": ratio, "length": length, **row, "pruning": pruning})
                print(
                    f"{target} {ratio:g}, {length:g} passes' batches: {row['recall']:.4f}, "
                    f"{row['seconds']:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
    return rows


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="sessions or events, Delta or Parquet")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("--json", action="store_true", help="print an object instead of a table")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    spark = get_spark("training")
    with tempfile.TemporaryDirectory() as scratch:
        rows = measured(spark, asked, Path(scratch))
    spark.stop()
    print(json.dumps({"rows": rows}) if asked.json else training_table(rows), flush=True)


if __name__ == "__main__":
    main()
