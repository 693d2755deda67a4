"""Greedy in rounds: the distributed maximiser of the coverage objective.

Sequential greedy takes the session with the largest key, then updates every neighbour. But picks that share
no pattern do not interact, and a neighbour matters only through a pattern that supplies a noticeable part
of the gain. So a round

1. sets the threshold to `rho` times the largest known bound (a session's last computed key is an upper
   bound of its key, because the objective is submodular);
2. computes afresh the keys of the sessions whose bound passes it (numpy in Arrow batches; what each pattern
   has still to offer is a broadcast array);
3. among those still above it, lets each pattern rank its sessions by (key, tie) and admit them until the
   messages admitted exceed `epsilon`; a session is held back where a pattern that supplies at least
   `delta` of its gain does not admit it; the others are picked;
4. adds the picked messages to the patterns' evidence (a pattern-sized array on the driver).

Order of rank: (round, key descending, tie, sid). The budget cuts this order at the longest prefix that
fits, so that the kept set of a smaller budget is a prefix of a larger one's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.ordering import with_running_total
from prune_lib.sampling.gains import COLD, FULL, GAIN_UNIT, SEEN, Objective, contributions, sum_by_row

if TYPE_CHECKING:
    from prune_lib.settings import SamplingSettings

__all__ = [
    "PICK_COLUMNS",
    "Picks",
    "RoundRecord",
    "lists_of",
    "received_by_pattern",
    "run_rounds",
    "with_keys",
]

_LOG = logging.getLogger(__name__)

_SESSION = "sid bigint, n int, tie bigint, scale double, patterns array<int>, messages array<int>"
_KEYED = _SESSION + ", key double, gain bigint, gain_new bigint, gain_cold bigint"
_EDGE = (
    "sid bigint, n int, tie bigint, scale double, key double, gain bigint, gain_new bigint, "
    "gain_cold bigint, pattern int, message int, strong boolean"
)
PICK_COLUMNS = [
    "sid",
    "n",
    "tie",
    "phase",
    "round",
    "key",
    "gain",
    "gain_new",
    "gain_cold",
]


@dataclass
class RoundRecord:
    """What one round did; a row of the run's record.

    Attributes:
        phase: floor or coverage.
        round: from 1 on; the exact sampler is one.
        threshold: smallest key that could be picked.
        candidates: sessions whose keys were computed afresh.
        picked: sessions.
        interactions: what they cost, in the budget's unit.
        seconds: of the round.
        edges: session-pattern edges that were looked at.
    """

    phase: str
    round: int
    threshold: float
    candidates: int
    picked: int
    interactions: int
    seconds: float
    edges: int


@dataclass
class Picks:
    """Picked sessions with what was known when they were picked, in `PICK_COLUMNS`.

    Attributes:
        frames: one cached frame a round.
        spent: their cost.
        full: whether the budget ended before the sessions did.
        records: a record a round.
    """

    frames: list[DataFrame] = field(default_factory=list)
    spent: int = 0
    full: bool = False
    records: list[RoundRecord] = field(default_factory=list)


Batches = Iterable[pa.RecordBatch]


def lists_of(column: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Flat values and lengths of an Arrow list column without nulls."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return values, np.diff(offsets)


@dataclass
class _Arithmetic:
    """Arrow functions over sessions with their edges, for one state of the objective.

    Shipped to the Python workers by Spark; the arrays travel as broadcasts.
    """

    offer: Any
    kind: Any
    saturation: npt.NDArray[np.float64]
    delta: float

    def _keys(self, batch: pa.RecordBatch) -> dict[str, npt.NDArray[Any]]:
        pattern, lengths = lists_of(batch.column("patterns"))
        message, _ = lists_of(batch.column("messages"))
        gains = contributions(self.offer.value, self.saturation, pattern, message)
        kind = self.kind.value[pattern]
        total = sum_by_row(gains, lengths)
        scale = batch.column("scale").to_numpy()
        return {
            "pattern": pattern,
            "message": message,
            "lengths": lengths,
            "edge_gain": gains,
            "key": scale * (total / GAIN_UNIT),
            "gain": total,
            "gain_new": sum_by_row(np.where(kind == SEEN, 0, gains), lengths),
            "gain_cold": sum_by_row(np.where(kind == COLD, gains, 0), lengths),
        }

    def keyed(self, batches: Batches) -> Batches:
        """Sessions with their keys: `_KEYED`."""
        names = ["sid", "n", "tie", "scale", "patterns", "messages"]
        for batch in batches:
            k = self._keys(batch)
            yield pa.RecordBatch.from_arrays(
                [batch.column(c) for c in names]
                + [pa.array(k[c]) for c in ("key", "gain", "gain_new", "gain_cold")],
                names=[*names, "key", "gain", "gain_new", "gain_cold"],
            )

    def edges(self, threshold: float, above: bool) -> Callable[[Batches], Batches]:
        """Edges of the sessions whose fresh key is above the threshold, or the sessions below it."""

        def run(batches: Batches) -> Batches:
            for batch in batches:
                k = self._keys(batch)
                rows = np.repeat(np.arange(batch.num_rows), k["lengths"])
                on = k["key"][rows] >= threshold
                rows = rows[on]
                gain = k["gain"][rows]
                take = pa.array(rows)
                columns = [batch.column(c).take(take) for c in ("sid", "n", "tie", "scale")]
                columns += [pa.array(k[c][rows]) for c in ("key", "gain", "gain_new", "gain_cold")]
                columns += [
                    pa.array(k["pattern"][on]),
                    pa.array(k["message"][on]),
                    pa.array(k["edge_gain"][on] >= self.delta * gain),
                ]
                yield pa.RecordBatch.from_arrays(columns, names=[c.split()[0] for c in _EDGE.split(", ")])

        def rest(batches: Batches) -> Batches:
            for batch in self.keyed(batches):
                yield batch.filter(pa.array(batch.column("key").to_numpy() < threshold))

        return run if above else rest

    def destroy(self) -> None:
        """Free the broadcasts once no job will read them again."""
        for broadcast in (self.offer, self.kind):
            broadcast.unpersist()


def _arithmetic(frame: DataFrame, objective: Objective, largest: int, delta: float) -> _Arithmetic:
    context = frame.sparkSession.sparkContext
    return _Arithmetic(
        context.broadcast(objective.offer()),
        context.broadcast(objective.kind()),
        objective.saturation(largest),
        delta,
    )


def largest_message(sessions: DataFrame, unit: int) -> int:
    """Largest message of the frame, capped where exp(-a) is below the gain's unit."""
    found = sessions.agg(F.max(F.array_max("messages"))).first()[0]  # type: ignore[index]
    return min(int(found or 0), FULL * unit)


