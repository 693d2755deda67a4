"""The evaluation's protocol on small data: nothing leaks, subsets are what pruning keeps, runs resume."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from prune_lib.errors import InputError, SettingsError
from prune_lib.evaluation.ablations import shuffled
from prune_lib.evaluation.cells import CellStore
from prune_lib.evaluation.data import make_split, read_test
from prune_lib.evaluation.files import Split, budget_of, load_sessions
from prune_lib.evaluation.former import IDENTITY, merged
from prune_lib.evaluation.job import Evaluation, run_evaluation
from prune_lib.evaluation.output import _common
from prune_lib.evaluation.results import KEYS
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.evaluation.subsets import cut, prune_once, subset_of, write_prefixes
from prune_lib.evaluation.variants import ABLATIONS, check_ablations
from prune_lib.sessions.columns import ColumnNames
from prune_lib.sessions.reading import open_input
from prune_lib.settings import PruneSettings
from prune_lib.settings.fields import Method
from prune_lib.summary import Summary
from tests.spark.sessions import random_sessions

NAMED = ColumnNames("session_id", "items", None, "day")


@pytest.fixture(scope="module")
def sessions() -> list[list[int]]:
    return random_sessions(5, n=400, items=60)


@pytest.fixture(scope="module")
def table(spark: SparkSession, sessions: list[list[int]], tmp_path_factory: pytest.TempPathFactory) -> str:
    place = str(tmp_path_factory.mktemp("shop") / "sessions")
    rows = [(f"s{k:04d}", items, k) for k, items in enumerate(sessions)]
    frame = spark.createDataFrame(rows, "session_id string, items array<bigint>, day int")
    frame.repartition(3).write.parquet(place)
    return place


@pytest.fixture(scope="module")
def split(spark: SparkSession, table: str, tmp_path_factory: pytest.TempPathFactory) -> Split:
    """The newest tenth held out."""
    folder = tmp_path_factory.mktemp("split")
    return make_split(spark, open_input(spark, table, columns=NAMED), None, folder, name="test", share=0.1)


def test_the_newest_sessions_are_held_out_and_nothing_of_them_is_trained_on(
    spark: SparkSession, split: Split, sessions: list[list[int]]
) -> None:
    rows = spark.read.format("delta").load(split.sessions).orderBy("place").collect()
    assert [row["session_id"] for row in rows] == [f"s{k:04d}" for k in range(360)]
    # Back from indices to items: each index stands for one item, in training and in the test alike.
    item_of: dict[int, int] = {}
    for row, items in zip(rows, sessions, strict=False):
        for index, item in zip(row["items"], items, strict=True):
            assert item_of.setdefault(index, item) == item
    assert len(set(item_of.values())) == len(item_of) == split.n_items
    known = set(item_of.values())
    expected = [[i for i in items if i in known] for items in sessions[360:]]
    cases = split.cases()
    found = [[item_of[int(i)] for i in s] for s in cases.sessions(0, cases.n_sessions)]
    assert found == [items for items in expected if len(items) > 1]
    assert split.n_interactions == sum(map(len, sessions[:360]))
    assert split.unknown == sum(i not in known for items in sessions[360:] for i in items)


def test_the_split_is_the_same_whatever_the_partitions(
    spark: SparkSession, split: Split, table: str, tmp_path: Path
) -> None:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "7")
    try:
        again = make_split(
            spark, open_input(spark, table, columns=NAMED), None, tmp_path, name="test", share=0.1
        )
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert (again.data_hash, again.cases_hash) == (split.data_hash, split.cases_hash)


def test_rows_of_prefixes_are_put_together_to_sessions(spark: SparkSession, tmp_path: Path) -> None:
    """As the field shares its tests: all proper prefixes of a session, longest first."""
    whole = [[1, 2, 3], [3, 2], [1, 2, 3], [5, 5, 5, 5], [5, 5]]
    rows = [(s[:t], s[t]) for s in whole for t in range(len(s) - 1, 0, -1)]
    spark.createDataFrame(rows, "prefix array<bigint>, target bigint").coalesce(1).write.parquet(
        str(tmp_path / "test")
    )
    found = read_test(spark, str(tmp_path / "test"), ColumnNames()).orderBy("session_id").collect()
    assert [row["items"] for row in found] == whole
    spark.createDataFrame(rows[1:], "prefix array<bigint>, target bigint").coalesce(1).write.parquet(
        str(tmp_path / "broken")
    )
    assert read_test(spark, str(tmp_path / "broken"), ColumnNames()).count() == 5  # [1, 2] is a session too
    odd = [([1, 2], 3), ([4, 5, 6], 7), ([4], 5)]
    spark.createDataFrame(odd, "prefix array<bigint>, target bigint").coalesce(1).write.parquet(
        str(tmp_path / "odd")
    )
    with pytest.raises(InputError, match="do not add up to sessions"):
        read_test(spark, str(tmp_path / "odd"), ColumnNames())


def test_a_test_that_shares_no_item_is_refused(spark: SparkSession, table: str, tmp_path: Path) -> None:
    strange = spark.createDataFrame([("t", [1001, 1002])], "session_id string, items array<bigint>")
    with pytest.raises(InputError, match="no test case is left"):
        opened = open_input(spark, table, columns=NAMED)
        make_split(spark, opened, strange, tmp_path, name="test", share=0.1)


def test_a_test_that_is_part_of_the_input_or_older_is_warned_of(
    spark: SparkSession, table: str, sessions: list[list[int]], tmp_path: Path
) -> None:
    later = [("new", sessions[7], 401), ("new too", [*sessions[8], 1, 2, 3, 1], 402)]
    schema = "session_id string, items array<bigint>, day int"

    def made(name: str, rows: list[Any]) -> tuple[Split, list[str]]:
        spark.createDataFrame(rows, schema).write.parquet(str(tmp_path / name))
        warned: list[str] = []
        made = make_split(
            spark,
            open_input(spark, table, columns=NAMED),
            read_test(spark, str(tmp_path / name), NAMED),
            tmp_path / "splits",
            name="test",
            share=0.1,
            warn=warned.append,
        )
        return made, warned

    apart, warned = made("apart", later)
    assert not warned
    assert apart.repeated == 1  # of another day, with the items of s0007
    _, warned = made("mixed", [*later, ("s0003", sessions[3], 3), ("other", sessions[3], 399)])
    assert [text.partition(" are ")[0] for text in warned] == [
        "1 sessions of the test",
        "2 sessions of the test",
    ]


def test_what_is_wrong_with_a_test_names_its_own_flag(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_test(spark, str(tmp_path / "nowhere"), ColumnNames())
    assert "--test" in str(error.value) and "--input" not in str(error.value)


def test_a_held_out_part_that_shares_no_item_is_told_as_such(spark: SparkSession, tmp_path: Path) -> None:
    """There is no second table that could name its items otherwise."""
    place = str(tmp_path / "apart")
    rows = [(f"s{k}", [2 * k, 2 * k + 1], k) for k in range(10)]
    spark.createDataFrame(rows, "session_id string, items array<bigint>, day int").write.parquet(place)
    for name, way in (("test", "or give a test by --test"), ("validation", "--validation-share.")):
        with pytest.raises(InputError) as error:
            opened = open_input(spark, place, columns=NAMED)
            make_split(spark, opened, None, tmp_path, name=name, share=0.2)
        text = str(error.value)
        assert text.startswith(f"no {name} case is left: the newest 0.2 of the sessions are held out")
        assert way in text and "both tables" not in text


def test_without_an_order_nothing_can_be_held_out(spark: SparkSession, table: str, tmp_path: Path) -> None:
    unordered = open_input(spark, table, columns=ColumnNames("session_id", "items"))
    with pytest.raises(InputError, match="held out.*--order-column"):
        make_split(spark, unordered, None, tmp_path, name="test", share=0.1)


def settings_in(folder: Path, split: Split, method: Method) -> Callable[[float], PruneSettings]:
    """The settings of a method's run at a ratio, all in one folder."""

    def at(ratio: float) -> PruneSettings:
        place = str(folder / f"{method}-0-{ratio:g}" / "pruned")
        workspace = str(folder / "workspace")
        return EvaluateSettings().prune_settings(method, 0, ratio, split.sessions, place, workspace)

    return at


