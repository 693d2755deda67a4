"""The views beside the tables: what they say, and that they end no run; of samples, see test_samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from prune_lib import PruneSettings, create_views, views
from prune_lib.errors import InputError
from prune_lib.locations import VIEWS, View
from prune_lib.pipeline import run_prune
from prune_lib.schemas import REASONS
from prune_lib.views import VIEW_COLUMNS, VIEW_COMMENTS, view_names, view_trouble
from tests.spark.sessions import random_sessions

pytestmark = pytest.mark.usefixtures("compiled")

SESSIONS = random_sessions(61, n=120, items=40)


@pytest.fixture(scope="module")
def events(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Events with an item column of a hostile name, whose clicks repeat items; settings of runs on them."""
    folder = tmp_path_factory.mktemp("views")
    rows = [(k, i, 100 * k + t) for k, items in enumerate(SESSIONS) for t, i in enumerate(items)]
    frame = spark.createDataFrame(rows, "session_id bigint, `it``em's` bigint, time bigint")
    frame.write.format("delta").save(str(folder / "events"))
    spark.sql("CREATE SCHEMA watched")
    yield {
        "ratio": 0.3,
        "method": "random",
        "input": str(folder / "events"),
        "item_column": "it`em's",
        "workspace": str(folder),
    }
    spark.sql("DROP SCHEMA watched CASCADE")


@pytest.fixture(scope="module")
def kept(spark: SparkSession, events: dict[str, Any]) -> str:
    """A table of a catalog that a run has written, whose name needs backquotes."""
    summary = run_prune(PruneSettings(**events, output="watched.`my_kept`"), spark)
    assert not summary.run["warnings"] and "  warning" not in str(summary)
    return "watched.`my_kept`"


def rows_of(spark: SparkSession, name: str, key: str) -> pd.DataFrame:
    return spark.table(name).toPandas().set_index(key).sort_index()


def in_catalog(spark: SparkSession, output: str) -> list[bool]:
    return [spark.catalog.tableExists(name) for name in view_names(output).values()]


def test_a_run_in_a_catalog_leaves_views_of_events(spark: SparkSession, kept: str) -> None:
    pruned = spark.table(kept).toPandas().rename(columns={"it`em's": "item"})
    items = rows_of(spark, "watched.`my_kept_item_coverage`", "item")
    own = rows_of(spark, "watched.`my_kept_items`", "item")
    assert list(items.index) == list(own.index)
    for column in (
        "band",
        "sessions_before",
        "sessions_after",
        "interactions_before",
        "share_kept",
        "run_id",
    ):
        pd.testing.assert_series_equal(items[column], own[column])
    once = pruned.drop_duplicates(["session_id", "item"])
    assert len(once) < len(pruned), "clicks repeat items, and a session counts once"
    weighted = once.groupby("item")["prune_weight"].sum().reindex(items.index, fill_value=0.0)
    pd.testing.assert_series_equal(items["weighted_sessions"], weighted, check_names=False, atol=1e-5)
    first = once.groupby("item")["prune_rank"].min().reindex(items.index)
    assert first.isna().any(), "some items are lost"
    pd.testing.assert_series_equal(items["first_rank"], first, check_names=False, check_dtype=False)
    by_rank = pruned.drop_duplicates("session_id").set_index("prune_rank")["session_id"]
    there = items[items["first_rank"].notna()]
    assert list(there["first_kept_session"]) == list(by_rank.loc[there["first_rank"]])


