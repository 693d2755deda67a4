"""Reading: layouts, columns, versions, and each mistake that an input can hold."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from prune_lib.errors import InputError
from prune_lib.preflight import check_order
from prune_lib.sessions.encoding import encode
from prune_lib.sessions.opening import source_of
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.sessions.reading import (
    ColumnNames,
    InputTable,
    SessionStats,
    check_sessions,
    open_input,
    settled_sessions,
    to_sessions,
)
from prune_lib.settings import PruneSettings

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("compiled")]

T0 = datetime(2024, 3, 1, tzinfo=timezone.utc)
EVENTS = "session_id string, item_id string, ts timestamp"
SESSIONS = "session_id string, items array<bigint>"
GOOD = [("a", [1, 2, 3]), ("b", [2, 1]), ("c", [3])]


def _view(spark: SparkSession, rows: Sequence[Any], schema: str) -> str:
    spark.createDataFrame(rows, schema).createOrReplaceTempView("reading_test")
    return "reading_test"


def _open(spark: SparkSession, rows: Sequence[Any], schema: str, **columns: str) -> InputTable:
    return open_input(spark, _view(spark, rows, schema), columns=ColumnNames(**columns))


def _refused(spark: SparkSession, rows: Sequence[Any], schema: str, *parts: str, **columns: str) -> None:
    """The input is opened or checked with an InputError of one paragraph that has these parts."""
    with pytest.raises(InputError) as caught:
        table = _open(spark, rows, schema, **columns)
        check_sessions(table, to_sessions(table))
    _says(caught.value, *parts)


def _says(problem: Exception, *parts: str) -> None:
    text = str(problem)
    for part in parts:
        assert part in text, f"{part!r} is not in: {text}"
    assert "\n" not in text
    assert not re.search(r"py4j|\bat org\.|Traceback", text)


def _by_id(df: DataFrame) -> dict[Any, tuple[Any, ...]]:
    return {row["session_id"]: (row["items"], *map(_in_utc, row[2:])) for row in df.collect()}


def _in_utc(value: Any) -> Any:
    """Spark gives times as this machine's, without a zone."""
    return value.astimezone(timezone.utc) if isinstance(value, datetime) else value


# ---------------------------------------------------------------------------------------- order


def test_sessions_of_one_time_are_not_ranked_by_their_ids(spark: SparkSession) -> None:
    rows = [(name, items, T0) for name, items in GOOD]
    table = _open(spark, rows, f"{SESSIONS}, ts timestamp")
    warned: list[str] = []
    sessions = settled_sessions(table)
    check_sessions(table, sessions, warned.append)
    assert "ordering" not in sessions.columns and not encode(sessions, seed=0).has_order
    assert len(warned) == 1 and warned[0].startswith(
        "all sessions have the same ts: none is newer than another"
    )
    later = [*rows[:2], ("c", [3], T0 + timedelta(seconds=1))]
    assert "ordering" in settled_sessions(_open(spark, later, f"{SESSIONS}, ts timestamp")).columns


def test_what_asks_for_the_newest_is_refused_where_none_is_newer() -> None:
    recent = PruneSettings(ratio=0.5, method="recent")
    check_order(recent, has_order=True)
    check_order(PruneSettings(ratio=0.5), has_order=False)
    with pytest.raises(InputError, match="neither times nor an order, or the same for all"):
        check_order(recent, has_order=False)


# ---------------------------------------------------------------------------------------- layouts


def test_events_become_sessions_as_in_pandas_with_any_partitions(spark: SparkSession, tmp_path: Path) -> None:
    seed = 5
    rng = np.random.default_rng(seed)
    n = 600
    frame = pd.DataFrame(
        {
            "visit_id": rng.integers(0, 90, n),
            "sku": [f"i{k}" for k in rng.integers(0, 30, n)],
            # Few seconds and many clicks: times tie.
            "created_at": [T0 + timedelta(seconds=int(k)) for k in rng.integers(0, 40, n)],
            "rank": rng.integers(0, 3, n),
        }
    )
    for order, keys in ((None, ["created_at", "sku"]), ("RANK", ["created_at", "rank", "sku"])):
        grouped = frame.sort_values(keys).groupby("visit_id")
        wanted = {
            session: (rows["sku"].tolist(), rows["created_at"].max().to_pydatetime())
            for session, rows in grouped
        }
        for partitions in (1, 3, 8):
            place = str(tmp_path / f"{order}-{partitions}")
            shuffled = frame.sample(frac=1, random_state=partitions)
            spark.createDataFrame(shuffled).repartition(partitions).write.parquet(place)
            table = open_input(spark, place, columns=ColumnNames(order=order))
            assert (table.layout, table.session_column, table.item_column) == (
                "events", "visit_id", "sku"
            )  # fmt: skip
            assert (table.time_column, table.version, table.format) == (
                "created_at", None, "parquet"
            )  # fmt: skip
            sessions = to_sessions(table)
            assert _by_id(sessions) == wanted, f"seed {seed}"
    stats = check_sessions(table, sessions)
    assert stats == SessionStats(len(wanted), n, frame["sku"].nunique())


