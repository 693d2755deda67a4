"""An input that others write to while a run is at work: the run sees the version that it began with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from prune_lib import PruneSettings, pipeline
from prune_lib.errors import InputError
from prune_lib.pipeline import run_prune
from tests.spark.sessions import copied, random_sessions

pytestmark = pytest.mark.spark


def sessions(spark: SparkSession, seed: int, prefix: str = "s") -> DataFrame:
    rows = [(f"{prefix}{k:03d}", items) for k, items in enumerate(random_sessions(seed, n=120, items=40))]
    return spark.createDataFrame(rows, "session_id string, items array<bigint>")


def pruned(spark: SparkSession, folder: Path) -> pd.DataFrame:
    frame = spark.read.format("delta").load(str(folder / "pruned")).toPandas()
    return frame.drop(columns="prune_run_id").sort_values("prune_rank", ignore_index=True)


def runs(spark: SparkSession, folder: Path) -> set[str]:
    """Of the companions, whose rows they hold."""
    names = ("decisions", "items", "runs")
    tables = (spark.read.format("delta").load(str(folder / f"pruned_{name}")) for name in names)
    return {row["run_id"] for table in tables for row in table.select("run_id").distinct().collect()}


def settings(folder: Path) -> PruneSettings:
    # What reads the input is the same for every method.
    return PruneSettings(ratio=0.3, method="random", workspace=str(folder))


@pytest.fixture(scope="module")
def finished(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose input, of one file, nobody has meddled with; no test changes it."""
    folder = tmp_path_factory.mktemp("finished")
    sessions(spark, 31).coalesce(1).write.format("delta").save(str(folder / "sessions"))
    run_prune(settings(folder), spark)
    return folder


def with_input(finished: Path, to: Path) -> Path:
    """The tables of the finished run, copied with its input; the place of the latter."""
    copied(finished / "pruned", to / "pruned")
    shutil.copytree(finished / "sessions", to / "sessions")
    return to / "sessions"


def assert_untouched(spark: SparkSession, folder: Path, finished: Path) -> None:
    """The tables hold what the finished run wrote, all of them."""
    pd.testing.assert_frame_equal(pruned(spark, folder), pruned(spark, finished), check_exact=True)
    assert runs(spark, folder) == runs(spark, finished)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Do something when the sessions are read, and the kept ones not written yet."""

    def when_the_graph_is_built(change: Callable[[], Any]) -> None:
        build = pipeline.build_graph

        def changed(*args: Any, **more: Any) -> Any:
            graph = build(*args, **more)
            change()
            return graph

        monkeypatch.setattr(pipeline, "build_graph", changed)

    return when_the_graph_is_built


def delta(spark: SparkSession, place: Path) -> str:
    return f"delta.`{place}`"


def append(spark: SparkSession, place: Path) -> None:
    sessions(spark, 32, "new").write.format("delta").mode("append").save(str(place))


def overwrite(spark: SparkSession, place: Path) -> None:
    sessions(spark, 33, "other").write.format("delta").mode("overwrite").save(str(place))


def optimise(spark: SparkSession, place: Path) -> None:
    spark.sql(f"OPTIMIZE {delta(spark, place)}")


def delete(spark: SparkSession, place: Path) -> None:
    spark.sql(f"DELETE FROM {delta(spark, place)} WHERE session_id < 's060'")


def add_a_column(spark: SparkSession, place: Path) -> None:
    spark.sql(f"ALTER TABLE {delta(spark, place)} ADD COLUMN (extra INT)")


def vacuum(spark: SparkSession, place: Path) -> None:
    """Away with every file that the newest version does not need, against all advice."""
    overwrite(spark, place)
    conf = {
        "spark.databricks.delta.retentionDurationCheck.enabled": "false",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    }
    for key, value in conf.items():
        spark.conf.set(key, value)
    try:
        spark.sql(f"VACUUM {delta(spark, place)} RETAIN 0 HOURS")
    finally:
        for key in conf:
            spark.conf.unset(key)


def test_whoever_appends_overwrites_optimises_deletes_or_adds_a_column_changes_nothing(
    spark: SparkSession, finished: Path, tmp_path: Path, meanwhile: Callable[..., None]
) -> None:
    place = tmp_path / "sessions"
    # Two files, so that there is something to optimise.
    sessions(spark, 31).repartition(2).write.format("delta").save(str(place))

    def all_of_it() -> None:
        for change in (optimise, append, delete, add_a_column, overwrite):
            change(spark, place)

    meanwhile(all_of_it)
    summary = run_prune(settings(tmp_path), spark)
    assert (summary.run["input_version"], summary.run["sessions_before"]) == (0, 120)
    pd.testing.assert_frame_equal(pruned(spark, tmp_path), pruned(spark, finished), check_exact=True)
    now = run_prune(settings(tmp_path).model_copy(update={"dry_run": True}), spark)
    assert now.plan["input_version"] > 0
    then = run_prune(settings(tmp_path).model_copy(update={"dry_run": True, "version": 0}), spark)
    assert then.plan["input_version"] == 0, "and can be asked for"


@pytest.mark.parametrize("breaks", ["cut off", "garbled"])
def test_a_file_of_the_input_that_is_broken_is_named_and_the_tables_stay(
    spark: SparkSession, finished: Path, tmp_path: Path, breaks: str
) -> None:
    place = with_input(finished, tmp_path)
    (file,) = place.glob("*.parquet")
    whole = file.read_bytes()
    # The footer, by which a file is opened, is at its end.
    file.write_bytes(
        whole[: len(whole) // 2] if breaks == "cut off" else whole[:4] + b"\xff" * 400 + whole[404:]
    )
    with pytest.raises(InputError, match=f"table {place} cannot be read: .*{file.name}") as told:
        run_prune(settings(tmp_path), spark)
    assert "\n" not in str(told.value)
    assert_untouched(spark, tmp_path, finished)


@pytest.mark.parametrize("kind", ["delta", pytest.param("parquet", marks=pytest.mark.soak)])
def test_an_input_whose_files_vanish_ends_the_run_and_leaves_its_tables(
    spark: SparkSession, finished: Path, tmp_path: Path, meanwhile: Callable[..., None], kind: str
) -> None:
    place = with_input(finished, tmp_path)
    if kind != "delta":
        shutil.rmtree(place)
        sessions(spark, 31).write.format(kind).save(str(place))

    def vanish() -> None:
        if kind == "delta":
            vacuum(spark, place)
        else:
            sessions(spark, 33, "other").write.mode("overwrite").parquet(str(place))

    meanwhile(vanish)
    with pytest.raises(InputError, match=f"table {place} cannot be read") as told:
        run_prune(settings(tmp_path), spark)
    assert "\n" not in str(told.value)
    assert_untouched(spark, tmp_path, finished)
