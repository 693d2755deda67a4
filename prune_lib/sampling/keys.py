"""Keys of distributed sessions under one state of the objective, computed in Arrow batches."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.batches import in_pieces, lists_of
from prune_lib.sampling.gains import COLD, FULL, GAIN_UNIT, SEEN, Objective, contributions, sum_by_row
from prune_lib.settle import settle

__all__ = ["SESSION", "names_of", "received_by_pattern", "with_keys"]

#: What the samplers read of a session; `scale` is what its gain is multiplied by (difficulty / cost).
SESSION = "sid bigint, n int, tie bigint, scale double, patterns array<int>, messages array<int>"
_KEYED = SESSION + ", key double, gain bigint, gain_new bigint, gain_cold bigint"

Batches = Iterable[pa.RecordBatch]


def names_of(schema: str) -> list[str]:
    """Column names of a flat DDL schema.

    >>> names_of("sid bigint, patterns array<int>")
    ['sid', 'patterns']
    """
    return [column.split()[0] for column in schema.split(", ")]


def with_keys(sessions: DataFrame, objective: Objective) -> DataFrame:
    """Key and gain of every session under the objective's present state.

    Args:
        sessions: the columns of `SESSION`.
        objective: the state.

    Returns:
        The same columns and key DOUBLE, gain, gain_new, gain_cold BIGINT (units of 1/GAIN_UNIT); settled.
        Cost: one pass over the edges, no shuffle; the state is broadcast, and freed.
    """
    context = sessions.sparkSession.sparkContext
    shared = context.broadcast((objective.offer(), objective.kind()))
    # The table of the messages' worth is as long as any message asks for.
    saturation = objective.saturation(FULL * objective.unit)
    names = names_of(SESSION)

    def run(batches: Batches) -> Batches:
        offer, kinds = shared.value
        for batch in in_pieces(batches, "patterns"):
            pattern, lengths = lists_of(batch.column("patterns"))
            message, _ = lists_of(batch.column("messages"))
            gains = contributions(offer, saturation, pattern, message)
            kind = kinds[pattern]
            total = sum_by_row(gains, lengths)
            columns = [
                batch.column("scale").to_numpy() * (total / GAIN_UNIT),
                total,
                sum_by_row(np.where(kind == SEEN, 0, gains), lengths),
                sum_by_row(np.where(kind == COLD, gains, 0), lengths),
            ]
            yield pa.RecordBatch.from_arrays(
                [batch.column(name) for name in names] + [pa.array(c) for c in columns],
                names=names_of(_KEYED),
            )

    keyed = settle(sessions.select(*names).mapInArrow(run, _KEYED))
    shared.destroy()
    return keyed


def received_by_pattern(
    chosen: DataFrame,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Patterns of the chosen sessions (patterns, messages) and the sum that each receives.

    Cost: a shuffle of the chosen sessions' edges; two pattern-sized arrays on the driver.
    """
    received = (
        chosen.select(F.explode(F.arrays_zip("patterns", "messages")).alias("e"))
        .groupBy(F.col("e.patterns").alias("pattern"))
        .agg(F.sum(F.col("e.messages").cast("bigint")).alias("message"))
        .toPandas()
    )
    return received["pattern"].to_numpy(np.int64), received["message"].to_numpy(np.int64)
