"""Small inputs for the Spark tests, made from lists, and a run's tables copied."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from prune_lib.sessions.encoding import Encoded, encode


def random_sessions(seed: int, n: int = 300, items: int = 120) -> list[list[int]]:
    """Sessions of Zipf items that walk within neighbourhoods, with exact duplicates among them."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, items + 1) ** 0.8
    weights /= weights.sum()
    sessions: list[list[int]] = []
    for _ in range(n):
        if sessions and rng.random() < 0.15:
            sessions.append(list(sessions[rng.integers(len(sessions))]))
            continue
        first = int(rng.choice(items, p=weights))
        steps = rng.integers(-2, 3, rng.integers(1, 7))
        sessions.append([int(v) for v in np.mod(first + np.concatenate([[0], steps]), items)])
    return sessions


def copied(output: Path, to: Path) -> str:
    """The four tables of a run, copied to another place; their output there."""
    for kind in ("", "_decisions", "_items", "_runs"):
        shutil.copytree(f"{output}{kind}", f"{to}{kind}")
    return str(to)


def frame(spark: SparkSession, sessions: list[list[int]], partitions: int = 3) -> DataFrame:
    """The `sessions` frame of a list of sessions, oldest first, shuffled over partitions."""
    table = pd.DataFrame(
        {
            "session_id": [f"s{k:05d}" for k in range(len(sessions))],
            "items": sessions,
            "ordering": range(len(sessions)),
        }
    ).sample(frac=1.0, random_state=1)
    return spark.createDataFrame(
        table, "session_id string, items array<bigint>, ordering bigint"
    ).repartition(partitions)


def encoded(
    spark: SparkSession, sessions: list[list[int]], partitions: int = 3
) -> tuple[Encoded, list[list[int]]]:
    """The encoded input, and the sessions in its item indices by sid."""
    made = encode(frame(spark, sessions, partitions), seed=0)
    rows = made.sessions.select("sid", "items").toPandas().sort_values("sid")
    return made, [[int(i) for i in items] for items in rows["items"]]
