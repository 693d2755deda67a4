from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable as RustTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib import commits
from prune_lib.delta import identifier, replace_table, table_version
from prune_lib.errors import InputError, OutputError
from prune_lib.schemas import TABLE_COMMENTS, TABLES, conform
from prune_lib.tables import check_output, pruned_frame, read_table, unusual_names, write_tables

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("compiled")]

COMPANIONS = ("decisions", "items", "runs")


def events(spark: SparkSession, sessions: int = 6) -> DataFrame:
    """Three clicks a session, with types and a comment that must survive."""
    return spark.range(sessions * 3).select(
        F.concat(F.lit("s"), (F.col("id") / 3).cast("int")).alias("Session Key"),
        (F.col("id") % 5).cast("smallint").alias("item"),
        F.timestamp_seconds(F.col("id")).alias("at", metadata={"comment": "time of the click"}),
        F.lit("1.50").cast("decimal(10,2)").alias("price"),
        F.struct(F.lit("x").alias("kind"), F.col("id").alias("no")).alias("extra"),
    )


def selection(spark: SparkSession, kept: int = 4) -> DataFrame:
    return spark.range(kept).select(
        F.concat(F.lit("s"), F.col("id")).alias("session_id"),
        (F.col("id") + 1).alias("rank"),
        F.lit("METHOD").alias("reason"),
        F.lit(0.5).alias("difficulty"),
        F.lit(1.5).alias("weight"),
    )


def frames(
    spark: SparkSession, run: str, kept: int = 4, source: DataFrame | None = None
) -> dict[str, DataFrame]:
    source = events(spark) if source is None else source
    column = source.columns[0]
    decisions = (
        source.select(F.col(f"`{column}`").alias("session_id"))
        .distinct()
        .join(selection(spark, kept).drop("difficulty"), "session_id", "left")
        .withColumn("kept", F.col("rank").isNotNull())
        .withColumn("reason", F.coalesce("reason", F.lit("BUDGET")))
        .withColumns({"interactions": F.lit(3), "items": F.lit(3), "run_id": F.lit(run)})
    )
    items = spark.range(5).select(
        F.col("id").alias("item"),
        *[
            F.lit(2).alias(f"{what}_{when}")
            for what in ("sessions", "interactions")
            for when in ("before", "after")
        ],
        F.lit(1.0).alias("share_kept"),
        F.lit("mid").alias("band"),
        F.lit(run).alias("run_id"),
    )
    runs = spark.range(1).select(
        *[
            F.lit(value).alias(name)
            for name, value in {
                "run_id": run,
                "started_at": datetime(2024, 5, 1),
                "finished_at": datetime(2024, 5, 2),
                "method": "graph",
                "ratio": 0.1,
                "budget": "interactions",
                "seed": 1,
                "settings": "{}",
                "settings_hash": "0",
                "input": "in",
                "item_coverage": 1.0,
                **{
                    f"{what}_{when}": 1
                    for what in ("sessions", "interactions", "items")
                    for when in ("before", "after")
                },
            }.items()
        ]
    )
    return {
        "pruned": pruned_frame(source, column, selection(spark, kept), run),
        "decisions": conform(decisions, "decisions", "string", "smallint"),
        "items": conform(items, "items", "string", "smallint"),
        "runs": conform(runs, "runs", "string", "smallint"),
    }


def rows(spark: SparkSession, name: str) -> list[Any]:
    frame = read_table(spark, name)
    return sorted(map(str, frame.collect()))


def tables_of(spark: SparkSession, schema: str) -> list[str]:
    """The schema's own tables: the catalog lists every temporary view of the session beside them."""
    return [t.name for t in spark.catalog.listTables(schema) if not t.isTemporary]


def contents(spark: SparkSession, output: str) -> dict[str, list[Any]]:
    names = {"pruned": output, **{c: f"{output}_{c}" for c in COMPANIONS}}
    return {key: rows(spark, name) for key, name in names.items()}


class Injected(Exception):
    pass


