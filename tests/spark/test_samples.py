"""Prefixes as the unit: samples, their graph, their scores, and a run that chooses them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib import PruneSettings, UserError, create_views, explain
from prune_lib.errors import OutputError, SettingsError
from prune_lib.graph import build_graph
from prune_lib.pages import key_of
from prune_lib.patterns import session_edges
from prune_lib.pipeline import run_prune
from prune_lib.samples import sample_frame, samples_of, windows
from prune_lib.sampling.floors import item_floors
from prune_lib.sampling.select import COVERAGE, FLOOR, first_twin, select_sessions
from prune_lib.schemas import DECISIONS
from prune_lib.sessions.columns import ColumnNames, with_columns
from prune_lib.settings import SamplingSettings, SuspectsSettings
from prune_lib.summary import Summary
from prune_lib.suspects import find_suspects, session_shapes
from tests.spark.sessions import copied, encoded, random_sessions

SESSIONS = random_sessions(51, n=160, items=50)
# A long one, whose first clicks are those of another; and a single click.
SESSIONS += [[*range(45), *range(45)], [0, 1, 2], [7]]


def test_samples_are_the_prefixes_of_two_clicks_and_more(spark: SparkSession) -> None:
    made, sessions = encoded(spark, SESSIONS)
    samples = samples_of(made, 3)
    rows = samples.sessions.toPandas()
    expected = {(sid, n): items[:n] for sid, items in enumerate(sessions) for n in range(2, len(items) + 1)}
    assert samples.n_sessions == samples.n_interactions == len(rows) == len(expected)
    by_bits: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for row in rows.itertuples():
        prefix = expected.pop((row.whole, row.length))
        assert list(row.window) == prefix[-4:] and list(row.items) == prefix[-1:]
        assert row.distinct == len(set(prefix)) and row.n == 1
        by_bits.setdefault(tuple(row.sequence), set()).add(tuple(prefix))
    assert not expected
    prefixes = {tuple(items[:n]) for items in sessions for n in range(2, len(items) + 1)}
    assert len(by_bits) == len(prefixes) and all(len(one) == 1 for one in by_bits.values())
    assert rows["sid"].is_unique and rows["tie"].is_unique
    targets = np.bincount([i for items in sessions for i in items[1:]], minlength=made.n_items)
    np.testing.assert_array_equal(samples.item_sessions, targets)


def test_the_graph_of_the_last_clicks_is_that_of_whole_prefixes(spark: SparkSession) -> None:
    made, sessions = encoded(spark, SESSIONS)
    graph = build_graph(windows(samples_of(made, 3)), SamplingSettings(), last_only=True)
    prefixes = [items[:n] for items in sessions for n in range(2, len(items) + 1)]
    code, message, _ = session_edges(
        np.concatenate(prefixes).astype(np.int32),
        np.array([len(items) for items in prefixes]),
        made.n_items,
        3,
        last_only=True,
    )
    held, count = np.unique(code, return_counts=True)
    shared = held[(count > 1) | (held < made.n_items)]
    found = graph.patterns.select("code", "sessions").toPandas().sort_values("code")
    np.testing.assert_array_equal(found["code"], shared)
    np.testing.assert_array_equal(found["sessions"], count[np.isin(held, shared)])
    assert graph.mass == message[np.isin(code, shared)].sum()


def test_a_bots_samples_are_a_bots_and_no_crowd(spark: SparkSession) -> None:
    made, sessions = encoded(spark, SESSIONS)
    samples = samples_of(made, 3)
    graph = build_graph(windows(samples), SamplingSettings(), last_only=True)
    q = samples.sessions.select("sid", F.lit(0.5).alias("q"))
    found = find_suspects(graph, session_shapes(made), q, SuspectsSettings(), samples.sessions)
    (bot,) = [sid for sid, items in enumerate(sessions) if len(items) == 90]
    rows = found.rows.join(samples.sessions, "sid").toPandas()
    assert set(rows["whole"]) == {bot} and len(rows) == 89 and set(rows["suspect"]) == {"BOT"}
    assert (found.bots, found.bot_clicks) == (1, 90)
    assert found.crowd(made.n_sessions, made.n_interactions) is None


def test_people_who_begin_as_a_bot_does_are_not_its_copies(spark: SparkSession) -> None:
    """The newest of all that begin with 0, 1 is a bot's, which is set aside: another stands for them."""
    made, _ = encoded(spark, [*([0, 1, k] for k in range(2, 42)), list(range(60)) * 2])
    samples = samples_of(made, 3)
    graph = build_graph(windows(samples), SamplingSettings(), last_only=True)
    q = samples.sessions.select("sid", F.lit(0.5).alias("q"))
    limits = SuspectsSettings(max_clicks=50)
    found = find_suspects(graph, session_shapes(made), q, limits, samples.sessions)
    begins = samples.sessions.filter("length = 2").select("sid", "sequence", "whole").toPandas()
    assert begins["sequence"].map(tuple).nunique() == 1 and len(begins) == 41
    for floors in (None, item_floors(samples, 1)):
        selection = select_sessions(
            graph,
            q.withColumnRenamed("q", "x"),
            first_twin(samples.sessions),
            budget=100,
            cost="one",
            floors=floors,
            cold=made.item_sessions <= 1,
            settings=SamplingSettings(),
            suspects=found.rows,
        )
        kept = selection.ranked.toPandas().merge(begins, on="sid")
        early = kept[kept["phase"].isin([FLOOR, COVERAGE])]
        assert early["whole"].tolist() == [39], "the newest person's, once"


