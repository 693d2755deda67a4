"""Our greedy beside apricot's `FeatureBasedSelection` on the same features: seconds and objective.

    pip install --no-deps apricot-select==0.6.1     # unmaintained since 2021, so no part of the environment
    .venv/bin/spark-submit benchmarks/against_apricot.py \
        --input ../shared/data/diginetica/sessions_train.parquet --order-column session_id

apricot knows no weights of features: all patterns weigh the same here, and every session costs one, for
both. f(c) = 1 - exp(-c), apricot's default optimizer unless another is named, both
compiled before the clock starts. apricot is stopped at --limit seconds: what is said then is the least by
which it is slower.

    python benchmarks/against_apricot.py --golden tests/core/golden_apricot.json

writes what apricot picks of a few hundred small sessions: the tests hold our greedy to it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.graph import SessionGraph, build_graph  # noqa: E402
from prune_lib.patterns import message_unit, session_edges  # noqa: E402
from prune_lib.sampling.gains import Objective  # noqa: E402
from prune_lib.sampling.greedy import lazy_greedy  # noqa: E402
from prune_lib.sampling.task import greedy_in_one_task  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.encoding import encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settings import SamplingSettings  # noqa: E402
from prune_lib.settle import settle  # noqa: E402

Features = Any  # a scipy CSR matrix: sessions by patterns, messages in clicks


def apricot_picks(features: Features, k: int, optimizer: str = "two-stage") -> tuple[list[int], list[float]]:
    """Rows that apricot picks, in order, and what each gains."""
    import numba
    from apricot import FeatureBasedSelection

    saturating = numba.njit(lambda c: 1.0 - np.exp(-c))
    found = FeatureBasedSelection(k, concave_func=saturating, optimizer=optimizer).fit(features)
    return [int(row) for row in found.ranking], [float(gain) for gain in found.gains]


def _timed_apricot(place: str, k: int, optimizer: str, send: Connection) -> None:
    """In a process of its own: apricot's seconds and picks, once it is compiled."""
    import scipy.sparse

    features = scipy.sparse.load_npz(place)
    apricot_picks(features[:100], 5, optimizer)
    send.send(None)
    begun = time.monotonic()
    picks, _ = apricot_picks(features, k, optimizer)
    send.send((time.monotonic() - begun, picks))


def limited_apricot(
    features: Features, k: int, optimizer: str, limit: float
) -> tuple[float, list[int]] | None:
    """Seconds that apricot takes, and its picks; None where it takes longer than the limit."""
    import scipy.sparse

    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder) / "features.npz")
        scipy.sparse.save_npz(place, features)
        process = context.Process(target=_timed_apricot, args=(place, k, optimizer, send), daemon=True)
        process.start()
        send.close()  # so that the end of the process is the end of the pipe
        try:
            receive.recv()
            found: tuple[float, list[int]] | None = receive.recv() if receive.poll(limit) else None
        finally:
            process.kill()
            process.join()
    return found


def our_picks(features: Features, unit: int, k: int) -> npt.NDArray[np.int64]:
    """Rows that our greedy picks under the same objective, in order."""
    rows = features.shape[0]
    ones, place = np.ones(rows, dtype=np.int64), np.arange(rows)
    messages = np.rint(features.data * unit).astype(np.int32)
    state = equal_weights(features.shape[1], unit)
    chosen = lazy_greedy(
        features.indptr[1:], features.indices, messages, np.ones(rows), ones, place, place, state, k
    )
    return chosen.rows


def equal_weights(patterns: int, unit: int) -> Objective:
    """An empty objective in which all patterns weigh the same."""
    return Objective.empty(np.full(patterns, 1 / patterns), np.zeros(patterns, dtype=bool), unit)


def value(features: Features, rows: npt.ArrayLike) -> float:
    """The objective of some rows: sum over the patterns of 1 - exp(-evidence)."""
    evidence = np.asarray(features[np.asarray(rows)].sum(axis=0)).ravel()
    return float(-np.expm1(-evidence).sum())