def fail_before(monkeypatch: pytest.MonkeyPatch, doomed: str, after: bool = False) -> None:
    """Let the commit of one table fail, before it or right after it is in the log."""
    commit = commits._commit

    def failing(spark: SparkSession, table: commits.Written, former: Any, note: str) -> None:
        is_doomed = table.target.rstrip("`").rpartition("_")[2] == doomed
        if doomed == "pruned":
            is_doomed = not table.target.rstrip("`").endswith(("_decisions", "_items", "_runs"))
        if is_doomed and not after:
            raise Injected(doomed)
        commit(spark, table, former, note)
        if is_doomed:
            raise Injected(doomed)

    monkeypatch.setattr(commits, "_commit", failing)


@pytest.fixture
def schema(spark: SparkSession) -> Any:
    spark.sql("CREATE SCHEMA IF NOT EXISTS shop")
    yield "shop"
    spark.sql("DROP SCHEMA shop CASCADE")


def test_columns_and_tables_have_comments_that_delta_rs_and_spark_show(
    spark: SparkSession, tmp_path: Path
) -> None:
    output = str(tmp_path / "pruned")
    info = {"run_id": "r1", "settings_hash": "h", "input_version": 3, "experts_version": None}
    plain = events(spark).withColumnRenamed("Session Key", "session")
    write_tables(spark, frames(spark, "r1", source=plain), output, info)
    for table, all_columns in TABLES.items():
        columns = [c for c in all_columns if not c.of_samples]
        path = output if table == "pruned" else f"{output}_{table}"
        rust = RustTable(path)
        comments = {f.name: f.metadata.get("comment") for f in rust.schema().fields}
        for column in columns:
            assert comments[column.name] == column.comment, (table, column.name)
        assert rust.metadata().description == TABLE_COMMENTS[table]
        protocol = rust.protocol()
        assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
        assert json.loads(rust.history(1)[0]["userMetadata"]) == info
        assert rust.version() == 0
        described = {
            r["col_name"]: r["comment"] for r in spark.sql(f"DESCRIBE TABLE delta.`{path}`").collect()
        }
        assert all(described[c.name] == c.comment for c in columns)
    assert "time of the click" in {f.metadata.get("comment") for f in RustTable(output).schema().fields}


def test_every_row_of_a_kept_session_comes_out_as_it_went_in(spark: SparkSession, tmp_path: Path) -> None:
    source = events(spark)
    output = str(tmp_path / "with space" / "pruned")
    write_tables(spark, frames(spark, "r1"), output, {})
    written = read_table(spark, output)
    # Types, names and order; files know no NOT NULL.
    assert written.dtypes[:5] == source.dtypes
    assert written.columns[5:] == [c.name for c in TABLES["pruned"] if not c.of_samples]
    expected = source.filter(F.col("`Session Key`").isin("s0", "s1", "s2", "s3"))
    own = written.select(*[f"`{c}`" for c in source.columns])
    assert sorted(map(str, own.collect())) == sorted(map(str, expected.collect()))
    ranks = {r[0]: r[1] for r in written.select("`Session Key`", "prune_rank").distinct().collect()}
    assert ranks == {"s0": 1, "s1": 2, "s2": 3, "s3": 4}


PLACES = {
    "location": "{tmp_path}/pruned",
    "name in a catalog": "spark_catalog.{schema}.pruned",
}
at_places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())


@at_places
def test_a_second_run_replaces_and_adds_to_runs(
    spark: SparkSession, tmp_path: Path, schema: str, place: str
) -> None:
    output = place.format(tmp_path=tmp_path, schema=schema)
    named = not output.startswith("/")
    check_output(spark, output)
    write_tables(spark, frames(spark, "r1", kept=4), output, {"run_id": "r1"})
    check_output(spark, output)
    assert table_version(spark, output) == 0
    for name in (output, f"{output}_runs"):
        own = "'delta.deletedFileRetentionDuration' = 'interval 30 days', 'team' = 'search'"
        spark.sql(f"ALTER TABLE {identifier(spark, name)} SET TBLPROPERTIES ({own})")
    second = frames(spark, "r2", kept=2)
    # A later version of the project may know a column more.
    second["runs"] = second["runs"].withColumn("news", F.lit(1))
    write_tables(spark, second, output, {"run_id": "r2"})
    assert read_table(spark, output).select("`Session Key`").distinct().count() == 2
    runs = read_table(spark, f"{output}_runs")
    assert {(r["run_id"], r["news"]) for r in runs.collect()} == {("r1", None), ("r2", 1)}
    assert {r[0] for r in read_table(spark, f"{output}_decisions").select("run_id").collect()} == {"r2"}
    assert table_version(spark, output) == 2
    for name in (output, f"{output}_runs"):
        kept = spark.sql(f"DESCRIBE DETAIL {identifier(spark, name)}").first()["properties"]
        assert kept["delta.deletedFileRetentionDuration"] == "interval 30 days" and kept["team"] == "search"
    before = read_table(spark, output, version=0)
    assert before.select("`Session Key`").distinct().count() == 4
    note = spark.sql(f"DESCRIBE HISTORY {output if named else f'delta.`{output}_runs`'} LIMIT 1").first()
    assert note is not None and json.loads(note["userMetadata"]) == {"run_id": "r2"}