def test_a_cut_by_rank_is_what_pruning_at_that_ratio_keeps(
    spark: SparkSession, split: Split, tmp_path: Path
) -> None:
    """So that one pruning run serves every smaller ratio; of our method test_pipeline.py says it."""
    at = settings_in(tmp_path, split, "random")

    def pruned(ratio: float) -> str:
        table, _ = prune_once(spark, at, split, ratio)
        assert table == at(ratio).resolved_output
        return table

    small = spark.read.format("delta").load(pruned(0.2)).select("session_id").toPandas()
    large = spark.read.format("delta").load(pruned(0.5))
    budget = int(0.2 * split.n_interactions)
    kept = cut(large.select("session_id", "items", "prune_rank"), budget).select("session_id").toPandas()
    assert set(kept["session_id"]) == set(small["session_id"]) and len(kept) > 5
    # What is kept of less is a part of what is kept of more: no run for it.
    prune_once(spark, at, split, 0.3)
    assert not (tmp_path / "random-0-0.3").exists()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pruning is a draw of each ratio's own, and the first run trains and scores; the ratios, run by run."""
    done: list[float] = []

    def run_prune(settings: PruneSettings, spark: SparkSession) -> Summary:
        table = spark.read.format("delta").load(settings.resolved_input)
        drawn = F.xxhash64(F.lit(settings.ratio), "session_id")
        ranked = table.withColumn("prune_rank", F.row_number().over(Window.orderBy(drawn)))
        clicks = table.agg(F.sum(F.size("items"))).first()
        kept = cut(ranked, budget_of(settings.ratio, clicks[0]))
        kept.write.format("delta").mode("overwrite").save(settings.resolved_output)
        Path(settings.workspace).mkdir(parents=True, exist_ok=True)
        stages = [("difficulty", 0.25, 360), ("sampling", 1.0, 1)]
        if not done:
            stages = [("training", 8.0, 1), ("difficulty", 2.0, 360), ("sampling", 1.0, 1)]
        scoring = {"experts": "v1", "score": settings.score, "reused_sessions": 360 if done else 0}
        done.append(settings.ratio)
        return Summary("", {"stages": stages}, scoring)

    monkeypatch.setattr("prune_lib.pipeline.run_prune", run_prune)
    return done


