"""Floors by columns, bands and time: who is in which group, and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import InputError, SettingsError
from prune_lib.floor_by import FloorBy, check_columns, check_fits, floors_by
from prune_lib.popularity import Bands
from prune_lib.samples import samples_of
from prune_lib.sampling.floors import Floors, item_floors, joined_floors
from prune_lib.sessions.columns import InputTable
from prune_lib.sessions.encoding import Encoded, encode
from prune_lib.sessions.shaping import to_sessions

START = datetime(2024, 1, 1, tzinfo=timezone.utc)  # a Monday
SESSIONS = [
    ("s0", [1, 2], START, "a", ["x", "y"], 1.5),
    ("s1", [1, 3, 4], START + timedelta(days=1), "a", ["x"], 1.5),
    ("s2", [1, 2, 1, 2], START + timedelta(days=8), "b", [], None),
    ("s3", [5, 2], START + timedelta(days=9), None, ["y", "y"], 2.0),
]
COLUMNS = (
    "session_id string, items array<bigint>, at timestamp, kind string, tags array<string>, price double"
)


@pytest.fixture(scope="module")
def opened(spark: SparkSession) -> tuple[InputTable, DataFrame, Encoded]:
    df = spark.createDataFrame(SESSIONS, COLUMNS).withColumn("deep", F.struct("kind"))
    table = InputTable(df, "sessions", "session_id", "items", "at", None, "here", None, "delta")
    raw = to_sessions(table)
    return table, raw, encode(raw, seed=0)


def groups(opened: tuple[InputTable, DataFrame, Encoded], column: str, n: int) -> tuple[Floors, list]:
    """The floor, and sessions and wanted number of the values, in their order."""
    table, raw, made = opened
    (floor,) = floors_by(table, raw, made, Bands(cold_max=1, popular_min=3), [FloorBy(column, n)])
    rows = floor.rows.withColumn("group", F.explode("groups")).groupBy("group")
    found = rows.agg(F.array_sort(F.collect_list("sid")).alias("sids")).orderBy("group").collect()
    return floor, [(row["sids"], int(floor.wanted[row["group"]])) for row in found]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("kind", [([0, 1], 2), ([2], 1)]),  # a, b
        ("tags", [([0, 1], 2), ([0, 3], 2)]),  # x, y
        ("price", [([0, 1], 2), ([3], 1)]),  # 1.5, 2.0
        ("band", [([1, 3], 2), ([0, 1, 2, 3], 2)]),  # cold, popular
        ("week", [([0, 1], 2), ([2, 3], 2)]),
    ],
)
def test_sessions_by_value(opened, column: str, expected: list) -> None:
    """Every value wants two, or all that it has; a null is no value."""
    floor, found = groups(opened, column, 2)
    assert found == expected
    assert floor.of_sequences == (column == "band")


def test_a_floor_beyond_all_numbers_asks_for_all_that_there_are(opened) -> None:
    _, found = groups(opened, "kind", 10**20)
    assert found == [([0, 1], 2), ([2], 1)]


def test_a_column_of_the_input_goes_before_what_we_would_make(spark: SparkSession) -> None:
    df = spark.createDataFrame(
        [("s0", [1, 2], "u2"), ("s1", [1, 2], "rem")], "sid string, items array<int>, band string"
    )
    table = InputTable(df, "sessions", "sid", "items", None, None, "here", None, "delta")
    raw = to_sessions(table)
    floor, found = groups((table, raw, encode(raw, seed=0)), "band", 1)
    assert found == [([1], 1), ([0], 1)] and not floor.of_sequences
    assert floor.copies_count, "of two sessions with the same items only one is of a value"


def test_a_session_of_events_has_the_values_of_all_its_clicks(spark: SparkSession) -> None:
    clicks = [("s0", 1, 1, "a"), ("s0", 2, 2, "b"), ("s1", 1, 3, "b"), ("s1", 1, 4, None)]
    df = spark.createDataFrame(clicks, "visit string, item bigint, ts bigint, page string")
    table = InputTable(df, "events", "visit", "item", "ts", None, "here", None, "delta")
    raw = to_sessions(table)
    made = encode(raw, seed=0)
    _, found = groups((table, raw, made), "page", 1)
    assert found == [([0], 1), ([0, 1], 1)]
    with pytest.raises(InputError, match="--floor-by day:1: the times of the input are numbers"):
        groups((table, raw, made), "day", 1)
    # Before any work, too.
    with pytest.raises(InputError, match="--floor-by day:1: the times of the input are numbers"):
        check_columns(table, [FloorBy("day", 1)])


@pytest.mark.parametrize("layout", ["events", "sessions"])
def test_a_sample_has_the_values_of_its_own_clicks(spark: SparkSession, layout: str) -> None:
    """Which of its session's clicks are cut off with it is not in its rows."""
    clicks = [
        ("s", 1, START, "x"),
        ("s", 2, START + timedelta(hours=1), "x"),
        ("s", 3, START + timedelta(days=1), "y"),
        ("t", 1, START + timedelta(days=2), None),
        ("t", 3, START + timedelta(days=3), "x"),
    ]
    df = spark.createDataFrame(clicks, "visit string, item bigint, time timestamp, page string")
    if layout == "sessions":
        click = F.array_sort(F.collect_list(F.struct("time", "item", "page"))).alias("c")
        # A column of the session's own, and a list that is not cut with the items.
        lists = ["c.item AS items", "c.time AS times", "element_at(c.page, -1) AS page", "c.page AS pages"]
        df = df.groupBy("visit").agg(click).selectExpr("visit", *lists)
    names = ("item", "time") if layout == "events" else ("items", "times")
    table = InputTable(df, layout, "visit", *names, None, "here", None, "delta")
    raw = to_sessions(table)
    samples = samples_of(encode(raw, seed=0), 3)
    sids = {(r["session_id"], r["length"]): r["sid"] for r in samples.sessions.collect()}

    def held(column: str) -> list[set[tuple[str, int]]]:
        _, found = groups((table, raw, samples), column, 1)
        return [{key for key, sid in sids.items() if sid in of_value} for of_value, _ in found]

    short, long, other = ("s", 2), ("s", 3), ("t", 2)
    if layout == "events":
        assert held("page") == [{short, long, other}, {long}]  # x, y
    else:
        assert held("page") == [{other}, {short, long}]
        assert held("pages") == [{short, long, other}, {short, long}]
    assert held(names[0]) == [{short, long, other}, {short, long}, {long, other}]  # items 1, 2, 3
    assert held("day") == [{short}, {long}, {other}]


