"""Sequential lazy greedy over the sessions of a frame, inside one Spark task.

Lazy: a session's last computed key bounds its key from above, so only the heap's top is computed afresh
(Minoux, 1978). What the task needs to know comes by broadcast, and what it did to the objective comes back
as one row with two pattern-sized arrays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.batches import lists_of
from prune_lib.sampling.gains import Ints, Objective
from prune_lib.sampling.greedy import Choice, lazy_greedy
from prune_lib.sampling.keys import SESSION, names_of
from prune_lib.settle import settle

__all__ = ["PICK_COLUMNS", "Order", "TaskResult", "greedy_in_one_task"]

#: Place of a session in the order of choice: key (the larger first), tie, sid (the smaller first).
Order = tuple[float, int, int]

_PICK = "phase int, round int, key double, gain bigint, gain_new bigint, gain_cold bigint"
PICK_COLUMNS = ["sid", "n", "tie", *names_of(_PICK)]
_ACCOUNT = (
    "seen bigint, picked bigint, spent bigint, threshold double, full boolean, edges bigint, "
    "patterns array<int>, received array<bigint>"
)
_OUT = f"{SESSION}, {_PICK}, account struct<{_ACCOUNT}>"
_INTS, _LONGS = pa.list_(pa.int32()), pa.list_(pa.int64())
_KINDS = {
    "int": pa.int32(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "array<int>": _INTS,
    "array<bigint>": _LONGS,
}


def _fields(ddl: str) -> list[pa.Field]:
    return [pa.field(name, _KINDS[kind]) for name, kind in (column.split() for column in ddl.split(", "))]


_SCHEMA = pa.schema([*_fields(f"{SESSION}, {_PICK}"), pa.field("account", pa.struct(_fields(_ACCOUNT)))])
# `round` of a session that was not chosen.
_LEFT = 0
# Patterns in a row of the account: a few MB.
_SLICE = 2**18


@dataclass
class TaskResult:
    """What a task chose.

    Attributes:
        picks: a row a chosen session, in `PICK_COLUMNS`.
        left: the sessions that the task saw and did not choose, with a gain: `SESSION` and key DOUBLE, an
            upper bound. Without rows unless asked for.
        seen: number of sessions that the task saw.
        picked: number of sessions chosen.
        spent: what they cost.
        threshold: smallest key of a chosen one; 0 where there is none.
        full: whether the budget ended it.
        edges: edges looked at.
    """

    picks: DataFrame
    left: DataFrame
    seen: int
    picked: int
    spent: int
    threshold: float
    full: bool
    edges: int


def greedy_in_one_task(
    sessions: DataFrame,
    objective: Objective,
    budget: int,
    *,
    cost: str,
    phase: int,
    first: int = 1,
    before: Order | None = None,
    keep_left: bool = False,
) -> TaskResult:
    """Choose sessions by key until the budget, the gains or the order's end.

    Args:
        sessions: settled; `SESSION`, and key where it is known under the state.
        objective: the state, changed in place to the state after the picks.
        budget: what may be spent, in the cost's unit.
        cost: 'n' (interactions) or 'one' (sessions).
        phase: what the picks carry as their phase.
        first: the first pick's number; the next ones count on from it.
        before: only sessions before this place in the order are chosen.
        keep_left: whether the result has those that were not chosen.

    Cost: one task that holds its sessions' edges, some 20 bytes each, and the objective's arrays; no shuffle;
    pattern-sized arrays to the driver.
    """
    state = sessions.sparkSession.sparkContext.broadcast(objective)
    names = [*names_of(SESSION), *(["key"] if "key" in sessions.columns else [])]

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        received = [b for b in batches if b.num_rows]
        if not received:
            return
        table = pa.Table.from_batches(received)
        received.clear()
        batch = table.combine_chunks().to_batches()[0]
        del table
        pattern, lengths = lists_of(batch.column("patterns"))
        message, _ = lists_of(batch.column("messages"))
        given: Objective = state.value
        own = Objective(given.weight, given.cold, given.unit, given.cap, given.evidence.copy())
        n = batch.column("n").to_numpy().astype(np.int64)
        price = n if cost == "n" else np.ones_like(n)
        choice = lazy_greedy(
            np.cumsum(lengths),
            pattern,
            message,
            batch.column("scale").to_numpy(),
            price,
            batch.column("tie").to_numpy(),
            batch.column("sid").to_numpy(),
            own,
            budget,
            key=batch.column("key").to_numpy() if "key" in names else None,
            before=before,
        )
        spent = int(price[choice.rows].sum())
        yield from _accounts(choice, own.evidence - given.evidence, spent)
        yield _rows({**_of(batch, choice.rows), **_pick(choice, phase, first)})
        if keep_left:
            yield _left(batch, choice)

    out = settle(sessions.select(*names).coalesce(1).mapInArrow(run, _OUT))
    accounts = out.filter("account is not null").select("account.*").toPandas()
    state.destroy()
    result = TaskResult(
        out.filter(F.col("round") > _LEFT).select(*PICK_COLUMNS),
        out.filter(F.col("round") == _LEFT).select(*names_of(SESSION), "key"),
        int(accounts["seen"].sum()),
        int(accounts["picked"].sum()),
        int(accounts["spent"].sum()),
        float(accounts["threshold"].sum()),
        bool(accounts["full"].any()),
        int(accounts["edges"].sum()),
    )
    for pattern, received in zip(accounts["patterns"], accounts["received"], strict=True):
        objective.add(np.asarray(pattern, np.int64), np.asarray(received, np.int64))
    return result


def _of(batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> dict[str, pa.Array]:
    """Some rows' columns but for their edges, which the account has in sum."""
    taken = pa.array(rows)
    return {name: batch.column(name).take(taken) for name in ("sid", "n", "tie", "scale")}


