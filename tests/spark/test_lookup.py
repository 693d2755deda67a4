"""`explain` on the tables of real runs: what it says is what the tables hold, every mistake is a message."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib import PruneSettings, UserError, commits, explain, prune
from prune_lib.pages import explain_settings, key_of
from prune_lib.report.job import write_report
from prune_lib.settings.explain import ExplainSettings
from tests.spark.sessions import copied, random_sessions

# Not the default, so that a page which took the default would be seen.
KAPPA = 0.4
EVENTS = "session_id bigint, item bigint, time bigint"
HOSTILE = "x`;'\"\n<b>🙂"
SESSIONS = random_sessions(41, n=150, items=50)


@pytest.fixture(scope="module")
def workspace(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on Parquet's events, ids as numbers, and a baseline's on Delta's sessions, ids as text."""
    folder = tmp_path_factory.mktemp("explained")
    clicks = [(k, item, 100 * k + t) for k, items in enumerate(SESSIONS) for t, item in enumerate(items)]
    spark.createDataFrame(clicks, EVENTS).write.parquet(str(folder / "events"))
    values: dict[str, Any] = {
        "ratio": 0.3,
        "workspace": str(folder),
        # How good the experts are, and how their scores are spread, is no question here.
        "training": {"epochs": 1, "dim": 8, "gate_epochs": 2},
        "propagation": {"engine": "arrays"},
        "sampling": {"kappa": KAPPA},
    }
    prune(PruneSettings(**values, input=str(folder / "events"), output=str(folder / "kept")), spark=spark)
    texts = [(f"s{k}" if k else HOSTILE, [HOSTILE, *map(str, s)]) for k, s in enumerate(SESSIONS)]
    table = spark.createDataFrame(texts, "session_id string, items array<string>")
    table.write.format("delta").save(str(folder / "sessions"))
    prune(PruneSettings(**values, method="random", floor=0, output=str(folder / "drawn")), spark=spark)
    return folder


def moved(spark: SparkSession, workspace: Path, name: str, to: Path, input: Path) -> str:
    """The tables of a run, copied to another place, whose input lies elsewhere now."""
    output = copied(workspace / name, to / name)
    runs = spark.read.format("delta").load(f"{output}_runs")
    there = runs.withColumn("input", F.lit(str(input))).localCheckpoint()
    there.write.format("delta").mode("overwrite").save(f"{output}_runs")
    return output


def test_every_kept_key_follows_from_the_explanation_and_falls_with_the_rank(
    spark: SparkSession, workspace: Path
) -> None:
    decisions = spark.read.format("delta").load(str(workspace / "kept_decisions"))
    chosen = decisions.filter("kept AND gain > 0").orderBy("rank").limit(6).collect()
    keys = []
    for row in chosen:
        page = explain(row["session_id"], output=str(workspace / "kept"), spark=spark)
        assert page.session is not None and page.session.decision["rank"] == row["rank"]
        assert f"rank {row['rank']} of" in str(page) and row["reason"] in str(page)
        parts = page.session.decision["gain_parts"]
        assert sum(part["gain"] for part in parts) == pytest.approx(row["gain"], abs=1e-6 * row["gain"])
        key = key_of(page.session)
        assert key is not None
        keys.append(key)
    assert keys == sorted(keys, reverse=True) and keys[0] > 0


def test_a_pruned_session_is_shown_with_its_clicks_and_who_covers_it(
    spark: SparkSession, workspace: Path
) -> None:
    decisions = spark.read.format("delta").load(str(workspace / "kept_decisions"))
    row = decisions.filter("NOT kept AND covered_by IS NOT NULL").orderBy("session_id").first()
    page = explain(str(row["session_id"]), output=str(workspace / "kept"), spark=spark)
    events = spark.read.parquet(str(workspace / "events"))
    own = events.filter(F.col("session_id") == row["session_id"]).orderBy("time").select("item")
    assert page.session is not None and page.session.clicks == [r["item"] for r in own.collect()]
    assert f"session {row['covered_by']}" in str(page) and "was pruned" in str(page)
    assert page.session.weight is None


def test_an_item_is_shown_with_the_sessions_that_carry_it(spark: SparkSession, workspace: Path) -> None:
    items = spark.read.format("delta").load(str(workspace / "kept_items"))
    row = items.filter("sessions_after > 2").orderBy(F.desc("sessions_after"), "item").first()
    page = explain(item=row["item"], output=str(workspace / "kept"), lines=2, spark=spark)
    facts = page.item
    assert facts is not None and facts.reasons is not None and len(facts.kept) == 2
    assert facts.kept[0]["session_id"] == row["first_kept_session"]
    assert sum(facts.reasons.values()) == row["sessions_before"]
    assert f"and {row['sessions_after'] - 2} more" in str(page)


def test_hostile_ids_and_a_baselines_table(spark: SparkSession, workspace: Path) -> None:
    page = explain(HOSTILE, item=HOSTILE, output=str(workspace / "drawn"), lines=3, spark=spark)
    assert page.session is not None and page.session.decision["session_id"] == HOSTILE
    assert page.item is not None and page.item.item["sessions_before"] == 150
    assert "x`;'\"\\n<b>🙂" in str(page) and "was " in str(page)
    kept = spark.read.format("delta").load(str(workspace / "drawn")).select("session_id").first()
    said = explain(kept["session_id"], output=str(workspace / "drawn"), spark=spark)
    assert "by the rule of a baseline" in str(said)