@pytest.mark.parametrize(
    ("place", "doomed", "after"),
    [
        ("location", "runs", False),
        # After the last commit: of two tables that is in every run (test_commits).
        pytest.param("location", "pruned", True, marks=pytest.mark.soak),
        ("name in a catalog", "pruned", False),
    ],
)
def test_a_failure_between_commits_restores_what_was(
    spark: SparkSession,
    tmp_path: Path,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    doomed: str,
    after: bool,
) -> None:
    output = PLACES[place].format(tmp_path=tmp_path, schema=schema)
    write_tables(spark, frames(spark, "r1", kept=4), output, {})
    former = contents(spark, output)
    fail_before(monkeypatch, doomed, after)
    with pytest.raises(Injected):
        write_tables(spark, frames(spark, "r2", kept=2), output, {})
    assert contents(spark, output) == former


def test_of_two_runs_at_once_the_first_to_write_wins(spark: SparkSession, tmp_path: Path) -> None:
    output = str(tmp_path / "pruned")
    seen = check_output(spark, output)
    write_tables(spark, frames(spark, "fast", kept=3), output, {"run_id": "fast"}, seen)
    former = contents(spark, output)
    with pytest.raises(OutputError, match=r"the run fast, wrote to .*_decisions while this run was at work"):
        write_tables(spark, frames(spark, "slow", kept=2), output, {"run_id": "slow"}, seen)
    assert contents(spark, output) == former