def _pick(choice: Choice, phase: int, first: int) -> dict[str, pa.Array]:
    count = choice.rows.size
    return {
        "phase": pa.array(np.full(count, phase, dtype=np.int32)),
        "round": pa.array(np.arange(first, first + count, dtype=np.int32)),
        "key": pa.array(choice.key),
        "gain": pa.array(choice.gain),
        "gain_new": pa.array(choice.gain_new),
        "gain_cold": pa.array(choice.gain_cold),
    }


def _left(batch: pa.RecordBatch, choice: Choice) -> pa.RecordBatch:
    """The rows that were not chosen and have a gain still, with the last key known."""
    open_rows = choice.bound > 0.0
    open_rows[choice.rows] = False
    rows = np.flatnonzero(open_rows)
    edges = {name: batch.column(name).take(pa.array(rows)) for name in ("patterns", "messages")}
    place = {"round": pa.array(np.full(rows.size, _LEFT, dtype=np.int32))}
    return _rows({**_of(batch, rows), **edges, **place, "key": pa.array(choice.bound[rows])})


def _accounts(choice: Choice, received: Ints, spent: int) -> Iterable[pa.RecordBatch]:
    """What the task did: its numbers in the first row, and what patterns received, a slice a row."""
    pattern = np.flatnonzero(received)
    for start in range(0, max(pattern.size, 1), _SLICE):
        part = pattern[start : start + _SLICE]
        numbers: dict[str, Any] = {
            "seen": choice.bound.size,
            "picked": choice.rows.size,
            "spent": spent,
            "threshold": float(choice.key[-1]) if choice.rows.size else 0.0,
            "full": choice.full,
            "edges": choice.edges,
        }
        account: dict[str, Any] = {k: v if start == 0 else type(v)(0) for k, v in numbers.items()}
        account |= {"patterns": part.astype(np.int32), "received": received[part]}
        yield _rows({"account": pa.array([account], type=_SCHEMA.field("account").type)})


def _rows(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    """A batch in the task's schema; columns that are not given are null."""
    size = len(next(iter(columns.values())))
    return pa.RecordBatch.from_arrays(
        [columns.get(field.name, pa.nulls(size, field.type)) for field in _SCHEMA], schema=_SCHEMA
    )
