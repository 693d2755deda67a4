"""`prune` as a function: the same tables whatever the partitions, every method, every mistake."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib import PruneSettings, UserError
from prune_lib.baselines import rank_baseline
from prune_lib.delta import table_version
from prune_lib.evaluation.files import budget_of
from prune_lib.evaluation.subsets import cut
from prune_lib.pipeline import run_prune
from prune_lib.preflight import make_demo, open_input_of
from prune_lib.stages import Stages
from tests.spark.sessions import random_sessions

# A large shop, a small one, and sessions without one.
SHOPS = ["north"] * 23 + ["south", None]
# One click: nothing to predict, so no difficulty.
SINGLE = [[k] for k in range(12)]


def table_of(spark: SparkSession, sessions: list[list[int]]) -> DataFrame:
    rows = [(f"s{k:04d}", items, k, SHOPS[k % len(SHOPS)]) for k, items in enumerate(sessions)]
    return spark.createDataFrame(rows, "session_id string, items array<bigint>, day int, shop string")


@pytest.fixture(scope="module")
def workspace(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a small input; the experts that the first run trains serve the others."""
    folder = tmp_path_factory.mktemp("workspace")
    table = table_of(spark, random_sessions(21, n=250 - len(SINGLE), items=90) + SINGLE)
    table.write.format("delta").save(str(folder / "sessions"))
    return folder


def settings(workspace: Path, **more: Any) -> PruneSettings:
    values = {
        "ratio": 0.2,
        "workspace": str(workspace),
        "order_column": "day",
        # How good the experts are is no question here.
        "training": {"epochs": 1, "dim": 8, "gate_epochs": 2},
        **more,
    }
    return PruneSettings(**values)


def content(spark: SparkSession, place: Path, key: str) -> pd.DataFrame:
    """A table without what names the run."""
    frame = spark.read.format("delta").load(str(place)).toPandas()
    return frame.drop(columns=[c for c in frame.columns if "run_id" in c]).sort_values(key, ignore_index=True)


@pytest.fixture(scope="module")
def done(spark: SparkSession, workspace: Path) -> Path:
    """The pruned table of a finished run; no test changes it."""
    return pruned_with(spark, workspace, partitions=8)


def pruned_with(spark: SparkSession, workspace: Path, *, partitions: int) -> Path:
    output = workspace / f"out{partitions}"
    spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
    try:
        run_prune(settings(workspace, output=str(output)), spark)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "4")
    return output


def test_the_same_tables_with_1_and_8_partitions(spark: SparkSession, workspace: Path, done: Path) -> None:
    other = pruned_with(spark, workspace, partitions=1)
    for suffix, key in (("", "session_id"), ("_decisions", "session_id"), ("_items", "item")):
        one, two = (content(spark, Path(f"{output}{suffix}"), key) for output in (done, other))
        pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_smaller_ratio_is_a_prefix_by_rank(spark: SparkSession, workspace: Path, done: Path) -> None:
    """And the cut by rank is all of it: one run serves an evaluation at every smaller ratio."""
    summary = run_prune(settings(workspace, ratio=0.1, output=str(workspace / "small")), spark)
    large = content(spark, done, "prune_rank")
    small = content(spark, workspace / "small", "prune_rank")
    assert 0 < len(small) < len(large)
    assert large["session_id"].head(len(small)).tolist() == small["session_id"].tolist()
    budget = budget_of(0.1, summary.run["interactions_before"])
    kept = cut(spark.read.format("delta").load(str(done)), budget).orderBy("prune_rank").toPandas()
    assert kept["session_id"].tolist() == small["session_id"].tolist()


def test_every_shop_keeps_its_floor(spark: SparkSession, workspace: Path, done: Path) -> None:
    output = workspace / "floors"
    summary = run_prune(settings(workspace, floor_by=("shop:8", "band:10"), output=str(output)), spark)
    kept = content(spark, output, "prune_rank")
    assert kept["shop"].value_counts()["south"] >= 8, "of its ten"
    free = content(spark, done, "prune_rank")
    assert free["shop"].value_counts().get("south", 0) < 8, "which it would not keep otherwise"
    assert kept["prune_reason"].eq("FLOOR").sum() >= 8 and summary.run["reasons"]["FLOOR"] < len(kept)
    assert summary.run["interactions_after"] <= 0.2 * summary.run["interactions_before"]


