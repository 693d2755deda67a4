"""The report of real runs: its numbers are those of the tables, and what is missing is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib import PruneSettings, UserError
from prune_lib.lookup import Tables
from prune_lib.pipeline import run_prune
from prune_lib.report.facts import BANDS, Facts
from prune_lib.report.job import Report, _bundle, report, write_report
from prune_lib.report.neighbours import example_session, look_around
from prune_lib.report.results import measured
from prune_lib.report.sample import drawn, examples
from prune_lib.report.sections.sessions import examples_of
from prune_lib.report.tables import curve, gather
from prune_lib.settings.report import ReportSettings
from prune_lib.stages import Stages
from tests.core.reports import made_facts
from tests.spark.sessions import random_sessions

HOSTILE = "x`;'\"\n</script>🙂"
SESSIONS = 400
# Beyond 2^53 a float does not tell neighbours apart.
FIRST = 2**60 + 1


@pytest.fixture(scope="module")
def workspace(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on events with ids as numbers, and a baseline's on samples of sessions with ids as text."""
    folder = tmp_path_factory.mktemp("reported")
    sessions = random_sessions(43, n=SESSIONS - 40, items=60)
    sessions += sessions[:40]  # duplicates
    clicks = [
        (FIRST + k, item, 100 * k + t) for k, items in enumerate(sessions) for t, item in enumerate(items)
    ]
    events = spark.createDataFrame(clicks, "session_id bigint, item bigint, time bigint")
    events.write.format("delta").save(str(folder / "events"))
    values: dict[str, Any] = {
        "ratio": 0.3,
        "workspace": str(folder),
        # How good the experts are is no question here.
        "training": {"epochs": 1, "dim": 8, "gate_epochs": 2},
    }
    run_prune(PruneSettings(**values, input=str(folder / "events"), output=str(folder / "kept")), spark)
    texts = [(f"s{k}" if k else HOSTILE, [HOSTILE, *map(str, s)]) for k, s in enumerate(sessions[:60])]
    # A user's column may have any name.
    table = spark.createDataFrame(texts, "`session.id` string, items array<string>").withColumn(
        "wanted", F.lit(1)
    )
    table.write.format("delta").save(str(folder / "sessions"))
    values["session_column"] = "session.id"
    samples = PruneSettings(**values, method="random", unit="prefix", output=str(folder / "drawn"))
    run_prune(samples, spark)
    return folder


@pytest.fixture(scope="module")
def tables(spark: SparkSession, workspace: Path) -> Tables:
    return Tables(spark, str(workspace / "kept"), {})


@pytest.fixture(scope="module")
def facts(tables: Tables) -> Facts:
    return gather(tables)


@pytest.fixture(scope="module")
def decisions(spark: SparkSession, workspace: Path) -> pd.DataFrame:
    table = spark.read.format("delta").load(str(workspace / "kept_decisions"))
    found: pd.DataFrame = table.withColumn("covered_by", F.col("covered_by").cast("string")).toPandas()
    return found


@pytest.fixture(scope="module")
def page(spark: SparkSession, workspace: Path) -> Report:
    """The report of the first run, where it is by default; no test changes it."""
    return write_report(spark, str(workspace / "kept"), workspace=str(workspace), map_points=120)


def clicks_of(spark: SparkSession, workspace: Path) -> dict[int, list[int]]:
    events = spark.read.format("delta").load(str(workspace / "events")).toPandas().sort_values("time")
    return {int(k): list(own["item"]) for k, own in events.groupby("session_id")}


