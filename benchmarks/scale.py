"""What the graph's stages cost as the data grow: seconds and peak memory, on generated sessions.

    .venv/bin/spark-submit benchmarks/scale.py --sessions 1000000
    .venv/bin/spark-submit benchmarks/scale.py --sessions 1000000 --hub 0.3

Build, propagation and sampling of a tenth, without experts: difficulty is a hash, the same for both
samplers. `--hub` puts one item into a share of all sessions, in the place of one of their clicks, so that
the number of clicks stays. Memory is the largest sum over this process, Spark's and the workers', shared
pages counted once. One row of a Markdown table for each run.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.graph import build_graph  # noqa: E402
from prune_lib.propagation import propagate  # noqa: E402
from prune_lib.sampling.floors import item_floors  # noqa: E402
from prune_lib.sampling.select import first_twin, select_sessions  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.demo import demo_sessions  # noqa: E402
from prune_lib.sessions.encoding import encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settings import SamplingSettings, SuspectsSettings  # noqa: E402
from prune_lib.settle import settle  # noqa: E402
from prune_lib.suspects import find_suspects, session_shapes  # noqa: E402

GIB = 2.0**30


class Meter:
    """Seconds by stage, and the largest memory of this job's processes, looked at five times a second."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        # Under spark-submit the JVM is this process's parent; else it is a child.
        parent = psutil.Process(os.getppid())
        root = parent if "java" in parent.name() else psutil.Process()
        while not self._done.wait(0.2):
            total = 0
            for process in [root, *root.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:  # it has ended
                    continue
            self.peak = max(self.peak, total)

    def stop(self) -> None:
        """No more looking."""
        self._done.set()
        self._thread.join()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)
        print(f"  {name}: {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)


def with_hub(sessions: DataFrame, share: float) -> DataFrame:
    """Sessions of which a share has item -1 in the place of one click."""
    place = F.pmod(F.xxhash64(F.lit("place"), "session_id"), F.size("items"))
    hit = F.pmod(F.xxhash64(F.lit("hub"), "session_id"), F.lit(10**6)) < int(share * 10**6)
    put = F.transform("items", lambda item, i: F.when(i == place, F.lit(-1).cast("bigint")).otherwise(item))
    return sessions.withColumn("items", F.when(hit, put).otherwise(F.col("items")))


def main() -> None:
    """Measure, and print one row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sessions", type=int, default=1_000_000, help="sessions to generate")
    parser.add_argument("--input", help="a table instead of generated sessions")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("--hub", type=float, default=0.0, help="share of sessions that get one more item")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of the clicks to keep")
    parser.add_argument("--sampler", default="auto", choices=["auto", "exact", "rounds"])
    parser.add_argument("--engine", default="graphframes", choices=["graphframes", "arrays"])
    parser.add_argument(
        "--task-edges", type=int, default=SamplingSettings().task_edges, help="edges of a round"
    )
    parser.add_argument("--json", help="file to which the row is appended, as a JSON line")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    logging.getLogger("prune_lib").setLevel(logging.INFO)
    spark = get_spark("scale")
    with measured_joins(spark):
        _measure(spark, asked)
    spark.stop()


def _measure(spark: SparkSession, asked: argparse.Namespace) -> None:
    meter = Meter()
    with meter.stage("encode"):
        if asked.input:
            raw = to_sessions(open_input(spark, asked.input, columns=ColumnNames(order=asked.order_column)))
        else:
            raw = demo_sessions(spark, asked.sessions).select(
                "session_id", "items", F.element_at("times", 1).alias("ordering")
            )
        encoded = encode(settle(with_hub(raw, asked.hub) if asked.hub else raw), seed=0)
    with meter.stage("build"):
        graph = build_graph(encoded, SamplingSettings())
    x = settle(encoded.sessions.select("sid", (F.pmod(F.xxhash64("sid"), F.lit(1000)) / 1000.0).alias("x")))
    with meter.stage("propagate"):
        x = propagate(graph, x, 0.3, 1, asked.engine)
    with meter.stage("sample"):
        q = x.withColumnRenamed("x", "q")
        suspects = find_suspects(graph, session_shapes(encoded), q, SuspectsSettings()).rows
        selection = select_sessions(
            graph,
            x,
            settle(first_twin(encoded.sessions)),
            budget=int(asked.ratio * encoded.n_interactions),
            cost="n",
            floors=item_floors(encoded, 1),
            cold=encoded.item_sessions <= 4,
            settings=SamplingSettings(sampler=asked.sampler, task_edges=asked.task_edges),
            suspects=suspects,
        )
        kept = selection.ranked.count()
    meter.stop()
    row = {
        "sessions": encoded.n_sessions,
        "interactions": encoded.n_interactions,
        "edges": graph.n_edges,
        "patterns": graph.n_patterns,
        "hub": asked.hub,
        "kept": kept,
        "rounds": len(selection.records),
        "touched": round(sum(r.edges for r in selection.records) / graph.n_edges, 2),
        "objective": selection.objective.value(),
        **meter.seconds,
        "all": round(sum(meter.seconds[s] for s in ("build", "propagate", "sample")), 1),
        "peak GiB": round(meter.peak / GIB, 1),
    }
    print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
    print("| " + " | ".join(f"{v:,}" if isinstance(v, int) else f"{v}" for v in row.values()) + " |")
    if asked.json:
        with open(asked.json, "a", encoding="utf-8") as out:
            out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