def test_the_summary_counts_what_the_decisions_say(spark: SparkSession, kept: str) -> None:
    decisions = spark.table("watched.`my_kept_decisions`").toPandas()
    found = rows_of(spark, "watched.`my_kept_summary`", "reason")
    by = decisions.groupby("reason")
    pd.testing.assert_series_equal(found["sessions"], by.size(), check_names=False)
    pd.testing.assert_series_equal(
        found["interactions"], by["interactions"].sum(), check_names=False, check_dtype=False
    )
    assert found["interactions"].sum() == sum(map(len, SESSIONS))
    assert found["share"].sum() == pytest.approx(1) and found["interaction_share"].sum() == pytest.approx(1)
    assert found["kept"].to_dict() == by["kept"].first().to_dict()
    assert all(REASONS[reason].endswith(text) for reason, text in found["meaning"].items())
    shown = spark.table("watched.`my_kept_summary`").collect()
    assert [row["kept"] for row in shown] == sorted((row["kept"] for row in shown), reverse=True)


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_a_view_has_its_comment(spark: SparkSession, kept: str, view: View) -> None:
    name = view_names(kept)[view]
    said = {f.name: f.metadata.get("comment") for f in spark.table(name).schema}
    assert said == dict(VIEW_COLUMNS[view]) and list(said) == list(VIEW_COLUMNS[view])
    # What a metastore keeps of a comment.
    assert all(len(comment) < 256 for comment in said.values())
    about = {r["col_name"]: r["data_type"] for r in spark.sql(f"DESCRIBE TABLE EXTENDED {name}").collect()}
    assert about["Comment"] == VIEW_COMMENTS[view] and about["Type"] == "VIEW"


def test_counts_by_item_do_not_read_the_kept_rows(spark: SparkSession, kept: str) -> None:
    plan = spark.sql(
        "SELECT band, sum(sessions_after) FROM watched.`my_kept_item_coverage` GROUP BY band"
    )._jdf.queryExecution()
    assert "prune_weight" not in plan.optimizedPlan().toString()


def test_a_table_of_that_name_stays_and_the_run_warns(
    spark: SparkSession, events: dict[str, Any], kept: str
) -> None:
    assert in_catalog(spark, kept) == [True, True]
    (before,) = (row["run_id"] for row in spark.table("watched.my_kept_runs").collect())
    spark.sql("DROP VIEW watched.my_kept_item_coverage")
    spark.range(3).write.format("delta").saveAsTable("watched.my_kept_item_coverage")
    second = run_prune(PruneSettings(**events, output=kept, seed=5), spark)
    said = second.record()["warnings"]
    assert len(said) == 1 and "The name watched.`my_kept_item_coverage` is taken" in said[0]
    assert "the tables are written" in said[0] and "Rename it" in said[0]
    assert "is taken by a table" in " ".join(str(second).split()), "and the summary says it"
    assert spark.table("watched.my_kept_item_coverage").columns == ["id"]
    assert in_catalog(spark, kept) == [False, True], "both or neither"
    runs = {row["run_id"] for row in spark.table("watched.my_kept_runs").collect()}
    assert runs == {before, second.run["run_id"]}
    assert spark.table(kept).first()["prune_run_id"] == second.run["run_id"]
    spark.sql("DROP TABLE watched.my_kept_item_coverage")
    assert view_trouble(spark, kept) is None
    assert in_catalog(spark, kept) == [True, True]


@pytest.mark.parametrize("doomed", VIEWS)
@pytest.mark.parametrize("message", ["User lacks CREATE on the schema\nat org.x", ""])
def test_views_that_cannot_be_made_are_a_warning_and_leave_none(
    spark: SparkSession, kept: str, monkeypatch: pytest.MonkeyPatch, doomed: View, message: str
) -> None:
    create_views(spark, kept)
    statement = views._statement

    def failing(view: View, *rest: Any) -> str:
        if view == doomed:
            raise PermissionError(message)
        return statement(view, *rest)

    monkeypatch.setattr(views, "_statement", failing)
    said = view_trouble(spark, kept)
    assert said is not None and said.endswith(message.partition("\n")[0] or "PermissionError")
    assert "my_kept_summary` and watched.`my_kept_item_coverage`" in said and "create_views" in said
    assert in_catalog(spark, kept) == [False, False]
    monkeypatch.undo()
    assert view_trouble(spark, kept) is None and in_catalog(spark, kept) == [True, True]


def test_views_of_nothing_are_refused(spark: SparkSession, tmp_path: Path) -> None:
    for output in (str(tmp_path / "nothing"), "watched.nothing", "nowhere.nothing"):
        with pytest.raises(InputError, match="There is no"):
            create_views(spark, output)
