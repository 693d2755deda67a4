"""Sequential lazy greedy inside one Spark task, for inputs whose edges fit it.

The same arithmetic, ties and output as the rounds (integer gains, order by key, tie, sid), so that one
oracle holds both. Lazy: a session's last computed key bounds its key from above, so only the heap's top is
computed afresh (Minoux, 1978). The rounds pay a fixed cost of Spark a round, which on anything that fits
a task is more than the whole greedy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.sampling.gains import Objective
from prune_lib.sampling.greedy import Choice, lazy_greedy
from prune_lib.sampling.rounds import (
    PICK_COLUMNS,
    Picks,
    RoundRecord,
    lists_of,
    received_by_pattern,
)
from prune_lib.settle import settle

__all__ = ["run_exact"]

_LOG = logging.getLogger(__name__)
_CHOSEN = (
    "sid bigint, n int, tie bigint, patterns array<int>, messages array<int>, phase int, round int, "
    "key double, gain bigint, gain_new bigint, gain_cold bigint"
)


def run_exact(
    sessions: DataFrame,
    objective: Objective,
    budget: int,
    *,
    cost: str,
    phase: int,
    name: str,
) -> Picks:
    """`run_rounds` by exact lazy greedy in one task; arguments and result as there.

    The rank within the phase is the column `round`: every pick is a round of its own.
    """
    started = time.monotonic()
    # Sessions without an edge gain nothing and are never chosen: the task's memory is its edges'.
    sessions = sessions.filter(F.size("patterns") > 0)
    state = sessions.sparkSession.sparkContext.broadcast(objective)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        received = [b for b in batches if b.num_rows]
        if not received:
            return
        batch = pa.Table.from_batches(received).combine_chunks().to_batches()[0]
        pattern, lengths = lists_of(batch.column("patterns"))
        message, _ = lists_of(batch.column("messages"))
        before: Objective = state.value
        own = Objective(before.weight, before.cold, before.unit, before.cap, before.evidence.copy())
        n = batch.column("n").to_numpy()
        choice = lazy_greedy(
            np.cumsum(lengths),
            pattern,
            message,
            batch.column("scale").to_numpy(),
            n.astype(np.int64) if cost == "n" else np.ones(n.size, dtype=np.int64),
            batch.column("tie").to_numpy(),
            own,
            budget,
        )
        take, count = pa.array(choice.rows), choice.rows.size
        columns = [batch.column(c).take(take) for c in ("sid", "n", "tie", "patterns", "messages")]
        columns += [
            pa.array(np.full(count, phase, dtype=np.int32)),
            pa.array(np.arange(1, count + 1, dtype=np.int32)),
            *map(pa.array, (choice.key, choice.gain, choice.gain_new, choice.gain_cold)),
        ]
        names = [c.split()[0] for c in _CHOSEN.split(", ")]
        picked = pa.RecordBatch.from_arrays(columns, names=names)
        yield picked
        yield _end_row(picked.schema, choice)

    chosen = settle(
        sessions.select("sid", "n", "tie", "scale", "patterns", "messages")
        .repartition(1)
        .sortWithinPartitions("sid")
        .mapInArrow(run, _CHOSEN)
    )
    end = F.col("round") == 0
    seen = chosen.agg(
        F.count_if(~end).alias("picked"),
        F.sum(F.when(~end, F.col("n") if cost == "n" else F.lit(1))).alias("spent"),
        F.max(F.when(end, F.col("gain_new"))).alias("full"),
        F.max(F.when(end, F.col("gain"))).alias("edges"),
        F.min(F.when(~end, F.col("key"))).alias("threshold"),
    ).first()
    assert seen is not None
    chosen = chosen.filter(~end)
    objective.add(*received_by_pattern(chosen))
    state.unpersist()
    seconds = round(time.monotonic() - started, 3)
    picked, spent = int(seen["picked"]), int(seen["spent"] or 0)
    record = RoundRecord(
        name,
        1,
        float(seen["threshold"] or 0.0),
        sessions.count(),
        picked,
        spent,
        seconds,
        int(seen["edges"] or 0),
    )
    _LOG.info("%s: %d picked by exact greedy, %d of %d spent, %.1f s", name, picked, spent, budget, seconds)
    return Picks([chosen.select(*PICK_COLUMNS)], spent, bool(seen["full"]), [record])


def _end_row(schema: pa.Schema, choice: Choice) -> pa.RecordBatch:
    """A last row, round 0, with what no pick can say: edges looked at, whether the budget ended it."""
    values = {"gain": choice.edges, "gain_new": int(choice.full)}
    columns = [
        pa.array([[] if pa.types.is_list(field.type) else values.get(field.name, 0)], type=field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
