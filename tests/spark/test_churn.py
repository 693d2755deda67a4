"""What is said of the sessions that the run before kept, against a count by hand."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType

from prune_lib import PruneSettings
from prune_lib.churn import Churn, churn_of, counted
from prune_lib.pipeline import run_prune
from tests.spark.sessions import copied, random_sessions

pytestmark = pytest.mark.spark

FORMER = "id bigint, kept boolean"
NOW = "id bigint, kept boolean, reason string"
ROWS = {f"s{k:03d}": items for k, items in enumerate(random_sessions(41, n=120, items=40))}


def test_every_way_is_counted(spark: SparkSession) -> None:
    former = spark.createDataFrame(
        [(1, True), (2, True), (3, True), (4, True), (5, False), (6, False)], FORMER
    )
    now = spark.createDataFrame(
        [(1, True, "NEW_PATTERN"), (2, False, "COVERED"), (3, False, "BUDGET"), (5, True, "COLD_ITEM"),
         (6, False, "COVERED"), (7, True, "COLD_ITEM"), (8, False, "NOISE")],
        NOW,
    )  # fmt: skip
    found = counted("r1", former, now, ["id"])
    assert found == Churn("r1", 4, 1, 3, {"BUDGET": 1, "COVERED": 1, "GONE": 1}, 2, 1)


def sessions(spark: SparkSession, rows: dict[str, list[int]]) -> DataFrame:
    return spark.createDataFrame(list(rows.items()), "session_id string, items array<bigint>")


def prune(spark: SparkSession, folder: Path, rows: dict[str, list[int]]) -> dict[str, Any]:
    sessions(spark, rows).write.format("delta").save(str(folder / "sessions"))
    settings = {"ratio": 0.3, "method": "random", "workspace": str(folder)}
    return dict(run_prune(PruneSettings(**settings), spark).run)


@pytest.fixture(scope="module")
def first_night(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Where a run has left its tables, which no test changes, and its record."""
    folder = tmp_path_factory.mktemp("night")
    return folder, prune(spark, folder, ROWS)


def decisions(spark: SparkSession, folder: Path) -> dict[Any, tuple[bool, str]]:
    rows = spark.read.format("delta").load(str(folder / "pruned_decisions")).collect()
    return {row["session_id"]: (row["kept"], row["reason"]) for row in rows}


def by_hand(
    run: str, before: dict[Any, tuple[bool, str]], after: dict[Any, tuple[bool, str]]
) -> tuple[str, int, int, int, dict[str, int], int, int]:
    kept, now = ({key for key, (is_kept, _) in rows.items() if is_kept} for rows in (before, after))
    because = Counter(after[key][1] if key in after else "GONE" for key in kept - now)
    assert because["GONE"] > 0
    left = dict(sorted(because.items()))
    new = sum(key not in before for key in now)
    return run, len(kept), len(kept & now), len(kept - now), left, len(now - kept), new


def test_a_night_after_another_says_what_changed(
    spark: SparkSession, tmp_path: Path, first_night: tuple[Path, dict[str, Any]]
) -> None:
    folder, first = first_night
    assert first["churn"] is None, "a first run has nothing to compare with"
    copied(folder / "pruned", tmp_path / "pruned")
    # Ten sessions have gone, others have come.
    tonight = dict(list(ROWS.items())[10:]) | {f"t{k}": [1, 2, k] for k in range(20)}
    second = prune(spark, tmp_path, tonight)
    before, after = decisions(spark, folder), decisions(spark, tmp_path)
    assert second["churn"] == by_hand(first["run_id"], before, after)
    runs = spark.read.format("delta").load(f"{tmp_path}/pruned_runs").collect()
    told = {row["run_id"]: row["churn"] for row in runs}
    assert told[first["run_id"]] is None
    assert told[second["run_id"]]["left_because"] == second["churn"][4]


def test_what_cannot_be_compared_with_is_left_out(
    spark: SparkSession,
    tmp_path: Path,
    first_night: tuple[Path, dict[str, Any]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = spark.createDataFrame([("1", True, "COVERED")], "session_id string, kept boolean, reason string")
    output = str(tmp_path / "pruned")
    assert churn_of(spark, output, now, StringType()) is None, "there was no run"
    copied(first_night[0] / "pruned", tmp_path / "pruned")
    caplog.set_level(logging.INFO, "prune_lib")
    assert churn_of(spark, output, now, StringType()) is not None and not caplog.text
    for other, ids in ((now, LongType()), (now.withColumn("length", F.lit(2)), StringType())):
        assert churn_of(spark, output, other, ids) is None
        assert "decided on other units or other ids" in caplog.text
        caplog.clear()
    for file in (tmp_path / "pruned_decisions").glob("*.parquet"):
        file.unlink()
    assert churn_of(spark, output, now, StringType()) is None
    assert "not compared with the run before" in caplog.text