def test_floors_that_cannot_fit_are_refused_before_anything_is_scored(
    spark: SparkSession, workspace: Path
) -> None:
    said = (
        r"--floor-by shop:200 does not fit the budget of \d+ interactions: its 2 values ask for 210 sessions"
    )
    with pytest.raises(UserError, match=said):
        run_prune(settings(workspace, floor_by=("shop:200",), output=str(workspace / "none")), spark)
    with pytest.raises(UserError, match=r"no column shp. Did you mean shop\?.*band"):
        run_prune(settings(workspace, floor_by=("shp:2",), dry_run=True), spark)
    assert not (workspace / "none").exists()


def test_a_session_of_one_click_has_no_difficulty(spark: SparkSession, done: Path) -> None:
    decisions = content(spark, Path(f"{done}_decisions"), "session_id")
    assert decisions["difficulty"].isna().tolist() == (decisions["interactions"] == 1).tolist()
    scored = decisions.dropna(subset="difficulty")
    assert len(scored) == 250 - len(SINGLE) and scored["difficulty"].mean() == pytest.approx(0.5)
    assert decisions["propagated"].notna().all(), "the graph has them in the middle"
    items = content(spark, Path(f"{done}_items"), "item").set_index("item")
    held = spark.read.format("delta").load(str(done.parent / "sessions")).toPandas()
    of_7 = held[held["items"].map(lambda items: 7 in items)]["session_id"]
    mean = scored[scored["session_id"].isin(of_7)]["difficulty"].mean()
    assert items.loc[7, "mean_difficulty"] == pytest.approx(mean, abs=1e-6)


