"""Rounds against sequential greedy in one task, and what both cost: one row a ratio and sampler.

    .venv/bin/spark-submit benchmarks/objective.py --input ../shared/data/yoochoose100k/events.parquet

No experts: keys are gain per click. A round's task holds an eighth of the edges. The objective is a share of
what one task reaches (which the tests hold to a plain oracle); edges are those that a sampler looked at, as a
multiple of all; `same` says whether the ranks are those of one task, session by session.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pyspark.sql import functions as F  # noqa: E402

from prune_lib.graph import build_graph  # noqa: E402
from prune_lib.sampling.select import Selection, first_twin, select_sessions  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.demo import demo_sessions  # noqa: E402
from prune_lib.sessions.encoding import Encoded, encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settings import SamplingSettings  # noqa: E402
from prune_lib.settle import settle  # noqa: E402

_SAMPLERS: tuple[Literal["exact", "rounds"], ...] = ("exact", "rounds")


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--input", help="sessions or events, Delta or Parquet; default: the demo data")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("--ratios", default="0.05,0.1,0.3,0.5", help="shares of the clicks")
    asked = parser.parse_args()
    logging.getLogger("prune_lib").setLevel(logging.WARNING)
    spark = get_spark("objective")
    if asked.input:
        raw = to_sessions(open_input(spark, asked.input, columns=ColumnNames(order=asked.order_column)))
    else:
        raw = demo_sessions(spark).select("session_id", "items", F.element_at("times", 1).alias("ordering"))
    with measured_joins(spark):
        measure(encode(settle(raw), seed=0), [float(ratio) for ratio in asked.ratios.split(",")])
    spark.stop()


def measure(encoded: Encoded, ratios: Sequence[float]) -> None:
    """Print a row for each ratio and sampler; the medians of three timings, in turn."""
    started = time.monotonic()
    graph = build_graph(encoded, SamplingSettings())
    built = time.monotonic() - started
    twins = settle(first_twin(encoded.sessions))
    x = settle(encoded.sessions.selectExpr("sid", "0.5D AS x"))
    cold = encoded.item_sessions < 0
    print(
        f"{encoded.n_sessions:,} sessions, {encoded.n_interactions:,} clicks, {graph.n_edges:,} edges; "
        f"graph {built:.1f} s\n\n"
        "| kept | sampler | sessions | objective | same | rounds | edges | seconds |\n"
        "|---|---|---|---|---|---|---|---|"
    )

    def selected(ratio: float, sampler: Literal["exact", "rounds"]) -> tuple[Selection, float]:
        started = time.monotonic()
        selection = select_sessions(
            graph,
            x,
            twins,
            budget=int(ratio * encoded.n_interactions),
            cost="n",
            floors=None,
            cold=cold,
            settings=SamplingSettings(sampler=sampler, task_edges=max(graph.n_edges // 8, 1)),
        )
        return selection, time.monotonic() - started

    for sampler in _SAMPLERS:  # compiled, and Spark's workers started
        selected(ratios[0], sampler)
    for ratio in ratios:
        best, wanted = 0.0, None
        turns = [{sampler: selected(ratio, sampler) for sampler in _SAMPLERS} for _ in range(3)]
        for sampler in _SAMPLERS:
            selection = turns[0][sampler][0]
            seconds = statistics.median(turn[sampler][1] for turn in turns)
            value = selection.objective.value()
            best = best or value
            ranks = selection.ranked.agg(F.bit_xor(F.xxhash64("sid", "rank"))).first()
            wanted = wanted or ranks
            edges = sum(record.edges for record in selection.records) / graph.n_edges
            print(
                f"| {100 * ratio:g} % | {sampler} | {selection.ranked.count():,} | {value / best:.4f} | "
                f"{'yes' if ranks == wanted else 'NO'} | "
                f"{len(selection.records)} | {edges:.1f} | {seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