@pytest.mark.parametrize("left", ["nothing", "a table without its files"])
def test_an_input_that_has_gone_is_said(
    spark: SparkSession, workspace: Path, tmp_path: Path, left: str
) -> None:
    if left != "nothing":
        shutil.copytree(workspace / "sessions", tmp_path / "gone")
        for file in (tmp_path / "gone").glob("*.parquet"):
            file.unlink()
    output = moved(spark, workspace, "drawn", tmp_path, tmp_path / "gone")
    page = explain("s3", item="1", output=output, spark=spark)
    assert "the input of the run cannot be read any more" in str(page)
    assert page.item is not None and page.item.reasons is None


def test_present_rows_of_an_input_without_versions_are_not_told_as_the_runs(
    spark: SparkSession, workspace: Path, tmp_path: Path
) -> None:
    """The next file of a folder of Parquet files adds clicks to sessions that were decided on before."""
    place = tmp_path / "events"
    shutil.copytree(workspace / "events", place)
    output = moved(spark, workspace, "kept", tmp_path, place)
    assert SESSIONS[3] == [46, 48, 48, 44, 47] and 46 not in SESSIONS[5]
    page = explain(3, item=46, output=output, spark=spark)
    assert "5: 46 → 48 → 48 → 44 → 47" in str(page)
    assert page.item is not None and page.item.reasons is not None
    # To one clicks are added, to another an item of others.
    more = spark.createDataFrame([(3, 5, 90_000), (5, 46, 90_001)], EVENTS)
    more.write.mode("append").parquet(str(place))
    page = explain(3, item=46, output=output, spark=spark)
    assert "cannot be read any more as it was" in str(page) and "47 → 5" not in str(page)
    assert page.item is not None and page.item.reasons is None
    others = explain(4, output=output, spark=spark)
    assert SESSIONS[4] == [2, 4, 2, 3, 3, 3] and "6: 2 → 4 → 2 → 3 → 3 → 3" in str(others)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"session": "900", "output": "kept"}, "has no session '900': it has 150, such as"),
        ({"session": "99999999999999999999", "output": "kept"}, "has no session '99999999999999999999': it"),
        ({"session": "abc", "output": "kept"}, "'abc' is no id of a session: they are numbers here, such as"),
        ({"session": "1_0", "output": "kept"}, "'1_0' is no id of a session: they are numbers here, such as"),
        ({"item": "\u0664", "output": "kept"}, "is no id of a item: they are numbers here, such as"),
        ({"item": "9999", "output": "kept"}, "has no item '9999'"),
        ({"session": "s900", "output": "drawn"}, "has no session 's900'"),
        ({"session": "1", "output": "nothing"}, "`output` names the pruned table"),
    ],
)
def test_mistakes_are_messages(
    spark: SparkSession, workspace: Path, asked: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match="(?s).*") as error:
        explain(**{**asked, "output": str(workspace / asked["output"])}, spark=spark)
    assert said in str(error.value) and "--input" not in str(error.value)


def test_the_key_of_the_page_is_the_formula(spark: SparkSession, workspace: Path) -> None:
    decisions = spark.read.format("delta").load(str(workspace / "kept_decisions"))
    row = decisions.filter("kept AND gain > 0").orderBy("rank").first()
    page = explain(row["session_id"], output=str(workspace / "kept"), spark=spark)
    expected = math.exp(-KAPPA * row["propagated"]) * row["gain"] / row["interactions"]
    assert page.session is not None and key_of(page.session) == pytest.approx(expected)


def test_what_a_killed_run_wrote_is_not_looked_at(
    spark: SparkSession, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = copied(workspace / "drawn", tmp_path / "drawn")
    whole = spark.read.format("delta").load(output).first()["prune_run_id"]
    commit = commits._commit

    def killed(spark: SparkSession, table: commits.Written, *more: Any) -> None:
        if table.target == output:
            raise KeyboardInterrupt
        commit(spark, table, *more)

    with monkeypatch.context() as patched:
        # As after kill -9: nobody brings the tables back.
        patched.setattr(commits, "_undo", lambda *_: None)
        patched.setattr(commits, "_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            asked = {"ratio": 0.6, "method": "random", "workspace": str(workspace), "output": output}
            prune(PruneSettings(**asked), spark=spark)
    (newest,) = spark.read.format("delta").load(f"{output}_decisions").select("run_id").distinct().collect()
    assert newest["run_id"] != whole, "it came to write its first table"
    page = explain("s1", item="7", output=output, spark=spark)
    assert page.session is not None and page.item is not None
    assert page.session.run["run_id"] == page.item.run["run_id"] == whole
    assert page.session.decision["run_id"] == page.item.item["run_id"] == whole
    page = write_report(spark, output, path=tmp_path / "cut.html", map_points=0)
    assert page.run_id == whole


def test_a_dry_run_sees_that_the_tables_are_there(spark: SparkSession, workspace: Path) -> None:
    asked = {"session": "s1", "workspace": str(workspace), "dry_run": True}
    with pytest.raises(UserError, match="nowhere_decisions"):
        explain_settings(ExplainSettings(**asked, output=str(workspace / "nowhere")), spark)
    plan = explain_settings(ExplainSettings(**asked, output=str(workspace / "drawn")), spark)
    assert "no row was" in str(plan) and plan.session is None
