"""Total orders over distributed rows: dense indices and running totals without a global window.

An unpartitioned window would pull every row into one task. Here the rows are range-partitioned by the order
and sorted within partitions; only one number a partition passes through the driver.
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.settle import settle

__all__ = ["with_dense_index", "with_running_total"]

# spark_partition_id() is part of the settled rows: a later stage that coalesces partitions does not
# change it.
_PART = "__part"
_PLACE = "__place"


def _placed(df: DataFrame, order: Sequence[str]) -> DataFrame:
    """Rows with their range partition and a place that grows with the order inside it; settled.

    The rows are settled: partition bounds come from a sample, and a frame that was computed
    twice could be cut at other bounds.
    """
    return settle(
        df.repartitionByRange(*order)
        .sortWithinPartitions(*order)
        .withColumn(_PART, F.spark_partition_id())
        .withColumn(_PLACE, F.monotonically_increasing_id())
    )


def with_dense_index(df: DataFrame, order: Sequence[str], name: str = "sid", start: int = 0) -> DataFrame:
    """Add the dense index start, start + 1, ... of the rows in the total order of some columns.

    Args:
        df: any frame.
        order: columns, ascending, nulls first; together they must order the rows totally, or the index
            of equal rows is arbitrary.
        name: name of the new BIGINT column.
        start: its first value.

    Returns:
        df with the index; settled. The same whatever the partitions of df.
        Cost: one range shuffle with a sort, a window by partition; a number a partition on the driver.
    """
    placed = _placed(df, order)
    counts = placed.groupBy(_PART).agg(F.count(F.lit(1)).alias("n"), F.min(_PLACE).alias("first"))
    offsets, total = [], start
    for row in sorted(counts.collect(), key=lambda r: int(r[_PART])):
        # Within a partition the id counts its rows one by one, from the partition's own first value.
        offsets.append((int(row[_PART]), total - int(row["first"])))
        total += int(row["n"])
    return placed.withColumn(name, F.col(_PLACE) + _lookup(offsets)).drop(_PART, _PLACE)


def with_running_total(df: DataFrame, order: Sequence[str], value: str, name: str) -> DataFrame:
    """Add the inclusive running sum of a BIGINT column in the total order of some columns.

    Args:
        df: any frame.
        order: columns as for `with_dense_index`.
        value: the integer column to add up.
        name: name of the new BIGINT column.

    Returns:
        df with the running total; cost as for `with_dense_index`.
    """
    placed = _placed(df, order)
    sums = placed.groupBy(_PART).agg(F.sum(F.col(value).cast("bigint")).alias("sum")).collect()
    offsets, total = [], 0
    for row in sorted(sums, key=lambda r: int(r[_PART])):
        offsets.append((int(row[_PART]), total))
        total += int(row["sum"] or 0)
    inside = Window.partitionBy(_PART).orderBy(_PLACE).rowsBetween(Window.unboundedPreceding, 0)
    running = F.sum(F.col(value).cast("bigint")).over(inside)
    return placed.withColumn(name, running + _lookup(offsets)).drop(_PART, _PLACE)


def _lookup(offsets: list[tuple[int, int]]) -> Column:
    """Offset of the row's partition, as an array literal: a few hundred numbers at most."""
    size = max((part for part, _ in offsets), default=-1) + 1
    table = [0] * size
    for part, offset in offsets:
        table[part] = offset
    values = F.array(*[F.lit(v).cast("bigint") for v in table]) if table else F.array(F.lit(0))
    return F.element_at(values, F.col(_PART) + 1)