def test_what_training_and_scoring_took_is_a_part_of_every_run_that_uses_them(
    spark: SparkSession, split: Split, tmp_path: Path, runs: list[float]
) -> None:
    at = settings_in(tmp_path, split, "graph")
    taken = {ratio: prune_once(spark, at, split, ratio)[1] for ratio in (0.2, 0.5)}
    assert runs == [0.2, 0.5], "a run that keeps less serves none that keeps more"
    for seconds in taken.values():
        assert (seconds["training"], seconds["difficulty"], seconds["sampling"]) == (8.0, 2.0, 1.0)
    # By another score sessions are scored anew: what that takes is not known of a run that found it done.
    other = prune_once(spark, lambda ratio: at(ratio).model_copy(update={"score": "el2n"}), split, 0.6)[1]
    assert (other["training"], other["difficulty"]) == (8.0, 0.25)
    # A run that lies there is told of as it was.
    assert prune_once(spark, at, split, 0.3)[1] == taken[0.5] and runs == [0.2, 0.5, 0.6]


def test_a_method_prunes_once_but_dual_once_a_ratio(
    spark: SparkSession, split: Split, tmp_path: Path, runs: list[float]
) -> None:
    """Dual's order depends on the ratio: a cut of what it keeps of more is another choice."""
    settings = EvaluateSettings(workspace=str(tmp_path))
    run = Evaluation(settings, spark, tmp_path, CellStore(tmp_path / "cells"))
    run.pruned(split, "graph", 0, [0.5, 0.1])
    assert runs == [0.5]
    found = run.pruned(split, "dual", 0, [0.5, 0.1])
    assert runs == [0.5, 0.1, 0.5]
    ids = {}
    for ratio in (0.1, 0.5):
        table = split.folder / "pruned" / f"dual-0-{ratio:g}" / "pruned"
        rows = spark.read.format("delta").load(str(table))
        places = [row["place"] for row in rows.select("place").orderBy("place").collect()]
        kept = pd.read_parquet(found.subsets[ratio].folder / "sessions")["place"].tolist()
        assert kept == places
        ids[ratio] = rows.select("session_id", "items", "prune_rank")
    former = cut(ids[0.5], budget_of(0.1, split.n_interactions)).toPandas()["session_id"]
    assert set(former) != set(ids[0.1].toPandas()["session_id"])
    assert found.subsets[0.1].hash != found.subsets[0.5].hash
    # What lies there of a former version is no subset of now, and goes.
    folder, digest = found.subsets[0.1].folder, found.subsets[0.1].hash
    stale = str(split.folder / "pruned" / "dual-0-0.5" / "pruned")
    assert subset_of(spark, split, stale, 0.1, folder, 50).hash != digest
    assert run.pruned(split, "dual", 0, [0.1]).subsets[0.1].hash == digest
    assert len(runs) == 3, "and what was pruned is not pruned again"