def test_events_without_times_go_by_the_order_column(spark: SparkSession) -> None:
    rows = [(1, 30, 9), (1, 20, 7), (2, 20, 8), (1, 20, 8)]
    table = _open(spark, rows, "sid int, aid smallint, place bigint", order="place")
    sessions = to_sessions(table)
    assert dict(sessions.dtypes) == {
        "session_id": "bigint", "items": "array<bigint>", "ordering": "bigint"
    }  # fmt: skip
    assert _by_id(sessions) == {1: ([20, 20, 30], 9), 2: ([20], 8)}


def test_sessions_stay_as_they_are_and_without_an_order_have_no_ordering(
    spark: SparkSession,
) -> None:
    table = _open(spark, GOOD, SESSIONS)
    sessions = to_sessions(table)
    assert sessions.columns == ["session_id", "items"]
    assert _by_id(sessions) == {k: (v,) for k, v in GOOD}
    assert check_sessions(table, sessions) == SessionStats(3, 6, 3)


@pytest.mark.parametrize(
    ("schema", "value", "wanted"),
    [
        ("times array<timestamp>", [T0, T0 + timedelta(hours=1)], T0 + timedelta(hours=1)),
        ("times array<string>", ["2024-03-01", "2024-03-01T01:00:00Z"], T0 + timedelta(hours=1)),
        ("ts timestamp", T0, T0),
        ("ts timestamp_ntz", T0, T0),
        ("event_date date", T0.date(), T0),
        ("Time double", T0.timestamp() + 0.5, T0 + timedelta(seconds=0.5)),
        ("timestamps array<int>", [5, 6], 6),
        ("timestamp bigint", 1_709_251_200_000, 1_709_251_200_000),
    ],
)
def test_a_session_is_ranked_by_its_last_time(
    spark: SparkSession, schema: str, value: object, wanted: object
) -> None:
    rows = [("a", ["x", "y"], value), ("b", ["y", "x"], value)]
    table = _open(spark, rows, f"`Session ID` string, items array<string>, {schema}")
    assert table.time_column == schema.split()[0]
    sessions = to_sessions(table)
    assert {_in_utc(row["ordering"]) for row in sessions.collect()} == {wanted}
    check_sessions(table, sessions)


def test_the_session_id_may_be_the_order(spark: SparkSession) -> None:
    table = _open(spark, GOOD, SESSIONS, order="session_id")
    assert _by_id(to_sessions(table))["b"] == ([2, 1], "b")
    check_sessions(table, to_sessions(table))


def test_describe_says_which_column_is_what_and_why(spark: SparkSession) -> None:
    rows = [("a", 1, T0, "x"), ("a", 2, T0, "y")]
    text = _open(
        spark, rows, "session string, item int, ts timestamp, who string", session="SESSION"
    ).describe()
    assert "input reading_test (view): events, a row a click" in text
    assert re.search(r"session +session STRING \(by --session-column\)", text)
    assert re.search(r"item +item INT \(found by its name\)", text)
    assert re.search(r"order +none", text)
    assert "from old to new by the time of the last click (ts)" in text


def test_odd_column_names(spark: SparkSession) -> None:
    rows = [("a", 1, T0), ("a", 2, T0), ("b", 2, None)]
    schema = "`my.session` string, `an item` int, `the``time` timestamp"
    names = {"session": "my.session", "item": "an item", "time": "the`time"}
    table = _open(spark, rows[:2], schema, **names)
    assert _by_id(to_sessions(table)) == {"a": ([1, 2], T0)}
    _refused(spark, rows, schema, "1 row has no time", "`the``time`", **names)