def with_keys(sessions: DataFrame, objective: Objective) -> DataFrame:
    """Key and gain of every session under the objective's present state.

    Args:
        sessions: sid, n, tie, scale DOUBLE (what the gain is multiplied by: difficulty / cost),
            patterns ARRAY<INT>, messages ARRAY<INT>.
        objective: the state.

    Returns:
        The same columns and key DOUBLE, gain, gain_new, gain_cold BIGINT (units of 1/GAIN_UNIT).
        Cost: one pass over the edges, no shuffle.
    """
    run = _arithmetic(sessions, objective, largest_message(sessions, objective.unit), 0.0)
    return sessions.select(*[c.split()[0] for c in _SESSION.split(", ")]).mapInArrow(run.keyed, _KEYED)


def _contest(active: DataFrame, arithmetic: _Arithmetic, threshold: float, room: int) -> DataFrame:
    """Who is picked among the sessions above the threshold: `_KEYED` and picked BOOLEAN."""
    ahead = (
        Window.partitionBy("pattern")
        .orderBy(F.desc("key"), "tie", "sid")
        .rowsBetween(Window.unboundedPreceding, -1)
    )
    edges = active.mapInArrow(arithmetic.edges(threshold, above=True), _EDGE)
    # A pattern admits the next session while what it has admitted in this round is at most epsilon.
    refused = F.col("strong") & (F.coalesce(F.sum("message").over(ahead), F.lit(0)) > room)
    judged = (
        edges.withColumn("refused", refused)
        .groupBy("sid", "n", "tie", "scale", "key", "gain", "gain_new", "gain_cold")
        .agg(
            F.collect_list("pattern").alias("patterns"),
            F.collect_list("message").alias("messages"),
            (~F.max("refused")).alias("picked"),
        )
    )
    below = active.mapInArrow(arithmetic.edges(threshold, above=False), _KEYED)
    judged = judged.select(*[c.split()[0] for c in _KEYED.split(", ")], "picked")
    return judged.unionByName(below.withColumn("picked", F.lit(False)))


