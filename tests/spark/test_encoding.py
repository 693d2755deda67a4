"""Integer encoding against pandas."""

from __future__ import annotations

from collections import Counter

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib.sessions.encoding import encode
from tests.spark.sessions import frame, random_sessions


@pytest.mark.parametrize("partitions", [1, 8])
def test_ids_items_and_order_survive(spark: SparkSession, partitions: int) -> None:
    sessions = random_sessions(3, n=120)
    made = encode(frame(spark, sessions, partitions), seed=5)
    rows = made.sessions.toPandas().sort_values("sid").reset_index(drop=True)
    items = made.items.toPandas().set_index("idx")["item"]
    held = Counter(i for s in sessions for i in set(s))
    clicks = Counter(i for s in sessions for i in s)

    assert rows["sid"].tolist() == list(range(120))
    assert rows["session_id"].tolist() == [f"s{k:05d}" for k in range(120)]
    assert [[items[i] for i in row] for row in rows["items"]] == sessions
    assert items.sort_index().tolist() == sorted(held, key=lambda i: (-held[i], i))
    assert made.item_sessions.tolist() == [held[i] for i in items.sort_index()]
    assert made.item_interactions.tolist() == [clicks[i] for i in items.sort_index()]
    assert (made.n_sessions, made.n_items, made.n_interactions) == (
        120,
        len(held),
        sum(map(len, sessions)),
    )
    assert rows["age"].iloc[0] == 1.0 and rows["age"].iloc[-1] == 0.0
    assert set(rows["fold"]) == {0, 1} and set(rows["slice"]) <= set(range(10))


def test_without_an_order_ids_rank_and_nothing_has_an_age(spark: SparkSession) -> None:
    sessions = frame(spark, random_sessions(4, n=30)).drop("ordering")
    made = encode(sessions, seed=0)
    assert not made.has_order
    assert made.sessions.filter(F.col("age").isNotNull()).count() == 0
    rows = made.sessions.toPandas().sort_values("sid")
    assert rows["session_id"].is_monotonic_increasing


def test_folds_do_not_follow_the_seed_and_ties_do(spark: SparkSession) -> None:
    one = encode(frame(spark, random_sessions(4, n=30)), seed=0).sessions.toPandas()
    two = encode(frame(spark, random_sessions(4, n=30)), seed=1).sessions.toPandas()
    one, two = one.sort_values("sid"), two.sort_values("sid")
    assert one["fold"].tolist() == two["fold"].tolist()
    assert one["tie"].tolist() != two["tie"].tolist()


@pytest.mark.parametrize("kind", ["bigint", "string"])
def test_a_catalogue_that_is_joined_gives_what_one_that_is_sent_gives(spark: SparkSession, kind: str) -> None:
    given = frame(spark, random_sessions(6, n=80), 3).withColumn(
        "items", F.col("items").cast(f"array<{kind}>")
    )
    one, two = encode(given, seed=2), encode(given, seed=2, broadcast_items=0)
    for a, b, key in ((one.sessions, two.sessions, "sid"), (one.items, two.items, "idx")):
        assert a.schema.simpleString() == b.schema.simpleString()
        pd.testing.assert_frame_equal(
            a.toPandas().sort_values(key, ignore_index=True), b.toPandas().sort_values(key, ignore_index=True)
        )
    assert one.item_sessions.tolist() == two.item_sessions.tolist()
    assert (one.n_items, one.n_interactions) == (two.n_items, two.n_interactions)
