"""Why each session was kept or pruned, read off the state that the sampler ended with.

Kept:    FLOOR            needed by a floor
         COLD_ITEM        most of what it added was new, for cold items: they, or transitions to them
         NEW_PATTERN      most of what it added was new: patterns that no kept session held
         REPRESENTATIVE   it adds evidence of patterns that others hold too
Pruned:  DUPLICATE        its sequence of items is kept in another session
         BOT, NOISE       looks like that, see `suspects`, and was set aside for it
         COVERED          the kept sessions already give most of what it has to offer
         BUDGET           next in line: the budget ended before its turn
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.batches import in_pieces, lists_of
from prune_lib.gain_parts import parts_type
from prune_lib.graph import SessionGraph
from prune_lib.sampling.gains import FULL, Objective, contributions, sum_by_row
from prune_lib.sampling.select import FLOOR

__all__ = ["closest_kept", "kept_reason", "offers", "pruned_reason"]

COVERED_SHARE = 0.5
# Kept sessions looked at by pattern when the closest one is sought: the earliest ones, so that a pattern that
# a million sessions hold costs no more than another.
HOLDERS = 4
_WEIGHT_UNIT = float(2**50)


def kept_reason() -> Column:
    """Reason of a kept session from phase, and added, added_new and added_cold of `gain_parts.kept_parts`."""
    added = F.col("added")
    return (
        F.when(F.col("phase") == FLOOR, F.lit("FLOOR"))
        .when((added > 0) & (2 * F.col("added_cold") >= added), F.lit("COLD_ITEM"))
        .when((added > 0) & (2 * F.col("added_new") >= added), F.lit("NEW_PATTERN"))
        .otherwise(F.lit("REPRESENTATIVE"))
    )


def pruned_reason() -> Column:
    """Reason of a pruned session.

    Reads: twin_kept BOOLEAN, suspect STRING (where it was set aside), gain_left (what it has still to offer)
    and gain_alone (what it would have offered to an empty selection) BIGINT.
    """
    return (
        F.when(F.col("twin_kept"), F.lit("DUPLICATE"))
        .when(F.col("suspect").isNotNull(), F.col("suspect"))
        # What had nothing to offer in the first place (a single click) is covered by nobody.
        .when(
            (F.col("gain_alone") > 0) & (F.col("gain_left") <= COVERED_SHARE * F.col("gain_alone")),
            F.lit("COVERED"),
        )
        .otherwise(F.lit("BUDGET"))
    )


def offers(graph: SessionGraph, objective: Objective, names: Any) -> DataFrame:
    """What every session offers alone and on top of what is kept.

    Args:
        graph: the graph.
        objective: the state at the end.
        names: a broadcast PatternNames.

    Returns:
        sid, gain_left, gain_alone BIGINT (units of 1/GAIN_UNIT), parts_left (what gain_left is made of, see
        gain_parts). One pass over the edges, no shuffle.
    """
    context = graph.adjacency.sparkSession.sparkContext
    alone = Objective.empty(objective.weight, objective.cold, objective.unit)
    shared = context.broadcast((objective.offer(), alone.offer()))
    saturation = objective.saturation(FULL * objective.unit)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        now_and_before = shared.value
        for batch in in_pieces(batches, "patterns"):
            pattern, lengths = lists_of(batch.column("patterns"))
            message, _ = lists_of(batch.column("messages"))
            gains = [contributions(offer, saturation, pattern, message) for offer in now_and_before]
            sums = [sum_by_row(gain, lengths) for gain in gains]
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("sid"),
                    *map(pa.array, sums),
                    names.value.named(pattern, gains[0], lengths),
                ],
                names=["sid", "gain_left", "gain_alone", "parts_left"],
            )

    return graph.adjacency.select("sid", "patterns", "messages").mapInArrow(
        run,
        f"sid bigint, gain_left bigint, gain_alone bigint, parts_left {parts_type(names.value.kind)}",
    )


def closest_kept(graph: SessionGraph, ranked: DataFrame) -> DataFrame:
    """For every session a kept session that shares much of its pattern weight.

    The one that shares most among the `HOLDERS` earliest kept sessions of each of its patterns, so no pair of
    sessions is ever listed and a popular pattern costs no more than another; a later one may share more. Ties
    go to the earlier rank.

    Args:
        graph: the graph.
        ranked: sid, rank of the kept sessions.

    Returns:
        sid BIGINT, cover_rank BIGINT (rank of that kept session, null where no pattern is shared),
        shared_weight DOUBLE. Cost: a shuffle of the kept sessions' edges; a row of 20 bytes a pattern is
        collected, and 24 are broadcast for a pass over all edges.
    """
    table = _holders(graph, ranked)
    context = graph.adjacency.sparkSession.sparkContext
    shared = context.broadcast((table, np.rint(graph.weight * _WEIGHT_UNIT).astype(np.int64)))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        ranks, weight = shared.value
        for batch in in_pieces(batches, "patterns"):
            pattern, lengths = lists_of(batch.column("patterns"))
            cover, total = _closest(ranks[pattern], weight[pattern], lengths)
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("sid"),
                    pa.array(cover, mask=cover == 0),
                    pa.array(total / _WEIGHT_UNIT),
                ],
                names=["sid", "cover_rank", "shared_weight"],
            )

    return graph.adjacency.select("sid", "patterns").mapInArrow(
        run, "sid bigint, cover_rank bigint, shared_weight double"
    )


def _holders(graph: SessionGraph, ranked: DataFrame) -> npt.NDArray[np.int32]:
    """Ranks of the earliest kept sessions of each pattern, 0 for nobody, shape (V, HOLDERS)."""
    first = Window.partitionBy("pattern").orderBy("rank")
    # A number each and no list: pandas would make an object of every list.
    by_place = [
        F.coalesce(F.max(F.when(F.col("place") == k + 1, F.col("rank"))), F.lit(0)).cast("int").alias(str(k))
        for k in range(HOLDERS)
    ]
    rows = (
        graph.adjacency.join(ranked.select("sid", "rank"), "sid")
        .select("rank", F.explode("patterns").alias("pattern"))
        .withColumn("place", F.row_number().over(first))
        .filter(F.col("place") <= HOLDERS)
        .groupBy("pattern")
        .agg(*by_place)
        .toPandas()
    )
    table = np.zeros((graph.n_patterns, HOLDERS), dtype=np.int32)
    for k in range(HOLDERS):
        table[rows["pattern"], k] = rows[str(k)]
    return table


def _closest(
    ranks: npt.NDArray[np.int32],
    weight: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Best candidate by row: the rank with the largest summed weight, ties to the smaller rank.

    Args:
        ranks: candidates by edge, 0 for none, shape (E, HOLDERS).
        weight: by edge, shape (E,).
        lengths: edges by row, shape (R,).

    Returns:
        Rank (0 for none) and summed weight by row, shapes (R,).

    >>> r = np.array([[1, 2], [2, 0], [0, 0]]); w = np.array([5, 4, 9])
    >>> [a.tolist() for a in _closest(r, w, np.array([2, 1]))]
    [[2, 0], [9, 0]]
    """
    row = np.repeat(np.repeat(np.arange(lengths.size), lengths), ranks.shape[1])
    rank, mass = ranks.ravel(), np.repeat(weight, ranks.shape[1])
    some = rank > 0
    row, rank, mass = row[some], rank[some], mass[some]
    order = np.lexsort((rank, row))
    row, rank, mass = row[order], rank[order], mass[order]
    cover = np.zeros(lengths.size, dtype=np.int64)
    best = np.zeros(lengths.size, dtype=np.int64)
    if row.size == 0:
        return cover, best
    start = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (rank[1:] != rank[:-1])])
    total = np.add.reduceat(mass, start)
    row, rank = row[start], rank[start]
    order = np.lexsort((rank, -total, row))
    first = order[np.r_[True, row[order][1:] != row[order][:-1]]]
    cover[row[first]], best[row[first]] = rank[first], total[first]
    return cover, best
