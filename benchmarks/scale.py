"""What the graph's stages cost on Spark: seconds, work, shuffled bytes and peak memory of each.

    .venv/bin/spark-submit benchmarks/scale.py --sessions 1000000
    .venv/bin/spark-submit benchmarks/scale.py --sessions 1000000 --hub 0.3 --passes 2

From a Parquet file of sessions to a Delta table of the kept ones, without experts: difficulty is a few
digits of the session's number, as in `one_process.py`. `--hub` puts one item into a share of all sessions,
in the place of one of their clicks, so that the number of clicks stays. `--suspects` sets suspects aside
first, as a run of the job does. The first pass of a session pays for what Spark compiles; with more passes
the last is told, too. Memory is the largest sum over this
process, Spark's and the workers', shared pages counted once. *Busy* is what all tasks took together, in
seconds of a core; *alone* what tasks took that had no other beside them in their stage, which more cores
cannot make shorter. Prints a Markdown table, and with `--json` an object.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import inputs  # noqa: E402
from benchmarks.meter import Meter  # noqa: E402
from benchmarks.one_process import SCORE_FACTOR, SCORE_MODULUS  # noqa: E402
from prune_lib.graph import build_graph  # noqa: E402
from prune_lib.propagation import propagate  # noqa: E402
from prune_lib.sampling.floors import item_floors  # noqa: E402
from prune_lib.sampling.select import first_twin, select_sessions  # noqa: E402
from prune_lib.session import get_spark, measured_joins  # noqa: E402
from prune_lib.sessions.columns import ColumnNames  # noqa: E402
from prune_lib.sessions.encoding import encode  # noqa: E402
from prune_lib.sessions.reading import open_input, to_sessions  # noqa: E402
from prune_lib.settings import PropagationSettings, SamplingSettings, SuspectsSettings  # noqa: E402
from prune_lib.settle import settle  # noqa: E402
from prune_lib.stage_meter import StageMeter  # noqa: E402
from prune_lib.suspects import find_suspects, session_shapes  # noqa: E402

MB = 1e6
#: The stages that the one-process version has, too.
STAGES = ("read", "encode", "build", "propagate", "sample", "write")


def warmed(spark: SparkSession) -> None:
    """Start the Python workers, with what the stages import."""

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import prune_lib.sampling.task  # noqa: F401

        yield from batches

    cores = spark.sparkContext.defaultParallelism
    spark.range(0, 1000, 1, cores).mapInArrow(run, "id bigint").write.format("noop").mode("overwrite").save()


def one_pass(spark: SparkSession, place: str, asked: argparse.Namespace, target: str) -> dict[str, Any]:
    """Seconds, work, peak and shuffled bytes by stage, and the sizes."""
    meter, of_spark = Meter(), StageMeter(spark)
    did: dict[str, Mapping[str, int]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        with meter.stage(name):
            yield
        did[name] = of_spark.sums(_of_stage) or {}

    sampling = SamplingSettings(demand=asked.demand, sampler=asked.sampler, task_edges=asked.task_edges)
    spread = PropagationSettings(engine=asked.engine)
    with stage("read"):
        table = open_input(spark, place, columns=ColumnNames(order=asked.order_column))
        raw = settle(to_sessions(table))
    with stage("encode"):
        encoded = encode(raw, seed=0)
    with stage("build"):
        graph = build_graph(encoded, sampling)
    with stage("propagate"):
        score = F.col("sid") * SCORE_FACTOR % SCORE_MODULUS / F.lit(SCORE_MODULUS)
        x = settle(encoded.sessions.select("sid", score.alias("x")))
        x = propagate(graph, x, spread.alpha, spread.rounds, spread.engine)
    with stage("sample"):
        suspects = None
        if asked.suspects:
            q = x.withColumnRenamed("x", "q")
            suspects = find_suspects(graph, session_shapes(encoded), q, SuspectsSettings()).rows
        selection = select_sessions(
            graph,
            x,
            settle(first_twin(encoded.sessions)),
            budget=int(asked.ratio * encoded.n_interactions),
            cost="n",
            floors=item_floors(encoded, asked.floor) if asked.floor else None,
            cold=encoded.item_sessions <= 4,
            settings=sampling,
            suspects=suspects,
        )
        kept = selection.ranked.count()
    with stage("write"):
        _kept_rows(table.df, table.session_column, encoded.sessions, selection.ranked).write.format(
            "delta"
        ).mode("overwrite").save(target)
    meter.stop()
    return {
        "stages": meter.seconds,
        "peak GiB": meter.peak,
        "scratch GB": meter.scratch,
        "busy": {name: round(sums.get("busy", 0) / 1e3, 1) for name, sums in did.items()},
        "alone": {name: round(sums.get("alone", 0) / 1e3, 1) for name, sums in did.items()},
        "shuffled MB": {name: round(sums.get("shuffled", 0) / MB, 1) for name, sums in did.items()},
        "spilled MB": {name: round(sums.get("spilled", 0) / MB, 1) for name, sums in did.items()},
        "sessions": encoded.n_sessions,
        "interactions": encoded.n_interactions,
        "demand": graph.demand,
        "edges": graph.n_edges,
        "patterns": graph.n_patterns,
        "kept": kept,
        "rounds": len(selection.records),
        "touched": round(sum(r.edges for r in selection.records) / max(graph.n_edges, 1), 2),
        "objective": selection.objective.value(),
        "seconds": round(sum(meter.seconds.values()), 2),
    }


def _of_stage(stage: Any) -> dict[str, int]:
    """Of a stage of Spark: milliseconds of its tasks, all and where there is one, and bytes."""
    busy = stage.executorRunTime()
    return {
        "busy": busy,
        "alone": busy if stage.numTasks() == 1 else 0,
        "shuffled": stage.shuffleWriteBytes(),
        "spilled": stage.diskBytesSpilled(),
    }


def commit_seconds(spark: SparkSession, target: str) -> float:
    """What a Delta table of one row takes to be written once more: the commit, its snapshot, one small file.

    The median of three, once Spark has compiled it.
    """
    times = []
    for _ in range(3):
        started = time.monotonic()
        spark.range(0, 1, 1, 1).write.format("delta").mode("overwrite").save(target)
        times.append(time.monotonic() - started)
    return round(statistics.median(times), 2)


def _kept_rows(df: DataFrame, session_column: str, sessions: DataFrame, ranked: DataFrame) -> DataFrame:
    """The kept rows of the input with their rank."""
    ids = sessions.join(ranked.select("sid", "rank"), "sid").select(
        F.col("session_id").alias(session_column), F.col("rank").alias("prune_rank")
    )
    return df.join(ids, session_column)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sessions", type=int, default=1_000_000, help="sessions to generate")
    parser.add_argument("--input", help="a table instead of generated sessions")
    parser.add_argument("--order-column", default="ordering", help="ranks sessions; '' where times do")
    parser.add_argument("--hub", type=float, default=0.0, help="share of sessions that get one more item")
    parser.add_argument("--ratio", type=float, default=0.1, help="share of the clicks to keep")
    parser.add_argument("--floor", type=int, default=0, help="sessions of every item")
    parser.add_argument("--suspects", action="store_true", help="set suspects aside")
    parser.add_argument("--demand", default=SamplingSettings().demand, choices=["forecast", "recency"])
    parser.add_argument("--sampler", default="auto", choices=["auto", "exact", "rounds"])
    parser.add_argument("--engine", default="graphframes", choices=["auto", "graphframes", "arrays"])
    parser.add_argument(
        "--task-edges", type=int, default=SamplingSettings().task_edges, help="edges of a round"
    )
    parser.add_argument("--passes", type=int, default=1, help="times that all of it is done, in one session")
    parser.add_argument("--master", help="Spark's master, for runs without spark-submit")
    parser.add_argument("--folder", help="where generated sessions are kept; default: a folder of the moment")
    parser.add_argument("--json", action="store_true", help="print an object instead of a table")
    asked = parser.parse_args()
    asked.order_column = asked.order_column or None
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    with tempfile.TemporaryDirectory() as scratch:
        place = asked.input or str(
            inputs.generated(Path(asked.folder or scratch), asked.sessions, hub=asked.hub)
        )
        started = time.monotonic()
        spark = get_spark("scale", master=asked.master)
        spark.range(1).count()
        found: dict[str, Any] = {"start": round(time.monotonic() - started, 2)}
        started = time.monotonic()
        warmed(spark)
        found["workers"] = round(time.monotonic() - started, 2)
        found["cores"] = spark.sparkContext.defaultParallelism
        with measured_joins(spark):
            passes = [one_pass(spark, place, asked, f"{scratch}/kept-{n}") for n in range(asked.passes)]
        found["commit"] = commit_seconds(spark, f"{scratch}/one-row")
        spark.stop()
    found["passes"] = passes
    print(json.dumps(found) if asked.json else _table(found), flush=True)


def _table(found: dict[str, Any]) -> str:
    first, last = found["passes"][0], found["passes"][-1]
    sizes = ("sessions", "interactions", "edges", "patterns", "kept", "rounds", "touched")
    lines = [
        f"Spark's start {found['start']} s, Python workers {found['workers']} s, a Delta commit "
        f"{found['commit']} s, {found['cores']} cores; "
        + ", ".join(f"{name} {first[name]:,}" for name in sizes),
        "",
        "| stage | s, first pass | s, last pass | busy, core s | alone, s | shuffled MB | spilled MB | "
        "peak GiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {first['stages'][name]} | {last['stages'][name]} | {first['busy'][name]} | "
        f"{first['alone'][name]} | {first['shuffled MB'][name]} | {first['spilled MB'][name]} | "
        f"{first['peak GiB'].get(name, '')} |"
        for name in STAGES
    ]
    return "\n".join([*lines, f"| all | {first['seconds']} | {last['seconds']} | | | | | |"])


if __name__ == "__main__":
    main()
