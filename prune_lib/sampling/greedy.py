"""Sequential lazy greedy on arrays, compiled: the heart of the exact sampler, without Spark.

The first call in a process compiles the loop or loads what an earlier process compiled. Arithmetic is that
of `gains`, operation by operation, so that both samplers and the explanation read the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prune_lib.compiled import compiled
from prune_lib.sampling.gains import FULL, GAIN_UNIT, Ints, Objective

__all__ = ["Choice", "lazy_greedy"]


@dataclass(frozen=True)
class Choice:
    """What greedy chose.

    Attributes:
        rows: row numbers in order of choice, shape (P,).
        key: what each was chosen by, shape (P,).
        gain: of each, units of 1/GAIN_UNIT, shape (P,).
        gain_new: the part of it from patterns that nothing kept held, shape (P,).
        gain_cold: the part of that from patterns that teach a cold item, shape (P,).
        bound: of every row, the last key computed: an upper bound of its key from now on, shape (R,).
        full: whether the budget ended it.
        edges: edges that were looked at: each row's where no keys were given, and again whenever its key was
            computed afresh.
    """

    rows: Ints
    key: npt.NDArray[np.float64]
    gain: Ints
    gain_new: Ints
    gain_cold: Ints
    bound: npt.NDArray[np.float64]
    full: bool
    edges: int


def lazy_greedy(
    ends: Ints,
    pattern: npt.NDArray[np.int32],
    message: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float64],
    price: Ints,
    tie: Ints,
    sid: Ints,
    objective: Objective,
    budget: int,
    *,
    key: npt.NDArray[np.float64] | None = None,
    before: tuple[float, int, int] | None = None,
) -> Choice:
    """Rows in greedy order by scale x gain, as far as the budget goes.

    The result does not depend on the order of the rows.

    Args:
        ends: CSR ends by row, shape (R,); row r has the edges ends[r-1]..ends[r].
        pattern: pattern by edge, each at most once a row, shape (E,).
        message: integer message by edge, shape (E,).
        scale: what a row's gain is multiplied by, shape (R,).
        price: what a row costs, shape (R,).
        tie: breaks ties of equal keys, the smaller first, shape (R,).
        sid: breaks ties of equal ties, the smaller first, shape (R,).
        objective: the state; changed in place to the state after the picks.
        budget: what may be spent; the first row that does not fit ends the selection.
        key: the rows' keys under the state, where they are known; shape (R,).
        before: (key, tie, sid) at which the selection ends: only rows that come before it are chosen.

    Returns:
        The choice. Rows without gain are never chosen.

    Cost: the edges of the rows whose keys are computed, and log R for each; about a microsecond a row.
    """
    largest = min(int(message.max(initial=0)), FULL * objective.unit)
    known = np.empty(0) if key is None else np.array(key, dtype=np.float64)
    last_key, last_tie, last_sid = (-1.0, 0, 0) if before is None else before
    rows, keys, gain, new, cold, bound, full, edges = _greedy(
        np.ascontiguousarray(ends, np.int64),
        np.ascontiguousarray(pattern, np.int32),
        np.ascontiguousarray(message, np.int32),
        np.ascontiguousarray(scale, np.float64),
        np.ascontiguousarray(price, np.int64),
        np.ascontiguousarray(tie, np.int64),
        np.ascontiguousarray(sid, np.int64),
        objective.weight,
        objective.cold,
        objective.evidence,
        objective.cap if objective.cap is not None else np.empty(0, np.int64),
        objective.cap is not None,
        objective.offer(),
        objective.saturation(largest),
        objective.survival(),
        int(budget),
        known,
        float(last_key),
        int(last_tie),
        int(last_sid),
    )
    return Choice(rows, keys, gain, new, cold, bound, bool(full), int(edges))


@compiled
def _before(key: Any, tie: Any, sid: Any, a: int, b_key: float, b_tie: int, b_sid: int) -> Any:
    """Whether row a comes before another: larger key, then smaller tie, then smaller sid."""
    if key[a] != b_key:
        return key[a] > b_key
    if tie[a] != b_tie:
        return tie[a] < b_tie
    return sid[a] < b_sid


@compiled
def _sink(heap: Any, size: int, at: int, key: Any, tie: Any, sid: Any) -> None:
    """Bring the heap in order below a place whose row may have lost."""
    row = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = heap[child]
        if child + 1 < size and _before(key, tie, sid, heap[child + 1], key[other], tie[other], sid[other]):
            child += 1
        if not _before(key, tie, sid, heap[child], key[row], tie[row], sid[row]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = row


@compiled
def _greedy(
    ends: Any,
    pattern: Any,
    message: Any,
    scale: Any,
    price: Any,
    tie: Any,
    sid: Any,
    weight: Any,
    is_cold: Any,
    evidence: Any,
    cap: Any,
    capped: bool,
    offer: Any,
    saturation: Any,
    survival: Any,
    budget: int,
    known: Any,
    last_key: float,
    last_tie: int,
    last_sid: int,
) -> Any:
    n = ends.size
    most = saturation.size - 1
    key = known if known.size == n else np.zeros(n)
    heap = np.empty(n, np.int64)
    size, edges = 0, 0
    for r in range(n):
        if known.size != n:
            gain: Any = 0
            edges += ends[r] - (ends[r - 1] if r else 0)
            for e in range(ends[r - 1] if r else 0, ends[r]):
                gain += np.int64(np.rint(offer[pattern[e]] * saturation[min(message[e], most)]))
            key[r] = scale[r] * (gain / GAIN_UNIT)
        if key[r] > 0.0:
            heap[size] = r
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sink(heap, size, at, key, tie, sid)
    rows = np.empty(size, np.int64)
    keys = np.empty(size)
    gains, news, colds = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    new: Any = 0
    cold: Any = 0
    picked, spent, full = 0, 0, False
    while size > 0:
        r = heap[0]
        if not _before(key, tie, sid, r, last_key, last_tie, last_sid):
            break
        start = ends[r - 1] if r else 0
        gain, new, cold = 0, 0, 0
        edges += ends[r] - start
        for e in range(start, ends[r]):
            p = pattern[e]
            part = np.int64(np.rint(offer[p] * saturation[min(message[e], most)]))
            gain += part
            if evidence[p] == 0:
                new += part
                if is_cold[p]:
                    cold += part
        key[r] = scale[r] * (gain / GAIN_UNIT)
        if key[r] > 0.0:
            _sink(heap, size, 0, key, tie, sid)
            if heap[0] != r:
                continue
            if not _before(key, tie, sid, r, last_key, last_tie, last_sid):
                break
            if spent + price[r] > budget:
                full = True
                break
            rows[picked], keys[picked] = r, key[r]
            gains[picked], news[picked], colds[picked] = gain, new, cold
            picked += 1
            spent += price[r]
            for e in range(start, ends[r]):
                p = pattern[e]
                evidence[p] += message[e]
                if capped:
                    left = 1.0 if evidence[p] < cap[p] else 0.0
                else:
                    left = survival[min(evidence[p], survival.size - 1)]
                offer[p] = weight[p] * left * GAIN_UNIT
        size -= 1
        heap[0] = heap[size]
        _sink(heap, size, 0, key, tie, sid)
    return rows[:picked], keys[:picked], gains[:picked], news[:picked], colds[:picked], key, full, edges
