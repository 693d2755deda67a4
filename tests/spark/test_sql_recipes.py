"""Every query of docs/sql.md runs on a real prune, shows what the document shows, and tells the truth."""

from __future__ import annotations

import doctest
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

import sql_recipes
from prune_lib import create_views
from sql_recipes import DOCUMENT, OUTPUT, SESSIONS, Recipe, recipes

ALL = recipes(DOCUMENT.read_text(encoding="utf-8"))
SQL = [recipe for recipe in ALL if recipe.language == "sql"]
PYTHON = [recipe for recipe in ALL if recipe.language == "python"]


@pytest.fixture(scope="module")
def shop(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo data in the catalog, pruned twice with experts of one epoch; the folder of the tables."""
    workspace = tmp_path_factory.mktemp("recipes")
    sql_recipes.prepare(spark, str(workspace), epochs=1, dim=16)
    place = spark.sql(f"DESCRIBE DETAIL {OUTPUT}").first()["location"]
    yield Path(place.removeprefix("file:")).parent
    spark.sql("DROP SCHEMA shop CASCADE")


@pytest.fixture(scope="module")
def tables(spark: SparkSession, shop: Path) -> dict[str, pd.DataFrame]:
    names = (
        "clicks",
        "clicks_pruned",
        "clicks_pruned_decisions",
        "clicks_pruned_items",
        "clicks_pruned_runs",
    )
    return {name.removeprefix("clicks_pruned_"): spark.table(f"shop.{name}").toPandas() for name in names}


@pytest.fixture(scope="module")
def runs(tables: dict[str, pd.DataFrame]) -> list[dict[str, Any]]:
    return tables["runs"].sort_values("started_at").to_dict("records")


def recipe(start: str) -> Recipe:
    (found,) = [one for one in SQL if one.title.startswith(start)]
    return found


@cache
def query(spark: SparkSession, code: str) -> DataFrame:
    return spark.sql(code)


@cache
def rows(spark: SparkSession, code: str) -> pd.DataFrame:
    """A query's answer, once for all tests: its tables stay as they are, and nobody changes it."""
    return query(spark, code).toPandas()


def answer(spark: SparkSession, start: str, without_limit: bool = False) -> pd.DataFrame:
    code = recipe(start).code
    return rows(spark, re.sub(r" LIMIT \d+$", "", code) if without_limit else code)


def test_the_document_has_its_queries_and_their_results() -> None:
    assert len(SQL) >= 15 and len(PYTHON) == 2
    text = DOCUMENT.read_text(encoding="utf-8")
    assert all(one.columns for one in SQL), "spark-submit scripts/sql_recipes.py writes the results"
    for title in [one.title for one in SQL]:
        assert title.endswith("?") and f"## {title}\n\n```" not in text, "a question, and what to know"
    assert doctest.testmod(sql_recipes).failed == 0
    # What is written is what is read back.
    shown = [sql_recipes.table(one.columns, [["x"] * len(one.columns)]) if one.columns else "```text\ny\n```"
             for one in ALL]  # fmt: skip
    assert recipes(sql_recipes.with_results(text, shown)) == ALL


@pytest.mark.parametrize("one", SQL, ids=lambda one: one.title)
def test_a_query_answers_with_the_columns_shown(spark: SparkSession, shop: Path, one: Recipe) -> None:
    frame = query(spark, one.code)
    assert tuple(frame.columns) == one.columns
    plan = frame._jdf.queryExecution().executedPlan().toString()
    assert "Cartesian" not in plan and "NestedLoop" not in plan, "linear in the rows"
    assert len(rows(spark, one.code)) > 0


def test_what_was_kept(spark: SparkSession, shop: Path, runs: list[dict[str, Any]]) -> None:
    found = answer(spark, "What was kept")
    assert dict(zip(found["reason"], found["sessions"], strict=True)) == runs[-1]["reasons"]
    assert found["sessions"].sum() == SESSIONS and found["percent"].sum() == pytest.approx(100, abs=0.5)
    assert found.loc[found["kept"], "interactions"].sum() == runs[-1]["interactions_after"]
    assert found["interactions"].sum() == runs[-1]["interactions_before"]
    assert 0 < runs[-1]["objective"] <= 1


def test_items_lost(spark: SparkSession, tables: dict[str, pd.DataFrame], runs: list[dict[str, Any]]) -> None:
    bands = answer(spark, "How well are cold").set_index("band")
    assert bands["items"].sum() == runs[-1]["items_before"]
    assert bands["items_kept"].sum() == runs[-1]["items_after"]
    held = {item for items in tables["clicks_pruned"]["items"] for item in items}
    lost = answer(spark, "Which cold items", without_limit=True)
    assert (
        not held & set(lost["item"])
        and len(lost) == bands.loc["cold", "items"] - bands.loc["cold", "items_kept"]
    )
    most = answer(spark, "Which items lost most")
    items = tables["items"].assign(lost=lambda t: t["sessions_before"] - t["sessions_after"])
    expected = items.sort_values(["lost", "item"], ascending=[False, True]).head(5)
    assert list(most["item"]) == list(expected["item"])
    # Why, by hand: the sessions that hold one of them, none of which is kept.
    why = answer(spark, "And why").set_index("reason")
    reason = tables["decisions"].set_index("session_id")["reason"]
    wanted = set(lost["item"])
    those = [
        s
        for s, i in zip(tables["clicks"]["session_id"], tables["clicks"]["items"], strict=True)
        if wanted & set(i)
    ]
    assert why["sessions"].to_dict() == reason.loc[those].value_counts().to_dict()
    assert set(why.index) <= {"DUPLICATE", "COVERED", "BOT", "NOISE", "BUDGET"}


def test_a_session_and_what_stands_for_it(spark: SparkSession, tables: dict[str, pd.DataFrame]) -> None:
    row = answer(spark, "Why was this session dropped").iloc[0]
    items = tables["clicks"].set_index("session_id")["items"]
    assert row["reason"] == "DUPLICATE" and list(items[row["session_id"]]) == list(items[row["covered_by"]])
    assert set(row["shared_items"]) == set(items[row["session_id"]])
    kept = tables["clicks_pruned"].set_index("session_id")
    assert kept.loc[row["covered_by"], "prune_rank"] == row["its_rank"]
    parts = answer(spark, "What was this session chosen", without_limit=True)
    assert parts["share_of_gain"].sum() == pytest.approx(1, abs=0.001 * len(parts))
    assert set(parts["item"]) <= set(items[parts["session_id"][0]])
    covers = answer(spark, "Which kept sessions stand", without_limit=True)
    counted = tables["decisions"]["covered_by"].value_counts()
    assert len(covers) == len(kept) and covers["covers"].sum() == counted.sum()
    assert covers["covers"].iloc[0] == counted.iloc[0]


def test_weights_and_ranks(
    spark: SparkSession, tables: dict[str, pd.DataFrame], runs: list[dict[str, Any]]
) -> None:
    by_band = answer(spark, "How near do counts").set_index("band")
    assert by_band.loc["all", "weight_error"] == pytest.approx(runs[-1]["weight_error"], abs=1e-4)
    assert by_band.loc["all", "weight_error"] < by_band.loc["all", "equal_weights_error"]
    kept = tables["clicks_pruned"].sort_values("prune_rank")
    smaller = answer(spark, "What would a smaller").iloc[0]
    assert smaller["sessions"] == 100 and smaller["interactions"] == kept.head(100)["items"].map(len).sum()
    tenths = answer(spark, "How many items does each")
    assert list(tenths["tenth"]) == list(range(1, 11))
    assert tenths["items_covered"].iloc[-1] == runs[-1]["items_after"]
    assert tenths["item_coverage"].iloc[-1] == pytest.approx(runs[-1]["item_coverage"], abs=1e-3)
    for tenth, covered in zip(tenths["tenth"], tenths["items_covered"], strict=True):
        head = kept[kept["prune_rank"] <= tenth * len(kept) / 10]
        assert covered == len({item for items in head["items"] for item in items})


def test_experts_and_suspects(
    spark: SparkSession, tables: dict[str, pd.DataFrame], runs: list[dict[str, Any]]
) -> None:
    decisions = tables["decisions"]
    disagree = answer(spark, "On which sessions")
    assert disagree["disagreement"].iloc[0] == pytest.approx(decisions["disagreement"].max(), abs=0.006)
    gates = answer(spark, "Which expert does the gate")
    assert gates[["gnn", "rnn", "transformer"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=0.002)
    assert gates["sessions"].sum() == decisions["gate_gnn"].notna().sum()
    hardest = answer(spark, "Which are the hardest")
    assert hardest["difficulty"].iloc[0] == round(tables["clicks_pruned"]["prune_difficulty"].max(), 3)
    planted = tables["clicks"].set_index("session_id")["planted"]
    suspects = answer(spark, "Which sessions were taken", without_limit=True)
    assert len(suspects) == runs[-1]["reasons"]["BOT"] + runs[-1]["reasons"]["NOISE"]
    bots = suspects.query("reason == 'BOT'")
    assert (
        set(planted[bots["session_id"]]) == {"bot"} and (bots["interactions"] > bots["limit_of_clicks"]).all()
    )
    copies = answer(spark, "Which sequences", without_limit=True)
    assert copies["copies"].sum() == runs[-1]["reasons"]["DUPLICATE"]


def test_the_input_and_the_runs(
    spark: SparkSession, tables: dict[str, pd.DataFrame], runs: list[dict[str, Any]]
) -> None:
    weeks = answer(spark, "Is any part of the data")
    assert weeks["sessions"].sum() == SESSIONS
    assert (weeks["sessions"] * weeks["share_kept"]).sum() == pytest.approx(
        len(tables["clicks_pruned"]), abs=2
    )
    dropped = answer(spark, "What are the rows", without_limit=True)
    assert len(dropped) == SESSIONS - len(tables["clicks_pruned"])
    assert not set(dropped["session_id"]) & set(tables["clicks_pruned"]["session_id"])
    assert list(answer(spark, "How did the runs")["ratio"]) == list(sql_recipes.RATIOS)
    # A smaller ratio is a prefix of the larger one: no session comes in.
    changed = answer(spark, "Which sessions changed")
    assert changed["sessions"].sum() == runs[0]["sessions_after"] - runs[1]["sessions_after"]
    assert set(changed["was"]) <= {"NEW_PATTERN", "COLD_ITEM", "REPRESENTATIVE"}
    assert set(changed["now"]) <= {"COVERED", "BUDGET", "DUPLICATE"}
    stages = answer(spark, "Where does the time")
    assert list(stages["stage"]) == [stage["name"] for stage in runs[-1]["stages"]]


@pytest.mark.parametrize(
    "start", ["What was kept", "How near do counts", "Which sessions changed", "And why"]
)
def test_the_same_by_path(spark: SparkSession, shop: Path, start: str) -> None:
    """As the document says it: tables by path, views of the session."""
    made = create_views(spark, str(shop / "clicks_pruned"))
    assert made == ["clicks_pruned_summary", "clicks_pruned_item_coverage"]
    code = re.sub(r"shop\.(clicks_pruned_(?:summary|item_coverage))\b", r"\1", recipe(start).code)
    code = re.sub(r"shop\.(\w+)", rf"delta.`{shop}/\1`", code)
    assert "shop.c" not in code
    try:
        pd.testing.assert_frame_equal(spark.sql(code).toPandas(), answer(spark, start))
    finally:
        for name in made:
            spark.catalog.dropTempView(name)


@pytest.fixture(scope="module")
def elsewhere(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tables in a folder whose path is hostile."""
    folder = tmp_path_factory.mktemp("moved") / 'it\'s a "folder" & 100% ü'
    for name in ("clicks_pruned", "clicks_pruned_decisions"):
        shutil.copytree(shop / name, folder / name)
    return str(folder / "clicks_pruned")


def test_duckdb_says_the_same(spark: SparkSession, tables: dict[str, pd.DataFrame], elsewhere: str) -> None:
    names, said = sql_recipes.run_python(PYTHON[0].code, elsewhere)
    assert said.strip()
    assert dict(names["by_reason"].fetchall()) == tables["decisions"]["reason"].value_counts().to_dict()
    items = spark.table(f"{OUTPUT}_item_coverage").toPandas().set_index("item")
    found = names["by_item"].fetchall()
    assert len(found) == 5
    for item, kept, estimate in found:
        assert kept == items.loc[item, "sessions_after"]
        assert estimate == pytest.approx(items.loc[item, "weighted_sessions"], abs=0.051)
    assert found[0][2] == pytest.approx(items["weighted_sessions"].max(), abs=0.051)
    (parts,) = tables["decisions"].query("rank == 1")["gain_parts"]
    assert names["parts"].fetchall()[0][2] == round(parts[0]["gain"], 6)
    # Every other column comes over, too: times, structs, the run.
    assert set(names["pruned"].column_names) == set(tables["clicks_pruned"].columns)


def test_duckdb_in_batches(tables: dict[str, pd.DataFrame], elsewhere: str) -> None:
    names, said = sql_recipes.run_python(PYTHON[1].code, elsewhere)
    kept = tables["clicks_pruned"].sort_values("prune_rank").head(100)
    assert "100" in said and str(kept["items"].map(len).sum()) in said