# -------------------------------------------------------------------------------------- real data


def test_diginetica_as_it_is(spark: SparkSession, shared_data: Path) -> None:
    place = str(shared_data / "diginetica" / "sessions_train.parquet")
    table = open_input(spark, place, columns=ColumnNames(order="session_id"))
    sessions = to_sessions(table)
    assert (table.layout, table.time_column, table.order_column) == (
        "sessions", None, "session_id"
    )  # fmt: skip
    assert check_sessions(table, sessions) == SessionStats(186_670, 906_140, 43_097)


def test_yoochoose_as_it_is(spark: SparkSession, shared_data: Path) -> None:
    place = str(shared_data / "yoochoose100k" / "events.parquet")
    table = open_input(spark, place)
    sessions = to_sessions(table)
    assert (table.layout, table.time_column) == ("events", "ts")
    assert check_sessions(table, sessions) == SessionStats(17_794, 70_278, 2_933)
    frame = pd.read_parquet(place).sort_values(["ts", "item_id"])
    wanted = frame.groupby("session_id")["item_id"].agg(list).to_dict()
    assert sessions.toPandas().set_index("session_id")["items"].map(list).to_dict() == wanted


# ----------------------------------------------------------------------------------- Delta versions


@pytest.fixture(scope="module")
def delta(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Versions 0 (three sessions) and 1 (four)."""
    place = str(tmp_path_factory.mktemp("delta") / "sessions")
    spark.createDataFrame(GOOD, SESSIONS).write.format("delta").save(place)
    more = spark.createDataFrame([("d", [1, 3])], SESSIONS)
    more.write.format("delta").mode("append").save(place)
    return place


def test_the_newest_version_is_pinned(spark: SparkSession, delta: str, tmp_path: Path) -> None:
    place = str(tmp_path / "t")
    spark.createDataFrame(GOOD, SESSIONS).write.format("delta").save(place)
    table = open_input(spark, f"file:{place}")
    spark.createDataFrame(GOOD, SESSIONS).write.format("delta").mode("append").save(place)
    assert (table.version, table.format, table.df.count()) == (0, "delta", 3)
    assert open_input(spark, delta).version == 1


def test_records_name_a_place_so_that_it_is_found_from_any_folder(
    spark: SparkSession, delta: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative one goes by the folder that Spark was started in, wherever Python has gone since."""
    home = str(spark._jvm.java.lang.System.getProperty("user.dir"))  # type: ignore[union-attr]
    table = open_input(spark, os.path.relpath(delta, home))
    monkeypatch.chdir(tmp_path)
    assert source_of(table) == delta
    for same in (delta, f"file://{delta}", f"{delta}/"):
        assert source_of(open_input(spark, same)) == delta
    file = Path(home, "reading_test.parquet")
    pd.DataFrame({"session_id": ["a"], "items": [[1, 2]]}).to_parquet(file)
    try:
        assert source_of(open_input(spark, file.name)) == str(file)
    finally:
        file.unlink()


def test_an_earlier_version_by_number_or_time(spark: SparkSession, delta: str) -> None:
    assert open_input(spark, delta, version=0).df.count() == 3
    history = spark.sql(f"DESCRIBE HISTORY delta.`{delta}`").orderBy("version").collect()
    first = history[0]["timestamp"].astimezone(timezone.utc).replace(tzinfo=None).isoformat()
    table = open_input(spark, delta, timestamp=first)
    assert (table.version, table.df.count()) == (0, 3)
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    try:
        assert open_input(spark, delta, timestamp=first).version == 0, "UTC, wherever the session is"
        with pytest.raises(InputError, match=rf"its first is of {first[:10]} {first[11:19]}[.\d]* UTC\."):
            open_input(spark, delta, timestamp="2001-01-01")
    finally:
        spark.conf.set("spark.sql.session.timeZone", "UTC")
    assert open_input(spark, delta, timestamp="2999-01-01").version == 1


def test_versions_that_are_not_there(spark: SparkSession, delta: str) -> None:
    with pytest.raises(InputError) as caught:
        open_input(spark, delta, version=7)
    _says(caught.value, delta, "no version 7 (--version)", "versions 0 (", "to 1 (")
    with pytest.raises(InputError) as caught:
        open_input(spark, delta, timestamp="2001-01-01")
    _says(caught.value, "no version as old as 2001-01-01 (--timestamp)", "versions 0 (")
    with pytest.raises(InputError, match="'soon' .--timestamp. is no time"):
        open_input(spark, delta, timestamp="soon")
    with pytest.raises(InputError, match="not both"):
        open_input(spark, delta, timestamp="2024-01-01", version=0)


def test_tables_of_the_catalog(spark: SparkSession) -> None:
    frame = spark.createDataFrame(GOOD, SESSIONS)
    frame.write.format("delta").mode("overwrite").saveAsTable("reading_delta")
    frame.write.format("parquet").mode("overwrite").saveAsTable("reading_parquet")
    try:
        for name, form, version in (
            ("reading_delta", "delta", 0),
            ("default.reading_delta", "delta", 0),
            ("spark_catalog.default.reading_delta", "delta", 0),
            ("default.reading_parquet", "parquet", None),
        ):
            table = open_input(spark, name)
            assert (table.format, table.version, table.df.count()) == (form, version, 3)
            assert source_of(table) == name
        with pytest.raises(InputError) as caught:
            open_input(spark, "default.reading_parquet", version=0)
        _says(caught.value, "default.reading_parquet is no Delta table (parquet)", "--version")
        with pytest.raises(InputError) as caught:
            open_input(spark, "default.reading_delt")
        _says(caught.value, "no table default.reading_delt in the catalog", "reading_delta")
        with pytest.raises(InputError, match="There is no schema nowhere"):
            open_input(spark, "nowhere.sessions")
    finally:
        spark.sql("DROP TABLE reading_delta")
        spark.sql("DROP TABLE reading_parquet")


# -------------------------------------------------------------------------------- places and files


def test_places_that_are_no_table(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "sessions.parquet").mkdir()
    with pytest.raises(InputError) as caught:
        open_input(spark, str(tmp_path / "sesions.parquet"))
    _says(caught.value, "no table at", f"{tmp_path}; similar names there: sessions.parquet")
    with pytest.raises(InputError) as caught:
        open_input(spark, str(tmp_path / "x" / "y" / "z"))
    _says(caught.value, f"The nearest folder that exists is {tmp_path}.")
    with pytest.raises(InputError) as caught:
        open_input(spark, str(tmp_path / "sessions.parquet"))
    _says(caught.value, "neither a Delta table", "nor Parquet", "it is empty")
    (tmp_path / "sessions.parquet" / "a.csv").write_text("1,2\n")
    with pytest.raises(InputError) as caught:
        open_input(spark, str(tmp_path / "sessions.parquet"))
    _says(caught.value, "neither a Delta table", "it has a.csv", "bring other formats")
    with pytest.raises(InputError) as caught:
        open_input(spark, "nosuch://bucket/sessions")
    _says(caught.value, "nosuch://bucket/sessions is no place that this Spark can read", "nosuch")
    with pytest.raises(InputError, match="An empty name is no place"):
        open_input(spark, "")


def test_files_that_are_no_parquet_or_broken(spark: SparkSession, tmp_path: Path) -> None:
    text = tmp_path / "sessions.csv"
    text.write_text("session_id,items\n" * 20)
    with pytest.raises(InputError) as caught:
        open_input(spark, str(text))
    _says(caught.value, f"{text} cannot be read", "See that its files are whole")
    good = tmp_path / "good.parquet"
    pd.DataFrame({"session_id": range(9), "items": [[1, 2]] * 9}).to_parquet(good)
    data = bytearray(good.read_bytes())
    half = tmp_path / "half.parquet"
    half.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError) as caught:
        open_input(spark, str(half))
    _says(caught.value, f"{half} cannot be read", "not a Parquet file")
    # A whole footer over broken pages shows when the rows are read.
    data[4:60] = b"\xff" * 56
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(data)
    table = open_input(spark, str(broken))
    with pytest.raises(InputError) as caught:
        check_sessions(table, to_sessions(table))
    _says(caught.value, f"{broken} cannot be read", "See that its files are whole")


