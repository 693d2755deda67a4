"""`--since`: whole sessions whose last click is young enough, in every layout and kind of time."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib import PruneSettings
from prune_lib.errors import InputError
from prune_lib.pipeline import run_prune
from prune_lib.session import configured, in_utc
from prune_lib.sessions.columns import ColumnNames, InputTable
from prune_lib.sessions.reading import check_sessions, open_input, to_sessions
from prune_lib.sessions.recent import check_since, since

pytestmark = pytest.mark.spark

NOON = datetime(2026, 5, 10, 12, tzinfo=timezone.utc)
# The hours before noon of each session's clicks: b ends on the hour that is asked for, c began long before.
CLICKS = {"a": [80, 73], "b": [75, 72], "c": [200, 1], "d": [3, 2, 0]}


def clicks(spark: SparkSession) -> DataFrame:
    rows = [(s, k, NOON - timedelta(hours=h)) for s, hours in CLICKS.items() for k, h in enumerate(hours)]
    return spark.createDataFrame(rows, "session string, item bigint, ts timestamp")


LAYOUTS = {
    "events": lambda rows: rows,
    "events, times as text": lambda rows: rows.withColumn("ts", F.col("ts").cast("string")),
    "events, seconds": lambda rows: rows.withColumn("ts", F.col("ts").cast("double")),
    "events, local times": lambda rows: rows.withColumn("ts", F.col("ts").cast("timestamp_ntz")),
    "sessions": lambda rows: rows.groupBy("session").agg(
        F.sort_array(F.collect_list("ts")).alias("times"), F.collect_list("item").alias("items")
    ),
    "sessions, one time": lambda rows: rows.groupBy("session").agg(
        F.max("ts").alias("ts"), F.collect_list("item").alias("items")
    ),
}


def opened(spark: SparkSession, frame: DataFrame, place: Path) -> InputTable:
    frame.repartition(3).write.parquet(str(place))
    return open_input(spark, str(place))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sessions_are_left_out_or_whole(spark: SparkSession, tmp_path: Path, layout: str) -> None:
    table = opened(spark, LAYOUTS[layout](clicks(spark)), tmp_path / "in")
    check_since(table)
    # Three days before the newest click are 72 hours; the boundary is in.
    for text in ("3d", "72h", "2026-05-07T12:00:00", "2026-05-07 14:00+02:00"):
        left, begins = since(table, text)
        assert begins == NOON - timedelta(hours=72)
        rows = to_sessions(left)
        assert sorted(row["session_id"] for row in rows.collect()) == ["b", "c", "d"]
        stats = check_sessions(left, rows)
        assert (stats.n_sessions, stats.n_interactions) == (3, 7), "c has its old click, too"
        assert left.df.columns == table.df.columns
    assert since(table, "2026-05-07 12:00:01")[0].df.select("session").distinct().count() == 2


def test_rows_without_a_time_are_told_not_dropped(spark: SparkSession, tmp_path: Path) -> None:
    odd = spark.createDataFrame([("x", 1, None), ("x", 2, None)], clicks(spark).schema)
    table = opened(spark, clicks(spark).union(odd), tmp_path / "in")
    left, _ = since(table, "3d")
    with pytest.raises(InputError, match="2 rows have no time"):
        check_sessions(left, to_sessions(left))


def test_what_has_no_times_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    plain = clicks(spark).select("session", "item", F.monotonically_increasing_id().alias("at"))
    plain.write.parquet(str(tmp_path / "in"))
    ordered = open_input(spark, str(tmp_path / "in"), columns=ColumnNames(order="at"))
    with pytest.raises(InputError, match="has no column of times"):
        check_since(ordered)
    numbers = open_input(spark, str(tmp_path / "in"), columns=ColumnNames(time="at"))
    with pytest.raises(InputError, match="whose unit nobody knows"):
        check_since(numbers)
    late = opened(spark, clicks(spark), tmp_path / "late")
    with pytest.raises(InputError, match="newest click of .* is of 2026-05-10 12:00:00 UTC"):
        since(late, "2026-06-01")
    with pytest.raises(InputError, match="--since 999999d goes back to before the year 1"):
        since(late, "999999d")


def test_milliseconds_are_not_read_as_seconds(spark: SparkSession, tmp_path: Path) -> None:
    numbers = clicks(spark).withColumn("ts", F.col("ts").cast("double") * 1000)
    table = opened(spark, numbers, tmp_path / "in")
    with pytest.raises(InputError, match="No row of .* See that `ts` counts seconds since 1970"):
        since(table, "90d")
    said = "9 rows have no time, or one that cannot be read .`ts`.* see that `ts` counts seconds since 1970"
    with pytest.raises(InputError, match=said):
        check_sessions(table, to_sessions(table))
    cast = replace(table, df=numbers.withColumn("ts", F.col("ts").cast("timestamp")))
    with pytest.raises(InputError, match="is beyond the year 9999 .ts."):
        since(cast, "90d")


def test_a_run_prunes_the_window_and_says_so(spark: SparkSession, tmp_path: Path) -> None:
    rows = [
        (f"s{k:03d}", [k % 7, k % 5, (k + 1) % 7], [NOON - timedelta(hours=k, minutes=m) for m in (2, 1, 0)])
        for k in range(60)
    ]
    frame = spark.createDataFrame(rows, "session string, items array<bigint>, times array<timestamp>")
    frame.write.format("delta").save(str(tmp_path / "sessions"))
    settings = {"ratio": 0.3, "method": "random", "workspace": str(tmp_path)}
    plan = str(run_prune(PruneSettings(**settings, since="30h", dry_run=True), spark))
    assert "since 30h" in plan
    summary = run_prune(PruneSettings(**settings, since="30h"), spark)
    assert summary.run["sessions_before"] == 31 and summary.run["since"] == NOON - timedelta(hours=30)
    assert "sessions since 2026-05-09 06:00:00 UTC" in str(summary)
    decided = spark.read.format("delta").load(str(tmp_path / "pruned_decisions"))
    assert decided.agg(F.max("session_id")).first()[0] == "s030" and decided.count() == 31
    stored = spark.read.format("delta").load(str(tmp_path / "pruned_runs")).select(F.unix_seconds("since"))
    assert stored.first()[0] == int((NOON - timedelta(hours=30)).timestamp())


def test_a_sessions_own_zone_changes_nothing(spark: SparkSession, tmp_path: Path) -> None:
    """A notebook's session is taken as it is; its zone would move every time that has none of its own."""
    as_text, local = (LAYOUTS[f"events, {name}"](clicks(spark)) for name in ("times as text", "local times"))
    as_text.write.format("delta").save(str(tmp_path / "sessions"))
    moment = "2026-05-07T12:00:00"
    settings = {"ratio": 0.9, "method": "random", "workspace": str(tmp_path), "since": moment}
    with configured(spark, {"spark.sql.session.timeZone": "Asia/Tokyo"}):
        run = run_prune(PruneSettings(**settings), spark).run
        assert spark.conf.get("spark.sql.session.timeZone") == "Asia/Tokyo"
        # What a run does with its input, and what it does it within.
        with in_utc(spark):
            left, _ = since(opened(spark, local, tmp_path / "local"), moment)
            stats = check_sessions(left, to_sessions(left))
    assert (run["sessions_before"], run["interactions_before"]) == (3, 7)
    assert (stats.n_sessions, stats.n_interactions) == (3, 7)
