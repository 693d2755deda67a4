"""What others would do with the same sessions, one program each, in one process.

    python benchmarks/peers.py one-process SESSIONS.parquet --ratio 0.1
    python benchmarks/peers.py d2 SESSIONS.parquet --ratio 0.1

`one-process` is our own method without Spark (`one_process.py`), timed from the file to the file. The
others are given sessions, graph and difficulty for nothing: their clock runs over their own work only. Each
says where it is as it goes, and prints what it measured as a JSON object: `bench.py` stops those that take
too long. D2 and CCS are written here by their formulas: what their authors published is for images, whose
neighbours come from embeddings.

* `d2`: D2 pruning (Maharana et al., ICLR 2024) by its formulas: the exact graph of nearest neighbours
  (cosine of the sets of items, by a sparse product), forward messages, reverse messages in sequence. Its
  published form looks for the next pick through all scores; here it has a heap, which is kinder.
* `ccs`: coverage-centric selection (Zheng et al., ICLR 2023): the hardest tenth out, then the same budget
  for each of 50 strata of difficulty.
* `apricot-features`: apricot's FeatureBasedSelection on our patterns, a session's price its clicks. It knows
  no weights of features.
* `apricot-facility`: apricot's FacilityLocationSelection on the same cosine, at the same prices.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import one_process  # noqa: E402
from benchmarks.one_process import Graph, Sessions  # noqa: E402
from prune_lib.baselines import CCS_HARDEST, CCS_STRATA  # noqa: E402
from prune_lib.d2 import NEIGHBOURS, d2_order  # noqa: E402
from prune_lib.settings import SamplingSettings  # noqa: E402

Ints = npt.NDArray[np.int64]
Matrix = Any  # a scipy CSR matrix
Work = Callable[[], Ints]

# Rows of the product of sessions with sessions that are made at once.
_ROWS = 4096


def at(place: str) -> None:
    """Say where the program is."""
    print(json.dumps({"at": place}), flush=True)


def unit_sets(sessions: Sessions) -> Matrix:
    """Sessions by items, rows of length 1: what a cosine of sets is a product of."""
    import scipy.sparse

    row = np.repeat(np.arange(sessions.n_sessions), sessions.lengths)
    pairs = np.unique(row * sessions.n_items + sessions.items)
    row, item = pairs // sessions.n_items, pairs % sessions.n_items
    size = np.bincount(row, minlength=sessions.n_sessions)
    return scipy.sparse.csr_matrix(
        (1 / np.sqrt(size[row]), (row, item)), shape=(sessions.n_sessions, sessions.n_items)
    )


def nearest(sets: Matrix, k: int) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Exact nearest neighbours: CSR ends, rows and distances; sessions that share no item are none."""
    others, lengths, distances = [], [], []
    turned = sets.T.tocsr()
    for start in range(0, sets.shape[0], _ROWS):
        near = (sets[start : start + _ROWS] @ turned).tocsr()
        for row in range(near.shape[0]):
            part = slice(near.indptr[row], near.indptr[row + 1])
            found, cosine = near.indices[part], near.data[part]
            other = found != start + row
            found, cosine = found[other], cosine[other]
            if found.size > k:
                best = np.argpartition(-cosine, k)[:k]
                found, cosine = found[best], cosine[best]
            others.append(found)
            lengths.append(found.size)
            distances.append(np.sqrt(np.maximum(2.0 - 2.0 * cosine, 0.0)))
    ends = np.cumsum(lengths).astype(np.int64)
    return ends, np.concatenate(others).astype(np.int64), np.concatenate(distances)


def by_budget(order: Ints, sessions: Sessions, budget: int) -> Ints:
    """The longest prefix of an order that fits."""
    picks: Ints = order[np.cumsum(sessions.lengths[order]) <= budget]
    return picks


def d2(sessions: Sessions, graph: Graph, budget: int) -> Work:
    """D2's picks."""

    def work() -> Ints:
        at("looking for neighbours")
        ends, neighbour, distance = nearest(unit_sets(sessions), NEIGHBOURS)
        at("sending messages")
        own = one_process.score(sessions.n_sessions)
        order = d2_order(own, ends, neighbour, distance, np.arange(sessions.n_sessions))
        return by_budget(order, sessions, budget)

    return work