def test_a_worker_that_ends_is_no_broken_table() -> None:
    crashed = PySparkException("Python worker exited unexpectedly (crashed) Caused by: java.io.EOFException")
    with pytest.raises(PySparkException) as caught, reading_errors("t"):
        raise crashed
    assert caught.value is crashed
    with pytest.raises(InputError), reading_errors("t"):
        raise PySparkException("FAILED_READ_FILE Caused by: java.io.EOFException")


def test_nanoseconds_say_what_to_do(spark: SparkSession, tmp_path: Path) -> None:
    place = tmp_path / "nanos.parquet"
    frame = pd.DataFrame({"session": [1, 1], "item": [1, 2], "ts": pd.to_datetime([1, 2])})
    frame.to_parquet(place, coerce_timestamps=None, version="2.6")
    with pytest.raises(InputError) as caught:
        open_input(spark, str(place))
    _says(caught.value, "nanoseconds", "coerce_timestamps='us'")


def test_a_parquet_folder_in_parts(spark: SparkSession, tmp_path: Path) -> None:
    place = str(tmp_path / "parts")
    rows = [(*row, i % 2) for i, row in enumerate(GOOD)]
    frame = spark.createDataFrame(rows, SESSIONS + ", d int")
    frame.write.partitionBy("d").parquet(place)
    assert open_input(spark, place).df.count() == 3