# After a finished run it is test_commits that shows it, and tests/e2e/test_kills with a run that is killed.
@pytest.mark.parametrize("first", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_what_a_killed_run_wrote_counts_for_nothing(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    output = str(tmp_path / "pruned")
    if not first:
        write_tables(spark, frames(spark, "r1", kept=4), output, {"run_id": "r1"})
        former = contents(spark, output)
    with monkeypatch.context() as patched:
        # As after kill -9: nobody brings the tables back.
        patched.setattr(commits, "_undo", lambda *_: None)
        fail_before(patched, "pruned")
        with pytest.raises(Injected):
            write_tables(spark, frames(spark, "killed", kept=3), output, {"run_id": "killed"})
    if not first:
        with monkeypatch.context() as patched:
            fail_before(patched, "pruned")
            with pytest.raises(Injected):
                write_tables(spark, frames(spark, "failed", kept=2), output, {"run_id": "failed"})
        assert contents(spark, output) == former, "not what the killed run left"
    write_tables(spark, frames(spark, "r2", kept=2), output, {"run_id": "r2"})
    runs = {
        name: {row[0] for row in read_table(spark, f"{output}_{name}").select("run_id").collect()}
        for name in COMPANIONS
    }
    assert runs == {"decisions": {"r2"}, "items": {"r2"}, "runs": {"r2"} if first else {"r1", "r2"}}


def test_a_failing_first_run_leaves_nothing(
    spark: SparkSession, tmp_path: Path, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pruned").mkdir()
    broken = frames(spark, "r1")
    # One task fails while others have written their files.
    broken["pruned"] = broken["pruned"].withColumn(
        "price", F.when(F.col("prune_rank") == 4, F.raise_error(F.lit("boom")).cast("int"))
    )
    with pytest.raises(Exception, match="boom"):
        write_tables(spark, broken, str(tmp_path / "pruned"), {})
    assert [p.name for p in tmp_path.iterdir()] == ["pruned"]
    assert not list((tmp_path / "pruned").iterdir())
    with pytest.raises(Exception, match="boom"):
        write_tables(spark, broken, f"{schema}.pruned", {})
    assert not tables_of(spark, schema)
    write_tables(spark, frames(spark, "r1"), f"{schema}.pruned", {})
    assert len(tables_of(spark, schema)) == 4


def test_a_killed_first_run_can_be_run_again(spark: SparkSession, tmp_path: Path) -> None:
    left = tmp_path / "pruned_items"
    (left / "_delta_log").mkdir(parents=True)
    (left / "part-00000-left.parquet").write_bytes(b"half a file")
    write_tables(spark, frames(spark, "r1"), str(tmp_path / "pruned"), {})
    assert read_table(spark, str(left)).count() == 5


@pytest.mark.parametrize("place", ["pruned", "pruned_items"])
def test_what_is_not_ours_is_refused_and_stays(spark: SparkSession, tmp_path: Path, place: str) -> None:
    output = str(tmp_path / "pruned")
    foreign = tmp_path / place
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="not empty and no Delta table"):
        write_tables(spark, frames(spark, "r1"), output, {})
    assert (foreign / "thesis.txt").read_text() == "precious"
    (foreign / "thesis.txt").unlink()
    foreign.rmdir()
    foreign.write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        check_output(spark, output)
    foreign.unlink()
    spark.range(3).write.format("delta").save(str(foreign))
    with pytest.raises(OutputError, match="not written by a pruning run"):
        check_output(spark, output)
    assert table_version(spark, str(foreign)) == 0


def test_names_that_cannot_be_written_are_refused(spark: SparkSession, schema: str) -> None:
    with pytest.raises(OutputError, match="no schema nowhere"):
        check_output(spark, "nowhere.pruned")
    with pytest.raises(OutputError, match="no schema nowhere.shop "):
        check_output(spark, "nowhere.shop.pruned")
    with pytest.raises(OutputError, match="größe_decisions is not a name of letters"):
        check_output(spark, f"{schema}.größe")
    # Spark's own catalog would say so after everything is computed, quotes or not.
    for quoted in ("`my.table`", "`größe`"):
        with pytest.raises(OutputError, match="in backquotes too"):
            check_output(spark, f"{schema}.{quoted}")
    check_output(spark, f"{schema}.`2024`")
    spark.sql(f"CREATE VIEW {schema}.pruned AS SELECT 1 AS prune_run_id")
    with pytest.raises(OutputError, match="not a Delta table"):
        check_output(spark, f"{schema}.pruned")
    spark.sql(f"DROP VIEW {schema}.pruned")
    spark.range(3).write.format("delta").saveAsTable(f"{schema}.pruned_runs")
    with pytest.raises(OutputError, match="not written by a pruning run"):
        check_output(spark, f"{schema}.pruned")


def test_a_name_that_the_catalog_has_forgotten_is_refused(spark: SparkSession, schema: str) -> None:
    """As in a new session without a metastore: the table's files are there, and its name is not."""
    place = f"{spark.catalog.getDatabase(schema).locationUri}/pruned_items"
    spark.range(3).write.format("delta").save(place)
    for name in (f"{schema}.Pruned", f"spark_catalog.{schema}.`pruned`"):
        with pytest.raises(OutputError, match=r"files of a former table are in .*pruned_items.*catalogImpl"):
            check_output(spark, name)


def test_a_parent_that_cannot_be_written_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        check_output(spark, str(tmp_path / "file" / "deep" / "pruned"))
    with pytest.raises(OutputError, match="may not be written"):
        # Not even the superuser makes a folder there.
        check_output(spark, "/proc/pruned")
    connector = r"org.apache.hadoop:hadoop-aws:3\."
    for place, said in (("s3a://bucket/x", connector), ("foo://x/y", "connector")):
        told = f"{place}_decisions is no place that this Spark can write.*{said}"
        with pytest.raises(OutputError, match=told):
            check_output(spark, place)
    (tmp_path / "empty").mkdir()
    check_output(spark, str(tmp_path / "empty" / "deep" / "pruned"))
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    "kind",
    [
        "array<array<struct<`a b`: int>>>",
        "map<string, array<struct<`a b`: int>>>",
        "map<struct<`a b`: int>, string>",
    ],
)
def test_names_that_need_column_mapping_are_found_however_deep(
    spark: SparkSession, tmp_path: Path, kind: str
) -> None:
    frame = spark.range(1).select(F.lit(None).cast(kind).alias("deep"))
    assert [name for name in unusual_names(frame)] == ["deep.a b"]
    replace_table(spark, frame, str(tmp_path / "t"), "deep", {})
    assert spark.read.format("delta").load(str(tmp_path / "t")).schema == frame.schema


def test_what_binds_a_column_to_its_own_table_is_left_behind(spark: SparkSession, tmp_path: Path) -> None:
    spark.sql(
        f"""CREATE TABLE delta.`{tmp_path}/in` (
            `Session Key` STRING NOT NULL COMMENT 'key', item SMALLINT DEFAULT 3,
            at TIMESTAMP) USING delta
        TBLPROPERTIES ('delta.columnMapping.mode' = 'name',
                       'delta.feature.allowColumnDefaults' = 'supported')"""
    )
    events(spark).select("Session Key", "item", "at").write.format("delta").mode("append").save(
        f"{tmp_path}/in"
    )
    source = read_table(spark, f"{tmp_path}/in")
    output = str(tmp_path / "pruned")
    write_tables(spark, frames(spark, "r1", source=source), output, {})
    written = read_table(spark, output)
    assert written.dtypes[:3] == source.dtypes and written.count() == 12
    rust = RustTable(output)
    metadata = {f.name: f.metadata for f in rust.schema().fields}
    assert metadata["Session Key"]["comment"] == "key"
    assert not metadata["item"].keys() & {"CURRENT_DEFAULT", "EXISTS_DEFAULT"}


def test_an_input_with_our_columns_is_refused(spark: SparkSession) -> None:
    source = events(spark).withColumn("PRUNE_RANK", F.lit(1))
    with pytest.raises(InputError, match="PRUNE_RANK already.*original table"):
        pruned_frame(source, "Session Key", selection(spark), "r1")


def test_reading_what_is_not_there_says_so(spark: SparkSession, tmp_path: Path) -> None:
    for name in (str(tmp_path / "nothing"), "nowhere.nothing"):
        assert table_version(spark, name) is None
        with pytest.raises(InputError, match="cannot be read"):
            read_table(spark, name)
    parquet = str(tmp_path / "parquet")
    spark.range(3).write.parquet(parquet)
    assert read_table(spark, parquet).count() == 3
    assert table_version(spark, parquet) is None
    with pytest.raises(InputError, match="not a Delta table"):
        read_table(spark, parquet, version=0)
    delta = str(tmp_path / "delta")
    spark.range(3).write.format("delta").save(delta)
    with pytest.raises(InputError, match="cannot be read"):
        read_table(spark, delta, version=9)


def test_a_smaller_rank_skips_files(spark: SparkSession, tmp_path: Path) -> None:
    # More columns than Delta keeps statistics of by default.
    wide = spark.range(8_000).select(
        F.concat(F.lit("s"), F.col("id")).alias("session"),
        F.array(F.col("id") % 5).alias("items"),
        *[F.lit(k).alias(f"c{k}") for k in range(40)],
    )
    output = str(tmp_path / "pruned")
    write_tables(spark, frames(spark, "r1", kept=4_000, source=wide), output, {})
    log = (Path(output) / "_delta_log" / f"{0:020}.json").read_text().splitlines()
    added = [json.loads(line)["add"] for line in log if "add" in json.loads(line)]
    stats = [json.loads(add["stats"]) for add in added]
    spans = sorted(
        (s["minValues"]["prune_rank"], s["maxValues"]["prune_rank"], s["numRecords"]) for s in stats
    )
    assert len(spans) == 4
    assert all(a[1] < b[0] for a, b in zip(spans[:-1], spans[1:], strict=True))
    assert all(500 < s[2] < 1_500 for s in spans)
