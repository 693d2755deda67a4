"""Sequential lazy greedy on arrays, compiled: the heart of the exact sampler, without Spark.

The first call in a process compiles the loop or loads what an earlier process compiled. Arithmetic is that
of `gains`, operation by operation, so that both samplers and the explanation read the same integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

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
        full: whether the budget ended it.
        edges: edges that were looked at; each row's once, and again whenever its key was computed afresh.
    """

    rows: Ints
    key: npt.NDArray[np.float64]
    gain: Ints
    gain_new: Ints
    gain_cold: Ints
    full: bool
    edges: int


def lazy_greedy(
    ends: Ints,
    pattern: npt.NDArray[np.int32],
    message: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float64],
    price: Ints,
    tie: Ints,
    objective: Objective,
    budget: int,
) -> Choice:
    """Rows in greedy order by scale x gain, as far as the budget goes.

    Args:
        ends: CSR ends by row, shape (R,); row r has the edges ends[r-1]..ends[r].
        pattern: pattern by edge, each at most once a row, shape (E,).
        message: integer message by edge, shape (E,).
        scale: what a row's gain is multiplied by, shape (R,).
        price: what a row costs, shape (R,).
        tie: breaks ties of equal keys (then the row number), shape (R,).
        objective: the state; changed in place to the state after the picks.
        budget: what may be spent; the first row that does not fit ends the selection.

    Returns:
        The choice. Rows without gain are never chosen.

    Cost: the edges of the rows whose keys are computed, and log R for each; about a microsecond a row.
    """
    largest = min(int(message.max(initial=0)), FULL * objective.unit)
    capped = objective.cap is not None
    rows, key, gain, new, cold, full, edges = _greedy(
        np.ascontiguousarray(ends, np.int64),
        np.ascontiguousarray(pattern, np.int32),
        np.ascontiguousarray(message, np.int32),
        np.ascontiguousarray(scale, np.float64),
        np.ascontiguousarray(price, np.int64),
        np.ascontiguousarray(tie, np.int64),
        objective.weight,
        objective.cold,
        objective.evidence,
        objective.cap if objective.cap is not None else np.empty(0, np.int64),
        capped,
        objective.offer(),
        objective.saturation(largest),
        objective.survival(),
        int(budget),
    )
    return Choice(rows, key, gain, new, cold, bool(full), int(edges))


def _compiled(function: Any) -> Any:
    """Compile at the first call; kept on disk for other processes where there is a place to keep it."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(function)


@_compiled
def _before(key: Any, tie: Any, a: int, b: int) -> Any:
    """Whether row a comes before row b: larger key, then smaller tie, then smaller row."""
    if key[a] != key[b]:
        return key[a] > key[b]
    if tie[a] != tie[b]:
        return tie[a] < tie[b]
    return a < b


@_compiled
def _sink(heap: Any, size: int, at: int, key: Any, tie: Any) -> None:
    """Bring the heap in order below a place whose row may have lost."""
    row = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _before(key, tie, heap[child + 1], heap[child]):
            child += 1
        if not _before(key, tie, heap[child], row):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = row


@_compiled
def _greedy(
    ends: Any,
    pattern: Any,
    message: Any,
    scale: Any,
    price: Any,
    tie: Any,
    weight: Any,
    is_cold: Any,
    evidence: Any,
    cap: Any,
    capped: bool,
    offer: Any,
    saturation: Any,
    survival: Any,
    budget: int,
) -> Any:
    n = ends.size
    most = saturation.size - 1
    key = np.zeros(n)
    heap = np.empty(n, np.int64)
    size = 0
    for r in range(n):
        gain: Any = 0
        for e in range(ends[r - 1] if r else 0, ends[r]):
            gain += np.int64(np.rint(offer[pattern[e]] * saturation[min(message[e], most)]))
        key[r] = scale[r] * (gain / GAIN_UNIT)
        if key[r] > 0.0:
            heap[size] = r
            size += 1
    for at in range(size // 2 - 1, -1, -1):
        _sink(heap, size, at, key, tie)
    rows = np.empty(size, np.int64)
    keys = np.empty(size)
    gains, news, colds = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    new: Any = 0
    cold: Any = 0
    picked, spent, full, edges = 0, 0, False, pattern.size
    while size > 0:
        r = heap[0]
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
            _sink(heap, size, 0, key, tie)
            if heap[0] != r:
                continue
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
        _sink(heap, size, 0, key, tie)
    return rows[:picked], keys[:picked], gains[:picked], news[:picked], colds[:picked], full, edges