# ----------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("schema", "columns", "parts"),
    [
        ("a string, items array<int>", {}, ["known as the session", "a STRING", "--session-"]),
        ("session_id string, b int", {}, ["known as the item", "b INT", "--item-column"]),
        (
            "session_id string, visit_id string, items array<int>", {},
            ["2 columns that can be the session", "session_id STRING, visit_id STRING", "--s"],
        ),
        (
            "session_id string, items array<int>, item_id int", {},
            ["2 columns that can be the item", "items ARRAY<INT>, item_id INT", "--item-column"],
        ),
        (
            "session_id string, item_id int, ts timestamp, created_at timestamp", {},
            ["2 columns that can be the time", "ts TIMESTAMP, created_at TIMESTAMP", "--time-"],
        ),
        ("session_id string, item_id int", {}, ["events", "--time-column", "--order-column"]),
        (
            SESSIONS, {"order": "sesion_id"},
            ["no column sesion_id (--order-column)", "similar names there: session_id"],
        ),
        (SESSIONS, {"session": "items"}, ["(--session-column)", "must be a string or an integer"]),
        (SESSIONS, {"time": "session_id"}, ["session_id", "--time-column", "--session-column"]),
        (
            "session_id double, items array<int>", {},
            ["session_id DOUBLE", "cannot be the session", "string or an integer"],
        ),
        (
            "session_id string, items array<double>", {},
            ["items ARRAY<DOUBLE>", "cannot be the item", "an array of these", "--item-column"],
        ),
        (
            "session_id string, items array<int>, w double", {"order": "w"},
            ["w DOUBLE", "--order-column", "an integer, string, date or timestamp"],
        ),
        (
            "session_id string, item_id int, ts array<timestamp>", {"time": "ts"},
            ["ts ARRAY<TIMESTAMP>", "cannot be the time"],
        ),
        # What all clicks of a session, or of a day, have tells none from the next.
        (
            "session_id string, item_id int", {"order": "session_id"},
            ["session_id", "for the session and by --order-column", "grows from click to click"],
        ),
        (
            "session_id string, item_id int, day date", {"order": "day"},
            ["The column day", "is a DATE", "with hours and seconds by --time-column"],
        ),
        ("session_id string, item_id int, ts date", {"order": "ts"}, ["The column ts", "is a DATE"]),
    ],
)  # fmt: skip
def test_columns_that_cannot_be_told(
    spark: SparkSession, schema: str, columns: dict[str, str], parts: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        _open(spark, [], schema, **columns)
    _says(caught.value, "reading_test", *parts)


def test_a_column_that_cannot_serve_gives_way_to_one_that_can(spark: SparkSession) -> None:
    schema = "session_id string, session struct<a:int>, items array<int>, item map<int,int>"
    table = _open(spark, [], schema)
    assert (table.session_column, table.item_column) == ("session_id", "items")


# -------------------------------------------------------------------------------------------- rows


def test_rows_of_sessions_that_cannot_be_pruned(spark: SparkSession) -> None:
    _refused(spark, [], SESSIONS, "reading_test is empty", "--input")
    _refused(
        spark, [*GOOD, (None, [7, 8]), (None, [1])], SESSIONS,
        "2 rows have no session id", "items [1]; items [7, 8]", "WHERE `session_id` IS NOT NULL",
    )  # fmt: skip
    _refused(
        spark, [*GOOD, ("d", None)], SESSIONS,
        "1 session has no array", "session_id d", "WHERE `items` IS NOT NULL",
    )  # fmt: skip
    _refused(
        spark, [*GOOD, *((k, []) for k in "hgfe")], SESSIONS,
        "4 sessions are empty", "session_id e; session_id f; session_id g:",
        "WHERE size(`items`) > 0",
    )  # fmt: skip
    _refused(
        spark, [*GOOD, ("d", [1, None])], SESSIONS,
        "1 session has null items", "session_id d", "filter(`items`, x -> x IS NOT NULL)",
    )  # fmt: skip
    _refused(
        spark, [*GOOD, GOOD[0], GOOD[0], GOOD[1]], SESSIONS,
        "2 session ids are there more than once", "a (3 rows), b (2 rows)", "dropDuplicates",
    )  # fmt: skip
    _refused(spark, GOOD[:1], SESSIONS, "one session only")
    _refused(spark, [("a", [5, 5]), ("b", [5])], SESSIONS, "all its clicks are on one item")
    _refused(spark, [("a", [5]), ("b", [6])], SESSIONS, "all its 2 sessions have one click")
    _refused(
        spark, [(*row, T0 if row[0] == "a" else None) for row in GOOD], SESSIONS + ", ts timestamp",
        "2 rows have no time", "session_id b, ts null; session_id c", "--time-column",
    )  # fmt: skip
    _refused(
        spark, [(*row, None) for row in GOOD], SESSIONS + ", `{o}` int",
        "3 rows have no order", "WHERE `{o}` IS NOT NULL", order="{o}",
    )  # fmt: skip


def test_all_mistakes_are_told_together(spark: SparkSession) -> None:
    rows = [("a", [1]), ("a", None), (None, []), ("b", [None])]
    _refused(
        spark, rows, SESSIONS,
        "(1) 1 row has no session id", "(2) 1 session has no array", "(3) 1 session is empty",
        "(4) 1 session has null items", "(5) 1 session id is there more than once",
        "(6) all its clicks are on one item", "(7) all its 2 sessions have one click",
    )  # fmt: skip


def test_rows_of_events_that_cannot_be_pruned(spark: SparkSession) -> None:
    good = [("a", "x", T0), ("a", "y", T0), ("b", "x", T0)]
    _refused(spark, [], EVENTS, "reading_test is empty")
    _refused(
        spark, [*good, (None, "x", T0), ("a", None, T0), ("b", "y", None)], EVENTS,
        "(1) 1 row has no session id", "item_id x", "(2) 1 row has no item", "session_id a",
        "(3) 1 row has no time", "session_id b, ts null",
    )  # fmt: skip
    _refused(spark, good[:2], EVENTS, "one session only")
    _refused(spark, [("a", "x", T0), ("b", "y", T0)], EVENTS, "all its 2 sessions have one click")
    _refused(
        spark, [("a", 1, "12:30"), ("a", 2, "2024-05-31"), ("b", 1, "soon")],
        "sid string, item int, ts string",
        "2 rows have no time, or one that cannot be read (`ts`)", "ts 12:30", "ts soon", "cast `ts`"
    )  # fmt: skip


def test_a_date_does_not_order_the_clicks_of_a_session(spark: SparkSession) -> None:
    rows = [("a", 9, date(2024, 1, 1), 1), ("a", 3, date(2024, 1, 1), 2), ("b", 1, date(2024, 1, 2), 1)]
    events = spark.createDataFrame(rows, "session_id string, item_id int, eventdate date, frame int")
    events.createOrReplaceTempView("dated_events")
    with pytest.raises(InputError, match="eventdate.*is a DATE.*--order-column"):
        open_input(spark, "dated_events")
    table = open_input(spark, "dated_events", columns=ColumnNames(order="frame"))
    items = {r["session_id"]: r["items"] for r in to_sessions(table).collect()}
    assert items == {"a": [9, 3], "b": [1]}


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([1, 2, 3], "more times than items"),
        ([2, 1], "not in the order of their times"),
        ([None, 2], "null times"),
    ],
)
def test_times_that_do_not_fit_their_items_are_told(
    spark: SparkSession, times: list[int | None], said: str
) -> None:
    rows = [("a", [1, 2], times), ("b", [2, 3], [1, 1]), ("c", [2, 3, 1], [4, 5, 5])]
    frame = spark.createDataFrame(rows, "session_id string, items array<int>, times array<bigint>")
    frame.createOrReplaceTempView("timed_sessions")
    table = open_input(spark, "timed_sessions")
    with pytest.raises(InputError, match=said) as caught:
        check_sessions(table, to_sessions(table))
    assert "1 session" in str(caught.value), "the well-formed ones are not counted"


