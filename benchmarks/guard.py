"""A few ratios that must not fall by half: `make bench-quick`, minutes, in CI.

    .venv/bin/spark-submit benchmarks/guard.py              # fails, exit code 1, where one has fallen
    .venv/bin/spark-submit benchmarks/guard.py --record     # writes guard.json anew: what they are now

Each is our time beside that of a reference in the same run, so that a slow machine slows down both. The
larger the better; `guard.json` has what they were. Medians of three, in turn.
"""

from __future__ import annotations

import argparse
import heapq
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import inputs, one_process  # noqa: E402
from prune_lib.graph import SessionGraph, build_graph  # noqa: E402
from prune_lib.propagation import propagate  # noqa: E402
from prune_lib.sampling.gains import Objective, contributions, sum_by_row  # noqa: E402
from prune_lib.sampling.greedy import lazy_greedy  # noqa: E402
from prune_lib.sampling.select import first_twin, select_sessions  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.encoding import Encoded, encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settings import PropagationSettings, SamplingSettings  # noqa: E402
from prune_lib.settle import settle  # noqa: E402

RECORD = Path(__file__).with_name("guard.json")
#: A ratio that is this share of what it was, or less, has fallen.
FALLEN = 0.5
_SESSIONS, _RATIO = 50_000, 0.1
# So many picks of the plain greedy, which looks at every session for each.
_PICKS = 50

Work = Callable[[], Any]


