"""Ingest against a bare Spark read, group, sort and write of the same rows, in turn, on one machine.

    .venv/bin/spark-submit --driver-memory 6g benchmarks/ingest.py --clicks 10000000

Generates clicks (session_id STRING, item_id BIGINT, ts TIMESTAMP; five in a session on average, items by a
power law; in eight Parquet files, rows by time) and prints seconds and the ratio, a row a layout:

- sessions: a column of sessions, every row clean;
- dirty: the same with a bad row, a double and a bot in a hundred, a hundred and ten thousand rows;
- users: no session; users are cut by inactivity. The bare form does not cut, so its ratio says how much
  cutting costs beside all else;
- bot: six clicks of ten are one session's, which goes to quarantine. The bare form would hold it in memory
  and is not run: what counts is that it comes in with little memory (--driver-memory 1g --layouts bot).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.ingest.job import run_ingest  # noqa: E402
from prune_lib.session import get_spark  # noqa: E402
from prune_lib.settings.ingest import IngestSettings  # noqa: E402

_LENGTH = 5  # clicks of a session, mean
_ITEMS = 100_000
_LAYOUTS = ("sessions", "dirty", "users", "bot")


def generated(spark: SparkSession, clicks: int) -> DataFrame:
    """Clicks of two weeks, by time; a session's lie half a minute apart."""
    session = (F.rand(1) * (clicks // _LENGTH)).cast("bigint")
    frame = spark.range(clicks).withColumn("session", session)
    start = F.pmod(F.xxhash64("session"), F.lit(14 * 86400))
    return frame.select(
        F.concat(F.lit("s"), F.format_string("%09d", "session")).alias("session_id"),
        F.floor(F.lit(_ITEMS) * F.pow(F.rand(2), 3)).alias("item_id"),
        F.timestamp_micros((1_700_000_000 + start) * 1_000_000 + (F.rand(3) * 300e6).cast("bigint")).alias(
            "ts"
        ),
    ).orderBy("ts")


def dirty(frame: DataFrame) -> DataFrame:
    """The same with rows that break rules."""
    n = F.pmod(F.xxhash64("session_id", "item_id", "ts"), F.lit(10_000))
    item = F.when(n < 100, F.lit(None)).otherwise(F.col("item_id"))
    bot = F.when(n == 100, F.lit("bot")).otherwise(F.col("session_id"))
    bad = frame.withColumn("session_id", bot).withColumn("item_id", item)
    return bad.union(bad.where((n > 100) & (n <= 200)))


def with_bot(frame: DataFrame) -> DataFrame:
    """The same, six clicks of ten of one session."""
    n = F.pmod(F.xxhash64("session_id", "item_id", "ts"), F.lit(10))
    return frame.withColumn("session_id", F.when(n < 6, F.lit("bot")).otherwise(F.col("session_id")))


def bare(spark: SparkSession, place: str, output: str, owner: str) -> None:
    """What the ratio is taken of."""
    click = F.struct("ts", F.col("item_id").cast("string").alias("item"))
    grouped = spark.read.parquet(place).groupBy(owner).agg(F.sort_array(F.collect_list(click)).alias("c"))
    out = grouped.select(owner, F.col("c.item").alias("items"), F.col("c.ts").alias("times"))
    out.write.format("delta").mode("overwrite").save(output)


def main() -> None:
    """Generate, time, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clicks", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=2, help="of each, in turn; the median counts")
    parser.add_argument("--layouts", default="sessions,dirty,users", help=", ".join(_LAYOUTS))
    asked = parser.parse_args()
    logging.getLogger("prune_lib").setLevel(logging.WARNING)
    spark = get_spark("ingest")
    with tempfile.TemporaryDirectory() as scratch:
        # MLflow makes its store once in a workspace, which takes as long as a million clicks.
        small = f"{scratch}/small"
        generated(spark, 1000).write.parquet(small)
        run_ingest(IngestSettings(input=small, output=f"{scratch}/out-small", workspace=scratch), spark)
        clean = f"{scratch}/sessions"
        generated(spark, asked.clicks).repartitionByRange(8, "ts").write.parquet(clean)
        places = {name: f"{scratch}/{name}" for name in _LAYOUTS}
        layouts = asked.layouts.split(",")
        read = spark.read.parquet(clean)
        if "dirty" in layouts:
            dirty(read).write.parquet(places["dirty"])
        if "users" in layouts:
            user = F.concat(F.lit("u"), F.pmod(F.xxhash64("session_id"), F.lit(asked.clicks // 30)))
            read.select(user.alias("user_id"), "item_id", "ts").write.parquet(places["users"])
        if "bot" in layouts:
            with_bot(read).write.parquet(places["bot"])
        print(f"{asked.clicks:,} clicks, {spark.sparkContext.master}\n")
        print("| layout | bare, s | ingest, s | ratio | stages |\n|---|---|---|---|---|", flush=True)
        for layout in layouts:
            place, owner = places[layout], "user_id" if layout == "users" else "session_id"
            seconds: dict[str, list[float]] = {"bare": [], "ingest": []}
            for _ in range(asked.repeats):
                began = time.perf_counter()
                if layout != "bot":
                    bare(spark, place, f"{scratch}/bare-{layout}", owner)
                seconds["bare"].append(time.perf_counter() - began)
                began = time.perf_counter()
                output, most = f"{scratch}/out-{layout}", 0.9 if layout == "bot" else 0.05
                settings = IngestSettings(input=place, output=output, workspace=scratch, max_bad=most)
                done = run_ingest(settings, spark)
                seconds["ingest"].append(time.perf_counter() - began)
            said = next(line for line in done.text.splitlines() if line.strip().startswith("seconds"))
            base, ours = median(seconds["bare"]), median(seconds["ingest"])
            stages = said.strip().removeprefix("seconds").strip()
            beside, ratio = ("", "") if layout == "bot" else (f"{base:.1f}", f"{ours / base:.2f}")
            print(f"| {layout} | {beside} | {ours:.1f} | {ratio} | {stages} |", flush=True)


if __name__ == "__main__":
    main()
