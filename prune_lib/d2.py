"""D2 pruning on sessions: neighbours by shared items, forward and reverse messages.

Maharana, Yadav and Bansal, "D2 Pruning: Message Passing for Balancing Diversity & Difficulty in Data
Pruning", ICLR 2024. A node is a session, its embedding the set of its items, its score the difficulty rank:

    forward   x_s <- q_s + sum over neighbours j of exp(-d_sj) q_j
    pick      k = argmax x; then for its neighbours   x_j <- x_j - exp(-gamma d_kj) x_k

with the published 5 neighbours and gamma 0.1, and d the distance of the sets as unit vectors. Neighbours are
sought among the newest `POSTINGS` holders of each item, so that a popular item costs no more than another.
The reverse messages are sequential by nature and run in one task.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.batches import lists_of
from prune_lib.collecting import beyond_results
from prune_lib.errors import SettingsError

__all__ = ["GAMMA", "NEIGHBOURS", "POSTINGS", "Postings", "d2_order", "d2_picks"]

NEIGHBOURS = 5
GAMMA = 0.1
POSTINGS = 500
# A posting as it is collected, and with all copies of it on the driver: sorted, as arrays, as a broadcast.
_ROW_BYTES, _DRIVER_BYTES = 24, 100

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Postings:
    """The newest holders of each item, sent to every executor.

    Attributes:
        ends: CSR ends by item, shape (n_items,).
        session: sid of a holder, by item and from new to old, shape (P,).
        size: number of distinct items of that session, shape (P,).
    """

    ends: Ints
    session: Ints
    size: Ints

    @classmethod
    def of(cls, sessions: DataFrame) -> Postings:
        """Postings of sessions: sid BIGINT, items ARRAY<INT>. At most POSTINGS an item on the driver.

        Raises:
            SettingsError: of so many items these are more than Spark lets its driver collect.
        """
        newest = Window.partitionBy("item").orderBy(F.desc("sid"))
        held = sessions.select("sid", F.array_distinct("items").alias("items")).select(
            "sid", F.size("items").alias("size"), F.explode("items").alias("item")
        )
        # Where items are rarer than POSTINGS, that is nearly every click.
        counted = held.groupBy("item").agg(F.least(F.count(F.lit(1)), F.lit(POSTINGS)).alias("n"))
        n = int((counted.agg(F.sum("n")).first() or [0])[0] or 0)
        beyond = beyond_results(sessions.sparkSession, n * _ROW_BYTES)
        if beyond is not None:
            raise SettingsError(
                f"--method d2 looks for neighbours by {n:,} pairs of an item and a session, whose {beyond} "
                f"(about {_DRIVER_BYTES} bytes a pair), or choose another method."
            )
        rows = (
            held.withColumn("place", F.row_number().over(newest))
            .filter(F.col("place") <= POSTINGS)
            .toPandas()
            .sort_values(["item", "place"])
        )
        counts = np.bincount(rows["item"].to_numpy(np.int64), minlength=1)
        return cls(
            np.cumsum(counts).astype(np.int64),
            rows["sid"].to_numpy(np.int64),
            rows["size"].to_numpy(np.int64),
        )

    def nearest(self, sid: int, items: npt.NDArray[np.int32]) -> tuple[Ints, Floats]:
        """The nearest sessions that share an item: sids and distances, ties to the newer session."""
        items = np.unique(items)
        places = np.concatenate([np.arange(self.ends[i - 1] if i else 0, self.ends[i]) for i in items])
        found, at, shared = np.unique(self.session[places], return_index=True, return_counts=True)
        other = found != sid
        found, size, shared = found[other], self.size[places[at[other]]], shared[other]
        cosine = shared / np.sqrt(items.size * size)
        order = np.lexsort((-found, -cosine))[:NEIGHBOURS]
        return found[order], np.sqrt(np.maximum(2.0 - 2.0 * cosine[order], 0.0))


def d2_order(own: Floats, ends: Ints, neighbour: Ints, distance: Floats, tie: Ints) -> Ints:
    """Rows in D2's order of choice.

    Args:
        own: score by row, shape (R,).
        ends: CSR ends of the neighbours by row, shape (R,).
        neighbour: row number of a neighbour, shape (E,).
        distance: to it, shape (E,).
        tie: breaks ties of equal scores (then the row number), shape (R,).

    Returns:
        All row numbers, shape (R,). Cost: a heap of R + E entries.
    """
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    # Rounded: the last bit of an exponential is not the same on every processor.
    near, weight = np.round(np.exp(-distance), 9), np.round(np.exp(-GAMMA * distance), 9)
    row_of = np.repeat(np.arange(own.size), ends - starts)
    # bincount adds edge by edge, in their order: the same sum everywhere.
    x = (own + np.bincount(row_of, near * own[neighbour], own.size)).tolist()
    fresh, picked, order = [0] * own.size, [False] * own.size, list[int]()
    ties = tie.tolist()
    heap = [(-score, ties[row], row, 0) for row, score in enumerate(x)]
    heapq.heapify(heap)
    while heap:
        _, _, row, version = heapq.heappop(heap)
        if picked[row] or version != fresh[row]:
            continue
        picked[row] = True
        order.append(row)
        for edge in range(starts[row], ends[row]):
            other = int(neighbour[edge])
            if not picked[other]:
                x[other] -= float(weight[edge]) * x[row]
                fresh[other] += 1
                heapq.heappush(heap, (-x[other], ties[other], other, fresh[other]))
    return np.array(order, dtype=np.int64)


def d2_picks(sessions: DataFrame) -> DataFrame:
    """D2's order of the sessions that have a difficulty.

    Args:
        sessions: sid BIGINT, items ARRAY<INT>, tie BIGINT, q DOUBLE without nulls.

    Returns:
        sid BIGINT, pick BIGINT (0 = chosen first). Cost: a window by item; the postings on the driver and
        every executor; all neighbours (about 100 bytes a session) in one task.
    """
    shared = sessions.sparkSession.sparkContext.broadcast(Postings.of(sessions))

    def seek(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            values, lengths = lists_of(batch.column("items"))
            rows = np.split(values, np.cumsum(lengths)[:-1])
            sids = batch.column("sid").to_pylist()
            near = [shared.value.nearest(sid, items) for sid, items in zip(sids, rows, strict=True)]
            yield pa.RecordBatch.from_arrays(
                [
                    *(batch.column(name) for name in ("sid", "tie", "q")),
                    pa.array([ids for ids, _ in near], pa.list_(pa.int64())),
                    pa.array([far for _, far in near], pa.list_(pa.float64())),
                ],
                names=["sid", "tie", "q", "neighbours", "distances"],
            )

    def pick(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        received = [batch for batch in batches if batch.num_rows]
        if not received:
            return
        table = pa.Table.from_batches(received).combine_chunks().to_batches()[0]
        sid = table.column("sid").to_numpy()
        neighbour, lengths = lists_of(table.column("neighbours"))
        distance, _ = lists_of(table.column("distances"))
        order = d2_order(
            table.column("q").to_numpy(),
            np.cumsum(lengths),
            np.searchsorted(sid, neighbour),
            distance.astype(np.float64),
            table.column("tie").to_numpy(),
        )
        yield pa.RecordBatch.from_arrays(
            [pa.array(sid[order]), pa.array(np.arange(order.size, dtype=np.int64))], names=["sid", "pick"]
        )

    found = sessions.select("sid", "tie", "q", "items").mapInArrow(
        seek, "sid bigint, tie bigint, q double, neighbours array<bigint>, distances array<double>"
    )
    return found.repartition(1).sortWithinPartitions("sid").mapInArrow(pick, "sid bigint, pick bigint")
