"""Our own method on one machine without Spark: what whoever has one machine would write.

numpy, scipy and numba, everything in memory; the same patterns, weights, messages and greedy as the Spark
job's (`prune_lib.patterns` and `prune_lib.sampling` are numpy already), so that the time between the two is
what Spark adds or saves. `tests/spark/test_one_process.py` holds its picks to the Spark job's.

    read -> encode -> build -> propagate -> sample -> write
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prune_lib.demand import CUTS, known_of, learned, remembered, weights_by
from prune_lib.patterns import message_unit, session_edges
from prune_lib.propagation import DECIMALS
from prune_lib.sampling.gains import Objective, sum_by_row
from prune_lib.sampling.greedy import lazy_greedy
from prune_lib.settings import PropagationSettings, SamplingSettings

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# As in the Spark job, so that both agree: recency in units of 2^-32, weights of 2^-20, scores of 2^-30,
# degrees of 2^-40.
_RECENCY_UNIT, _WEIGHT_UNIT, _SCORE_UNIT, _PHI_UNIT = 2.0**32, 2.0**20, 2.0**30, 2.0**40
# Sessions whose edges are sorted at once: 20 MB of codes.
_BLOCK = 2**17
# The score of a session where there are no experts: a few digits of its number, the same on both sides.
SCORE_FACTOR, SCORE_MODULUS = 7919, 10007


@dataclass
class Sessions:
    """Sessions in integers, from old to new.

    Attributes:
        items: item indices of all sessions, one after the other, 0 = in most sessions, shape (clicks,).
        lengths: clicks by session, shape (R,).
        row: row of the input by session, shape (R,).
        n_items: number of items.
        item_sessions: sessions that hold each item, shape (n_items,).
    """

    items: npt.NDArray[np.int32]
    lengths: Ints
    row: Ints
    n_items: int
    item_sessions: Ints

    @property
    def n_sessions(self) -> int:
        """Number of sessions."""
        return int(self.lengths.size)


@dataclass
class Graph:
    """The session-pattern graph in CSR form: rows are sessions, from old to new.

    Attributes:
        lengths: edges by session, shape (R,).
        pattern: by edge, shape (E,).
        message: by edge, in units of 1/unit, shape (E,).
        sessions: sessions that hold each pattern, shape (V,).
        weight: by pattern, shape (V,).
        item: the item that a pattern teaches to predict, shape (V,).
        unit: of the messages.
    """

    lengths: Ints
    pattern: npt.NDArray[np.int32]
    message: npt.NDArray[np.int32]
    sessions: Ints
    weight: Floats
    item: npt.NDArray[np.int32]
    unit: int

    def objective(self, rows: npt.ArrayLike) -> float:
        """F of some sessions."""
        held = np.zeros(self.lengths.size, dtype=np.bool_)
        held[rows] = True
        edges = np.repeat(held, self.lengths)
        # Far below 2^53: exact.
        evidence = np.bincount(self.pattern[edges], self.message[edges], self.weight.size)
        return float((self.weight * -np.expm1(evidence / -self.unit)).sum())


@dataclass
class Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def read(place: str | Path) -> pa.Table:
    """A Parquet table of sessions: session_id, items, and `ordering` where sessions are ranked by it."""
    return pq.read_table(place)


def encode(table: pa.Table) -> Sessions:
    """Sessions by (ordering, session id), items by falling popularity, then by id."""
    ranked = [name for name in ("ordering", "session_id") if name in table.column_names]
    order = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in ranked])
    column = table.column("items").take(order).combine_chunks()
    lengths = np.diff(column.offsets.to_numpy()).astype(np.int64)
    values = column.flatten().to_numpy()
    names, index = np.unique(values, return_inverse=True)
    session = np.repeat(np.arange(lengths.size), lengths)
    pairs = np.unique(session * names.size + index)
    sessions = np.bincount(pairs % names.size, minlength=names.size)
    rank = np.empty(names.size, dtype=np.int32)
    falling = np.lexsort((np.arange(names.size), -sessions))
    rank[falling] = np.arange(names.size, dtype=np.int32)
    return Sessions(rank[index], lengths, order.to_numpy().astype(np.int64), names.size, sessions[falling])


def build(sessions: Sessions, settings: SamplingSettings) -> Graph:
    """Patterns of all sessions with their weights; transitions that too few sessions hold are dropped."""
    ends = np.r_[0, np.cumsum(sessions.lengths)]
    parts: list[tuple[Ints, npt.NDArray[np.int32], Ints]] = []
    for start in range(0, sessions.n_sessions, _BLOCK):
        stop = min(start + _BLOCK, sessions.n_sessions)
        parts.append(
            session_edges(
                sessions.items[ends[start] : ends[stop]],
                sessions.lengths[start:stop],
                sessions.n_items,
                settings.max_distance,
            )
        )
    code, message, lengths = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    parts.clear()
    row = np.repeat(np.arange(sessions.n_sessions), lengths)
    names, place, count = np.unique(code, return_inverse=True, return_counts=True)
    age = (sessions.n_sessions - 1 - np.arange(sessions.n_sessions)) / max(sessions.n_sessions - 1, 1)
    recent = np.rint(np.exp(-age / settings.half_life) * _RECENCY_UNIT).astype(np.int64)
    order = np.argsort(place, kind="stable")
    first = np.r_[0, np.cumsum(count)[:-1]]
    r = np.add.reduceat(recent[row[order]], first) / _RECENCY_UNIT if first.size else np.empty(0)
    is_item = names < sessions.n_items
    raw = np.where(
        is_item, r**settings.item_exponent, (r * ((count - 1) / count)) ** settings.transition_exponent
    )
    kept = is_item | (count >= settings.min_support)
    number = np.cumsum(kept) - 1
    stays = kept[place]
    place = number[place[stays]]
    if settings.demand == "forecast":
        raw[kept] = foreseen(raw[kept], names[kept], place, age[row[stays]], sessions, settings)
    weight, is_item, names = raw[kept], is_item[kept], names[kept]
    for family, share in ((is_item, settings.lambda_items), (~is_item, 1.0)):
        total = int(np.rint(weight[family] * _WEIGHT_UNIT).astype(np.int64).sum())
        weight[family] *= share * _WEIGHT_UNIT / max(total, 1)
    item = np.where(is_item, names, (names - sessions.n_items) % sessions.n_items)
    return Graph(
        np.bincount(row[stays], minlength=sessions.n_sessions).astype(np.int64),
        place.astype(np.int32),
        message[stays],
        count[kept],
        weight,
        item.astype(np.int32),
        message_unit(settings.max_distance),
    )


def foreseen(
    raw: Floats,
    names: Ints,
    place: Ints,
    age: Floats,
    sessions: Sessions,
    settings: SamplingSettings,
) -> Floats:
    """Weights by the demand that is foreseen, by recency where none can be: see `prune_lib.demand`."""
    some = remembered(names, sessions.n_items)
    among = np.full(names.size, -1)
    there = np.isin(some, names)
    among[np.searchsorted(names, some[there])] = np.flatnonzero(there)
    edges = among[place] >= 0
    past = np.stack([known_of(among[place[edges]], age[edges], some.size, cut) for cut in CUTS], axis=1)
    known = known_of(place, age, names.size, 0.0)[:, :-1]
    is_item = names < sessions.n_items
    items = known_of(np.empty(0, np.int64), np.empty(0), sessions.n_items, 0.0)[:, :-1]
    items[names[is_item]] = known[is_item]
    foresight = learned(some, past, items, settings.min_support)
    if foresight is None:
        return raw
    expected = foresight.expected(names, known)
    return weights_by(expected, raw, is_item, settings.forecast_exponent)


def score(n_sessions: int) -> Floats:
    """What stands for a difficulty rank where there are no experts, in [0, 1), shape (R,)."""
    return np.arange(n_sessions, dtype=np.int64) * SCORE_FACTOR % SCORE_MODULUS / SCORE_MODULUS


def propagate(graph: Graph, x: Floats, settings: PropagationSettings) -> Floats:
    """Difficulty spread over the graph, in the integers of `prune_lib.propagation`."""
    import scipy.sparse

    x = np.round(x, DECIMALS)
    ends = np.r_[0, np.cumsum(graph.lengths)]
    messages = graph.message.astype(np.int64)
    matrix = scipy.sparse.csr_matrix((messages, graph.pattern, ends), shape=(x.size, graph.weight.size))
    mass = matrix.T @ np.ones(x.size, dtype=np.int64)
    phi = np.rint(_PHI_UNIT / graph.sessions).astype(np.int64)
    around = sum_by_row(phi[graph.pattern], graph.lengths)
    for _ in range(settings.rounds):
        weighted = matrix.T @ np.rint(x * _SCORE_UNIT).astype(np.int64)
        value = np.rint(weighted / mass / _SCORE_UNIT * _PHI_UNIT / graph.sessions).astype(np.int64)
        near = sum_by_row(value[graph.pattern], graph.lengths) / np.maximum(around, 1)
        x = np.round(np.where(around > 0, (1 - settings.alpha) * x + settings.alpha * near, x), DECIMALS)
    return x


def newest_of_its_sequence(sessions: Sessions) -> npt.NDArray[np.bool_]:
    """Whether a session is the newest of those with the same sequence of items, shape (R,)."""
    ends = np.r_[0, np.cumsum(sessions.lengths)].tolist()
    newest = {sessions.items[ends[s] : ends[s + 1]].tobytes(): s for s in range(sessions.n_sessions)}
    found = np.zeros(sessions.n_sessions, dtype=np.bool_)
    found[list(newest.values())] = True
    return found


def sample(
    graph: Graph,
    sessions: Sessions,
    x: Floats,
    budget: int,
    settings: SamplingSettings,
    tie: Ints | None = None,
) -> Ints:
    """Sessions in the order in which greedy picks them, by interactions; without floors."""
    eligible = np.flatnonzero(newest_of_its_sequence(sessions) & (sessions.lengths <= budget))
    edges = np.repeat(np.isin(np.arange(sessions.n_sessions), eligible), graph.lengths)
    cold = np.zeros(graph.weight.size, dtype=np.bool_)
    place = np.arange(sessions.n_sessions) if tie is None else tie
    price = sessions.lengths[eligible]
    choice = lazy_greedy(
        np.cumsum(graph.lengths[eligible]),
        graph.pattern[edges],
        graph.message[edges],
        np.exp(-settings.kappa * x[eligible]) / price,
        price,
        place[eligible],
        eligible,
        Objective.empty(graph.weight, cold, graph.unit),
        budget,
    )
    return eligible[choice.rows]


def write(table: pa.Table, sessions: Sessions, picks: Ints, place: Path) -> None:
    """The kept rows of the input with their rank, as Parquet."""
    kept = table.take(pa.array(sessions.row[picks]))
    pq.write_table(kept.append_column("prune_rank", pa.array(np.arange(1, picks.size + 1))), place)


@dataclass
class Done:
    """What a run made, and what each stage took."""

    sessions: Sessions
    graph: Graph
    picks: Ints
    seconds: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """The sizes of the input and of what was kept."""
        return {
            "sessions": self.sessions.n_sessions,
            "interactions": int(self.sessions.items.size),
            "edges": int(self.graph.pattern.size),
            "kept": int(self.picks.size),
            "objective": self.graph.objective(self.picks),
        }


def prune(place: str | Path, ratio: float, target: Path) -> Done:
    """The whole way, from a Parquet table of sessions to one of the kept sessions; stage by stage."""
    clock, sampling = Clock(), SamplingSettings()
    with clock.stage("read"):
        table = read(place)
    with clock.stage("encode"):
        sessions = encode(table)
    with clock.stage("build"):
        graph = build(sessions, sampling)
    with clock.stage("propagate"):
        x = propagate(graph, score(sessions.n_sessions), PropagationSettings())
    with clock.stage("sample"):
        picks = sample(graph, sessions, x, int(ratio * sessions.items.size), sampling)
    with clock.stage("write"):
        write(table, sessions, picks, target)
    return Done(sessions, graph, picks, clock.seconds)