def ccs(sessions: Sessions, graph: Graph, budget: int) -> Work:
    """CCS's picks: as many clicks of each stratum, what small strata leave to the larger ones."""

    def work() -> Ints:
        q, rng, left = one_process.score(sessions.n_sessions), np.random.default_rng(0), budget
        rows = np.flatnonzero(q <= 1.0 - CCS_HARDEST)
        stratum = np.minimum((q[rows] / (1.0 - CCS_HARDEST) * CCS_STRATA).astype(np.int64), CCS_STRATA - 1)
        strata = [rng.permutation(rows[stratum == s]) for s in range(CCS_STRATA)]
        strata.sort(key=lambda of: int(sessions.lengths[of].sum()))
        picks: list[Ints] = []
        for turn, of in enumerate(strata):
            picks.append(by_budget(of, sessions, left // (CCS_STRATA - turn)))
            left -= int(sessions.lengths[picks[-1]].sum())
        return np.concatenate(picks)

    return work


def apricot_features(sessions: Sessions, graph: Graph, budget: int) -> Work:
    """The picks of apricot's FeatureBasedSelection."""
    import numba
    import scipy.sparse
    from apricot import FeatureBasedSelection

    ends = np.r_[0, np.cumsum(graph.lengths)]
    shape = (sessions.n_sessions, graph.weight.size)
    features = scipy.sparse.csr_matrix((graph.message / graph.unit, graph.pattern, ends), shape=shape)
    saturating = numba.njit(lambda c: 1.0 - np.exp(-c))
    price = sessions.lengths.astype(np.float64)

    def fit(rows: Matrix, k: int) -> Ints:
        selection = FeatureBasedSelection(k, concave_func=saturating, optimizer="two-stage")
        found = selection.fit(rows, sample_cost=price[: rows.shape[0]])
        return np.asarray(found.ranking, dtype=np.int64)

    fit(features[:100], 20)  # compiled
    at(f"picking sessions of {budget:,} clicks")
    return lambda: fit(features, budget)


def apricot_facility(sessions: Sessions, graph: Graph, budget: int) -> Work:
    """The picks of apricot's FacilityLocationSelection."""
    from apricot import FacilityLocationSelection

    price, sets = sessions.lengths.astype(np.float64), unit_sets(sessions)

    def fit(rows: Matrix, k: int) -> Ints:
        at("similarities of all sessions")
        near = (rows @ rows.T).tocsr()
        at(f"picking sessions of {k:,} clicks by {near.nnz:,} similarities")
        selection = FacilityLocationSelection(k, metric="precomputed", optimizer="two-stage")
        found = selection.fit(near, sample_cost=price[: rows.shape[0]])
        return np.asarray(found.ranking, dtype=np.int64)

    fit(sets[:100], 20)  # compiled
    return lambda: fit(sets, budget)


#: What is ready before the clock starts: sessions, graph, budget in interactions; the work is what is timed.
PEERS: dict[str, Callable[[Sessions, Graph, int], Work]] = {
    "d2": d2,
    "ccs": ccs,
    "apricot-features": apricot_features,
    "apricot-facility": apricot_facility,
}


def measured_peer(name: str, sessions: Sessions, graph: Graph, budget: int) -> dict[str, Any]:
    """Seconds of a peer's own work, and what it reaches."""
    work = PEERS[name](sessions, graph, budget)
    started = time.perf_counter()
    picks = work()
    return {
        "seconds": time.perf_counter() - started,
        "sessions": sessions.n_sessions,
        "interactions": int(sessions.items.size),
        "kept": int(picks.size),
        "kept interactions": int(sessions.lengths[picks].sum()),
        "objective": graph.objective(picks),
    }


def measured_ourselves(place: str, ratio: float) -> dict[str, Any]:
    """Seconds of our own method in one process, from the file to the file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kept.parquet"
        small = Path(folder) / "small.parquet"
        pq.write_table(one_process.read(place).slice(0, 300), small)
        one_process.prune(small, ratio, target)  # compiled
        at("pruning")
        done = one_process.prune(place, ratio, target)
    return {"seconds": sum(done.seconds.values()), "stages": done.seconds, **done.facts()}


def main() -> None:
    """Run one peer, and print what it measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("peer", choices=["one-process", *PEERS])
    parser.add_argument("sessions", help="Parquet: session_id, items and, where there is an order, ordering")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of the clicks to keep")
    asked = parser.parse_args()
    try:
        if asked.peer == "one-process":
            found = measured_ourselves(asked.sessions, asked.ratio)
        else:
            at("reading")
            sessions = one_process.encode(one_process.read(asked.sessions))
            graph = one_process.build(sessions, SamplingSettings())
            found = measured_peer(asked.peer, sessions, graph, int(asked.ratio * sessions.items.size))
    except MemoryError as problem:  # numpy's says how much was wanted
        found = {"memory": str(problem)}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