def features_of(graph: SessionGraph) -> Features:
    """The graph as a matrix on the driver, rows by session id."""
    import scipy.sparse

    rows = graph.adjacency.select("sid", "patterns", "messages").toPandas().sort_values("sid")
    indptr = np.r_[0, np.cumsum(rows["patterns"].map(len))]
    indices, data = (np.concatenate(rows[c].to_numpy()) for c in ("patterns", "messages"))
    return scipy.sparse.csr_matrix((data / graph.unit, indices, indptr), shape=(len(rows), graph.n_patterns))


def golden(path: Path) -> None:
    """Write what apricot picks of small random sessions of popular and rare items."""
    import scipy.sparse

    cases = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(2, 9, 300)
        items = np.minimum(rng.geometric(0.03, lengths.sum()) - 1, 79).astype(np.int32)
        code, message, edges = session_edges(items, lengths, n_items=80, max_distance=3)
        indptr, data = np.r_[0, np.cumsum(edges)], message / message_unit(3)
        picks, gains = apricot_picks(scipy.sparse.csr_matrix((data, code, indptr)), 60)
        cases.append({"items": items.tolist(), "lengths": lengths.tolist(), "picks": picks, "gains": gains})
    path.write_text(json.dumps(cases) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, and print a Markdown table; or write the golden file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", help="sessions or events, Delta or Parquet")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("-k", type=int, default=2000, help="sessions to pick")
    parser.add_argument(
        "--optimizer", default="two-stage", choices=["two-stage", "lazy", "naive"], help="apricot's"
    )
    parser.add_argument("--limit", type=float, default=1200, help="seconds that apricot may take")
    parser.add_argument("--golden", type=Path, help="write the tests' golden file instead")
    asked = parser.parse_args()
    if asked.golden:
        return golden(asked.golden)
    if not asked.input:
        parser.error("--input is missing: the sessions to pick from")
    started = time.monotonic()
    spark = get_spark("against-apricot")
    spark.range(1).count()
    start = time.monotonic() - started
    with measured_joins(spark):
        table = open_input(spark, asked.input, columns=ColumnNames(order=asked.order_column))
        graph = build_graph(encode(settle(to_sessions(table)), seed=0), SamplingSettings())
        sessions = settle(graph.adjacency.withColumn("scale", F.lit(1.0)))
        begun = time.monotonic()
        state = equal_weights(graph.n_patterns, graph.unit)
        done = greedy_in_one_task(sessions, state, asked.k, cost="one", phase=1)
        in_spark, from_start = time.monotonic() - begun, time.monotonic() - started
        features = features_of(graph)
    spark.stop()
    our_picks(features[:100], graph.unit, 5)
    begun = time.monotonic()
    ours = our_picks(features, graph.unit, asked.k)
    alone = time.monotonic() - begun
    print(f"ours: {alone:.3f} s alone, {in_spark:.3f} s as a Spark job", file=sys.stderr, flush=True)
    theirs = limited_apricot(features, asked.k, asked.optimizer, asked.limit)
    # Without apricot's end the objectives are told by ours.
    apricot, best = (
        (theirs[0], value(features, theirs[1])) if theirs else (asked.limit, value(features, ours))
    )
    least, end = ("", "1") if theirs else ("> ", "stopped")
    print(
        f"{features.shape[0]:,} sessions, {features.nnz:,} edges, {asked.k:,} picks\n\n"
        "| what | seconds | times apricot's speed | objective |\n|---|---|---|---|\n"
        f"| apricot, optimizer {asked.optimizer} | {least}{apricot:.1f} | 1 | {end} |"
    )
    shown = (
        ("ours, the loop alone", alone, value(features, ours)),
        ("ours, as a Spark job", in_spark, state.value() * graph.n_patterns),
        ("ours, with Spark's start", start + in_spark, None),
        ("ours, from Spark's start on, reading and graph included", from_start, None),
    )
    for what, seconds, reached in shown:
        objective = "" if reached is None else f"{reached / best:.6f}"
        print(f"| {what} | {seconds:.3f} | {least}{apricot / seconds:.0f} | {objective} |")
    assert done.picked == asked.k


if __name__ == "__main__":
    main()
