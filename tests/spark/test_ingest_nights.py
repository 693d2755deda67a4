"""Ingest by night: what is new is added once, and the sessions are those of one ingest of everything."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from prune_lib.delta import table_version
from prune_lib.errors import UserError
from prune_lib.ingest.job import Ingested
from prune_lib.ingest.nights import New, inputs_of, new_rows, since
from prune_lib.ingest.source import find_place
from tests.spark import ingesting

START = 1_700_000_000
TABLES = ("", "_quarantine", "_ingests", "_inputs")


ingest = partial(ingesting.ingest, append=True, max_bad=0.5)


def sessions(spark: SparkSession, output: Path) -> dict[str, list[Any]]:
    frame = spark.read.format("delta").load(str(output)).drop("ingest_run").toPandas()
    assert frame["session_id"].is_unique
    return {row["session_id"]: [plain(x) for x in row.drop("session_id")] for _, row in frame.iterrows()}


def plain(value: Any) -> Any:
    if isinstance(value, str) or value is None:
        return value
    return [x.isoformat() if isinstance(x, pd.Timestamp) else str(x) for x in value]


def versions(spark: SparkSession, output: Path) -> list[int | None]:
    return [table_version(spark, f"{output}{end}") for end in TABLES]


def nights(seed: int) -> list[list[str]]:
    """Lines of three nights: users go on over midnight, some clicks come a night late, some come again."""
    draw = random.Random(seed)
    out: list[list[str]] = []
    for night in range(3):
        lines = []
        for k in range(60):
            at = START + 86_400 * night + draw.randrange(-1200, 80_000)
            at = draw.choice([at, START + 86_400 * night + 40 * k])
            lines.append(f"{draw.choice('uvwxyz')},{draw.randrange(9)},{at},{draw.choice(['view', 'cart'])}")
        lines.append("broken")
        if out:
            lines += draw.sample(out[-1][:-1], 4)
        out.append(lines)
    return out


@pytest.mark.parametrize(
    ("many", "more"),
    [(2, {"order_column": "price"}), (3, {"user_column": "user", "keep": ["price"], "max_hours": 0.2})],
)
def test_nights_are_one_ingest_of_everything(
    spark: SparkSession, tmp_path: Path, many: int, more: dict[str, Any]
) -> None:
    header = "session,user,item,ts,kind,price"
    logs = tmp_path / "logs"
    logs.mkdir()
    read = 0
    for n, lines in enumerate(nights(3)[:many]):
        rows = [line if line == "broken" else f"{line[0]},{line},{len(line)}" for line in lines]
        (logs / f"{n}.csv").write_text("\n".join([header.replace("kind", "type"), *rows]) + "\n")
        run = ingest(spark, logs, tmp_path / "nightly", **more).run
        assert run["rows_read"] == len(lines) and run["appended"] == (n > 0)
        assert run["by_rule"]["ragged"] == 1 and (n == 0 or run["by_rule"]["duplicate"] >= 4)
        read += run["rows_clean"]
    whole = ingest(spark, logs, tmp_path / "whole", **more).run
    assert sessions(spark, tmp_path / "nightly") == sessions(spark, tmp_path / "whole")
    assert whole["rows_clean"] == read
    bad = spark.read.format("delta").load(f"{tmp_path / 'nightly'}_quarantine")
    assert bad.count() == many and bad.select("file").distinct().count() == many
    # Once more, and nothing is new; a file that holds nothing is none.
    (logs / f"{many}.csv").write_text("\n")
    before = versions(spark, tmp_path / "nightly")
    again = ingest(spark, logs, tmp_path / "nightly", **more)
    assert not again.run and "Nothing is new" in again.text and again.record()["new"] is False
    assert versions(spark, tmp_path / "nightly") == before


def test_a_file_that_grew_a_column_that_came_and_one_that_changed(
    spark: SparkSession, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "1.csv").write_text("session_id,item_id,ts\na,1,1700000000\nb,1,1700000000\n")
    first = ingest(spark, logs, tmp_path / "out", keep=["all"]).run
    (logs / "1.csv").write_text("session_id,item_id,ts\na,1,1700000000\nb,1,1700000000\nb,2,1700000060\n")
    # What looks like a kind is none, as the sessions that are there have none.
    lines = "b,3,1700000120,7,view\nc,3,1700000000,8,cart\n"
    (logs / "2.csv").write_text(f"session_id,item_id,ts,price,event_type\n{lines}")
    done = ingest(spark, logs, tmp_path / "out", keep=["all"])
    assert done.run["by_rule"] == {"duplicate": 2} and "had changed" in done.warnings[0]
    frame = spark.read.format("delta").load(str(tmp_path / "out")).orderBy("session_id").collect()
    assert [row["items"] for row in frame] == [["1"], ["1", "2", "3"], ["3"]]
    # The session that was read again and has nothing new is as it was, without what the log has gained.
    assert [row["price"] for row in frame] == [None, [None, None, "7"], ["8"]]
    assert frame[0]["ingest_run"] == first["ingest_run"] and done.run["sessions"] == 2
    assert frame[2]["event_type"] == ["cart"] and "kinds" not in frame[2]
    (logs / "3.csv").write_text("session_id,item_id,ts,pri ce\nb,3,1700000120,7\n")
    with pytest.raises(UserError, match="'pri ce' .* needs Delta's column mapping"):
        ingest(spark, logs, tmp_path / "out", keep=["all"])
    with pytest.raises(UserError, match="have no orders, and ts of .* is the order now"):
        ingest(spark, logs, tmp_path / "out", keep=["all"], order_column="ts")
    with pytest.raises(UserError, match="of the log's sessions, by session_id, .* of its users, by item_id"):
        ingest(spark, logs, tmp_path / "out", user_column="item_id")
    with pytest.raises(UserError, match="made with gap-minutes no value and this run has 5.0"):
        ingest(spark, logs, tmp_path / "out", gap_minutes=5)
    os.utime(logs / "1.csv", (1, 1))
    with pytest.raises(UserError, match="duplicate:warn takes, would be there twice"):
        ingest(spark, logs, tmp_path / "out", rule=["duplicate:warn"])


def test_columns_that_the_log_gains_and_one_whose_type_changed(spark: SparkSession, tmp_path: Path) -> None:
    def write(name: str, schema: str, *row: Any, also: tuple[Any, ...] | None = None) -> None:
        rows = [row] if also is None else [row, also]
        frame = spark.createDataFrame(rows, f"session_id string, ts bigint, {schema}")
        frame.coalesce(1).write.parquet(str(tmp_path / "logs" / name))

    def run(**more: Any) -> Ingested:
        return ingest(spark, tmp_path / "logs", tmp_path / "out", keep=["From"], **more)

    # As a column of ours was called.
    write("0", "product_id bigint", "a", START, 1)
    done = run()
    assert "From" not in done.sessions.columns
    assert done.warnings == ["--keep: the log has no column From (yet)"]
    write("1", "product_id bigint, From double, item_id string", "b", START, 1, 0.5, "x")
    done = run()
    # What it gains that is called as an item is none: the item is what it was.
    assert done.sessions.where("session_id = 'b'").first()["items"] == ["1"]
    assert {row["session_id"]: row["From"] for row in done.sessions.collect()} == {"a": None, "b": [0.5]}
    assert done.warnings == ["the log has gained the column item_id, not kept: --keep item_id"]
    # What was kept stays when a session goes on, though tonight's log has no such column.
    # Of one from before it was kept nothing is lost: it has no prices, not even an array of them.
    write("2", "product_id bigint", "b", START + 60, 2, also=("a", START + 60, 2))
    done = ingest(spark, tmp_path / "logs" / "2", tmp_path / "out")
    assert done.sessions.where("session_id = 'b'").first()["From"] == [0.5, None]
    first = done.sessions.where("session_id = 'a'").first()
    assert (first["items"], first["From"]) == (["1", "2"], [None, None])
    write("3", "product_id string", "a", START, "1")
    before = versions(spark, tmp_path / "out")
    with pytest.raises(UserError, match="product_id .* was BIGINT the last time and is STRING now"):
        run()
    assert versions(spark, tmp_path / "out") == before
    with pytest.raises(UserError, match="a column of one name and two types"):
        ingest(spark, tmp_path / "logs", tmp_path / "fresh")


@pytest.mark.parametrize("feed", [True, False])
def test_a_table_that_grows(spark: SparkSession, tmp_path: Path, feed: bool) -> None:
    log = str(tmp_path / "log")
    schema = "session_id string, item_id bigint, ts bigint"

    def add(*rows: tuple[str, int, int]) -> None:
        frame = spark.createDataFrame(list(rows), schema)
        writer = frame.write.format("delta").mode("append")
        (writer.option("delta.enableChangeDataFeed", "true") if feed else writer).save(log)

    add(("a", 1, START), ("b", 1, START))
    ingest(spark, Path(log), tmp_path / "out")
    assert "Nothing is new" in ingest(spark, Path(log), tmp_path / "out").text
    inputs = f"{tmp_path / 'out'}_inputs"
    if feed:
        # As nights before there were ids have left it.
        before = spark.read.format("delta").load(inputs).drop("table_id")
        before.write.format("delta").mode("overwrite").option("overwriteSchema", True).save(inputs)
    # Far too late for the watermark, but not for the feed.
    add(("a", 2, START + 60), ("b", 0, START - 30 * 3600))
    spark.sql(f"OPTIMIZE delta.`{log}`")
    if feed:
        # A row that was changed is not added.
        spark.sql(f"UPDATE delta.`{log}` SET ts = ts + 5 WHERE session_id = 'a' AND item_id = 1")
    # Those that were read before are no doubles of the log's.
    run = ingest(spark, Path(log), tmp_path / "out", rule=["duplicate:fail"]).run
    found = {name: items for name, (items, _) in sessions(spark, tmp_path / "out").items()}
    if feed:
        assert found == {"a": ["1", "2"], "b": ["0", "1"]}
        assert (run["rows_read"], run["rows_clean"]) == (2, 2)
        ids = [
            row["table_id"] for row in spark.read.format("delta").load(inputs).orderBy("read_at").collect()
        ]
        assert ids[0] is None and ids[1] is not None
    else:
        assert found == {"a": ["1", "2"], "b": ["1"]}
        assert (run["rows_read"], run["rows_clean"], run["rows_dropped"]) == (3, 1, 2)
        add(("b", 5, START + 90))
        ingest(spark, Path(log), tmp_path / "out", late_hours=31, rule=["duplicate:warn"])
        found = {name: items for name, (items, _) in sessions(spark, tmp_path / "out").items()}
        assert found == {"a": ["1", "2"], "b": ["0", "1", "5"]}


def test_a_feed_that_does_not_reach_back_to_what_was_read(spark: SparkSession, tmp_path: Path) -> None:
    log, out = str(tmp_path / "log"), tmp_path / "out"
    schema = "session_id string, item_id bigint, ts bigint"

    def add(*row: Any) -> None:
        writer = spark.createDataFrame([row], schema).coalesce(1).write.format("delta").mode("append")
        writer = writer.option("delta.enableChangeDataFeed", "true")
        writer.option("delta.checkpointInterval", "1").save(log)

    def feed(on: bool) -> None:
        spark.sql(f"ALTER TABLE delta.`{log}` SET TBLPROPERTIES (delta.enableChangeDataFeed = {on})")

    add("a", 1, START)
    ingest(spark, Path(log), out)
    # Off for a while: a row from long before the watermark comes in all the same.
    feed(False)
    add("a", 2, START - 30 * 3600)
    feed(True)
    done = ingest(spark, Path(log), out)
    assert sessions(spark, out)["a"][0] == ["2", "1"] and done.run["rows_dropped"] == 1
    assert "was off for some version from 1 to 3" in done.warnings[0]
    # The log's oldest commits are gone, as its retention has it.
    add("b", 1, START)
    for version in range(3):
        for file in (tmp_path / "log" / "_delta_log").glob(f"*{version:020}.*"):
            file.unlink()
    jvm: Any = spark._jvm
    jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
    place = find_place(spark, log, "auto", None)
    rows, by, why = new_rows(spark, New(place, True, 0))
    assert (rows.count(), by) == (3, "all") and why is not None and "begins at version 3, for older" in why
    assert [part is None for part in new_rows(spark, New(place, True, 3))] == [False, False, True]
    feed(False)
    place = find_place(spark, log, "auto", None)
    assert new_rows(spark, New(place, True, 3))[1:] == ("newest", None)


def test_a_table_that_was_dropped_and_made_anew_is_not_known(spark: SparkSession, tmp_path: Path) -> None:
    log, inputs = str(tmp_path / "log"), str(tmp_path / "inputs")
    ids = []
    for item in range(2):
        spark.sql(f"CREATE OR REPLACE TABLE delta.`{log}` USING delta AS SELECT {item} AS item")
        place = find_place(spark, log, "auto", None)
        ids.append(place.table_id)
    assert place.version == 1 and None not in ids and ids[0] != ids[1]
    read = inputs_of(spark, place, "r1", datetime(2026, 11, 1, tzinfo=timezone.utc))
    read.write.format("delta").save(inputs)
    assert since(spark, place, inputs) == New(place, True, 1, nothing=True)
    other = replace(place, table_id=ids[0])
    assert since(spark, other, inputs) == New(other)
    # Nights before there were ids.
    read.drop("table_id").write.format("delta").mode("overwrite").option("overwriteSchema", True).save(inputs)
    assert since(spark, other, inputs) == New(other, True, 1, nothing=True)


def test_a_bots_new_clicks_do_not_take_its_session_away(spark: SparkSession, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "1.csv").write_text("session_id,item_id,ts\na,1,1700000000\nb,1,1700000000\n")
    ingest(spark, logs, tmp_path / "out", max_clicks=3)
    lines = "".join(f"a,{k},{START + k}\n" for k in range(4))
    (logs / "2.csv").write_text("session_id,item_id,ts\n" + lines + "c,9,1700000000\n")
    run = ingest(spark, logs, tmp_path / "out", max_clicks=3, max_bad=0.9).run
    assert run["by_rule"] == {"long_session": 4} and run["rows_clean"] == 1
    found = {name: items for name, (items, _) in sessions(spark, tmp_path / "out").items()}
    assert found == {"a": ["1"], "b": ["1"], "c": ["9"]}
    bad = spark.read.format("delta").load(f"{tmp_path / 'out'}_quarantine").collect()
    assert sorted(row["line"] for row in bad) == [2, 3, 4, 5] and {row["rule"] for row in bad} == {
        "long_session"
    }


def test_a_run_that_is_cut_off_is_done_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "1.csv").write_text("session_id,item_id,ts\na,1,1700000000\n")
    ingest(spark, logs, tmp_path / "out")
    (logs / "2.csv").write_text("session_id,item_id,ts\na,2,1700000060\nb,2,1700000000\nb,,1700000060\n")
    from prune_lib import commits

    commit = commits._commit
    begun: list[str] = []

    def killed(spark: SparkSession, table: commits.Written, former: Any, note: str) -> None:
        begun.append(table.target)
        if table.target.endswith("_inputs"):
            # As after kill -9: nobody brings the tables back.
            monkeypatch.setattr(commits, "_undo", lambda *_: None)
            raise RuntimeError("killed")
        commit(spark, table, former, note)

    monkeypatch.setattr(commits, "_commit", killed)
    with pytest.raises(RuntimeError, match="killed"):
        ingest(spark, logs, tmp_path / "out")
    monkeypatch.undo()
    # The one that runs side by side contend for is the same, bad rows or none.
    assert begun[:2] == [f"{tmp_path}/out_ingests", f"{tmp_path}/out_quarantine"]
    run = ingest(spark, logs, tmp_path / "out").run
    assert run["by_rule"] == {"duplicate": 2, "no_item": 1} and run["rows_clean"] == 0
    found = {name: items for name, (items, _) in sessions(spark, tmp_path / "out").items()}
    assert found == {"a": ["1", "2"], "b": ["2"]}
    # What the killed run had set aside and told of itself is not there twice.
    aside = spark.read.format("delta").load(f"{tmp_path}/out_quarantine").collect()
    assert [(row["record"], row["ingest_run"]) for row in aside if row["rule"] == "no_item"] == [
        ("b,,1700000060", run["ingest_run"])
    ]
    told = spark.read.format("delta").load(f"{tmp_path}/out_ingests").count()
    assert told == 2