@pytest.mark.parametrize("method", ["recent", "dual"])
def test_baselines_go_through_the_same_tables(
    spark: SparkSession, workspace: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ranked(*given: Any, ratio: float, **more: Any) -> DataFrame:
        asked.append(ratio)
        return rank_baseline(*given, ratio=ratio, **more)

    monkeypatch.setattr("prune_lib.pipeline.rank_baseline", ranked)
    output = workspace / f"by_{method}"
    summary = run_prune(settings(workspace, method=method, output=str(output)), spark)
    assert asked == [0.2], "which dual's order depends on"
    kept = content(spark, output, "prune_rank")
    assert set(kept["prune_reason"]) == {"METHOD"}
    assert kept["prune_weight"].sum() == pytest.approx(250)
    assert summary.run["interactions_after"] <= 0.2 * summary.run["interactions_before"]
    if method == "recent":
        assert kept["day"].tolist() == sorted(kept["day"], reverse=True)
    else:
        assert kept["prune_difficulty"].notna().all(), "what has no difficulty comes last"
        assert kept["items"].map(len).min() > 1


@pytest.fixture(scope="module")
def of_a_view(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A run on a view of events, as if one task could calibrate weights to three items only."""
    folder = tmp_path_factory.mktemp("view")
    sessions = random_sessions(22, n=60, items=30)
    rows = [
        (k, item, datetime(2024, 1, 1) + timedelta(minutes=60 * k + t), "click")
        for k, items in enumerate(sessions)
        for t, item in enumerate(items)
    ]
    events = spark.createDataFrame(rows, "visit_id int, item_id string, ts timestamp, kind string")
    events.write.parquet(str(folder / "events"))
    spark.read.parquet(str(folder / "events")).createOrReplaceTempView("changing")
    asked = PruneSettings(
        ratio=0.5,
        input="changing",
        session_column="visit_id",
        workspace=str(folder / "ws"),
        method="random",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prune_lib.weights._MOST", 3)
        summary = run_prune(asked, spark)
    kept = spark.read.format("delta").load(summary.output)
    return SimpleNamespace(sessions=sessions, asked=asked, run=summary.run, output=summary.output, kept=kept)


def test_events_come_out_as_events(of_a_view: SimpleNamespace) -> None:
    types = dict(of_a_view.kept.dtypes)
    assert types["visit_id"] == "int" and types["kind"] == "string"
    for session, part in of_a_view.kept.toPandas().groupby("visit_id"):
        assert part.sort_values("ts")["item_id"].tolist() == [str(i) for i in of_a_view.sessions[session]]
        assert part["prune_rank"].nunique() == 1


def test_of_a_view_the_run_says_that_it_may_change(spark: SparkSession, of_a_view: SimpleNamespace) -> None:
    plan = run_prune(of_a_view.asked.model_copy(update={"dry_run": True}), spark)
    assert "warning: the input is a view" in str(plan)
    assert any("the input is a view" in warning for warning in of_a_view.run["warnings"])


def test_more_than_one_task_can_weigh_weighs_alike_and_says_so(of_a_view: SimpleNamespace) -> None:
    run = of_a_view.run
    (weight,) = set(of_a_view.kept.toPandas()["prune_weight"])
    assert weight == pytest.approx(run["sessions_before"] / run["sessions_after"])
    assert 0 < run["weight_error"] < 1
    assert any("prune_weight is the same of all kept" in warning for warning in run["warnings"])


def test_too_few_sessions_for_a_forecast_are_weighed_by_recency(
    spark: SparkSession, of_a_view: SimpleNamespace
) -> None:
    stored = spark.read.format("delta").load(f"{of_a_view.output}_runs").first()
    assert stored["demand"] == of_a_view.run["demand"] == "recency"


def bad_inputs() -> list[Any]:
    """Name, sessions as (id, items), a part of the message."""
    return [
        pytest.param([], "no rows|empty", id="empty"),
        pytest.param([("a", [1, 2]), ("b", None)], "null", id="null items"),
        pytest.param([("a", [1, 2]), ("b", [])], "empty", id="empty items"),
        pytest.param([("a", [1, 2])], "one session", id="one session"),
        pytest.param([("a", [1, 1]), ("b", [1, 1, 1])], "one item", id="one item"),
        pytest.param([("a", [1]), ("b", [2])], "length 1|one click|single", id="length 1 only"),
        pytest.param([("a", [1, 2]), ("a", [2, 3])], "twice|more than once|duplicate", id="same id"),
    ]


@pytest.mark.parametrize(("rows", "said"), bad_inputs())
def test_inputs_that_cannot_be_pruned(
    spark: SparkSession, tmp_path: Path, rows: list[Any], said: str
) -> None:
    frame = spark.createDataFrame(rows, "session_id string, items array<bigint>")
    frame.write.format("delta").save(str(tmp_path / "sessions"))
    with pytest.raises(UserError, match=f"(?i){said}") as caught:
        run_prune(PruneSettings(ratio=0.5, workspace=str(tmp_path), method="random"), spark)
    assert caught.value.exit_code == 2
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["sessions"]


def no_such_column(folder: Path) -> dict[str, Any]:
    return {"session_column": "visit"}


def too_small(folder: Path) -> dict[str, Any]:
    return {"ratio": 0.000001}


def no_bundle(folder: Path) -> dict[str, Any]:
    return {"experts": str(folder / "nothing")}


def floor_beyond(folder: Path) -> dict[str, Any]:
    return {"ratio": 0.01, "floor": 5}


def own_companion(folder: Path) -> dict[str, Any]:
    return {"input": str(folder / "x_items"), "output": str(folder / "x")}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_such_column, "visit"),
        (too_small, "--ratio"),
        (no_bundle, "bundle"),
        (floor_beyond, "--floor 5"),
    ],
)
def test_mistakes_leave_the_tables_as_they_were(
    spark: SparkSession,
    workspace: Path,
    done: Path,
    change: Callable[[Path], dict[str, Any]],
    said: str,
) -> None:
    before = [table_version(spark, f"{done}{s}") for s in ("", "_decisions", "_items", "_runs")]
    with pytest.raises(UserError, match=said) as caught:
        run_prune(settings(workspace, output=str(done), **change(workspace)), spark)
    assert caught.value.exit_code == 2 and "\n\n" not in str(caught.value)
    after = [table_version(spark, f"{done}{s}") for s in ("", "_decisions", "_items", "_runs")]
    assert after == before


def test_experts_of_another_vocabulary_are_refused(
    spark: SparkSession, workspace: Path, done: Path, tmp_path: Path
) -> None:
    bundle = next((workspace / "experts").iterdir())
    other = [[i + 1000 for i in items] for items in random_sessions(23, n=60, items=30)]
    table_of(spark, other).write.format("delta").save(str(tmp_path / "sessions"))
    with pytest.raises(UserError, match="vocabulary"):
        run_prune(settings(tmp_path, experts=str(bundle)), spark)
    assert not (tmp_path / "pruned").exists()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_place_that_cannot_serve_is_told_before_anything_is_read(
    spark: SparkSession, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the input was read")

    monkeypatch.setattr("prune_lib.pipeline.settled_sessions", read)
    tables = {"input": str(workspace / "sessions"), "output": str(tmp_path / "kept"), "dry_run": dry_run}
    for given, said in (
        ({"experts": str(tmp_path / "typo")}, "is not a bundle of experts"),
        ({"workspace": "s3a://bucket/ws"}, "is not a folder of this machine"),
        ({"workspace": "/proc/ws"}, "The folder of experts /proc/ws/experts cannot be written"),
        ({"workspace": "main.shop"}, "trained experts need a folder"),
        ({"checkpoints": "/proc/ck", "method": "random"}, "The folder of checkpoints /proc/ck cannot be"),
    ):
        values = {"workspace": str(tmp_path / "ws"), "ratio": 0.2, "order_column": "day", **tables, **given}
        with pytest.raises(UserError, match=said):
            run_prune(PruneSettings(**values), spark)
    with pytest.raises(UserError, match="no place that this Spark can read"):
        run_prune(PruneSettings(ratio=0.2, workspace="s3a://bucket/ws", dry_run=dry_run), spark)
    assert not list(tmp_path.iterdir())


def test_no_demo_is_made_where_experts_would_have_no_place(spark: SparkSession) -> None:
    spark.sql("CREATE SCHEMA placeless")
    try:
        with pytest.raises(UserError, match="trained experts need a folder"):
            run_prune(PruneSettings(ratio=0.2, workspace="spark_catalog.placeless"), spark)
        assert not spark.catalog.tableExists("placeless.sessions")
    finally:
        spark.sql("DROP SCHEMA placeless CASCADE")


def test_settings_of_the_scoring_reach_it(
    spark: SparkSession, workspace: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Seen(Exception):
        pass

    def scoring(*args: Any, **given: Any) -> None:
        raise Seen(given)

    monkeypatch.setattr("prune_lib.difficulty.score_sessions", scoring)
    given = {"batch_size": 333, "device": "cpu", "score": "margin"}
    for reuse, kept_in in ((True, str(workspace)), (False, None)):
        with pytest.raises(Seen) as caught:
            run_prune(settings(workspace, output=str(done), reuse_scores=reuse, **given), spark)
        assert caught.value.args[0] == {**given, "by_sample": False, "workspace": kept_in}


def test_a_dry_run_says_the_plan_and_writes_nothing(spark: SparkSession, tmp_path: Path) -> None:
    table_of(spark, random_sessions(24, n=40, items=20)).write.parquet(str(tmp_path / "sessions"))
    before = sorted(p.name for p in tmp_path.iterdir())
    plan = str(run_prune(settings(tmp_path, dry_run=True), spark))
    assert "session_id" in plan and "items" in plan and "day" in plan
    assert "trained first" in plan
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_dry_run_says_what_it_would_replace_and_about_how_long_it_would_take(
    spark: SparkSession, workspace: Path, done: Path, tmp_path: Path
) -> None:
    run = spark.read.format("delta").load(f"{done}_runs").first()
    spent = {stage["name"]: stage["seconds"] for stage in run["stages"]}
    again = settings(workspace, output=str(done), dry_run=True)
    plan = run_prune(again, spark).plan["forecast"]
    assert plan[0].startswith(f"replaces run {run['run_id']} of ")
    # The experts are there: no training; as many sessions as then.
    about = sum(seconds for name, seconds in spent.items() if name != "training")
    assert plan[1].startswith(f"about {about:,.0f} s before the writing, by that run's 250 sessions")
    assert plan[1].endswith("; 250 rows now") and len(plan) == 2
    # Others would be trained, and twice the sessions take twice the time.
    twice = tmp_path / "twice"
    table = spark.read.format("delta").load(str(workspace / "sessions"))
    table.unionByName(table.withColumn("session_id", F.concat(F.lit("x"), "session_id"))).write.parquet(
        str(twice)
    )
    more = run_prune(again.model_copy(update={"input": str(twice)}), spark).plan["forecast"]
    about = 2 * sum(spent.values())
    assert more[1].startswith(f"about {about:,.0f} s ") and more[1].endswith("; 500 rows now")
    assert more[-1].startswith(f"not by that run's experts {run['experts_version']}: every session")
    fresh = run_prune(settings(workspace, output=str(tmp_path / "out"), dry_run=True), spark)
    assert fresh.plan["forecast"] == ["no run to this output is on record: what it would take is not known"]


def test_a_dry_run_on_a_fresh_install_says_that_the_demo_would_be_made(
    spark: SparkSession, tmp_path: Path
) -> None:
    plan = str(run_prune(settings(tmp_path, order_column=None, dry_run=True), spark))
    assert "the demo data set of 20,000 sessions would be made there" in plan
    assert not list(tmp_path.iterdir())


def test_an_output_that_cannot_be_written_is_refused_before_the_demo_is_made(
    spark: SparkSession, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("not a table")
    with pytest.raises(UserError, match="not empty and no Delta table"):
        run_prune(settings(tmp_path, order_column=None, output=str(tmp_path / "mine")), spark)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_an_interrupted_demo_is_made_again(spark: SparkSession, tmp_path: Path) -> None:
    half = tmp_path / "sessions"
    table_of(spark, [[1, 2], [2, 3]]).write.parquet(str(half))
    (half / "_delta_log").mkdir()
    asked = settings(tmp_path, order_column=None, demo={"sessions": 300})
    assert open_input_of(spark, asked) is None, "a run makes the demo where there is no input"
    assert make_demo(spark, asked, Stages(), asked.seed).df.count() == 300


def test_a_session_beyond_the_budget_does_not_end_a_baselines(spark: SparkSession, tmp_path: Path) -> None:
    """Of the method itself test_sampling.py says it."""
    sessions = [[k, k + 1, k] for k in range(40)] + [[1, 2] * 2500]
    table_of(spark, sessions).write.parquet(str(tmp_path / "sessions"))
    summary = run_prune(settings(tmp_path, ratio=0.02, method="random"), spark)
    assert summary.run["interactions_after"] >= 99, "the budget is 102 clicks"
    assert summary.run["warnings"] == []


def test_a_pruned_table_is_refused_before_any_work(spark: SparkSession, done: Path, tmp_path: Path) -> None:
    again = settings(tmp_path, input=str(done), order_column=None, dry_run=True)
    with pytest.raises(UserError, match="prune_rank.* already"):
        run_prune(again, spark)


def test_what_delta_cannot_hold_is_refused_before_any_work(spark: SparkSession, tmp_path: Path) -> None:
    table = table_of(spark, random_sessions(25, n=30, items=12))
    inside = "named_struct('interval', 1) AS span"  # a name is no type
    table.selectExpr("*", "INTERVAL '3' DAY AS gap", inside).write.parquet(str(tmp_path / "sessions"))
    with pytest.raises(UserError, match="gap is of a type that Delta tables cannot hold"):
        run_prune(settings(tmp_path, dry_run=True), spark)
