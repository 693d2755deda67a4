"""Short numpy references for what the Spark job does: the oracles of the tests.

Written for clarity, one process, no Spark; the formulas are those of the design, line by line.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MAX_DISTANCE = 3


@dataclass
class Graph:
    """The session-pattern graph in CSR form: rows are sessions, columns patterns."""

    indptr: Ints
    pattern: Ints
    message: Floats
    weight: Floats  # by pattern
    count: Ints  # by pattern: number of sessions that hold it
    names: list[tuple[int, ...]]  # by pattern: (item,) or (item, next item)

    def row(self, s: int) -> tuple[Ints, Floats]:
        """Patterns and messages of session s."""
        part = slice(self.indptr[s], self.indptr[s + 1])
        return self.pattern[part], self.message[part]


def session_patterns(items: Sequence[int]) -> dict[tuple[int, ...], float]:
    """Messages of one session: target items (1 each) and transitions (sum of 1/distance)."""
    out: dict[tuple[int, ...], float] = {(int(i),): 1.0 for i in items[1:]}
    for t, i in enumerate(items):
        for d in range(1, MAX_DISTANCE + 1):
            if t + d < len(items):
                pair = (int(i), int(items[t + d]))
                out[pair] = out.get(pair, 0.0) + 1.0 / d
    return out


def build_graph(
    sessions: Sequence[Sequence[int]],
    age: Floats | None = None,
    item_exponent: float = 0.25,
    transition_exponent: float = 0.5,
    half_life: float = 0.2,
    min_support: int = 2,
) -> Graph:
    """Patterns, messages and weights; transitions that only one session holds are dropped."""
    rows = [session_patterns(s) for s in sessions]
    recency = np.ones(len(rows)) if age is None else np.exp(-np.asarray(age) / half_life)
    count: dict[tuple[int, ...], int] = {}
    recent: dict[tuple[int, ...], float] = {}
    for row, r in zip(rows, recency, strict=True):
        for v in row:
            count[v] = count.get(v, 0) + 1
            recent[v] = recent.get(v, 0.0) + float(r)
    names = sorted(v for v, c in count.items() if len(v) == 1 or c >= min_support)
    index = {v: k for k, v in enumerate(names)}
    w = np.zeros(len(names))
    for v, k in index.items():
        if len(v) == 1:
            w[k] = recent[v] ** item_exponent
        else:
            w[k] = (recent[v] * (count[v] - 1) / count[v]) ** transition_exponent
    family = np.array([len(v) for v in names])
    for f in (1, 2):
        total = w[family == f].sum()
        if total > 0:
            w[family == f] /= total
    indptr, pattern, message = [0], [], []
    for row in rows:
        for v in sorted(row):
            if v in index:
                pattern.append(index[v])
                message.append(row[v])
        indptr.append(len(pattern))
    return Graph(
        np.array(indptr),
        np.array(pattern, dtype=np.int64),
        np.array(message),
        w,
        np.array([count[v] for v in names]),
        names,
    )


def objective(graph: Graph, kept: Sequence[int]) -> float:
    """F(A) = sum over patterns of w (1 - exp(-evidence kept))."""
    c = np.zeros(len(graph.weight))
    for s in kept:
        p, a = graph.row(s)
        c[p] += a
    return float((graph.weight * -np.expm1(-c)).sum())


def greedy(
    graph: Graph,
    cost: Ints,
    budget: int,
    factor: Floats | None = None,
    eligible: npt.NDArray[np.bool_] | None = None,
    evidence: Floats | None = None,
) -> list[int]:
    """Sequential lazy greedy by factor * gain / cost, until the next pick does not fit the budget."""
    n = len(graph.indptr) - 1
    factor = np.ones(n) if factor is None else factor
    c = np.zeros(len(graph.weight)) if evidence is None else evidence.copy()

    def key(s: int) -> float:
        p, a = graph.row(s)
        return float(factor[s] * (graph.weight[p] * np.exp(-c[p]) * -np.expm1(-a)).sum() / cost[s])

    heap = [(-key(s), s) for s in range(n) if eligible is None or eligible[s]]
    heapq.heapify(heap)
    kept: list[int] = []
    spent = 0
    while heap:
        bound, s = heapq.heappop(heap)
        now = key(s)
        if heap and now < -heap[0][0] - 1e-15:
            heapq.heappush(heap, (-now, s))
            continue
        if spent + cost[s] > budget:
            break
        kept.append(s)
        spent += int(cost[s])
        p, a = graph.row(s)
        c[p] += a
    return kept


def propagate(graph: Graph, x: Floats, alpha: float = 0.3) -> Floats:
    """One round of aggregation to patterns (weighted mean) and back (weights 1/degree)."""
    n = len(graph.indptr) - 1
    row = np.repeat(np.arange(n), np.diff(graph.indptr))
    v = len(graph.weight)
    mass = np.bincount(graph.pattern, graph.message, v)
    h = np.bincount(graph.pattern, graph.message * x[row], v) / np.maximum(mass, 1e-300)
    phi = 1.0 / np.bincount(graph.pattern, minlength=v)[graph.pattern]
    weight = np.bincount(row, phi, n)
    back = np.bincount(row, phi * h[graph.pattern], n) / np.maximum(weight, 1e-300)
    return np.where(weight > 0, (1 - alpha) * x + alpha * back, x)