def test_the_order_asked_for_wins_over_times_found(spark: SparkSession) -> None:
    rows = [("a", [1, 2], [5, 6], T0, 1), ("b", [2, 3], [1, 2], T0, 2)]
    schema = "session_id string, items array<int>, times array<bigint>, created_at timestamp, day int"
    frame = spark.createDataFrame(rows, schema)
    frame.createOrReplaceTempView("ranked_sessions")
    table = open_input(spark, "ranked_sessions", columns=ColumnNames(order="day"))
    assert table.time_column is None
    assert {r["session_id"]: r["ordering"] for r in to_sessions(table).collect()} == {"a": 1, "b": 2}


def test_clicks_that_tie_are_told_where_they_are_most(spark: SparkSession) -> None:
    # The time of the session's start; of one pair of clicks the items are the same, too.
    later = T0 + timedelta(hours=1)
    rows = [("a", 3, T0, 1), ("a", 1, T0, 2), ("a", 1, T0, 3), ("b", 2, later, 1), ("b", 1, later, 2)]
    schema = "session_id string, item_id int, ts timestamp, place int"
    table = _open(spark, rows, schema)
    told: list[str] = []
    stats = check_sessions(table, settled_sessions(table), told.append)
    assert stats == SessionStats(2, 5, 3, tied=2) and told == [stats.guessed(table)]
    assert str(stats.guessed(table)).startswith("67 % of neighbouring clicks have the same ts and different")
    assert SessionStats(2, 6, 3, tied=2).guessed(table) is None
    ordered = _open(spark, rows, schema, order="place")
    assert check_sessions(ordered, settled_sessions(ordered)).tied == 0


