"""`ingest`: every row is clean, quarantined or dropped; sessions are what a plain reading of the log says."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import prune_lib
from prune_lib.delta import table_version
from prune_lib.errors import UserError
from tests.spark import ingesting

START = 1_700_000_000  # seconds


ingest = partial(ingesting.ingest, max_bad=1.0)


def table(spark: SparkSession, place: Path | str, key: str) -> pd.DataFrame:
    frame: pd.DataFrame = spark.read.format("delta").load(str(place)).toPandas()
    return frame.sort_values(key, ignore_index=True)


def sessions(spark: SparkSession, output: Path) -> dict[str, list[str]]:
    found = table(spark, output, "session_id")
    return {name: list(items) for name, items in zip(found["session_id"], found["items"], strict=True)}


def quarantine(spark: SparkSession, output: Path) -> list[tuple[str, int, str]]:
    frame = spark.read.format("delta").load(f"{output}_quarantine").toPandas()
    rows = zip(frame["rule"], frame["line"], frame["record"], strict=True)
    return sorted((rule, int(line), record) for rule, line, record in rows)


HEADER = ["session_id", "item_id", "timestamp", "event_type"]
#: Ids that a careless hand would take for SQL, a path, a lookup or an end of something.
HOSTILE = [
    "'; DROP TABLE x; --",
    "${jndi:ldap://x}",
    "../../etc",
    'say "hi"',
    "`a`.b",
    "🦆 ü",
    "a,b",
    "NULL",
    "\\",
]


def messy_rows(seed: int, n: int) -> list[tuple[list[str] | str, str | None]]:
    """Rows of a log, or lines that are none, each with the rule that it breaks."""
    draw = random.Random(seed)
    rows: list[tuple[list[str] | str, str | None]] = []
    for _ in range(n):
        session, item = draw.choice(["a", "b", "c", *HOSTILE]), draw.choice(["1", "2", "3", *HOSTILE])
        good = [session, item, str(START + draw.randrange(500)), draw.choice(["view", "cart"])]
        fault = draw.randrange(14)
        row, rule = list(good), None
        if fault == 0:
            row[0], rule = draw.choice(["", "  "]), "no_session"
        elif fault == 1:
            row[1], rule = "", "no_item"
        elif fault == 2:
            row[2], rule = draw.choice(["soon", "", "12:30", "2024-13-45"]), "bad_time"
        elif fault == 3:
            row[2], rule = "-5", "negative_time"
        elif fault == 4:
            row[2], rule = "2999-01-01", "future_time"
        elif fault == 5:
            row[1], rule = "x" * 300, "long_id"
        elif fault == 6:
            row, rule = row[: draw.randrange(1, 4)], "ragged"
        elif fault == 7:
            row, rule = [*row, "more"], "ragged"
        elif fault == 8 and rows:
            row, rule = draw.choice(rows)
        rows.append((row, rule))
    return rows


def line_of(row: list[str] | str, end: str = "\n") -> str:
    if isinstance(row, str):
        return row + end
    text = io.StringIO()
    csv.writer(text, delimiter=";", lineterminator=end).writerow(row)
    return text.getvalue()


@pytest.mark.parametrize(("seed", "split_bytes"), [(5, 2_000), (6, 10_000_000)])
def test_a_messy_file_against_a_plain_reading(
    spark: SparkSession, tmp_path: Path, seed: int, split_bytes: int
) -> None:
    rows = messy_rows(seed, 400)
    lines = [line_of(row, "\r\n") for row, _ in rows]
    file = tmp_path / "log.csv"
    file.write_bytes(("\ufeff" + line_of(HEADER, "\r\n") + "".join(lines)).encode())
    spark.conf.set("spark.sql.files.maxPartitionBytes", str(split_bytes))
    try:
        done = ingest(spark, file, tmp_path / "out", rule=["future_time:quarantine"])
    finally:
        spark.conf.unset("spark.sql.files.maxPartitionBytes")
    # The oracle: one line after the other.
    seen: set[tuple[str, ...]] = set()
    by_session: dict[str, list[tuple[int, int, str]]] = {}
    bad: list[tuple[str, int, str]] = []
    doubles = 0
    for number, (row, rule) in enumerate(rows, 2):
        if rule is not None:
            bad.append((rule, number, line_of(row, "")))
        elif tuple(row) in seen:
            doubles += 1
        else:
            seen.add(tuple(row))
            by_session.setdefault(row[0], []).append((int(row[2]), number, row[1]))
    assert quarantine(spark, tmp_path / "out") == sorted(bad)
    expected = {name: [item for *_, item in sorted(clicks)] for name, clicks in by_session.items()}
    assert sessions(spark, tmp_path / "out") == expected
    run = done.run
    assert doubles > 0 and run["by_rule"]["duplicate"] == doubles == run["rows_dropped"]
    assert run["rows_read"] == 400 == run["rows_clean"] + run["rows_quarantined"] + run["rows_dropped"]
    times = table(spark, tmp_path / "out", "session_id").set_index("session_id")["times"]
    for name, clicks in by_session.items():
        assert [int(t.timestamp()) for t in times[name]] == [second for second, *_ in sorted(clicks)]


def test_files_of_a_folder_whose_headers_differ(spark: SparkSession, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    (logs / "day=2").mkdir(parents=True)
    (logs / "1.tsv").write_text("sid\titem\tts\na\tx\t1700000000000\n\nb\ty\t1700000001000")
    with gzip.open(logs / "day=2" / "2.tsv.gz", "wt") as file:
        file.write("ts\tsid\tprice\titem\n1700000002.5\ta\t3\tz\n2023-11-14 22:13:23 UTC\tb\t4\tx\n")
    done = prune_lib.ingest_log(
        logs, output=str(tmp_path / "out"), workspace=str(tmp_path.parent / "workspace")
    )
    assert sessions(spark, tmp_path / "out") == {"a": ["x", "z"], "b": ["y", "x"]}
    assert done.sessions.count() == 2 and done.quarantine.count() == 0
    with pytest.raises(UserError, match="`max_bad` must be"):
        prune_lib.ingest_log(logs, max_bad=7)
    found = table(spark, tmp_path / "out", "session_id")
    utc = [pd.Timestamp(t).tz_localize("UTC").timestamp() for t in found["times"].explode()]
    assert utc == [1_700_000_000, 1_700_000_002.5, 1_700_000_001, 1_700_000_003]


def test_json_lines_and_sessions_in_them(spark: SparkSession, tmp_path: Path) -> None:
    events = [
        {"aid": 5, "ts": START * 1000 + 1, "type": "clicks"},
        {"aid": 6, "ts": START * 1000, "type": "carts"},
    ]
    broken = '{"session": 3, "events": [{"aid"'
    lines = [json.dumps({"session": 1, "events": events}), broken, json.dumps({"session": 2, "events": []})]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    done = ingest(spark, tmp_path / "log.jsonl", tmp_path / "out", form="otto")
    assert sessions(spark, tmp_path / "out") == {"1": ["6", "5"]}
    assert table(spark, tmp_path / "out", "session_id")["kinds"][0].tolist() == ["carts", "clicks"]
    assert quarantine(spark, tmp_path / "out") == [("no_item", 3, lines[2]), ("unreadable", 2, broken)]
    assert done.run["rows_read"] == 4
    tracked = MlflowClient(f"sqlite:///{tmp_path.parent / 'workspace' / 'mlflow.db'}")
    experiment = tracked.get_experiment_by_name("ingest")
    where = f"attributes.run_name = '{done.run['ingest_run']}'"
    (told,) = tracked.search_runs([experiment.experiment_id], where)
    assert (told.data.metrics["rows_read"], told.data.metrics["rows_no_item"]) == (4.0, 1.0)
    done = ingest(spark, tmp_path / "log.jsonl", tmp_path / "few", form="otto", kinds=["clicks"], max_bad=0.5)
    assert sessions(spark, tmp_path / "few") == {"1": ["5"]} and done.run["by_rule"]["other_kind"] == 1


def test_users_are_cut_into_sessions(spark: SparkSession, tmp_path: Path) -> None:
    minutes = {"u": [0, 10, 41, 71, 71, 200], "v": [5, 36]}
    rows = [
        (user, f"{user}{k}", datetime.fromtimestamp(START + 60 * m, timezone.utc))
        for user, of_user in minutes.items()
        for k, m in enumerate(of_user)
    ]
    frame = spark.createDataFrame(rows, "user string, product string, `click time` timestamp")
    frame.repartition(3).write.parquet(str(tmp_path / "log"))
    named = {"time_column": "click time", "item_column": "product"}
    ingest(spark, tmp_path / "log", tmp_path / "out", **named)

    def at(minute: int) -> str:
        return str((START + 60 * minute) * 1_000_000)

    assert sessions(spark, tmp_path / "out") == {
        f"u@{at(0)}": ["u0", "u1"],
        f"u@{at(41)}": ["u2", "u3", "u4"],  # thirty minutes are no gap, and of one time the file's order
        f"u@{at(200)}": ["u5"],
        f"v@{at(5)}": ["v0"],
        f"v@{at(36)}": ["v1"],
    }
    ingest(spark, tmp_path / "log", tmp_path / "cut", gap_minutes=60, max_hours=1, **named)
    assert sessions(spark, tmp_path / "cut") == {
        f"u@{at(0)}": ["u0", "u1", "u2"],
        f"u@{at(71)}": ["u3", "u4"],
        f"u@{at(200)}": ["u5"],
        f"v@{at(5)}": ["v0", "v1"],
    }


def test_clicks_of_one_time_in_a_delta_table_go_by_their_item(spark: SparkSession, tmp_path: Path) -> None:
    clicks = [("s", item, START, rank) for item, rank in (("b", 10), ("c", 9), ("a", 10), ("d", 9))]
    frame = spark.createDataFrame(clicks, "session_id string, item_id string, ts bigint, place int")
    for files in (1, 4):
        log = tmp_path / f"log{files}"
        frame.repartition(files, "item_id").write.format("delta").save(str(log))
        ingest(spark, log, tmp_path / f"by_item{files}")
        assert sessions(spark, tmp_path / f"by_item{files}") == {"s": ["a", "b", "c", "d"]}
    ingest(spark, tmp_path / "log4", tmp_path / "by_order", order_column="place")
    assert sessions(spark, tmp_path / "by_order") == {"s": ["c", "d", "a", "b"]}


def test_bots_and_what_rules_are_told(spark: SparkSession, tmp_path: Path) -> None:
    slow = [("long", str(k), START + 10 * k) for k in range(30)]
    fast = [("fast", str(k), START + k // 8) for k in range(120)]
    clicks = [*slow, *fast, ("people", "1", START), ("people", "1", START)]
    frame = spark.createDataFrame(clicks, "session_id string, item_id string, ts bigint")
    frame.write.format("delta").save(str(tmp_path / "log"))
    done = ingest(spark, tmp_path / "log", tmp_path / "out", max_clicks=20, rule=["fast_session:drop"])
    assert sessions(spark, tmp_path / "out") == {"people": ["1"]}
    # fast has more than twenty clicks, too, and is judged by the first of the rules
    assert done.run["by_rule"] == {"long_session": 150, "duplicate": 1}
    rules = ["fast_session:drop", "duplicate:warn", "long_session:warn"]
    done = ingest(spark, tmp_path / "log", tmp_path / "out", max_clicks=20, rule=rules)
    assert done.run["by_rule"] == {"fast_session": 120}
    assert done.run["warned"] == {"duplicate": 1, "long_session": 30} and len(done.warnings) == 2
    assert sessions(spark, tmp_path / "out")["people"] == ["1", "1"]
    found = spark.read.format("delta").load(f"{tmp_path / 'out'}_quarantine")
    assert found.where("rule = 'long_session'").count() == 150, "of the first run, which is kept"
    assert json.loads(found.first()["record"])["session_id"] in ("long", "fast")


@pytest.mark.parametrize(
    ("text", "more", "said"),
    [
        ("", {}, "no file of it has a line"),
        ("session_id,item_id,ts\n", {}, "holds no click: a header only"),
        ("session_id,ts\na,1\n", {}, "No column is known for the item .*--item-column"),
        (
            "session_id,item_id,ts\na,1,1700000000\nb,,1700000000\n",
            {},
            "50.0 %.*--max-bad allows 5 %.*line 3: 'b,,17",
        ),
        ("session_id;item_id;ts\na;1;1700000000\n", {"delimiter": ","}, "No column is known"),
        ("session_id,item_id,ts\na,1,nonsense\n", {"rule": ["bad_time:fail"]}, "break the rule bad_time"),
        ("session_id,item_id,ts\na,1,1700000000\n", {"rule": ["no_rule:fail"]}, "write it as rule:severity"),
        ("session_id,item_id,ts\na,1,1700000000\n", {"rule": ["no_item:warn"]}, "has no place in a session"),
        ("session_id,item_id,ts\na,1,1700000000\n", {"kinds": ["view"]}, "no column says them"),
        ("session_id,item_id,ts\na,1,1700000000\n", {"item_column": "itemid"}, "Did you mean item_id"),
        ("session_id,item_id,ts\na,1,1700000000\n", {"form": "yoochose"}, "Did you mean yoochoose"),
        ("session_id,item_id,ts\na,1,1700000000\n", {"keep": ["all", "ts"]}, "all is every column"),
    ],
)
def test_mistakes_leave_the_tables_as_they_were(
    spark: SparkSession,
    good: tuple[Path, list[int | None]],
    tmp_path: Path,
    text: str,
    more: dict[str, Any],
    said: str,
) -> None:
    output, before = good
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        ingest(spark, tmp_path / "log.csv", output, **{"max_bad": 0.05, **more})
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert versions(spark, output) == before


def versions(spark: SparkSession, output: Path) -> list[int | None]:
    return [table_version(spark, f"{output}{end}") for end in ("", "_quarantine", "_ingests")]


@pytest.fixture(scope="module")
def good(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[int | None]]:
    """Where an ingest wrote, and the versions of its tables."""
    folder = tmp_path_factory.mktemp("good")
    (folder / "log.csv").write_text("session_id,item_id,ts\na,1,1700000000\n")
    ingest(spark, folder / "log.csv", folder / "out")
    return folder / "out", versions(spark, folder / "out")


def test_a_file_is_no_table_although_its_name_has_a_dot(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is nothing at clicks.csv"):
        ingest(spark, "clicks.csv", tmp_path / "out")
    with pytest.raises(UserError, match="no place that this Spark can read.* org.apache.hadoop:hadoop-aws:"):
        ingest(spark, "s3a://bucket/logs/*.csv", tmp_path / "out")


def test_a_dry_run_says_what_was_found(
    spark: SparkSession, good: tuple[Path, list[int | None]], tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text("session_id|item_id|ts\na|1|1700000000\n")
    plan = str(ingest(spark, tmp_path / "log.csv", tmp_path / "out", dry_run=True))
    assert (
        "csv (the ending of log.csv; columns by their names, delimiter |); session session_id, item" in plan
    )
    assert not (tmp_path / "out").exists()
    log = good[0].with_name("log.csv")
    nothing = ingest(spark, log, good[0], dry_run=True, append=True).record()
    assert (nothing["dry_run"], nothing["new"]) == (True, False)
    assert nothing["plan"][0].startswith("Dry run") and "Nothing is new" in nothing["plan"][1]
    assert ingest(spark, log, good[0], dry_run=True).record()["new"] is True


def test_times_of_no_year_and_a_column_that_is_not_there(spark: SparkSession, tmp_path: Path) -> None:
    # Nanoseconds are none: they would be of the year 55840.
    times = ["9999-12-31 23:59:59.999999", "1900-01-01", "1899-12-31 23:59:59", "1700000000000000000"]
    lines = [f"{session},1,{time},5" for session, time in zip("abcd", times, strict=True)]
    (tmp_path / "log.csv").write_text("\n".join(["session_id,item_id,ts,price", *lines]))
    rules = ["future_time:warn", "negative_time:warn"]
    done = ingest(spark, tmp_path / "log.csv", tmp_path / "out", rule=rules, keep=["price", "pric"])
    assert sessions(spark, tmp_path / "out") == {"a": ["1"], "b": ["1"]}
    assert done.run["by_rule"] == {"bad_time": 2}
    assert (done.run["first"].year, done.run["last"].year) == (1900, 9999)
    assert done.warnings[0] == "--keep: the log has no column pric (yet)"
    assert done.sessions.columns == ["session_id", "items", "times", "price", "ingest_run"]


def test_what_is_not_utf8(spark: SparkSession, tmp_path: Path) -> None:
    log = b"session_id,item_id,ts\nd\xe9j\xe0,1,1700000000\nok,\xef\xbf\xbd,1700000000\n"
    (tmp_path / "log.csv").write_bytes(log)
    ingest(spark, tmp_path / "log.csv", tmp_path / "out")
    assert sessions(spark, tmp_path / "out") == {"ok": ["\ufffd"]}, "which is UTF-8, too"
    bad = spark.read.format("delta").load(f"{tmp_path / 'out'}_quarantine").first()
    assert (bad["rule"], bad["line"], bad["record"]) == ("encoding", 2, "d\ufffdj\ufffd,1,1700000000")
    assert bytes(bad["bytes"]) == b"d\xe9j\xe0,1,1700000000"


def test_times_do_not_depend_on_the_sessions_zone(spark: SparkSession, tmp_path: Path) -> None:
    stamps = ["2024-03-10 02:30:00", "2024-03-10T02:30:00.25", "2024-03-10", "2024-03-10 02:30:00+02:00"]
    stamps += ["2024-03-10 02:30:00 UTC", "1710037800", "1710037800.5", "1710037800123", "1710037800123456"]
    stamps += ["2024-03-10 02:30", "2024-03-10T2:30Z", "2024-03-10 02:30+02:00", "2024-03-10 02:30 UTC"]
    stamps += ["1.7100378005E9", "1.710037800123456E9", "1.7100378E12"]
    names = [f"s{k}" for k in range(len(stamps))]
    lines = "".join(f"s{k},1,{stamp}\n" for k, stamp in enumerate(stamps))
    (tmp_path / "log.csv").write_text("session_id,item_id,ts\n" + lines)
    seconds = [1710037800, 1710037800.25, 1710028800, 1710030600, 1710037800]
    seconds += [1710037800, 1710037800.5, 1710037800.123, 1710037800.123456]
    seconds += [1710037800, 1710037800, 1710030600, 1710037800]
    seconds += [1710037800.5, 1710037800.123456, 1710037800]
    moments = [(f"s{k}", "1", datetime.fromtimestamp(s, timezone.utc)) for k, s in enumerate(seconds)]
    frame = spark.createDataFrame(moments, "session_id string, item_id string, ts timestamp")
    frame.write.format("delta").saveAsTable("moments")
    zone = spark.conf.get("spark.sql.session.timeZone")
    try:
        spark.conf.set("spark.sql.session.timeZone", "America/New_York")  # where 02:30 was left out that day
        for source, output in ((tmp_path / "log.csv", "text"), ("default.moments", "table")):
            ingest(spark, source, tmp_path / output)
            first = F.unix_micros(F.get("times", F.lit(0))) / 1e6
            found = (
                spark.read.format("delta")
                .load(str(tmp_path / output))
                .select("session_id", first.alias("at"))
            )
            assert found.toPandas().set_index("session_id").loc[names, "at"].tolist() == seconds
    finally:
        spark.conf.set("spark.sql.session.timeZone", zone)
        spark.sql("DROP TABLE moments")


@pytest.mark.parametrize(
    ("file", "form", "counts"),
    [
        ("diginetica_sample_train-item-views.csv", "diginetica", (2986, 12391, 7139, 54, 933)),
        ("otto_sample_train.jsonl", "otto", (20, 862, 510, 276, 0)),
    ],
)
def test_the_raw_samples_come_in_with_their_counts(
    spark: SparkSession, shared_data: Path, tmp_path: Path, file: str, form: str, counts: tuple[int, ...]
) -> None:
    run = ingest(spark, shared_data / "raw" / file, tmp_path / "out", form=form, max_bad=0.0).run
    one_click = round(run["one_click"] * run["sessions"])
    assert (run["sessions"], run["clicks"], run["items"], run["longest"], one_click) == counts


def test_yoochoose_comes_in_with_its_counts(spark: SparkSession, shared_data: Path, tmp_path: Path) -> None:
    run = ingest(spark, shared_data / "yoochoose100k" / "events.parquet", tmp_path / "out", max_bad=0.0).run
    assert (run["rows_read"], run["rows_dropped"]) == (70_278, 1)
    assert (run["sessions"], run["items"], run["longest"]) == (17_794, 2_933, 58)
    # the ratio of the README's table, in which the row that stands there twice counts twice
    assert run["item_gini"] == pytest.approx(0.6644, abs=2e-4)
    assert spark.read.format("delta").load(str(tmp_path / "out")).where(F.size("items") == 0).isEmpty()
