"""What is refused of a run before it costs anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from prune_lib import PruneSettings
from prune_lib.errors import InputError, SettingsError
from prune_lib.pipeline import run_prune
from prune_lib.preflight import check_floor
from tests.spark.sessions import encoded


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_newest_of_an_input_without_an_order_are_refused_before_it_is_read(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    monkeypatch.setattr("prune_lib.pipeline.settled_sessions", lambda *_: pytest.fail("the input was read"))
    rows = spark.createDataFrame(
        [("a", [1, 2], 3), ("b", [2, 1], 4)], "session_id string, items array<int>, day int"
    )
    rows.write.parquet(str(tmp_path / "sessions"))
    values = {
        "ratio": 0.5,
        "method": "recent",
        "workspace": str(tmp_path),
        "input": str(tmp_path / "sessions"),
    }
    with pytest.raises(InputError, match="--method recent needs to know which sessions are new"):
        run_prune(PruneSettings(**values, dry_run=dry_run), spark)
    if dry_run:
        assert "method recent" in str(
            run_prune(PruneSettings(**values, order_column="day", dry_run=True), spark)
        )


def test_a_budget_that_no_session_fits_is_refused_before_anything_is_trained(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prune_lib.pipeline.encode", lambda *_: pytest.fail("it went on"))
    rows = [(f"s{k}", [k % 7, k % 5, 9, k % 3], k) for k in range(100)]
    rows.append(("short", [1, 2, 3], 100))
    table = spark.createDataFrame(rows, "session_id string, items array<int>, day int")
    table.write.parquet(str(tmp_path / "sessions"))
    settings = PruneSettings(ratio=0.005, workspace=str(tmp_path), order_column="day")
    with pytest.raises(SettingsError, match="the budget is 2 interactions, and the shortest session has 3"):
        run_prune(settings, spark)


def test_the_least_that_a_floor_costs_in_sessions(spark: SparkSession) -> None:
    """Twelve items in two sessions each, and two items in a session."""
    made, _ = encoded(spark, [[2 * k, 2 * k + 1, 2 * k] for k in range(6)] * 2)
    values = PruneSettings(ratio=0.5, budget="sessions", floor=2)
    check_floor(values, made, 12)
    with pytest.raises(
        SettingsError, match=r"at least 12 sessions, and the budget is 11. Raise --ratio to 1 or"
    ):
        check_floor(values, made, 11)
    check_floor(PruneSettings(ratio=0.5, floor=2), made, 24)
    with pytest.raises(
        SettingsError, match=r"at least 24 interactions, and the budget is 23. Raise --ratio to 0.667"
    ):
        check_floor(PruneSettings(ratio=0.5, floor=2), made, 23)
    check_floor(PruneSettings(ratio=0.5, floor=10**20), made, 1)  # no item has so many: it asks for nothing
