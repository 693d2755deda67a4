"""How near Spark's scoring of sessions comes to a bare PyTorch loop over the same sessions.

    .venv/bin/spark-submit benchmarks/scoring.py --input ../shared/data/yoochoose100k/events.parquet
    .venv/bin/spark-submit benchmarks/scoring.py \
        --input ../shared/data/diginetica/sessions_train.parquet --order-column session_id

Both sides take the same experts (trained for one epoch), the same normaliser, batches of as many padded
positions, sorted by length, and as many processes of one thread as Spark has cores. The loop has its sessions
as arrays in memory and only computes losses; Spark's stage reads the encoded sessions, groups them into
blocks, passes them through Arrow and returns losses by session. Interpreters and models are started before
anything is timed. The rounds alternate; the table has each side's median and range.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib import difficulty  # noqa: E402
from prune_lib.experts.bundle import Bundle  # noqa: E402
from prune_lib.experts.feed import bucket_lengths  # noqa: E402
from prune_lib.experts.mixture import Mixture  # noqa: E402
from prune_lib.experts.settings import EXACT_LIMIT, EXPERTS, NEGATIVES, TrainSettings  # noqa: E402
from prune_lib.experts.training import train_experts  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.encoding import Encoded, encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settle import settle  # noqa: E402

_BATCH = 2048


def bare_loop(pipe: Any, weights: list[tuple[bytes, bytes]], negatives: int, batches: Any) -> None:
    """Score batches of (fold, items [B, L]) whenever the parent says so; answer with seconds."""
    torch.set_num_threads(1)
    mixtures = [Mixture.from_bytes(*of_fold) for of_fold in weights]
    for mixture in mixtures:
        mixture.prepare(negatives=negatives)
    pipe.send(0.0)
    while pipe.recv():
        started = time.perf_counter()
        for fold, items in batches:
            _, log_p, log_g = mixtures[1 - fold](torch.from_numpy(items))
            torch.logsumexp(log_p + log_g, dim=1)
        pipe.send(time.perf_counter() - started)


def batches_of(encoded: Encoded, max_length: int) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """All sessions, sorted by length, as padded batches by fold."""
    sessions = encoded.sessions.where("n > 1").select("items", "fold").toPandas()
    lengths, found, shortest = sessions["items"].map(len).clip(upper=max_length), [], 2
    for length in bucket_lengths(max_length):
        for fold in (0, 1):
            rows = sessions[(lengths >= shortest) & (lengths <= length) & (sessions["fold"] == fold)]
            items = np.full((len(rows), length), encoded.n_items, dtype=np.int64)
            for row, of_session in enumerate(rows["items"]):
                items[row, : len(of_session[-max_length:])] = of_session[-max_length:]
            size = max(1, _BATCH // (length - 1))
            found += [(fold, items[i : i + size]) for i in range(0, len(items), size)]
        shortest = length + 1
    return found


def spark_stage(encoded: Encoded, bundle: Bundle, negatives: int) -> float:
    """Seconds of the models' pass in Spark."""
    how = difficulty._How(_BATCH, "cpu", 1, negatives, by_sample=False, extra=None)
    index = difficulty._bundle_index(encoded, bundle, 0.05)
    losses = difficulty._computed_losses(encoded.sessions, bundle, index, how)
    started = time.perf_counter()
    losses.write.format("noop").mode("overwrite").save()
    return time.perf_counter() - started


def main() -> None:
    """Train, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", required=True, help="sessions or events, Delta or Parquet")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each side")
    asked = parser.parse_args()
    logging.getLogger("prune_lib").setLevel(logging.ERROR)
    spark = get_spark("scoring")
    cores = spark.sparkContext.defaultParallelism
    with measured_joins(spark), tempfile.TemporaryDirectory() as scratch:
        table = open_input(spark, asked.input, columns=ColumnNames(order=asked.order_column))
        encoded = encode(settle(to_sessions(table)), seed=0)
        bundle = train_experts(encoded, TrainSettings(epochs=1), Path(scratch) / "experts", progress=False)
        positions = encoded.n_interactions - encoded.n_sessions
        exact = positions * bundle.n_items * len(EXPERTS) <= EXACT_LIMIT
        negatives = 0 if exact else NEGATIVES
        batches = batches_of(encoded, bundle.max_length)
        context, pipes = multiprocessing.get_context("spawn"), []
        for rank in range(cores):
            here, there = context.Pipe()
            arguments = (there, [bundle.weights(0), bundle.weights(1)], negatives, batches[rank::cores])
            context.Process(target=bare_loop, args=arguments, daemon=True).start()
            pipes.append(here)
        for pipe in pipes:
            pipe.recv()
        spark_stage(encoded, bundle, negatives)  # starts Spark's Python workers, which keep the models
        seconds: dict[str, list[float]] = {"bare PyTorch loop": [], "Spark": []}
        for _ in range(asked.rounds):
            for pipe in pipes:
                pipe.send(True)
            seconds["bare PyTorch loop"].append(max(pipe.recv() for pipe in pipes))
            seconds["Spark"].append(spark_stage(encoded, bundle, negatives))
        for pipe in pipes:
            pipe.send(False)
    sessions = sum(len(items) for _, items in batches)
    print(
        f"{sessions:,} sessions, {positions:,} positions, {encoded.n_items:,} items, "
        f"{'exact normaliser' if exact else f'{negatives:,} shared items'}, {cores} cores\n"
    )
    print("| | seconds | range | sessions/s | of the loop |\n|---|---|---|---|---|")
    loop = statistics.median(seconds["bare PyTorch loop"])
    for name, all_of in seconds.items():
        middle = statistics.median(all_of)
        print(
            f"| {name} | {middle:.1f} | {min(all_of):.1f} to {max(all_of):.1f} "
            f"| {sessions / middle:,.0f} | {loop / middle:.2f} |"
        )


if __name__ == "__main__":
    main()