def test_a_column_of_nulls_asks_for_nothing(spark: SparkSession, opened) -> None:
    table, raw, made = opened
    empty = InputTable(
        table.df.withColumn("kind", F.lit(None).cast("string")),
        *("sessions", "session_id", "items", "at", None, "here", None, "delta"),
    )
    assert floors_by(empty, raw, made, Bands(cold_max=1, popular_min=3), [FloorBy("kind", 2)]) == []


def test_columns_that_cannot_have_floors(opened) -> None:
    table = opened[0]
    check_columns(table, [FloorBy("tags", 1), FloorBy("band", 1), FloorBy("month", 1)])
    with pytest.raises(InputError, match="column deep is of type struct"):
        check_columns(table, [FloorBy("deep", 1)])
    with pytest.raises(InputError, match="no column knd. Did you mean kind"):
        check_columns(table, [FloorBy("knd", 1)])
    timeless = InputTable(table.df, "sessions", "session_id", "items", None, None, "here", None, "delta")
    with pytest.raises(InputError, match="no times. Name their column by --time-column"):
        check_columns(timeless, [FloorBy("day", 1)])


@pytest.mark.parametrize(
    ("column", "cost", "least"),
    [
        ("kind", "n", 2 + 4),  # the shortest of a, the one of b
        ("kind", "one", 2),
        ("tags", "n", 2),  # x and y both by the session of two clicks that has both: 4 clicks in half
    ],
)
def test_the_least_that_a_floor_costs(opened, column: str, cost: str, least: int) -> None:
    floor, _ = groups(opened, column, 1)
    made = opened[2]
    check_fits(floor, made, least, cost, "samples")
    with pytest.raises(SettingsError, match=rf":1 does not fit the budget of {least - 1} samples: its"):
        check_fits(floor, made, least - 1, cost, "samples")


def test_floors_are_joined_one_after_the_other(opened) -> None:
    made = opened[2]
    by, _ = groups(opened, "kind", 2)
    items = item_floors(made, 3)
    assert items is not None
    both = joined_floors([items, by])
    assert both is not None and both.names == ("--floor 3", "--floor-by kind:2")
    assert both.wanted.tolist() == [*np.where(made.item_sessions >= 3, 3, 0), 2, 1]
    rows = {row["sid"]: row["groups"] for row in both.rows.collect()}
    items_of = {row["sid"]: sorted(set(row["items"])) for row in made.sessions.collect()}
    kinds = {0: [0], 1: [0], 2: [1], 3: []}
    assert rows == {sid: items_of[sid] + [made.n_items + k for k in kinds[sid]] for sid in range(4)}
    assert item_floors(made, 9) is None and joined_floors([]) is None