def medians(pairs: dict[str, tuple[Work, Work]], turns: int = 3) -> dict[str, float]:
    """By name, how many times as long the reference takes as ours: the median of some turns."""
    found = {}
    for name, (ours, reference) in pairs.items():
        ours()  # compiled, and Spark's workers started
        ratios = [_seconds(reference) / _seconds(ours) for _ in range(turns)]
        found[name] = round(statistics.median(ratios), 3)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def _seconds(work: Work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def plain_greedy(graph: one_process.Graph, picks: int) -> list[int]:
    """The first picks of greedy by gain, every session's gain computed afresh for each."""
    state = _empty(graph)
    saturation = state.saturation(int(graph.message.max(initial=0)))
    ends = np.r_[0, np.cumsum(graph.lengths)]
    order: list[int] = []
    for _ in range(picks):
        gain = sum_by_row(
            contributions(state.offer(), saturation, graph.pattern, graph.message), graph.lengths
        )
        gain[order] = -1
        best = int(np.argmax(gain))
        order.append(best)
        edges = slice(ends[best], ends[best + 1])
        state.add(graph.pattern[edges].astype(np.int64), graph.message[edges].astype(np.int64))
    return order


def our_greedy(graph: one_process.Graph, picks: int) -> list[int]:
    """The same by the compiled loop."""
    ones, place = np.ones(graph.lengths.size, dtype=np.int64), np.arange(graph.lengths.size)
    ends, state = np.cumsum(graph.lengths), _empty(graph)
    scale: npt.NDArray[np.float64] = np.ones(ones.size)
    found = lazy_greedy(ends, graph.pattern, graph.message, scale, ones, place, place, state, picks)
    return [int(row) for row in found.rows]


def _empty(graph: one_process.Graph) -> Objective:
    return Objective.empty(graph.weight, np.zeros(graph.weight.size, dtype=np.bool_), graph.unit)


def plain_patterns(sessions: one_process.Sessions, rows: int) -> int:
    """The patterns of the first sessions, by a dictionary each; how many there are."""
    ends, n = np.r_[0, np.cumsum(sessions.lengths)].tolist(), 0
    for row in range(rows):
        items = sessions.items[ends[row] : ends[row + 1]].tolist()
        found: dict[tuple[int, ...], float] = {(item,): 1.0 for item in items[1:]}
        for t, item in enumerate(items):
            for d, other in enumerate(items[t + 1 : t + 4], start=1):
                found[item, other] = found.get((item, other), 0.0) + 1 / d
        n += len(found)
    return n


def best_first(x: npt.NDArray[np.float64]) -> int:
    """A heap of all sessions, filled and emptied in plain Python: a yardstick of this machine's speed."""
    heap = [(-value, row) for row, value in enumerate(x.tolist())]
    heapq.heapify(heap)
    while heap:
        _, row = heapq.heappop(heap)
    return row


def pairs_of(spark: SparkSession, place: Path) -> dict[str, tuple[Work, Work]]:
    """What is compared with what."""
    # Learning what demand will be takes longer than all else at this size: it has a ratio of its own.
    sampling, spread = SamplingSettings(demand="recency"), PropagationSettings()
    ahead = SamplingSettings(demand="forecast")
    own = one_process.encode(one_process.read(place))
    built = one_process.build(own, sampling)
    scores = one_process.score(own.n_sessions)
    assert our_greedy(built, _PICKS) == plain_greedy(built, _PICKS)

    table = open_input(spark, str(place), columns=ColumnNames(order="ordering"))
    raw = settle(to_sessions(table))
    encoded = encode(raw, seed=0)
    graph = build_graph(encoded, sampling)
    share = F.col("sid") * one_process.SCORE_FACTOR % one_process.SCORE_MODULUS / one_process.SCORE_MODULUS
    x = settle(encoded.sessions.select("sid", share.alias("x")))
    twins = settle(first_twin(encoded.sessions))

    def spread_by(engine: Any) -> DataFrame:
        return propagate(graph, x, spread.alpha, spread.rounds, engine)

    def in_one_process() -> None:
        again = one_process.build(one_process.encode(one_process.read(place)), sampling)
        y = one_process.propagate(again, scores, spread)
        one_process.sample(again, own, y, int(_RATIO * own.items.size), sampling)

    return {
        "greedy: the compiled loop beside one that looks at all": (
            lambda: our_greedy(built, _PICKS),
            lambda: plain_greedy(built, _PICKS),
        ),
        "patterns: the compiled loop beside dictionaries": (
            lambda: one_process.build(own, sampling),
            lambda: plain_patterns(own, own.n_sessions),
        ),
        "one process beside a heap in Python": (in_one_process, lambda: best_first(scores)),
        "encoding on Spark beside one process": (lambda: encode(raw, seed=0), in_one_process),
        "graph on Spark beside one process": (lambda: build_graph(encoded, sampling), in_one_process),
        "demand foreseen on Spark beside one process": (
            lambda: build_graph(encoded, ahead),
            lambda: one_process.build(own, ahead),
        ),
        "propagation by GraphFrames beside one process": (lambda: spread_by("graphframes"), in_one_process),
        "propagation by arrays beside GraphFrames": (
            lambda: spread_by("arrays"),
            lambda: spread_by("graphframes"),
        ),
        "sampling on Spark beside one process": (
            lambda: _sampled(graph, encoded, x, twins, sampling),
            in_one_process,
        ),
    }


def _sampled(
    graph: SessionGraph, encoded: Encoded, x: DataFrame, twins: DataFrame, sampling: SamplingSettings
) -> int:
    selection = select_sessions(
        graph,
        x,
        twins,
        budget=int(_RATIO * encoded.n_interactions),
        cost="n",
        floors=None,
        cold=encoded.item_sessions <= 4,
        settings=sampling,
    )
    return selection.ranked.count()


def fallen_of(found: dict[str, float], expected: dict[str, float]) -> list[str]:
    """Ratios that are half of what they were, or less.

    >>> fallen_of({"a": 1.0, "b": 1.1}, {"a": 2.0, "b": 2.0})
    ['a']
    """
    return [name for name, value in found.items() if value <= FALLEN * expected[name]]


def unmatched(names: Iterable[str], expected: Iterable[str]) -> list[str]:
    """What is measured and not on record, or on record and not measured: no ratio may pass unseen.

    >>> unmatched(["a", "new"], ["a", "gone"])
    ['gone', 'new']
    """
    return sorted(set(names) ^ set(expected))


def main() -> int:
    """Measure, and compare with the record; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", action="store_true", help="write what is measured as what is expected")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    spark = get_spark("guard")
    expected = {} if asked.record else json.loads(RECORD.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder, measured_joins(spark):
        pairs = pairs_of(spark, inputs.generated(Path(folder), _SESSIONS))
        if not asked.record and (odd := unmatched(pairs, expected)):
            print(f"guard.json and the ratios differ: {', '.join(odd)}. Record anew.", file=sys.stderr)
            return 1
        found = medians(pairs)
        # What fell is looked at again, longer: other work on the machine may have come in between.
        again = {} if asked.record else {name: pairs[name] for name in fallen_of(found, expected)}
        found |= medians(again, turns=7)
    spark.stop()
    if asked.record:
        RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return 0
    fallen = fallen_of(found, expected)
    print("| ratio | now | recorded | |\n|---|---|---|---|")
    for name, value in found.items():
        print(f"| {name} | {value} | {expected[name]} | {'FALLEN' if name in fallen else ''} |")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