def run_rounds(
    sessions: DataFrame,
    objective: Objective,
    budget: int,
    *,
    cost: str,
    phase: int,
    name: str,
    settings: SamplingSettings,
) -> Picks:
    """Pick sessions by key until the budget or the sessions with a gain end.

    Args:
        sessions: the eligible sessions, columns as for `with_keys`.
        objective: the state, changed in place to the state after the picks.
        budget: what may be spent, in the cost's unit.
        cost: 'n' (interactions) or 'one' (sessions).
        phase: number of the phase, for the order of ranks.
        name: its name, for the log and the record.
        settings: epsilon, rho, delta, max_rounds.

    Returns:
        The picks. Where max_rounds end before the budget, the rest is ordered by its last keys at once,
        with a warning.

    Cost: three small Spark jobs a round; only sessions whose bound passes the threshold are computed.
    """
    picks = Picks()
    room = round(settings.epsilon * objective.unit) if objective.cap is None else 0
    largest = largest_message(sessions, objective.unit)
    price = F.col("n") if cost == "n" else F.lit(1)
    static = with_keys(sessions, objective).filter("key > 0").sort(F.desc("key")).persist()
    bins = _bound_bins(static)
    remaining = sum(count for _, count in bins)
    frontier = float("inf")  # sessions of `static` at or above it have been taken out
    waiting, waiting_bound = None, 0.0  # taken out, held back or below the threshold when looked at
    number = 0
    # Unions add partitions up, round after round; as many as a shuffle makes are enough.
    parts = int(sessions.sparkSession.conf.get("spark.sql.shuffle.partitions") or 8)
    while remaining > 0 and not picks.full:
        started = time.monotonic()
        bound = max(waiting_bound, _largest_below(bins, frontier))
        number += 1
        last = number > settings.max_rounds
        threshold = 0.0 if last else settings.rho * bound
        if last:
            _LOG.warning(
                "%s: %d rounds did not end it; the rest is ordered by its keys at once",
                name,
                settings.max_rounds,
            )
        # A pattern that supplies at least `delta` of the gain may hold a session back: none does at 2.
        arithmetic = _arithmetic(sessions, objective, largest, 2.0 if last else settings.delta)
        active = static.filter((F.col("key") >= threshold) & (F.col("key") < frontier))
        if waiting is not None:
            active = active.unionByName(waiting.filter(F.col("key") >= threshold))
        judged = _contest(active.coalesce(parts), arithmetic, threshold, room)
        judged = judged.coalesce(parts).localCheckpoint(eager=False)
        picked = F.col("picked") & (F.col("gain") > 0)
        seen = judged.agg(
            F.count(F.lit(1)).alias("candidates"),
            F.count_if(picked).alias("picked"),
            F.sum(F.when(picked, price).otherwise(0)).alias("price"),
            F.count_if(F.col("gain") == 0).alias("exhausted"),
            F.sum(F.size("patterns")).alias("edges"),
        ).first()
        assert seen is not None
        chosen = judged.filter(picked).withColumn("phase", F.lit(phase)).withColumn("round", F.lit(number))
        n_picked, spent = int(seen["picked"]), int(seen["price"] or 0)
        if picks.spent + spent > budget:
            picks.full = True
            chosen = _longest_prefix(chosen, price, budget - picks.spent)
            cut = chosen.agg(F.count(F.lit(1)), F.sum(price)).first()
            assert cut is not None
            n_picked, spent = int(cut[0]), int(cut[1] or 0)
        objective.add(*received_by_pattern(chosen))
        picks.frames.append(chosen.select(*PICK_COLUMNS))
        picks.spent += spent
        remaining -= n_picked + int(seen["exhausted"])
        frontier = min(frontier, threshold)
        held = judged.filter(~F.col("picked") & (F.col("gain") > 0)).drop("picked")
        if waiting is not None:
            held = held.unionByName(waiting.filter(F.col("key") < threshold))
        waiting = held.coalesce(parts).localCheckpoint(eager=False)
        waiting_bound = float((waiting.agg(F.max("key")).first() or [0.0])[0] or 0.0)
        arithmetic.destroy()
        record = RoundRecord(
            name,
            number,
            threshold,
            int(seen["candidates"]),
            n_picked,
            spent,
            round(time.monotonic() - started, 3),
            int(seen["edges"] or 0),
        )
        picks.records.append(record)
        _LOG.info(
            "%s round %d: %d candidates, %d picked, %d of %d spent, %.1f s",
            name,
            number,
            record.candidates,
            n_picked,
            picks.spent,
            budget,
            record.seconds,
        )
    static.unpersist()
    return picks


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


def _longest_prefix(chosen: DataFrame, price: Column, left: int) -> DataFrame:
    """The first sessions by (key descending, tie, sid) whose running price is at most what is left."""
    ranked = with_running_total(
        chosen.withColumn("order", -F.col("key")).withColumn("price", price.cast("bigint")),
        ["order", "tie", "sid"],
        "price",
        "running",
    )
    return ranked.filter(F.col("running") <= left).select(*chosen.columns).localCheckpoint()


def _bound_bins(static: DataFrame) -> list[tuple[float, int]]:
    """Largest key and number of sessions by bin of log2(key), 16 bins an octave: a small list."""
    rows = (
        static.groupBy(F.floor(F.log2("key") * 16).alias("bin"))
        .agg(F.max("key").alias("key"), F.count(F.lit(1)).alias("n"))
        .collect()
    )
    return sorted(((float(r["key"]), int(r["n"])) for r in rows), reverse=True)


def _largest_below(bins: list[tuple[float, int]], frontier: float) -> float:
    """An upper bound of the keys below the frontier: exact, but for the bin that the frontier cuts.

    >>> _largest_below([(8.0, 1), (4.0, 3), (2.0, 1)], 4.5)
    4.0
    """
    width = 2.0 ** (1 / 16)
    found = 0.0
    for key, _ in bins:
        if key < frontier:
            return max(found, key)
        # The bin's smallest key may lie below the frontier although its largest does not.
        if key / width < frontier:
            found = max(found, np.nextafter(frontier, 0.0))
    return found
