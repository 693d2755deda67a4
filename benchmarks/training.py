"""Time to a given Recall@20 on pruned data, the pruning included, beside all the data.

    .venv/bin/spark-submit benchmarks/training.py --input ../shared/data/yoochoose100k/events.parquet

The newest sessions of the input are held out, as the evaluation does; a recommender is trained for some
lengths on all the rest and on what pruning keeps of it, each length a training of its own (the learning
rate falls to nought at its end), and ranks all items after some 10,000 prefixes of the held-out sessions.
The time of a level is that of the shortest training that reaches it. Pruning counts with its experts'
training and scoring, and without them, as from the second ratio, recommender or night on.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.page import training_table  # noqa: E402
from prune_lib.evaluation.cases import Cases  # noqa: E402
from prune_lib.evaluation.data import make_split  # noqa: E402
from prune_lib.evaluation.files import Split, Subset  # noqa: E402
from prune_lib.evaluation.ranking import rank_cases  # noqa: E402
from prune_lib.evaluation.settings import EvaluateSettings  # noqa: E402
from prune_lib.evaluation.subsets import experts_folder, prune_once, subset_of  # noqa: E402
from prune_lib.evaluation.targets.neural import Recipe, fit_neural  # noqa: E402
from prune_lib.evaluation.targets.settings import FitSettings  # noqa: E402
from prune_lib.session import get_spark  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.reading import open_input  # noqa: E402

TARGETS = ("gru4rec", "sasrec")
RATIOS = (0.1, 0.3)
#: Passes over all the data, and over what is kept of it.
PASSES = {1.0: (0.5, 1, 2, 4, 8), 0.3: (1, 2, 4, 8, 16), 0.1: (2, 4, 8, 16, 32)}
_RATE = 5e-3
# Ranking all items after each of diginetica's 69,000 prefixes takes longer than most of the trainings.
_CASES = 10_000

Row = dict[str, Any]


def trained(target: str, split: Split, subset: Subset, passes: float) -> Row:
    """One training: its seconds and its Recall@20."""
    fit = FitSettings()
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
        passes=passes,
        seed=0,
    )
    ranks = rank_cases(fitted.model, _some(Cases.load(split.folder / "cases.npz"))).ranks
    return {"passes": passes, "seconds": fitted.seconds, "recall": float((ranks <= 20).mean())}


def _some(cases: Cases) -> Cases:
    """About `_CASES` of them, of sessions spread over all: the same for every training."""
    step = max(1, cases.n_cases // _CASES)
    return Cases.from_sessions(cases.sessions(0, cases.n_sessions)[::step])


def measured(spark: Any, asked: argparse.Namespace, folder: Path) -> list[Row]:
    """A row for each training."""
    columns = ColumnNames(order=asked.order_column)
    split = make_split(
        spark, open_input(spark, asked.input, columns=columns), None, folder, name="validation", share=0.1
    )
    settings = EvaluateSettings()
    rows: list[Row] = []
    for ratio in (1.0, *RATIOS):
        table, stages = None, dict[str, float]()
        if ratio < 1.0:

            def at(share: float) -> Any:
                out = str(folder / f"graph-{share:g}" / "pruned")
                return settings.prune_settings(
                    "graph", 0, share, split.sessions, out, experts_folder(split), has_order=split.has_order
                )

            table, stages = prune_once(spark, at, split, ratio)
        subset = subset_of(spark, split, table, ratio, folder / f"subset-{ratio:g}", FitSettings().max_length)
        for target in TARGETS:
            for passes in PASSES[ratio]:
                row = {"target": target, "ratio": ratio, **trained(target, split, subset, passes)}
                rows.append({**row, "pruning": sum(stages.values()), "stages": stages})
                print(
                    f"{target} {ratio:g} {passes:g} passes: {row['recall']:.4f}, {row['seconds']:.1f} s",
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
