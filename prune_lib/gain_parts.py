"""What a gain is made of: the part of each pattern, for every session, kept or pruned.

The gain of a session is a sum over its patterns (sampling.gains), so its explanation is exact: the parts
add up to it, unit by unit. What a kept session gained is computed again from the order of choice: the
evidence of a pattern at a decision is what the sessions chosen before it had brought.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.batches import in_pieces, lists_of
from prune_lib.graph import SessionGraph
from prune_lib.sampling.gains import FULL, GAIN_UNIT, Ints, Objective, contributions, sum_by_row

__all__ = ["PatternNames", "kept_parts", "largest_first", "parts_type"]

_ARROW = {
    "string": pa.string(),
    "tinyint": pa.int8(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
}


def parts_type(item_type: str) -> str:
    """DDL type of a list of parts, for items of a type."""
    return f"array<struct<item: {item_type}, next_item: {item_type}, gain: double>>"


@dataclass(frozen=True)
class PatternNames:
    """The items of each pattern, by their names in the input; sent to every executor.

    Attributes:
        items: name by item index, an Arrow array of (n_items,).
        first: item index by pattern, shape (V,): the target item, or a transition's first.
        second: the transition's second, -1 for a target item, shape (V,).
        kind: DDL type of the names.
    """

    items: pa.Array
    first: npt.NDArray[np.int32]
    second: npt.NDArray[np.int32]
    kind: str

    @classmethod
    def of(cls, graph: SessionGraph, items: DataFrame) -> PatternNames:
        """Names of a graph's patterns.

        Args:
            graph: the graph.
            items: item (string or integer), idx INT of every item.
        """
        kind = items.schema["item"].dataType.simpleString()
        names = items.select("item", "idx").toPandas().sort_values("idx")["item"]
        return cls(pa.array(names.tolist(), _ARROW[kind]), graph.first_item, graph.second_item, kind)

    def named(self, pattern: npt.NDArray[np.int32], gain: Ints, lengths: Ints) -> pa.ListArray:
        """Parts of each row of a CSR block, the largest first; those without a gain are left out.

        Args:
            pattern: by edge, shape (E,).
            gain: by edge, units of 1/GAIN_UNIT, shape (E,).
            lengths: edges by row, shape (R,).
        """
        order = largest_first(pattern, gain, lengths)
        row = np.repeat(np.arange(lengths.size), lengths)[order]
        pattern, gain = pattern[order], gain[order]
        second = self.second[pattern]
        parts = pa.StructArray.from_arrays(
            [
                self.items.take(pa.array(self.first[pattern])),
                self.items.take(pa.array(second, mask=second < 0)),
                pa.array(gain / GAIN_UNIT),
            ],
            names=["item", "next_item", "gain"],
        )
        ends = np.cumsum(np.bincount(row, minlength=lengths.size))
        return pa.ListArray.from_arrays(pa.array(np.r_[0, ends].astype(np.int32)), parts)


def largest_first(pattern: npt.NDArray[np.int32], gain: Ints, lengths: Ints) -> npt.NDArray[np.int64]:
    """Places of the edges with a gain: row by row, the largest gain first, ties to the smaller pattern.

    >>> largest_first(np.array([3, 1, 2, 0]), np.array([5, 9, 0, 5]), np.array([3, 1])).tolist()
    [1, 0, 3]
    """
    row = np.repeat(np.arange(lengths.size), lengths)
    order = np.lexsort((pattern, -gain, row)).astype(np.int64)
    some: npt.NDArray[np.int64] = order[gain[order] > 0]
    return some


def kept_parts(graph: SessionGraph, ranked: DataFrame, objective: Objective, names: Any) -> DataFrame:
    """What each kept session added to those of smaller ranks, by pattern.

    Args:
        graph: the graph.
        ranked: sid, rank of the kept sessions.
        objective: the coverage objective, in whatever state.
        names: a broadcast PatternNames.

    Returns:
        sid BIGINT, added BIGINT (units of 1/GAIN_UNIT), of that added_new (by patterns that none of them
        held) and of that added_cold (by those that teach a cold item), gain_parts ARRAY<STRUCT<item,
        next_item, gain DOUBLE>>, which sum to added; no row where a session has no pattern. Of a session
        that coverage chose, what was added is the gain that it was chosen for; a floor, or what is put in
        line when coverage ends, goes by something else, and adds all the same. Cost: two shuffles of the
        kept sessions' edges.
    """
    before = Window.partitionBy("pattern").orderBy("rank").rowsBetween(Window.unboundedPreceding, -1)
    edges = (
        graph.adjacency.join(ranked.select("sid", "rank"), "sid")
        .select("sid", "rank", F.explode(F.arrays_zip("patterns", "messages")).alias("e"))
        .select("sid", "rank", F.col("e.patterns").alias("pattern"), F.col("e.messages").alias("message"))
        .withColumn(
            "evidence",
            F.coalesce(F.sum(F.col("message").cast("bigint")).over(before), F.lit(0).cast("bigint")),
        )
    )
    lists = (
        edges.groupBy("sid")
        .agg(F.collect_list(F.struct("pattern", "message", "evidence")).alias("e"))
        .select("sid", "e.pattern", "e.message", "e.evidence")
    )
    state = Objective.empty(objective.weight, objective.cold, objective.unit)
    shared = graph.adjacency.sparkSession.sparkContext.broadcast(state)
    largest = FULL * objective.unit

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        offer, saturation = shared.value.offer_at, shared.value.saturation(largest)
        for batch in in_pieces(batches, "pattern"):
            pattern, lengths = lists_of(batch.column("pattern"))
            message, _ = lists_of(batch.column("message"))
            evidence = lists_of(batch.column("evidence"))[0].astype(np.int64)
            # Each edge has its own state: patterns of the table are its places.
            places = np.arange(pattern.size, dtype=np.int32)
            gain = contributions(offer(pattern, evidence), saturation, places, message)
            parts = names.value.named(pattern, gain, lengths)
            new = np.where(evidence == 0, gain, 0)
            cold = np.where(shared.value.cold[pattern], new, 0)
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("sid"),
                    *(pa.array(sum_by_row(part, lengths)) for part in (gain, new, cold)),
                    parts,
                ],
                names=["sid", "added", "added_new", "added_cold", "gain_parts"],
            )

    kind = parts_type(names.value.kind)
    return lists.mapInArrow(
        run, f"sid bigint, added bigint, added_new bigint, added_cold bigint, gain_parts {kind}"
    )