def test_numbers_written_as_text_do_not_rank(spark: SparkSession) -> None:
    rows = [("a", 1, "9"), ("a", 2, "10"), ("b", 1, "8")]
    schema = "session_id string, item_id int, step string"
    _refused(spark, rows, schema, "`step` ranks by text", "1 to 2 digits", "BIGINT", order="step")
    padded = [(s, i, step.zfill(2)) for s, i, step in rows]
    table = _open(spark, padded, schema, order="step")
    assert check_sessions(table, to_sessions(table)).n_sessions == 2


@pytest.mark.parametrize(("session", "item"), [(b"a", b"caf\xe9"), (b"\xff", b"x")])
def test_text_that_is_not_utf8_is_told(spark: SparkSession, session: bytes, item: bytes) -> None:
    rows = [(session, [b"x", item]), (b"b", [b"x", b"\xc3\xa9"])]
    frame = spark.createDataFrame(rows, "session_id binary, items array<binary>")
    frame = frame.selectExpr(
        "cast(session_id AS string) AS session_id", "transform(items, x -> cast(x AS string)) AS items"
    )
    frame.createOrReplaceTempView("latin_sessions")
    table = open_input(spark, "latin_sessions")
    with pytest.raises(InputError, match="1 row has text that is not UTF-8"):
        check_sessions(table, to_sessions(table))


def test_a_delta_table_without_a_commit_is_no_parquet(spark: SparkSession, tmp_path: Path) -> None:
    spark.createDataFrame(GOOD, SESSIONS).write.parquet(str(tmp_path / "t"))
    (tmp_path / "t" / "_delta_log").mkdir()
    with pytest.raises(InputError, match="never committed"):
        open_input(spark, str(tmp_path / "t"))


def test_a_path_with_letters_of_a_pattern(spark: SparkSession, tmp_path: Path) -> None:
    for name in ("da[1]", "da*"):
        place = tmp_path / name / "t"
        spark.createDataFrame(GOOD, SESSIONS).write.parquet(str(place))
        assert open_input(spark, str(place)).df.count() == 3