# ------------------------------------------------------------------------------------------ whole runs


# The engines give the same numbers, bit for bit (test_graph); of the runs here one takes the default.
ARRAYS = {"engine": "arrays"}


def values(folder: Path, **more: Any) -> PruneSettings:
    # How good the experts are is no question here.
    training = {"epochs": 1, "max_length": 40, "dim": 8, "gate_epochs": 2}
    return PruneSettings(ratio=0.2, unit="prefix", workspace=str(folder), training=training, **more)


@pytest.fixture(scope="module")
def workspace(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples chosen of sessions, and of the same clicks as events in other partitions."""
    folder = tmp_path_factory.mktemp("samples")
    start = datetime(2024, 1, 1)
    rows = [
        (k, items, [start + timedelta(hours=100 * k, seconds=t) for t in range(len(items))], f"of {k}")
        for k, items in enumerate(SESSIONS)
    ]
    table = spark.createDataFrame(
        rows, "session_id bigint, items array<bigint>, times array<timestamp>, note string"
    )
    table.write.format("delta").save(str(folder / "sessions"))
    clicks = [
        (k, item, at, f"{k}/{t}")
        for k, s, times, _ in rows
        for t, (item, at) in enumerate(zip(s, times, strict=True))
    ]
    events = spark.createDataFrame(clicks, "session_id bigint, item bigint, time timestamp, click string")
    deep = F.struct(F.array(F.create_map(F.lit("of"), F.col("click"))).alias("maps"))
    events = events.withColumn("deep", deep)  # of which Spark makes no hash
    events.repartition(5, "click").write.format("delta").save(str(folder / "events"))
    run_prune(values(folder), spark)
    of_events = values(
        folder,
        input=str(folder / "events"),
        output=str(folder / "clicks"),
        experts=experts_of(folder),
        propagation=ARRAYS,
    )
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        run_prune(of_events, spark)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", "4")
    return folder


def experts_of(folder: Path) -> str:
    """The experts that the first run has trained."""
    (experts,) = (path for path in (folder / "experts").glob("*") if path.is_dir())
    return str(experts)


def read(spark: SparkSession, place: Path) -> pd.DataFrame:
    return spark.read.format("delta").load(str(place)).toPandas()


def test_kept_samples_are_prefixes_of_the_input(spark: SparkSession, workspace: Path) -> None:
    kept = read(spark, workspace / "pruned").sort_values("prune_rank")
    for row in kept.itertuples():
        assert list(row.items) == SESSIONS[row.session_id][: row.prune_length]
        assert len(row.times) == row.prune_length and row.note == f"of {row.session_id}"
    n = sum(len(items) - 1 for items in SESSIONS)
    assert kept["prune_rank"].tolist() == list(range(1, int(0.2 * n) + 1))
    assert kept["prune_weight"].sum() == pytest.approx(n)
    assert kept["items"].map(tuple).is_unique, "a prefix that two sessions begin with is kept once"
    run = read(spark, workspace / "pruned_runs").iloc[0]
    assert (run["unit"], run["budget"], run["sessions_before"]) == ("prefix", "samples", n)
    assert run["sessions_after"] == len(kept)


def test_every_sample_has_a_decision_that_adds_up(spark: SparkSession, workspace: Path) -> None:
    decisions = read(spark, workspace / "pruned_decisions")
    assert decisions.columns.tolist() == [column.name for column in DECISIONS]
    assert len(decisions) == sum(len(items) - 1 for items in SESSIONS)
    assert not decisions.duplicated(["session_id", "length"]).any()
    kept = decisions[decisions["kept"]].set_index("rank")
    by_id = kept.set_index(["session_id", "length"])
    for row in decisions.itertuples():
        prefix = SESSIONS[row.session_id][: row.length]
        assert row.target == prefix[-1]
        assert (row.interactions, row.items) == (row.length, len(set(prefix)))
        if row.gain_parts is not None and not pd.isna(row.gain):
            assert sum(part["gain"] for part in row.gain_parts) == pytest.approx(row.gain, abs=1e-9)
            # What a sample teaches is its target, and how one comes there.
            assert all(
                part["item" if pd.isna(part["next_item"]) else "next_item"] == row.target
                for part in row.gain_parts
            )
        if not pd.isna(row.covered_by):
            cover = by_id.loc[(int(row.covered_by), int(row.covered_by_length))]
            theirs = SESSIONS[int(row.covered_by)][: int(row.covered_by_length)]
            assert set(row.shared_items) == set(prefix[-4:]) & set(theirs[-4:])
            assert row.reason != "DUPLICATE" or prefix == theirs, cover
    # The long session does not fit the experts' window of 40 clicks: it is scored on several.
    assert len(SESSIONS[160]) == 90 and decisions["difficulty"].notna().all()


def test_an_items_counts_are_of_the_samples_that_predict_it(spark: SparkSession, workspace: Path) -> None:
    items = read(spark, workspace / "pruned_items").set_index("item")
    decisions = read(spark, workspace / "pruned_decisions")
    assert set(items.index) == {item for session in SESSIONS for item in session}
    before, after = (
        d["target"].value_counts().reindex(items.index, fill_value=0)
        for d in (decisions, decisions[decisions["kept"]])
    )
    assert items["sessions_before"].tolist() == before.tolist()
    assert items["sessions_after"].tolist() == after.tolist()


def test_events_give_the_same_samples_as_sessions(spark: SparkSession, workspace: Path) -> None:
    key = ["session_id", "length"]
    one, other = (
        read(spark, workspace / name).drop(columns="run_id").sort_values(key, ignore_index=True)
        for name in ("pruned_decisions", "clicks_decisions")
    )
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    clicks = read(spark, workspace / "clicks").sort_values(["prune_rank", "time"])
    samples = read(spark, workspace / "pruned").sort_values("prune_rank")
    assert clicks.groupby("prune_rank")["item"].agg(list).tolist() == samples["items"].map(list).tolist()
    first = clicks[clicks["prune_rank"] == 1]
    session = first["session_id"].iloc[0]
    assert first["click"].tolist() == [f"{session}/{t}" for t in range(first["prune_length"].iloc[0])]


def test_times_by_which_sessions_are_not_ranked_are_cut_too(spark: SparkSession) -> None:
    rows = [("a", [7, 8, 9], [1, 2, 3], ["x", "y"], 4)]
    schema = "session_id string, items array<int>, times array<bigint>, timestamps array<string>, day int"
    table = with_columns(spark.createDataFrame(rows, schema), ColumnNames(order="day"), "here", None, "view")
    kept = spark.createDataFrame(
        [("a", 2, 1, "METHOD", None, 1.0)],
        "session_id string, length int, rank bigint, reason string, difficulty double, weight double",
    )
    (row,) = sample_frame(table, kept, "run").collect()
    assert (row["items"], row["times"]) == ([7, 8], [1, 2])
    assert row["timestamps"] == ["x", "y"], "a list of another length is not of the clicks"


def test_a_sample_is_explained(spark: SparkSession, workspace: Path) -> None:
    output = str(workspace / "pruned")
    decisions = read(spark, workspace / "pruned_decisions")
    chosen = decisions[decisions["kept"] & (decisions["gain"] > 0)].sort_values("rank").head(3)
    keys = []
    for row in chosen.itertuples():
        page = explain(row.session_id, length=row.length, output=output, spark=spark)
        assert (
            f"session {row.session_id} up to click {row.length} was kept: rank {int(row.rank)} of"
            in str(page).lower()
        )
        assert page.session.clicks == SESSIONS[row.session_id][: row.length]
        keys.append(key_of(page.session))
    assert keys == sorted(keys, reverse=True)
    page = explain(160, output=output, spark=spark)
    assert str(page).startswith("Session 160 has 89 samples, of which ")
    item = read(spark, workspace / "pruned_items").sort_values(["sessions_after", "item"]).iloc[-1]
    page = explain(item=int(item["item"]), output=output, lines=2, spark=spark)
    assert f"{item['sessions_before']:,} samples of the input predict it" in str(page)
    assert len(page.item.kept) == 2 and sum(page.item.reasons.values()) == item["sessions_before"]
    with pytest.raises(UserError, match="no sample of 99 clicks"):
        explain(0, length=99, output=output, spark=spark)


def test_a_dry_run_counts_sessions_and_not_the_samples_of_the_run_before(
    spark: SparkSession, workspace: Path
) -> None:
    lines = run_prune(values(workspace, dry_run=True), spark).plan["forecast"]
    n = len(SESSIONS)
    assert f"by that run's {n} sessions of {sum(map(len, SESSIONS))} interactions; {n} rows now" in lines[1]
    whole = PruneSettings(ratio=0.2, method="random", workspace=str(workspace), dry_run=True)
    assert "which was by method graph and unit prefix" in run_prune(whole, spark).plan["forecast"][2]


@pytest.fixture(scope="module")
def by_quota(spark: SparkSession, workspace: Path) -> Summary:
    """Samples of the events by a baseline, in a folder and of a name that SQL takes only quoted."""
    output = workspace / 'it\'s "kept" & ü' / "2 prefixes"
    settings = values(workspace, input=str(workspace / "events"), output=str(output), method="item-quota")
    return run_prune(settings, spark)


def assert_chose_samples(summary: Summary) -> None:
    n = sum(len(items) - 1 for items in SESSIONS)
    assert summary.run["sessions_after"] == int(0.2 * n)
    assert "samples" in str(summary) and "interactions " not in str(summary)


def test_d2_chooses_samples_too_and_they_are_compared_with_those_of_the_run_before(
    spark: SparkSession, workspace: Path, tmp_path: Path
) -> None:
    settings = values(
        workspace,
        method="d2",
        output=copied(workspace / "pruned", tmp_path / "kept"),
        experts=experts_of(workspace),
        propagation=ARRAYS,
    )
    summary = run_prune(settings, spark)
    assert_chose_samples(summary)
    before, after = (
        read(spark, place).set_index(["session_id", "length"])
        for place in (workspace / "pruned_decisions", tmp_path / "kept_decisions")
    )
    was, now = (set(decisions.index[decisions["kept"]]) for decisions in (before, after))
    left = after.loc[sorted(was - now), "reason"].value_counts().sort_index().to_dict()
    assert left, "they do not choose the same"
    assert summary.run["churn"] == (
        before["run_id"].iloc[0],
        len(was),
        len(was & now),
        len(was - now),
        left,
        len(now - was),
        0,
    )


def test_an_item_quota_is_of_the_samples_that_predict_it(spark: SparkSession, by_quota: Summary) -> None:
    assert_chose_samples(by_quota)
    # The first sample of each target, then the second of each.
    after = read(spark, Path(f"{by_quota.output}_items")).query("sessions_before >= 3")["sessions_after"]
    assert after.min() >= 1


@pytest.mark.usefixtures("compiled")
def test_samples_in_a_folder_have_views_of_the_session(spark: SparkSession, by_quota: Summary) -> None:
    output = by_quota.output
    assert not [t for t in spark.catalog.listTables(pattern="2_prefixes*")], "a run leaves none by itself"
    assert create_views(spark, output) == ["2_prefixes_summary", "2_prefixes_item_coverage"]
    decisions, pruned = read(spark, Path(f"{output}_decisions")), read(spark, Path(output))
    summary, items = (
        spark.table(f"2_prefixes_{view}").toPandas().set_index(key).sort_index()
        for view, key in (("summary", "reason"), ("item_coverage", "item"))
    )
    assert summary["sessions"].sum() == summary["interactions"].sum() == len(decisions)
    assert summary.loc["METHOD", "mean_length"] == pytest.approx(
        decisions.query("kept")["length"].mean(), abs=1e-6
    )
    weights = pruned.drop_duplicates("prune_rank").set_index("prune_rank")["prune_weight"]
    assert len(weights) < len(pruned), "a sample has a row a click, and counts once"
    chosen = decisions.query("kept").assign(weight=lambda d: d["rank"].map(weights))
    by_target = chosen.groupby("target")["weight"].sum().reindex(items.index, fill_value=0.0)
    pd.testing.assert_series_equal(items["weighted_sessions"], by_target, check_names=False, atol=1e-5)
    first = chosen.groupby("target")["rank"].min().reindex(items.index)
    pd.testing.assert_series_equal(items["first_rank"], first, check_names=False, check_dtype=False)
    # Once more replaces them, and a view of somebody else's stays.
    create_views(spark, output)
    for view in create_views(spark, output, name="spring"):
        assert view.startswith("spring_") and spark.table(view).count() > 0
        spark.catalog.dropTempView(view)
    with pytest.raises(SettingsError, match="letters, digits and underscores; got 'my views'"):
        create_views(spark, output, name="my views")
    spark.range(3).createOrReplaceTempView("2_prefixes_summary")
    with pytest.raises(OutputError, match="2_prefixes_summary is taken"):
        create_views(spark, output)
    assert spark.table("2_prefixes_summary").count() == 3
    assert not spark.catalog.tableExists("2_prefixes_item_coverage"), "both or neither"
    spark.catalog.dropTempView("2_prefixes_summary")