def test_the_curve_is_what_every_smaller_budget_keeps(
    spark: SparkSession, workspace: Path, facts: Facts, decisions: pd.DataFrame
) -> None:
    clicks = clicks_of(spark, workspace)
    items = spark.read.format("delta").load(str(workspace / "kept_items")).toPandas()
    band = dict(zip(items["item"], items["band"], strict=True))
    kept = decisions[decisions["kept"]].sort_values("rank")
    curve = facts.curve.set_index("rank")
    assert curve.index[-1] == len(kept) and len(curve) == min(len(kept), 200)
    for rank in (curve.index[0], curve.index[len(curve) // 2], curve.index[-1]):
        first = kept[kept["rank"] <= rank]
        held = {item for session in first["session_id"] for item in clicks[session]}
        row = curve.loc[rank]
        assert row["sessions"] == len(first) and row["interactions"] == first["interactions"].sum()
        assert row["items"] == len(held)
        assert [row[b] for b in BANDS] == [sum(band[i] == b for i in held) for b in BANDS]
        assert row["objective"] == pytest.approx(
            facts.run["objective"] * first["gain"].sum() / kept["gain"].sum()
        )
        assert row["difficulty"] == pytest.approx(first["difficulty"].mean())
    assert 0 < facts.run["objective"] < 1


def test_sessions_without_a_difficulty_are_not_in_its_mean(spark: SparkSession) -> None:
    rows = [(k, True, k, 2, 1.0, q) for k, q in enumerate([0.2, None, 0.6], 1)]
    kept = spark.createDataFrame(
        rows, "session_id long, kept boolean, rank int, interactions int, gain double, difficulty double"
    )
    items = spark.createDataFrame([(1, "cold")], "first_kept_session long, band string")
    assert curve(kept, items, 1.0)["difficulty"].tolist() == pytest.approx([0.2, 0.2, 0.4])
    of_none = kept.withColumn("difficulty", F.lit(None).cast("double"))
    assert curve(of_none, items, 1.0)["difficulty"].isna().all()


def test_a_floor_of_an_older_version_has_no_known_objective(spark: SparkSession) -> None:
    rows = [(k, True, k, 2, gain, 0.5) for k, gain in enumerate([None, 1.0, 1.0], 1)]
    kept = spark.createDataFrame(
        rows, "session_id long, kept boolean, rank int, interactions int, gain double, difficulty double"
    )
    items = spark.createDataFrame([(1, "cold")], "first_kept_session long, band string")
    assert curve(kept, items, 0.9)["objective"].isna().all()
    assert curve(kept.fillna(2.0), items, 0.9)["objective"].tolist() == pytest.approx([0.45, 0.675, 0.9])


def test_reasons_losses_and_shares_are_those_of_the_decisions(facts: Facts, decisions: pd.DataFrame) -> None:
    by_reason = facts.reasons.set_index("reason")
    assert by_reason["sessions"].to_dict() == decisions["reason"].value_counts().to_dict()
    assert by_reason["interactions"].sum() == decisions["interactions"].sum()
    assert facts.reasons["kept"].is_monotonic_decreasing, "the kept ones come first"
    for expert, column in (("gnn", "difficulty_gnn"), ("mixture", "raw_difficulty")):
        own = facts.losses[facts.losses["expert"] == expert]
        assert own["sessions"].sum() == decisions[column].notna().sum()
        middle = (own["low"] + own["high"]) / 2
        width = (own["high"] - own["low"]).iloc[0]
        mean = np.average(middle, weights=own["sessions"])
        assert mean == pytest.approx(decisions[column].mean(), abs=width / 2)
    assert facts.shares["sessions"].sum() == decisions["difficulty"].notna().sum()
    scored_and_kept = decisions["kept"] & decisions["difficulty"].notna()
    assert facts.shares["kept"].sum() == scored_and_kept.sum()
    lengths = facts.lengths.groupby("interactions")["sessions"].sum()
    expected = decisions["interactions"].clip(upper=20).value_counts().sort_index()
    assert lengths.to_dict() == expected.to_dict()


def test_the_sample_is_drawn_by_hash_and_has_its_clicks(
    spark: SparkSession, workspace: Path, tables: Tables, facts: Facts
) -> None:
    clicks = clicks_of(spark, workspace)
    few, all_of_them = drawn(tables, facts, 50), drawn(tables, facts, 10_000)
    assert (len(few.rows), few.of, few.whole) == (50, SESSIONS, False)
    assert all_of_them.whole and list(few.rows["session_id"]) == list(all_of_them.rows["session_id"][:50])
    assert all(clicks[int(s)] == c for s, c in zip(few.rows["session_id"], few.rows["clicks"], strict=True))
    share = few.rows["kept"].mean()
    assert abs(share - all_of_them.rows["kept"].mean()) < 0.25, "no side is preferred"


def test_examples_show_who_stands_for_them(
    spark: SparkSession, workspace: Path, tables: Tables, facts: Facts
) -> None:
    clicks = clicks_of(spark, workspace)
    rows = examples(tables, facts, 3)
    assert rows.groupby("reason").size().max() == 3
    assert set(rows["reason"]) == set(facts.reasons["reason"])
    twins = rows[rows["reason"] == "DUPLICATE"]
    cells = {cell for table in examples_of(facts, rows).tables for line in table.rows for cell in line}
    assert len(twins) > 0
    for row in twins.to_dict("records"):
        assert row["clicks"] == row["cover_clicks"] == clicks[int(row["session_id"])]
        assert clicks[int(row["covered_by"])] == row["clicks"], "the id is exact"
        assert row["covered_by"] in cells, "also on the page"


def test_neighbours_hold_the_items_and_the_cover_comes_first(
    spark: SparkSession, workspace: Path, tables: Tables, facts: Facts, decisions: pd.DataFrame
) -> None:
    clicks = clicks_of(spark, workspace)
    name, _ = example_session(tables)
    assert name is not None
    found = look_around(tables, facts, name)
    assert found is not None and found.clicks == [str(i) for i in clicks[int(name)]]
    own = decisions[decisions["session_id"] == int(name)].iloc[0]
    assert found.kept[0].is_cover and found.kept[0].id == own["covered_by"]
    assert sum(entry.is_cover for entry in found.kept) == 1
    kept = set(decisions.loc[decisions["kept"], "session_id"])
    for entry in found.kept:
        assert int(entry.id) in kept
        assert set(entry.items) == {str(i) for i in clicks[int(entry.id)]} & set(found.clicks)
    counts = [len(entry.items) for entry in found.kept[1:]]
    assert counts == sorted(counts, reverse=True)


def test_a_page_with_everything(spark: SparkSession, workspace: Path, page: Report) -> None:
    assert page.path == workspace / "kept_report.html" and page.points == 120 and page.warnings == ()
    text = page.path.read_text(encoding="utf-8")
    for section in ("kept", "why", "what-if", "items", "difficulty", "map", "examples", "neighbours", "run"):
        assert f'<section id="{section}"' in text, section
    assert 'id="performance"' not in text, "nothing was evaluated"
    again = write_report(
        spark, str(workspace / "kept"), workspace=str(workspace), map_points=120, path=workspace / "b.html"
    )
    assert again.path is not None and again.path.read_text(encoding="utf-8") == text, "the same every time"
    assert str(page.path) in str(page)


@pytest.mark.parametrize(
    ("settings", "input", "found"),
    [
        ({"input": None, "workspace": "WS"}, "WS/sessions", True),
        ({"input": "WS/clicks", "workspace": "WS"}, "WS/clicks/", True),
        ({"input": None, "workspace": "WS"}, "WS/clicks", False),
        # Nothing is known of its input: that is no folder that one works in.
        ({"input": None}, ".", False),
    ],
)
def test_an_evaluation_is_found_by_its_input(
    spark: SparkSession, tmp_path: Path, settings: dict[str, Any], input: str, found: bool
) -> None:
    own = {"data_set": "shop", "data_hash": "d"}
    told = json.dumps(settings).replace("WS", str(tmp_path))
    runs = [
        {**own, "split": split, "run_id": split[:1], "settings": told, "finished_at": datetime(2026, 1, day)}
        for split, day in (("test", 1), ("validation", 2))
    ]
    key = {**own, "variant": "", "samples": "positions", "band": "all", "target": "markov"}
    numbers = {"low": 0.1, "mean": 0.2, "high": 0.3, "seeds": 2}
    summary = [
        {**key, **numbers, "split": split, "regime": regime, "metric": metric, "method": m, "ratio": r}
        for split in ("test", "validation")
        for regime in ("steps", "epochs")
        for metric in ("recall@20", "mrr@20")
        for m, r in (("random", 0.1), ("all", 1.0), ("graph", 0.1))
    ]
    for name, rows in (("runs", runs), ("summary", summary)):
        frame = spark.createDataFrame(pd.DataFrame(rows))
        frame.write.format("delta").save(str(tmp_path / f"evaluation_{name}"))
    facts = made_facts(run={"input": input.replace("WS", str(tmp_path))})
    there = measured(spark, facts, str(tmp_path / "evaluation"))
    assert (there is not None) == found
    if there is not None:
        assert (there.data_set, there.split, there.regime, there.run_id) == ("shop", "test", "steps", "t")
        assert list(there.rows["method"]) == ["all", "graph", "random"]
    assert measured(spark, facts, str(tmp_path / "nowhere")) is None


def test_the_page_is_logged_with_its_run(workspace: Path, facts: Facts, page: Report) -> None:
    from mlflow.tracking import MlflowClient

    assert page.path is not None and page.run_id == facts.run["run_id"]
    client = MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("prune")
    runs = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{page.run_id}'")
    assert len(runs) == 1, "no run of its own"
    assert page.path.name in [a.path for a in client.list_artifacts(runs[0].info.run_id)]


def test_samples_of_a_baseline_with_hostile_ids(spark: SparkSession, workspace: Path) -> None:
    page = write_report(spark, str(workspace / "drawn"), workspace=str(workspace), session=HOSTILE)
    assert page.path is not None and page.points == 0
    text = page.path.read_text(encoding="utf-8")
    assert "samples" in text and 'id="difficulty"' not in text and 'id="map"' not in text
    assert text.count("<script") == 3, "no id is markup"
    facts = gather(Tables(spark, str(workspace / "drawn"), {}))
    assert facts.samples and facts.curve["interactions"].iloc[-1] == facts.run["interactions_after"]
    assert facts.curve["items"].iloc[-1] == facts.run["items_after"]
    assert len(facts.items) == facts.run["items_before"], "what no sample predicts cannot be lost"
    example, length = example_session(Tables(spark, str(workspace / "drawn"), {}))
    assert (example is None) == (length is None)
    around = look_around(Tables(spark, str(workspace / "drawn"), {}), facts, HOSTILE)
    assert around is not None and len({entry.id for entry in around.kept}) == len(around.kept)


def test_experts_and_evaluations_are_those_of_the_run(
    spark: SparkSession, workspace: Path, tmp_path: Path
) -> None:
    """Newer ones of the same input do not hide its own; those of another workspace are found by the flag."""
    (own,) = (path for path in (workspace / "experts").glob("2*") if path.is_dir())
    experts = tmp_path / "there" / "experts"
    shutil.copytree(own, experts / "of the run")
    newer = experts / "99990101T000000-newer"
    shutil.copytree(own, newer)
    (newer / "hash").write_text("0" * 64)
    facts = gather(Tables(spark, str(workspace / "kept"), {}))
    moved = replace(facts, settings={**facts.settings, "workspace": str(tmp_path / "nowhere")})
    stages = Stages()
    found = _bundle(moved, str(tmp_path / "there"), stages)
    assert found is not None and found.version == facts.run["experts_version"] and not stages.warnings
    assert _bundle(moved, str(tmp_path / "empty"), stages) is None
    assert f"are not in {tmp_path / 'nowhere'} or {tmp_path / 'empty'}" in stages.warnings[0]
    page = report(
        ReportSettings(
            output=str(workspace / "kept"),
            path=str(tmp_path / "x.html"),
            evaluation=str(tmp_path / "e"),
            map_points=0,
        ),
        spark,
    )
    assert any("no evaluation of" in text for text in page.warnings)


def test_what_is_missing_is_said(spark: SparkSession, workspace: Path, tmp_path: Path) -> None:
    for name in ("kept", "kept_decisions", "kept_items", "kept_runs"):
        shutil.copytree(workspace / name, tmp_path / name)
    away = workspace / "events.away"
    (workspace / "events").rename(away)
    try:
        spark.catalog.clearCache()
        page = write_report(spark, str(tmp_path / "kept"), workspace=str(tmp_path), map_points=50)
    finally:
        away.rename(workspace / "events")
    assert page.path is not None and page.points == 0
    assert any("cannot be read any more" in warning for warning in page.warnings)
    text = page.path.read_text(encoding="utf-8")
    assert 'id="neighbours"' not in text and 'id="map"' not in text and 'id="why"' in text


def test_mistakes_and_the_dry_run(
    spark: SparkSession, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="nowhere_decisions"):
        write_report(spark, str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no session '999999'"):
        write_report(spark, str(workspace / "kept"), session=999999, path=tmp_path / "x.html")

    def aggregates(_: object) -> None:
        raise AssertionError("a dry run computes nothing")

    monkeypatch.setattr("prune_lib.report.job.gather", aggregates)
    plan = report(
        ReportSettings(output=str(workspace / "kept"), path=str(tmp_path / "x.html"), dry_run=True), spark
    )
    assert plan.path is None and str(tmp_path / "x.html") in str(plan)
    assert not (tmp_path / "x.html").exists()
