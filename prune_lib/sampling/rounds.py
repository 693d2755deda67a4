"""Greedy in rounds: sequential greedy, pick by pick, over sessions that no single task could hold.

A session's last computed key is an upper bound of its key, because the objective is submodular (Minoux,
1978). So as long as greedy's next key is larger than every bound outside a set of sessions, greedy looks at
that set alone. A round

1. takes the sessions with the largest bounds, as many as are likely to leave the task `task_edges` edges (by
   a histogram of the bounds, 16 bins an octave; most bounds turn out to be stale);
2. computes their keys afresh, in parallel (numpy in Arrow batches, the state as a broadcast array);
3. sends those that are still above every bound left outside to one task, which runs lazy greedy on them
   until its next key no longer is; where ties make them too many, only the first in order are sent;
4. gives what was not picked back, with its new bound, and adds the evidence that the picks brought.

The picks and their order are those of sequential greedy, whatever the size of a round: rounds only bound what
a task must hold. Only sessions whose bound is among the largest are touched.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.ordering import with_running_total
from prune_lib.sampling.gains import Objective
from prune_lib.sampling.keys import SESSION, names_of, with_keys
from prune_lib.sampling.task import Order, TaskResult, greedy_in_one_task
from prune_lib.settle import settle
from prune_lib.stage_meter import StageMeter

__all__ = ["Picks", "RoundRecord", "run_greedy"]

_LOG = logging.getLogger(__name__)

_BINS_AN_OCTAVE = 16
_BOUNDED = [*names_of(SESSION), "key", "bin"]
# Where ties put more than this multiple of a task's edges above all bounds outside, they are cut by order.
_SLACK = 2
# Edges of the sessions whose keys a round computes afresh, as a multiple of what its task holds, at most.
_FURTHEST = 4
# Frames of sessions with bounds that are kept apart before they are put together into one.
_FRAMES = 12


@dataclass
class RoundRecord:
    """What one round did; a row of the run's record.

    Attributes:
        phase: floor, coverage; or redundant: what is taken back of a floor, with negative numbers.
        round: from 1 on; where all fits one task, there is one.
        threshold: smallest key that was picked.
        candidates: sessions whose keys were computed afresh.
        picked: sessions.
        interactions: what they cost, in the budget's unit.
        seconds: of the round.
        edges: session-pattern edges that were looked at, as often as they were.
        shuffle_bytes: written by the round's shuffles; None where Spark does not tell.
    """

    phase: str
    round: int
    threshold: float
    candidates: int
    picked: int
    interactions: int
    seconds: float
    edges: int
    shuffle_bytes: int | None


@dataclass
class Picks:
    """Picked sessions with what was known when they were picked, in `task.PICK_COLUMNS`.

    Attributes:
        frames: settled frames of picks; their column `round` is the place in the order of choice.
        picked: number of sessions.
        spent: their cost.
        full: whether the budget ended before the sessions did.
        records: a record a round.
    """

    frames: list[DataFrame] = field(default_factory=list)
    picked: int = 0
    spent: int = 0
    full: bool = False
    records: list[RoundRecord] = field(default_factory=list)

    def add(self, result: TaskResult) -> None:
        """Take in what a task chose."""
        self.frames.append(result.picks)
        self.picked += result.picked
        self.spent += result.spent
        self.full = result.full


@dataclass
class _Pool:
    """Sessions with bounds, and how many of them there are by bin.

    Attributes:
        rows: `_BOUNDED`, settled; rows of a bin that is not in `bins` have been taken out.
        bins: largest bound, sessions and edges by bin.
    """

    rows: DataFrame
    bins: dict[int, tuple[float, int, int]]

    @classmethod
    def of(cls, rows: DataFrame) -> _Pool:
        counted = (
            rows.groupBy("bin")
            .agg(F.max("key"), F.count(F.lit(1)), F.sum(F.size("patterns").cast("bigint")))
            .collect()
        )
        return cls(rows, {int(b): (float(key), int(n), int(edges)) for b, key, n, edges in counted})

    def take(self, lowest: int) -> DataFrame:
        """Take the bins from `lowest` on out."""
        out = self.rows.filter((F.col("bin") >= lowest) & (F.col("bin") <= max(self.bins, default=lowest)))
        self.bins = {b: v for b, v in self.bins.items() if b < lowest}
        return out

    def rest(self) -> DataFrame:
        return self.rows.filter(F.col("bin") <= max(self.bins))


def run_greedy(
    sessions: DataFrame,
    objective: Objective,
    budget: int,
    *,
    cost: str,
    phase: int,
    name: str,
    task_edges: int | None,
    picks: Picks | None = None,
) -> Picks:
    """Pick sessions by key until the budget or the sessions with a gain end.

    Args:
        sessions: the eligible sessions, settled; the columns of `keys.SESSION`.
        objective: the state, changed in place to the state after the picks.
        budget: what may be spent, in the cost's unit; the first session that does not fit ends it.
        cost: 'n' (interactions) or 'one' (sessions).
        phase: number of the phase, for the order of ranks.
        name: its name, for the log and the record.
        task_edges: edges that a round's task holds, about; None to have all in one task at once.
        picks: earlier picks of the phase, which are added to; what they spent is spent.

    Returns:
        The picks, the same for every `task_edges`.

    Cost: without rounds one task and no shuffle. A round is four small Spark jobs; only sessions whose
    bound is among the largest are touched.
    """
    picks = Picks() if picks is None else picks
    meter = StageMeter(sessions.sparkSession)
    # Sessions without an edge gain nothing and are never chosen: the task's memory is its edges'.
    sessions = sessions.filter(F.size("patterns") > 0)
    if task_edges is None:
        started = time.monotonic()
        result = greedy_in_one_task(
            sessions, objective, budget - picks.spent, cost=cost, phase=phase, first=picks.picked + 1
        )
        picks.add(result)
        _record(picks, name, result, result.seen, result.edges, started, meter)
        return picks
    first = _Pool.of(_bounded(with_keys(sessions, objective)))
    scanned = sum(edges for _, _, edges in first.bins.values())
    # Unions add partitions up, round after round: as many as the first frame has are enough.
    parts = first.rows.rdd.getNumPartitions()
    pools = [first] if first.bins else []
    reach = float(task_edges)
    while pools and not picks.full:
        started = time.monotonic()
        lowest, outside = _level(pools, reach)
        active = reduce(DataFrame.unionByName, [pool.take(lowest) for pool in pools])
        fresh = _bounded(with_keys(active.coalesce(parts), objective))
        above, below, before, seen, edges, sent = _split(fresh, outside, task_edges)
        # Most bounds turn out to be stale: look at more of them where the task could have held more.
        reach = min(reach * min(max(task_edges / max(sent, 1), 0.5), 2.0), _FURTHEST * task_edges)
        result = greedy_in_one_task(
            above.drop("bin"),
            objective,
            budget - picks.spent,
            cost=cost,
            phase=phase,
            first=picks.picked + 1,
            before=before,
            keep_left=True,
        )
        picks.add(result)
        left = result.left.withColumn("bin", _bin(F.col("key")))
        pools = [pool for pool in (*pools, _Pool.of(below), _Pool.of(left.select(*_BOUNDED))) if pool.bins]
        if len(pools) > _FRAMES:
            rest = reduce(DataFrame.unionByName, [pool.rest() for pool in pools])
            pools = [_Pool.of(settle(rest.coalesce(parts)))]
        _record(picks, name, result, seen, scanned + edges + result.edges, started, meter)
        scanned = 0
    return picks


def _bin(key: Column) -> Column:
    return F.floor(F.log2(key) * _BINS_AN_OCTAVE).cast("int")


def _bounded(keyed: DataFrame) -> DataFrame:
    return keyed.filter("key > 0").withColumn("bin", _bin(F.col("key"))).select(*_BOUNDED)


def _level(pools: Sequence[_Pool], reach: float) -> tuple[int, float]:
    """The lowest bin of the next round, and the largest bound outside it (0 where nothing is outside)."""
    edges: dict[int, int] = {}
    for pool in pools:
        for b, (_, _, n) in pool.bins.items():
            edges[b] = edges.get(b, 0) + n
    lowest, total = max(edges), 0
    for b in sorted(edges, reverse=True):
        total += edges[b]
        if total > reach and b < lowest:
            break
        lowest = b
    outside = [key for pool in pools for b, (key, _, _) in pool.bins.items() if b < lowest]
    return lowest, max(outside, default=0.0)


def _split(
    fresh: DataFrame, outside: float, task_edges: int
) -> tuple[DataFrame, DataFrame, Order, int, int, int]:
    """What goes to the task.

    Returns:
        Sessions for the task, the others, the place in the order where the task is to end; sessions and
        edges of both, edges of those above all bounds outside.
    """
    is_above = F.col("key") > outside
    size = F.size("patterns").cast("bigint")
    counted = fresh.agg(F.count(F.lit(1)), F.sum(size), F.sum(F.when(is_above, size).otherwise(0))).first()
    assert counted is not None  # an aggregate without keys has one row
    seen, edges, edges_above = (int(x or 0) for x in counted)
    above, below = fresh.filter(is_above), fresh.filter(~is_above)
    # Strictly above: a session outside whose bound is the same may come first by its tie.
    before: Order = (outside, -(2**63), -1)
    if edges_above <= _SLACK * task_edges:
        return above, below, before, seen, edges, edges_above
    running = settle(
        with_running_total(
            above.withColumn("order", -F.col("key")).withColumn("edges", size),
            ["order", "tie", "sid"],
            "edges",
            "running",
        )
    )
    # The first session always goes, however many edges it has.
    sent = F.col("running") - F.col("edges") < task_edges
    first = running.filter(~sent).orderBy("order", "tie", "sid").select("key", "tie", "sid").first()
    if first is not None:
        before = (float(first[0]), int(first[1]), int(first[2]))
    above = running.filter(sent).select(*_BOUNDED)
    return above, below.unionByName(running.filter(~sent).select(*_BOUNDED)), before, seen, edges, edges_above


def _record(
    picks: Picks,
    name: str,
    result: TaskResult,
    candidates: int,
    edges: int,
    started: float,
    meter: StageMeter,
) -> None:
    record = RoundRecord(
        name,
        len(picks.records) + 1,
        result.threshold,
        candidates,
        result.picked,
        result.spent,
        round(time.monotonic() - started, 3),
        edges,
        meter.shuffle_bytes(),
    )
    picks.records.append(record)
    _LOG.info(
        "%s round %d: %d candidates, %d picked, %d spent, %.1f s",
        name,
        record.round,
        candidates,
        result.picked,
        picks.spent,
        record.seconds,
    )