def test_a_row_beyond_the_whole_budget_ends_no_cut(spark: SparkSession) -> None:
    rows = [(f"s{rank}", [1] * n, rank) for rank, n in enumerate((2, 50, 3, 6, 1), start=1)]
    frame = spark.createDataFrame(rows, "session_id string, items array<bigint>, prune_rank bigint")

    def kept(budget: int) -> list[str]:
        return sorted(row["session_id"] for row in cut(frame, budget).collect())

    # The fourth fits the budget and not what is left of it: there the cut ends.
    assert kept(6) == ["s1", "s3"]
    assert kept(5) == ["s1", "s3"] and kept(1) == ["s5"] and kept(0) == []
    assert kept(61) == ["s1", "s2", "s3", "s4"]


def test_a_subset_on_disk_is_what_was_kept(spark: SparkSession, split: Split, tmp_path: Path) -> None:
    subset = subset_of(spark, split, None, 1.0, tmp_path / "all", 50)
    rows = spark.read.format("delta").load(split.sessions).orderBy("place").collect()
    assert [s.tolist() for s in load_sessions(subset.folder)] == [row["items"] for row in rows]
    assert subset.sessions == 360
    assert subset.interactions == split.n_interactions
    # A session of one click has nothing to predict, and is in the data all the same.
    assert subset.targets == sum(len(row["items"]) - 1 for row in rows)
    np.testing.assert_array_equal(np.load(subset.folder / "popularity.npy"), split.item_sessions())
    assert subset_of(spark, split, None, 1.0, tmp_path / "all", 50) == subset


def test_prefixes_are_rows_of_their_own(spark: SparkSession, split: Split, tmp_path: Path) -> None:
    subset = subset_of(spark, split, None, 1.0, tmp_path / "all", 50)
    write_prefixes(spark, subset, split.n_items, 50)
    feed = subset.feed("prefixes")
    assert feed.sessions() == subset.targets

    def rows(batches: Any) -> list[tuple[int, ...]]:
        return sorted(tuple(int(i) for i in row if i != split.n_items) for b in batches for row in b)

    expected = [
        tuple(int(i) for i in s[:t]) for s in load_sessions(subset.folder) for t in range(2, len(s) + 1)
    ]
    assert rows(feed.batches(64)) == sorted(expected)


def test_shuffled_difficulties_are_uniform_ranks(spark: SparkSession) -> None:
    made = spark.range(5000).selectExpr("id AS sid", "xxhash64(0L, id) AS tie")
    q = shuffled(made).toPandas().set_index("sid")["q"]
    assert q.nunique() > 4900, "a draw each, and few of them alike"
    counts, _ = np.histogram(q, bins=10, range=(0, 1))
    assert (counts > 400).all() and abs(np.corrcoef(q.sort_index(), range(5000))[0, 1]) < 0.05


def test_names_that_are_no_ablation_are_refused() -> None:
    check_ablations(["all", "difficulty", "kappa=0"])
    with pytest.raises(SettingsError, match="'kapa'.*kappa=0"):
        check_ablations(["kapa"])


def small(table: str, workspace: Path, **more: Any) -> EvaluateSettings:
    values: dict[str, Any] = {
        "input": table,
        "order_column": "day",
        "workspace": str(workspace),
        "ratios": (0.2, 0.4, 1.0),
        "targets": ("gru4rec", "session-knn"),
        "seeds": 1,
        "regimes": ("steps",),
        "training": {"epochs": 1},
        "fit": {"dim": 8, "steps": 10, "learning_rate": 0.005},
        "processes": 1,
        "device": "cpu",
        **more,
    }
    return EvaluateSettings(**values)


