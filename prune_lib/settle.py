"""Computed once, kept on the executors, and cut off from how it came to be."""

from __future__ import annotations

from pyspark.sql import DataFrame

__all__ = ["settle"]


def settle(df: DataFrame) -> DataFrame:
    """Compute a frame now and go on from its rows alone.

    Why not `persist`: a persisted frame keeps its whole plan, which Spark analyses and compares again for
    each query built on it; ten frames deep, planning costs more than the work. Where the driver has set a
    checkpoint folder (`SparkContext.setCheckpointDir`), the rows are written there and survive the loss
    of an executor; else they stay in the executors' memory and disk.

    Cost: the frame's own, and a pass over its rows.
    """
    if df.sparkSession.sparkContext.getCheckpointDir():
        return df.checkpoint()
    return df.localCheckpoint()
