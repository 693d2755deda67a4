"""What the gate adds: log-likelihoods of clicks in sessions that neither experts nor gate have seen.

    .venv/bin/spark-submit benchmarks/gate.py --input ../shared/data/yoochoose100k/events.parquet
    .venv/bin/spark-submit benchmarks/gate.py \
        --input ../shared/data/diginetica/sessions_train.parquet --order-column session_id

Trains experts and gates on both folds as a run does, scores each fold by the other's, click by click, and
prints a Markdown table: mean log-likelihood, nats, of each expert, of the uniform mixture and the gated one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.difficulty import score_sessions  # noqa: E402
from prune_lib.experts.settings import EXPERTS, TrainSettings  # noqa: E402
from prune_lib.experts.training import train_experts  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.encoding import encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settle import settle  # noqa: E402


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="sessions or events, Delta or Parquet")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    asked = parser.parse_args()
    logging.getLogger("prune_lib").setLevel(logging.ERROR)
    spark = get_spark("gate")
    with measured_joins(spark), tempfile.TemporaryDirectory() as scratch:
        table = open_input(spark, asked.input, columns=ColumnNames(order=asked.order_column))
        encoded = encode(settle(to_sessions(table)), seed=0)
        settings = TrainSettings(seed=asked.seed)
        bundle = train_experts(encoded, settings, Path(scratch) / "experts", progress=False)
        scored = score_sessions(encoded, bundle, by_sample=True)
        rows = scored.scores.join(encoded.sessions.select("sid", "fold"), "sid").toPandas()
    print("| experts of | clicks | " + " | ".join(EXPERTS) + " | uniform | gate | the gate adds |")
    print("|" + "---|" * (len(EXPERTS) + 5))
    for fold in (0, 1):
        of_fold = rows[rows["fold"] == 1 - fold]
        log_p = -of_fold[[f"difficulty_{kind}" for kind in EXPERTS]].to_numpy()
        uniform = float((np.logaddexp.reduce(log_p, axis=1) - np.log(len(EXPERTS))).mean())
        gate = -float(of_fold["raw_difficulty"].mean())
        cells = [f"{value:.3f}" for value in (*log_p.mean(axis=0), uniform, gate, gate - uniform)]
        print(f"| fold {fold} | {len(of_fold):,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
