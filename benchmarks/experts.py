"""How much training a ranking of difficulty needs: shorter trainings beside the longest.

    .venv/bin/spark-submit benchmarks/experts.py --input ../shared/data/yoochoose100k/events.parquet
    .venv/bin/spark-submit benchmarks/experts.py \
        --input ../shared/data/diginetica/sessions_train.parquet --order-column session_id

Trains the experts and their gate for each number of epochs, to the end (each expert keeps its best epoch),
scores all sessions by each, and prints a Markdown table: seconds, held-out log-likelihoods, and Spearman's
correlation of the sessions' difficulty with that of the longest training (adjusted for popularity, as pruning
uses it, and raw), and with that of the longest training by another seed, which says how much of a rank is
chance. The last row is the default training, which stops an expert where it gets no better.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.difficulty import score_sessions  # noqa: E402
from prune_lib.experts.card import overall  # noqa: E402
from prune_lib.experts.settings import EXPERTS, TrainSettings  # noqa: E402
from prune_lib.experts.training import train_experts  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.encoding import Encoded, encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settle import settle  # noqa: E402

_COLUMNS = ["difficulty", "raw_difficulty"]


def trained(encoded: Encoded, settings: TrainSettings, folder: Path) -> tuple[dict[str, float], pd.DataFrame]:
    """Seconds and held-out likelihoods of a training, and its scores by sid."""
    started = time.monotonic()
    bundle = train_experts(encoded, settings, folder, progress=False)
    seconds = time.monotonic() - started
    scored = score_sessions(encoded, bundle)
    scores = scored.scores.select("sid", *_COLUMNS).toPandas().set_index("sid").sort_index()
    scored.unpersist()
    found = overall(bundle.metrics)
    names = (*EXPERTS, "uniform", "gate")
    return {"seconds": seconds, **{name: found[f"log_likelihood_{name}"] for name in names}}, scores


def main() -> None:
    """Train, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="sessions or events, Delta or Parquet")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("--epochs", default="1,2,3,6,12,24", help="trainings; the last is the longest")
    asked = parser.parse_args()
    logging.getLogger("prune_lib").setLevel(logging.ERROR)
    spark = get_spark("experts")
    epochs = [int(part) for part in asked.epochs.split(",")]
    longest = epochs[-1]
    runs = {f"{n} epochs": TrainSettings(epochs=n, patience=n) for n in epochs}
    runs["the longest, another seed"] = TrainSettings(epochs=longest, patience=longest, seed=1)
    runs["default"] = TrainSettings()
    rows, scores = {}, {}
    with measured_joins(spark), tempfile.TemporaryDirectory() as scratch:
        table = open_input(spark, asked.input, columns=ColumnNames(order=asked.order_column))
        encoded = encode(settle(to_sessions(table)), seed=0)
        for name, settings in runs.items():
            rows[name], scores[name] = trained(encoded, settings, Path(scratch) / "experts")
            print(f"{name}: {rows[name]['seconds']:.1f} s", file=sys.stderr, flush=True)
    best, other = scores[f"{longest} epochs"], scores["the longest, another seed"]
    shown = pd.DataFrame(rows).T
    for column, name in zip(_COLUMNS, ("adjusted", "raw"), strict=True):
        shown[f"Spearman, {name}"] = [
            s[column].corr(best[column], method="spearman") for s in scores.values()
        ]
    shown["with the other seed"] = [
        s[_COLUMNS[0]].corr(other[_COLUMNS[0]], method="spearman") for s in scores.values()
    ]
    print(f"{encoded.n_sessions:,} sessions, {encoded.n_interactions:,} interactions\n")
    print(shown.rename_axis("training").to_markdown(floatfmt=["", ".0f", *[".3f"] * (shown.shape[1] - 1)]))


if __name__ == "__main__":
    main()
