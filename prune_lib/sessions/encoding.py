"""Sessions in integers: dense ids for sessions and items, made once and used by every later stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.ordering import with_dense_index
from prune_lib.settle import settle

__all__ = ["FOLDS", "SLICES", "Encoded", "encode"]

FOLDS = 2
SLICES = 10


@dataclass
class Encoded:
    """An input in integers.

    Attributes:
        sessions: a row a session, settled: sid BIGINT (dense, 0 = oldest), session_id (as in the
            input), items ARRAY<INT> (item indices in time order), n INT (interactions), age DOUBLE
            (0 newest, 1 oldest; null where the input has no order), fold INT (0 or 1), slice INT
            (0..9), tie BIGINT (seeded hash of the id), content BIGINT (hash of the items as they are in
            the input: the same whatever other sessions there are).
        items: a row an item, settled: item (as in the input), idx INT (dense, 0 = in most sessions),
            sessions BIGINT, interactions BIGINT.
        n_sessions: number of sessions.
        n_items: number of items.
        n_interactions: number of interactions.
        has_order: whether sessions are known from old to new.
        item_sessions: sessions that hold each item, by idx, shape (n_items,).
        item_interactions: interactions of each item, by idx, shape (n_items,).
    """

    sessions: DataFrame
    items: DataFrame
    n_sessions: int
    n_items: int
    n_interactions: int
    has_order: bool
    item_sessions: npt.NDArray[np.int64]
    item_interactions: npt.NDArray[np.int64]


def encode(sessions: DataFrame, seed: int) -> Encoded:
    """Encode sessions: dense ids in the order of time, items by falling popularity.

    Args:
        sessions: session_id STRING or BIGINT, items ARRAY<STRING> or ARRAY<BIGINT>, and `ordering`
            where the input ranks sessions from old to new.
        seed: seeds the tie-breaking hash.

    Returns:
        The encoded input. Equal orderings go by session id; equally popular items by item id, so that
        the result depends on nothing but rows and seed.

    Cost: two shuffles of the sessions and one of their items; per-item counts on the driver.
    """
    has_order = "ordering" in sessions.columns
    key = F.col("session_id").cast("string")
    ordered = with_dense_index(
        sessions.select("session_id", "items", *(["ordering"] if has_order else [])),
        ["ordering", "session_id"] if has_order else ["session_id"],
        name="sid",
    )
    n_sessions = ordered.count()
    clicks = ordered.select("sid", F.posexplode("items").alias("pos", "item"))
    items = settle(
        with_dense_index(
            clicks.groupBy("item")
            .agg(
                F.count_distinct("sid").alias("sessions"),
                F.count(F.lit(1)).alias("interactions"),
            )
            .withColumn("falling", -F.col("sessions")),
            ["falling", "item"],
            name="idx",
        ).select("item", F.col("idx").cast("int").alias("idx"), "sessions", "interactions")
    )
    counts = items.select("idx", "sessions", "interactions").toPandas().sort_values("idx")
    indexed = (
        clicks.join(items.select("item", "idx"), "item")
        .groupBy("sid")
        .agg(F.array_sort(F.collect_list(F.struct("pos", "idx"))).alias("clicks"))
        .select("sid", F.col("clicks.idx").alias("items"), F.size("clicks").alias("n"))
    )
    age = (
        (F.lit(n_sessions - 1) - F.col("sid")) / F.lit(max(n_sessions - 1, 1))
        if has_order
        else F.lit(None).cast("double")
    )
    encoded = settle(
        ordered.select("sid", "session_id", F.xxhash64(F.lit("content"), "items").alias("content"))
        .join(indexed, "sid")
        .select(
            "sid",
            "session_id",
            "items",
            "n",
            age.alias("age"),
            # Folds and slices do not depend on the seed: experts of another run still never score the
            # sessions that they were trained on.
            F.pmod(F.xxhash64(F.lit("fold"), key), F.lit(FOLDS)).cast("int").alias("fold"),
            F.pmod(F.xxhash64(F.lit("slice"), key), F.lit(SLICES)).cast("int").alias("slice"),
            F.xxhash64(F.lit(seed), key).alias("tie"),
            "content",
        )
    )
    return Encoded(
        encoded,
        items,
        n_sessions,
        len(counts),
        int(counts["interactions"].sum()),
        has_order,
        counts["sessions"].to_numpy(np.int64),
        counts["interactions"].to_numpy(np.int64),
    )