@pytest.mark.soak  # test_evaluate_job.py has the whole way once, `merged` below what former runs become
def test_an_evaluation_from_sessions_to_tables_and_again(
    spark: SparkSession, table: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "ws"
    text = str(run_evaluation(small(table, workspace, name="shop"), spark))
    assert "graph 20 %" in text and "random 40 %" in text and "session-knn" in text
    values = spark.read.format("delta").load(str(workspace / "evaluation")).toPandas()
    assert {r.name for r in (workspace / "evaluate" / "shop" / "cells").iterdir()} == set(values["cell"])
    recall = values[(values["metric"] == "recall@20") & (values["band"] == "all")]
    # Two methods, two ratios and all of it, for each of two targets.
    assert len(recall) == 10
    assert recall["value"].between(0, 1).all()
    assert set(values["split"]) == {"test"}
    budget = values["ratio"] * values.loc[values["method"] == "all", "interactions"].iloc[0]
    assert (values["interactions"] <= budget).all()
    summary = spark.read.format("delta").load(str(workspace / "evaluation_summary")).toPandas()
    one = summary.query("method == 'graph' and ratio == 0.2 and metric == 'recall@20' and band == 'all'")
    assert one["over_random"].notna().all()
    assert (workspace / "evaluation_report" / "results.md").is_file()

    # Once more with another target: what is done is not run again, and stays in the tables.
    before = {f: f.stat().st_mtime_ns for f in (workspace / "evaluate" / "shop" / "cells").iterdir()}
    run_evaluation(small(table, workspace, name="shop", targets=("markov",)), spark)
    again = spark.read.format("delta").load(str(workspace / "evaluation")).toPandas()
    assert set(again["target"]) == {"gru4rec", "session-knn", "markov"}
    assert {f: f.stat().st_mtime_ns for f in before} == before
    old = again[again["target"] != "markov"].drop(columns=["prune_seconds"])
    key = ["method", "ratio", "target", "band", "metric"]
    same = old.sort_values(key, ignore_index=True)[[*key, "value", "cell"]]
    assert same.equals(values.sort_values(key, ignore_index=True)[[*key, "value", "cell"]])
    assert (again.groupby([*key, "seed", "regime", "samples"]).size() == 1).all()

    # The tables are lost, as on another machine: what lies beside the document is gone on from.
    for kind in ("", "_summary", "_runs"):
        shutil.copytree(workspace / f"evaluation{kind}", tmp_path / f"before{kind}")
        shutil.rmtree(workspace / f"evaluation{kind}")
    elsewhere = small(table, workspace, name="shop", targets=("item-knn",))
    assert "item-knn" in str(run_evaluation(elsewhere, spark))
    more = spark.read.format("delta").load(str(workspace / "evaluation")).toPandas()
    assert set(more["target"]) == {*again["target"], "item-knn"}
    former = more[more["target"] != "item-knn"].sort_values([*key, "method"], ignore_index=True)
    wanted = again.sort_values([*key, "method"], ignore_index=True)[former.columns]
    pd.testing.assert_frame_equal(former, wanted, check_exact=True, check_dtype=False)
    assert "session-knn" in (workspace / "evaluation_report" / "results.md").read_text()

    # The former tables are back, as on the first machine, and what the second one added is taken in.
    for kind in ("", "_summary", "_runs"):
        shutil.rmtree(workspace / f"evaluation{kind}")
        shutil.copytree(tmp_path / f"before{kind}", workspace / f"evaluation{kind}")
    run_evaluation(small(table, workspace, name="shop", targets=("markov",), ratios=(0.4,)), spark)
    all_of_it = spark.read.format("delta").load(str(workspace / "evaluation")).toPandas()
    assert set(all_of_it["target"]) == set(more["target"])
    pd.testing.assert_frame_equal(
        all_of_it[[*key, "value"]].sort_values(key, ignore_index=True),
        more[[*key, "value"]].sort_values(key, ignore_index=True),
    )
    runs = spark.read.format("delta").load(str(workspace / "evaluation_runs")).toPandas()
    assert len(runs) == 4 and runs["command"].str.startswith("prune_lib.evaluate(").all()


@pytest.mark.soak  # forms, floors and cuts have tests of their own
def test_validation_chooses_and_samples_and_ablations_run(
    spark: SparkSession, table: str, tmp_path: Path
) -> None:
    """On the validation split, with everything that can be asked for in small."""
    fit = {"dim": 8, "candidates": (0.005, 0.001), "epochs_tried": (1.0,)}
    settings = small(
        table,
        tmp_path / "ws",
        name="shop",
        split="validation",
        fit=fit,
        ratios=(0.3,),
        samples=("positions", "prefixes", "last"),
        ablations=(
            "kappa=0",
            "uniform",
            "no-cross-fitting",
            "el2n",
            "shuffled",
            "items-only",
            "weighted",
            "unit=prefix",
        ),
    )
    run_evaluation(settings, spark)
    values = spark.read.format("delta").load(str(tmp_path / "ws" / "evaluation")).toPandas()
    assert set(values["split"]) == {"validation"}
    tuning = values[values["regime"] == "tuning"]
    # Two learning rates on all the data; on the random tenth at a quarter and half the length, too.
    assert len(tuning["variant"].unique()) == 6
    rows = values[
        (values["metric"] == "recall@20") & (values["band"] == "all") & (values["regime"] == "steps")
    ]
    assert set(rows["samples"]) == {"positions", "prefixes", "last"}
    of_graph = rows[(rows["method"] == "graph") & (rows["target"] == "gru4rec")]
    cells = of_graph[of_graph["samples"] == "positions"].set_index("variant")["cell"]
    assert set(cells.index) == {"", *settings.ablations} - {"unit=prefix"}
    # Each changes what is kept; but on so little data the gate has hardly left the uniform mixture.
    assert len(set(cells[["", "kappa=0", "shuffled", "items-only", "weighted", "no-cross-fitting"]])) == 6
    # Of the 324 sessions that are trained on, each is stood for by one copy of a kept one.
    assert rows.loc[rows["variant"] == "weighted", "sessions"].between(300, 348).all()
    prefix = rows[rows["variant"] == "unit=prefix"]
    assert set(prefix["method"]) == {"graph", "random"}
    assert set(prefix["samples"]) == {"last"}
    (validation,) = (tmp_path / "ws/evaluate/shop").glob("validation-*")
    targets = sum(map(len, load_sessions(validation / "subsets/all"))) - 324
    assert (prefix["sessions"] == int(0.3 * targets)).all()


def test_every_ablation_differs_from_the_method_in_its_settings() -> None:
    method = EvaluateSettings().prune_settings("graph", 0, 0.1, "/a/x", "/a/y", "/a")
    for name, variant in ABLATIONS.items():
        changed = False
        for group in ("sampling", "suspects", "propagation"):
            own, changes = getattr(method, group), dict(getattr(variant, group))
            assert set(changes) <= set(type(own).model_fields)
            changed |= own.model_copy(update=changes) != own
        other = (variant.floor, variant.difficulty, variant.unit) != (0, "mixture", "session")
        other |= bool(variant.form) or variant.weighted
        assert changed or other, name


def test_a_dry_run_computes_nothing(spark: SparkSession, table: str, tmp_path: Path) -> None:
    text = str(run_evaluation(small(table, tmp_path / "ws", dry_run=True), spark))
    assert "nothing was computed" in text and "gru4rec" in text
    tried = {"candidates": (0.005, 0.001), "epochs_tried": (2.0, 4.0)}
    text = str(run_evaluation(small(table, tmp_path / "ws", dry_run=True, fit=tried), spark))
    # Four on all the data, on a random tenth for a quarter and half as long, too.
    assert "after 12 on validation" in text
    assert not (tmp_path / "ws").exists()


def test_without_an_order_the_ways_out_are_named_at_once(
    spark: SparkSession, table: str, tmp_path: Path
) -> None:
    def refused(**more: Any) -> str:
        asked = {"order_column": None, "item_column": "items", "dry_run": True, "test": table, **more}
        with pytest.raises(InputError) as error:
            run_evaluation(small(unordered, tmp_path / "ws", **asked), spark)
        return str(error.value)

    unordered = str(tmp_path / "unordered")
    spark.read.parquet(table).select("session_id", "items").write.parquet(unordered)
    chosen = refused(fit={"candidates": (0.005, 0.001)})
    assert "--fit-learning-rate and --fit-steps" in chosen and "--order-column" in chosen
    assert "or give a test" in refused(test=None)
    assert "validation split" in refused(split="validation")
    given = small(unordered, tmp_path / "ws", order_column=None, dry_run=True, test=table)
    assert "nothing was computed" in str(run_evaluation(given, spark))


def test_a_ratio_that_leaves_nothing_is_refused_before_anything_is_trained(
    spark: SparkSession, table: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="--ratios 0.001 allows 1 of .* interactions"):
        run_evaluation(small(table, tmp_path / "ws", ratios=(0.001, 0.5)), spark)


def test_a_cut_that_teaches_nothing_is_refused_before_anything_is_trained(
    spark: SparkSession, tmp_path: Path, runs: list[float]
) -> None:
    place = str(tmp_path / "long")
    rows = [(f"s{k:02d}", [k % 7, *range(5)], k) for k in range(60)]
    spark.createDataFrame(rows, "session_id string, items array<bigint>, day int").write.parquet(place)
    fit = {"dim": 8, "candidates": (0.005, 0.001), "epochs_tried": (1.0,)}
    asked = {"methods": ("random",), "targets": ("gru4rec",), "name": "shop", "fit": fit}
    with pytest.raises(SettingsError, match="the method random .* keeps no session of two clicks .* 0.015"):
        run_evaluation(small(place, tmp_path / "ws", ratios=(0.015, 0.5), **asked), spark)
    assert runs == [0.5] and not list((tmp_path / "ws/evaluate/shop/cells").iterdir())


def test_another_test_is_other_data() -> None:
    def common(cases: str) -> dict[str, Any]:
        run = SimpleNamespace(settings=EvaluateSettings(name="shop"))
        split = SimpleNamespace(name="test", data_hash="d", cases_hash=cases)
        return _common(cast(Any, run), cast(Any, split))

    assert common("a") == common("a") != common("b")


def test_what_was_trained_otherwise_is_no_comparison() -> None:
    def rows(training: str, *ratios: float, target: str = "x", regime: str = "steps") -> pd.DataFrame:
        key = {name: "x" for name in KEYS} | {"data_set": "a", "split": "test", "data_hash": "1"}
        some = {**key, "target": target, "regime": regime, "band": "all", "metric": "m", "seed": 0}
        return pd.DataFrame(
            [{**some, "recipe": f"{training} {r}", "training": training, "ratio": r} for r in ratios]
        )

    former = pd.concat(
        [
            rows("long", 0.1, 0.3, 1.0),
            rows("long", 0.3, target="other"),
            rows("long", 0.3, regime="epochs"),
            rows("", 0.1, regime="tuning"),
        ],
        ignore_index=True,
    )
    new = pd.concat([rows("short", 0.1, 1.0), rows("", 1.0, regime="tuning")], ignore_index=True)
    found = merged(former, new, IDENTITY)
    left = found[["target", "regime", "ratio", "training"]].itertuples(index=False, name=None)
    assert sorted(left) == [
        ("other", "steps", 0.3, "long"),
        ("x", "epochs", 0.3, "long"),
        ("x", "steps", 0.1, "short"),
        ("x", "steps", 1.0, "short"),
        ("x", "tuning", 0.1, ""),
        ("x", "tuning", 1.0, ""),
    ]
    # A table of a version that did not tell: how its targets were trained is not known.
    untold = merged(former.drop(columns="training"), new, IDENTITY)
    assert set(untold.loc[untold["regime"] == "steps", "training"].dropna()) == {"short"}
    assert 0.3 not in set(untold.loc[(untold["target"] == "x") & (untold["regime"] == "steps"), "ratio"])


def test_seeds_of_one_recipe_add_up_and_another_recipe_replaces_them_all() -> None:
    key = {name: "x" for name in KEYS} | {"data_set": "a", "split": "test", "data_hash": "1"}

    def rows(recipe: str, *seeds: int, target: str = "x") -> pd.DataFrame:
        some = {**key, "target": target, "band": "all", "metric": "m", "recipe": recipe}
        return pd.DataFrame([{**some, "seed": seed, "value": 10.0 * seed} for seed in seeds])

    former = pd.concat([rows("one", 0, 1, 2), rows("one", 0, target="other")], ignore_index=True)
    # Fewer seeds of the same: the others stay.
    again = merged(former, rows("one", 1).assign(value=-1.0), IDENTITY)
    assert sorted(zip(again["target"], again["seed"], again["value"], strict=True)) == [
        ("other", 0, 0.0),
        ("x", 0, 0.0),
        ("x", 1, -1.0),
        ("x", 2, 20.0),
    ]
    # One seed of another: no mean mixes the two; what it says nothing about stays.
    anew = merged(former, rows("two", 1), IDENTITY)
    assert sorted(zip(anew["target"], anew["seed"], anew["recipe"], strict=True)) == [
        ("other", 0, "one"),
        ("x", 1, "two"),
    ]
