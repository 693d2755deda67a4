"""Sessions in integers: dense ids for sessions and items, made once and used by every later stage."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType

from prune_lib.ordering import with_dense_index
from prune_lib.settle import settle

__all__ = ["BROADCAST_ITEMS", "FOLDS", "SLICES", "Encoded", "encode"]

FOLDS = 2
SLICES = 10

#: Items whose ids are sent to every executor, at most: 100 MB or so.
BROADCAST_ITEMS = 4_000_000
# Clicks looked up at once, at most: the table of the items is made anew each time.
_LOOKED_UP = 2**22


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


def encode(sessions: DataFrame, seed: int, broadcast_items: int = BROADCAST_ITEMS) -> Encoded:
    """Encode sessions: dense ids in the order of time, items by falling popularity.

    Args:
        sessions: session_id STRING or BIGINT, items ARRAY<STRING> or ARRAY<BIGINT>, and `ordering`
            where the input ranks sessions from old to new.
        seed: seeds the tie-breaking hash.
        broadcast_items: a catalogue of more items is joined with the clicks, not sent to the executors; the
            result is the same.

    Returns:
        The encoded input. Equal orderings go by session id; equally popular items by item id, so that
        the result depends on nothing but rows and seed.

    Cost: one shuffle of the sessions, by their order, and a pass over their items; the catalogue and its
    counts on the driver. A larger catalogue: three more shuffles of the clicks.
    """
    has_order = "ordering" in sessions.columns
    key = F.col("session_id").cast("string")
    ordered = with_dense_index(
        sessions.select("session_id", "items", *(["ordering"] if has_order else [])),
        ["ordering", "session_id"] if has_order else ["session_id"],
        name="sid",
    )
    n_sessions = ordered.count()
    items = settle(
        with_dense_index(
            _counted(ordered).withColumn("falling", -F.col("sessions")), ["falling", "item"], name="idx"
        ).select("item", F.col("idx").cast("int").alias("idx"), "sessions", "interactions")
    )
    n_items = items.count()
    known = n_items <= broadcast_items
    counts = items.select("idx", "sessions", "interactions", *(["item"] if known else [])).toPandas()
    counts = counts.sort_values("idx")
    kept = ordered.select(
        "sid", "session_id", F.xxhash64(F.lit("content"), "items").alias("content"), "items"
    )
    catalogue = ordered.sparkSession.sparkContext.broadcast(pa.array(counts["item"])) if known else None
    indexed = _looked_up(kept, catalogue) if catalogue else _joined(kept, items)
    age = (
        (F.lit(n_sessions - 1) - F.col("sid")) / F.lit(max(n_sessions - 1, 1))
        if has_order
        else F.lit(None).cast("double")
    )
    encoded = settle(
        indexed.select(
            "sid",
            "session_id",
            "items",
            F.size("items").alias("n"),
            age.alias("age"),
            # Folds and slices do not depend on the seed: experts of another run still never score the
            # sessions that they were trained on.
            F.pmod(F.xxhash64(F.lit("fold"), key), F.lit(FOLDS)).cast("int").alias("fold"),
            F.pmod(F.xxhash64(F.lit("slice"), key), F.lit(SLICES)).cast("int").alias("slice"),
            F.xxhash64(F.lit(seed), key).alias("tie"),
            "content",
        )
    )
    if catalogue:
        catalogue.destroy()
    return Encoded(
        encoded,
        items,
        n_sessions,
        n_items,
        int(counts["interactions"].sum()),
        has_order,
        counts["sessions"].to_numpy(np.int64),
        counts["interactions"].to_numpy(np.int64),
    )


def _counted(sessions: DataFrame) -> DataFrame:
    """Sessions and interactions of every item: item, sessions, interactions BIGINT.

    Cost: a pass over the items; a shuffle of a row an item and block of sessions.
    """

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            column = batch.column("items")
            found = column.flatten().dictionary_encode()
            item = found.indices.to_numpy(zero_copy_only=False).astype(np.int64)
            lengths = np.diff(column.offsets.to_numpy())
            size = max(len(found.dictionary), 1)
            held = np.unique(np.repeat(np.arange(lengths.size), lengths) * size + item) % size
            yield pa.RecordBatch.from_arrays(
                [
                    found.dictionary,
                    *(pa.array(np.bincount(of, minlength=len(found.dictionary))) for of in (held, item)),
                ],
                names=["item", "sessions", "interactions"],
            )

    return (
        sessions.select("items")
        .mapInArrow(run, f"item {_item_type(sessions)}, sessions bigint, interactions bigint")
        .groupBy("item")
        .agg(F.sum("sessions").alias("sessions"), F.sum("interactions").alias("interactions"))
    )


def _looked_up(sessions: DataFrame, shared: Broadcast[pa.Array]) -> DataFrame:
    """Sessions with the places of their items in a catalogue that is sent to the executors; no shuffle."""
    others = [name for name in sessions.columns if name != "items"]

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        catalogue: pa.Array = shared.value
        for batch in _together(batches, min(len(catalogue), _LOOKED_UP)):
            column = batch.column("items")
            index = pc.index_in(column.flatten(), value_set=catalogue)
            offsets = column.offsets.to_numpy()
            yield pa.RecordBatch.from_arrays(
                [
                    *(batch.column(name) for name in others),
                    pa.ListArray.from_arrays(pa.array(offsets - offsets[0]), index),
                ],
                names=[*others, "items"],
            )

    kinds = {field.name: field.dataType.simpleString() for field in sessions.schema}
    schema = ", ".join(f"{name} {kinds[name]}" for name in others)
    return sessions.mapInArrow(run, f"{schema}, items array<int>")


def _together(batches: Iterable[pa.RecordBatch], clicks: int) -> Iterable[pa.RecordBatch]:
    """Batches of so many clicks or more, but for the last one."""
    held: list[pa.RecordBatch] = []
    n = 0
    for batch in batches:
        if batch.num_rows == 0:
            continue
        held.append(batch)
        n += len(batch.column("items").flatten())
        if n >= clicks:
            yield from pa.Table.from_batches(held).combine_chunks().to_batches()
            held, n = [], 0
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def _joined(sessions: DataFrame, items: DataFrame) -> DataFrame:
    """Sessions with the places of their items, by joins: for catalogues that no task could hold."""
    places = (
        sessions.select("sid", F.posexplode("items").alias("pos", "item"))
        .join(items.select("item", "idx"), "item")
        .groupBy("sid")
        .agg(F.array_sort(F.collect_list(F.struct("pos", "idx"))).alias("clicks"))
        .select("sid", F.col("clicks.idx").alias("items"))
    )
    return sessions.drop("items").join(places, "sid")


def _item_type(sessions: DataFrame) -> str:
    kind = sessions.schema["items"].dataType
    assert isinstance(kind, ArrayType)
    return kind.elementType.simpleString()
