"""Forms of public data sets, and layouts of logs: small files as they are published, click by click."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import InputError, PruneError, SettingsError
from prune_lib.ingest import reading
from prune_lib.ingest.clicks import judged
from prune_lib.ingest.fields import more_fields, unclosed
from prune_lib.ingest.form import Form, load_form
from prune_lib.ingest.gathering import judgement
from prune_lib.ingest.lines import numbered
from prune_lib.ingest.reading import read_clicks
from prune_lib.ingest.rules import Limits, severities
from prune_lib.ingest.source import Asked, Place, Source, find_place, find_source
from prune_lib.session import configured
from tests.spark.ingesting import ingest

START = 1_700_000_000
#: Of a million rows compiled queries take a third less of the processor's time than those of the other tests.
COMPILED = {"spark.sql.codegen.wholeStage": "true", "spark.sql.codegen.factoryMode": "FALLBACK"}
Clicks = list[tuple[str | None, str | None, float | None]]


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def found(spark: SparkSession, place: Path | str, form: str | None = None, **asked: Any) -> Source:
    known = load_form(form) if form else None
    return find_source(spark, find_place(spark, str(place), "auto", known), None, Asked(known, **asked))


def clicks(spark: SparkSession, source: Source) -> tuple[Clicks, dict[str, list[str]]]:
    """Clicks as they are judged (owner, item, seconds), in order, and the records that break rules."""
    limits = Limits(256, 2**62, source.form.kinds, source.form.time is not None, source.form.format == "csv")
    rows = judged(read_clicks(spark, source), source.form, limits, severities([])).toPandas()
    rows = rows.sort_values(["seq", "place"])
    good = rows[rows["rule"].isna()]
    micros = [None if pd.isna(us) else us / 1e6 for us in good["us"]]
    bad = rows[rows["rule"].notna()].groupby("rule")["record"].agg(list)
    return list(zip(good["owner"], good["item"], micros, strict=True)), dict(bad)


PUBLISHED: dict[str, tuple[str, str, Clicks]] = {
    "yoochoose": (
        "yoochoose-clicks.dat",
        "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n",
        [
            ("1", "214536502", seconds("2014-04-07 10:51:09.277")),
            ("1", "214536500", seconds("2014-04-07 10:54:09.868")),
        ],
    ),
    "diginetica": (
        "train-item-views.csv",
        "session_id;user_id;item_id;timeframe;eventdate\n1;NA;81766;526309;2016-05-09\n",
        [("1", "81766", seconds("2016-05-09 00:08:46.309"))],
    ),
    "retailrocket": (
        "events.csv",
        "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n",
        [("257597", "355908", 1433221332.117)],
    ),
    "tmall": (
        "user_log_format1.csv",
        "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n328862,323294,833,2882,2661.0,0829,0\n",
        [("328862", "323294", seconds("2014-08-29"))],
    ),
    "nowplaying": (
        "user_track_hashtag_timestamp.csv",
        '"user_id","track_id","hashtag","created_at"\n81,"cd52b3e5","nowplaying","2014-01-01 05:54:21"\n',
        [("81", "cd52b3e5", seconds("2014-01-01 05:54:21"))],
    ),
    "30music": (
        "sessions.idomaar",
        'event.session\t287144\t1390231051\t{"numtracks":2,"playtime":9} {"subjects":[{"type":"user"}],'
        '"objects":[{"type":"track","id":4698874,"playstart":0,"playtime":210,"action":"play"},'
        '{"type":"track","id":838286,"playstart":210,"playtime":337,"action":"skip"}]}\n',
        [("287144", "4698874", 1390231051.0), ("287144", "838286", 1390231261.0)],
    ),
    "trivago": (
        "train.csv",
        "user_id,session_id,timestamp,step,action_type,reference,platform,city\n"
        'U1,s1,1541037460,1,search for poi,"Newtown",AU,"Sydney, Australia"\n'
        'U1,s1,1541037522,2,interaction item image,666856,AU,"Sydney, Australia"\n',
        [("s1", "666856", 1541037522.0)],
    ),
    "rees46": (
        "2019-Oct.csv",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n"
        "2019-10-01 00:00:00 UTC,view,44600062,2103,,shiseido,35.79,541312140,72d76fde\n",
        [("72d76fde", "44600062", seconds("2019-10-01"))],
    ),
    "movielens": (
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,296,5.0,1147880044\n",
        [("1", "296", 1147880044.0)],
    ),
    "amazon": (
        "reviews.json",
        '{"overall": 5.0, "reviewerID": "A1", "asin": "B00", "unixReviewTime": 1252800000}\n',
        [("A1", "B00", 1252800000.0)],
    ),
    "otto": (
        "train.jsonl",
        '{"session":0,"events":[{"aid":5,"ts":1659304800025,"type":"clicks"}]}\n',
        [("0", "5", 1659304800.025)],
    ),
}


@pytest.mark.parametrize("form", sorted(PUBLISHED))
def test_a_public_data_set_as_it_is_published(spark: SparkSession, tmp_path: Path, form: str) -> None:
    name, text, expected = PUBLISHED[form]
    (tmp_path / name).write_text(text)
    taken, bad = clicks(spark, found(spark, tmp_path / name, form))
    assert taken == expected
    assert set(bad) == ({"other_kind"} if form == "trivago" else set())
    if form in ("yoochoose", "30music"):
        return  # without names in the file nothing tells
    # Its names alone tell it.
    source = found(spark, tmp_path / name)
    assert f"columns as {form} has them" in source.reason
    assert clicks(spark, source)[0] == expected


def test_a_form_of_ones_own(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("format: csv\ndelimiter: '|'\nuser: wer\nitem: was\ntime: wann\n")
    (tmp_path / "log.txt").write_text("wann|wer|was\n1700000000|u|i\n")
    assert clicks(spark, found(spark, tmp_path / "log.txt", str(tmp_path / "own.yaml")))[0] == [
        ("u", "i", 1.7e9)
    ]
    # Spark's own way is to stop at a time that its older parser might have read.
    own = "format: csv\nsession: s\nitem: i\ntime: t\ntime_format: "
    (tmp_path / "own.yaml").write_text(own + "dd/MM/yyyy HH:mm:ss\n")
    (tmp_path / "log.csv").write_text("s,i,t\na,1,01/05/2024 09:05:00\na,2,01/05/2024 9:05:00\n")
    form = str(tmp_path / "own.yaml")
    run = ingest(spark, tmp_path / "log.csv", tmp_path / "out", form=form, max_bad=0.5).run
    assert run["by_rule"] == {"bad_time": 1} and run["first"].isoformat() == "2024-05-01T09:05:00+00:00"
    (tmp_path / "own.yaml").write_text(own + "DD/MM/YYYY\n")
    with pytest.raises(SettingsError, match="time_format DD/MM/YYYY is no pattern"):
        ingest(spark, tmp_path / "log.csv", tmp_path / "out", form=form)


def test_a_column_stays_what_it_was_the_last_time(spark: SparkSession, tmp_path: Path) -> None:
    last = Form(format="csv", user="customer", item="product_id", time="event_time")
    header = ["customer", "product_id", "event_time", "item_id", "timestamp", "sid", "user_id"]
    (tmp_path / "log.csv").write_text(";".join(header) + "\nu;1;1700000000;2;1600000000;s;v\n")
    form = found(spark, tmp_path / "log.csv", last=last).form
    assert form == last.model_copy(update={"delimiter": ";"})
    # What a flag names is taken, and what is not there any more goes by the names.
    named = {"time": "timestamp", "order": "event_time"}
    form = found(spark, tmp_path / "log.csv", last=last, named=named).form
    assert form.columns() == {"user": "customer", "item": "product_id", **named}
    gone = last.model_copy(update={"item": "thing"})
    assert found(spark, tmp_path / "log.csv", last=gone).form.item == "item_id"
    assert found(spark, tmp_path / "log.csv", last=last, named={"session": "sid"}).form.session == "sid"


def test_fields_over_several_lines(spark: SparkSession, tmp_path: Path) -> None:
    text = (
        'session_id,item_id,ts,comment\na,1,1700000000,"two\nlines, and ""quotes"""\na,2,1700000001,plain\n'
        'b,3,1700000002,"three\n\nlines"\nb,4,1700000003,"never closed\nc,5,1700000004,x\n'
    )
    (tmp_path / "log.csv").write_text(text)
    for split in ("30", "1000000"):
        spark.conf.set("spark.sql.files.maxPartitionBytes", split)
        try:
            source = found(spark, tmp_path / "log.csv", multi_line=True, keep=("comment",))
            rows = read_clicks(spark, source).toPandas().sort_values("seq")
        finally:
            spark.conf.unset("spark.sql.files.maxPartitionBytes")
        good = rows[rows["readable"]]
        assert list(good["item"]) == ["1", "2", "3"] and list(good["at"]) == [2, 4, 5]
        assert [more["m0"] for more in good["more"]] == [
            'two\nlines, and "quotes"',
            "plain",
            "three\n\nlines",
        ]
        assert list(rows[~rows["readable"]]["record"]) == ['b,4,1700000003,"never closed\nc,5,1700000004,x']
    limits = Limits(256, 2**62)
    of = judgement(
        judged(read_clicks(spark, source), source.form, limits, severities([])), 4, 9, several_lines=True
    )
    assert (of.by_rule, of.lines) == ({None: 3, "ragged": 1}, {"ragged": 1})
    # A quote within a text opens nothing; what was opened by one too many is a bad record of all its lines.
    lines = ['a,5" tv,1700000000', "b,6,1700000001", 'c,5" tv,1700000002']
    bad = 'd,"5,1700000003\ne,6,1700000004\nf,"5,1700000005'
    last = 'g,"7\n7",1700000006'
    (tmp_path / "stray.csv").write_text("\n".join(["session_id,item_id,ts", *lines, bad, last]))
    taken, broken = clicks(spark, found(spark, tmp_path / "stray.csv", multi_line=True))
    expected = [("a", '5" tv'), ("b", "6"), ("c", '5" tv'), ("g", "7\n7")]
    assert [click[:2] for click in taken] == expected and broken == {"ragged": [bad]}


def test_no_line_is_lost_where_files_are_split_otherwise_than_they_were(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    least, seen = "spark.sql.files.minPartitionNum", []

    def others(*args: Any) -> Any:
        seen.append(spark.conf.get(least, None))
        return numbered(*args).where("at <> 2")

    monkeypatch.setattr(reading, "numbered", others)
    (tmp_path / "log.jsonl").write_text('{"session": 1, "items": [5, 6]}\n{"session": 2, "items": [7]}\n')
    with (
        configured(spark, {"spark.sql.leafNodeDefaultParallelism": "3"}),
        pytest.raises(PruneError, match=r"2 lines of .*log\.jsonl were counted and 1 read"),
    ):
        ingest(spark, tmp_path / "log.jsonl", tmp_path / "out")
    assert set(seen) == {"3"} and spark.conf.get(least, None) is None


def test_names_and_ids_that_a_careless_hand_would_run(spark: SparkSession, tmp_path: Path) -> None:
    names = ["`item`.a", "file", "at'; DROP TABLE x; --", "c0"]
    ids = ["\x00null\x00", "${jndi:ldap://x}", "`a`.b", "🦆", "'; --", "\\", "a\tb"]
    rows = [(f"s{k}", name, 1_700_000_000 + k, "y") for k, name in enumerate(ids)]
    frame = spark.createDataFrame(rows, "s string, i string, t bigint, y string").toDF(
        names[1], names[0], *names[2:]
    )
    frame.coalesce(1).write.parquet(str(tmp_path / "log"))
    named = {"session": names[1], "item": names[0], "time": names[2]}
    source = found(spark, tmp_path / "log", named=named, keep=("c0",))
    assert [(owner, item) for owner, item, _ in clicks(spark, source)[0]] == [
        (f"s{k}", name) for k, name in enumerate(ids)
    ]
    lines = [f'"{name.replace(chr(34), chr(34) * 2)}",{k},1700000000' for k, name in enumerate(ids)]
    (tmp_path / "log.csv").write_text("\n".join(["session_id,item_id,ts", *lines, "\x00,7,1700000000"]))
    taken = clicks(spark, found(spark, tmp_path / "log.csv"))[0]
    assert [owner for owner, *_ in taken] == [*ids, "\x00"]
    # A column that is kept goes into a table under its own name.
    (tmp_path / "kept.csv").write_text('session_id,item_id,ts,"`a`.b; DROP (x)=,"\na,1,1700000000,y\n')
    done = ingest(spark, tmp_path / "kept.csv", tmp_path / "out", keep=["all"])
    assert done.sessions.columns == ["session_id", "items", "times", "`a`.b; DROP (x)=,", "ingest_run"]
    assert done.sessions.collect()[0][3] == ["y"]


def test_ids_that_are_doubles_and_times_that_numpy_has_not(spark: SparkSession) -> None:
    rows = [
        (1.0, 214536502.0, START, [1.0]),
        (2.0, float("nan"), START, []),
        (3.0, 1.5, START, []),
        (4.0, None, START, []),
        (5.0, 7.0, -(2**63), []),
    ]
    frame = spark.createDataFrame(rows, "session double, item double, ts bigint, more array<double>")
    place = Place("log", "delta", "")
    taken, bad = clicks(spark, find_source(spark, place, frame, Asked()))
    assert sorted(taken) == [("1", "214536502", START), ("3", "1.5", START)]
    assert {rule: len(of) for rule, of in bad.items()} == {"no_item": 2, "bad_time": 1}
    asked = Asked(named={"session": "session", "item": "more", "time": "ts"})
    assert clicks(spark, find_source(spark, place, frame.limit(1), asked))[0] == [("1", "1", START)]


def test_rows_that_are_sessions(spark: SparkSession, tmp_path: Path) -> None:
    when = [datetime.fromtimestamp(1_700_000_000 + k, timezone.utc) for k in range(3)]
    rows = [("a", ["x", "y", "x"], when), ("b", ["z", None], when[:1]), ("c", [], [])]
    frame = spark.createDataFrame(rows, "session_id string, items array<string>, times array<timestamp>")
    frame.coalesce(1).write.parquet(str(tmp_path / "log"))
    taken, bad = clicks(spark, found(spark, tmp_path / "log"))
    at = [1.7e9, 1.7e9 + 1, 1.7e9 + 2]
    assert taken == [("a", "x", at[0]), ("a", "y", at[1]), ("a", "x", at[2]), ("b", "z", at[0])]
    assert {rule: len(of) for rule, of in bad.items()} == {"no_item": 2}
    # Without times, in JSON lines and in text.
    lines = [json.dumps({"session": k, "items": items}) for k, items in ((1, [5, 6]), (2, ["7"]))]
    (tmp_path / "log.jsonl").write_text("\n".join(["not json", *lines]))
    taken, bad = clicks(spark, found(spark, tmp_path / "log.jsonl"))
    assert taken == [("1", "5", None), ("1", "6", None), ("2", "7", None)] and set(bad) == {"unreadable"}
    (tmp_path / "log.csv").write_text("session_id;items;times\na;5|6;1700000000|1700000001\nb;7;\n")
    taken, bad = clicks(spark, found(spark, tmp_path / "log.csv", list_delimiter="|"))
    assert taken == [("a", "5", at[0]), ("a", "6", at[1])] and set(bad) == {"bad_time"}


def test_sessions_with_one_time_and_lists_in_texts_of_a_table(spark: SparkSession, tmp_path: Path) -> None:
    lines = [
        '{"session_id": "a", "items": [1, 2], "timestamp": 1700000000}',
        '{"session_id": "b", "items": [3, 4], "timestamp": [1700000000.5, "2023-11-14 22:13:21"]}',
        '{"session_id": "c", "items": [5], "timestamp": null}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    taken, bad = clicks(spark, found(spark, tmp_path / "log.jsonl"))
    at = 1.7e9
    assert taken == [("a", "1", at), ("a", "2", at), ("b", "3", at + 0.5), ("b", "4", at + 1)]
    assert bad == {"bad_time": [lines[2]]}
    rows = [("a", "5 6", "1700000000"), ("b", "7 8", "2023-11-14 22:13:20"), ("c", "9 9", f"1700000000 {at}")]
    (tmp_path / "log.csv").write_text("\n".join(map(";".join, [("sid", "items", "ts"), *rows])))
    frame = spark.createDataFrame(rows, "sid string, items string, ts string")
    frame.coalesce(1).write.parquet(str(tmp_path / "log"))
    expected = [(name, item, at) for name, items, _ in rows for item in items.split()]
    for place in ("log.csv", "log"):
        taken, bad = clicks(spark, found(spark, tmp_path / place, list_delimiter=" "))
        assert taken == expected and not bad


def test_kinds_and_kept_columns_of_rows_that_are_sessions(spark: SparkSession, tmp_path: Path) -> None:
    def read(place: Path, **more: Any) -> list[tuple[Any, ...]]:
        source = found(spark, place, keep=("price", "what"), named={"kind": "kinds"}, **more)
        rows = read_clicks(spark, source).select("item", "kind", "more.*")
        return [tuple(row) for row in rows.collect()]

    # Lists go item by item, as far as they reach; what is one value is that of all items.
    names = ["session_id", "items", "kinds", "price", "what"]
    data = [("a", ["x", "y", "z"], ["view", "buy", "view"], [1.5, 2.5], "red shoes")]
    schema = "session_id string, items array<string>, kinds array<string>, price array<double>, what string"
    spark.createDataFrame(data, schema).coalesce(1).write.parquet(str(tmp_path / "log"))
    shoes = "red shoes"
    expected = [("x", "view", 1.5, shoes), ("y", "buy", 2.5, shoes), ("z", "view", None, shoes)]
    assert read(tmp_path / "log") == expected
    one = [("x", "view", "7", "[red] 5"), ("y", "view", "7", "[red] 5")]
    lines = [json.dumps(dict(zip(names, data[0], strict=True)))]
    lines.append('{"session_id": "c", "items": ["x", "y"], "kinds": "view", "price": 7, "what": "[red] 5"}')
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    texts = [("x", "view", "1.5", shoes), ("y", "buy", "2.5", shoes), ("z", "view", None, shoes)]
    assert read(tmp_path / "log.jsonl") == [*texts, *one]
    # In text there is no telling a list that is too short from what is none.
    lines = [",".join(names), "a,x|y|z,view|buy|view,1.5|2.5|,red shoes", "c,x|y,view,7,[red] 5"]
    (tmp_path / "log.csv").write_text("\n".join(lines))
    texts[2] = ("z", "view", "", shoes)
    assert read(tmp_path / "log.csv", list_delimiter="|") == [*texts, *one]


def test_objects_where_values_are_wanted(spark: SparkSession, tmp_path: Path) -> None:
    for items, said in (([{"id": 5}], "a list of objects"), ({"id": 5}, "an object")):
        (tmp_path / "log.jsonl").write_text(json.dumps({"session": "a", "items": items, "ts": 1}))
        with pytest.raises(InputError, match=f"The column items of .*log.jsonl is {said}.* by a --…-column"):
            found(spark, tmp_path / "log.jsonl")
    for kind, said in (("array<struct<id: int>>", "an ARRAY of STRUCT"), ("map<string, int>", "a MAP")):
        frame = spark.createDataFrame([], f"session string, items {kind}, ts int")
        with pytest.raises(InputError, match=f"The column items of log is {said}, and no value"):
            find_source(spark, Place("log", "parquet", ""), frame, Asked())


def test_what_stands_behind_a_json_object_is_not_lost(spark: SparkSession, tmp_path: Path) -> None:
    good = [
        '{"session": 1, "item": 5, "ts": 1.7e9} ',
        '{"session": 1, "item": "}{", "ts": 1.7000000005E9}',
        '{"session": 1, "item": 6, "ts": 1700000000.123456, "more": {"price": NaN}}',
    ]
    behind = ['{"session": 1, "item": 7, "ts": 1700000000}', " garbage", ",", "]", ', {"a": {}}', "}"]
    lines = [*good, *(good[0] + text for text in behind), *(good[2] + text for text in behind)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    taken, bad = clicks(spark, found(spark, tmp_path / "log.jsonl"))
    assert taken == [("1", "5", 1.7e9), ("1", "}{", 1700000000.5), ("1", "6", 1700000000.123456)]
    assert bad == {"unreadable": lines[3:]}
    # A line of several clicks is one line.
    line = '{"session": 0, "events": [{"aid": 5, "ts": 1}, {"aid": 6, "ts": 2}]}'
    (tmp_path / "log.jsonl").write_text(f"{line}\n{line} {line}")
    taken, bad = clicks(spark, found(spark, tmp_path / "log.jsonl"))
    assert len(taken) == 2 and bad == {"unreadable": [f"{line} {line}"]}


def test_lines_that_sparks_reader_of_csv_takes_or_stops_at(spark: SparkSession, tmp_path: Path) -> None:
    wide = "a,1,1700000000" + ",x" * 20_480
    long = "a," + "1" * 30_000 + ",1700000000,"
    lines = ['a,1,1700000000,"abc', 'a,5" tv,1700000000,5" tv', wide, f'{long}"{"," * 30_000}"', f'{long}"']
    (tmp_path / "log.csv").write_text("\n".join(["session_id,item_id,ts,comment", *lines]))
    taken, bad = clicks(spark, found(spark, tmp_path / "log.csv"))
    assert taken == [("a", '5" tv', 1.7e9)]
    assert bad == {"ragged": [lines[0], wide, lines[4]], "long_id": [lines[3]]}


def test_headers_of_files_that_hold_nothing_that_are_others_and_that_name_a_column_twice(
    spark: SparkSession, tmp_path: Path
) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for name, text in (("0", "\ufeff"), ("1", "sid,item,ts,x,x\na,1,1700000000,3,4\n"), ("2", "\n \n")):
        (logs / f"{name}.csv").write_text(text)
    source = found(spark, logs)
    assert clicks(spark, source)[0] == [("a", "1", 1.7e9)] and source.rows() == 1
    with pytest.raises(InputError, match=r"column x stands twice in the header of file:/.*/logs/1\.csv"):
        found(spark, logs, keep=("all",))
    (logs / "3.csv").write_text("sid,thing,ts\nb,2,1700000000\n")
    with pytest.raises(
        InputError, match=r"no column item in file:/.*/logs/3\.csv; the columns are sid, thing"
    ):
        found(spark, logs)
    (logs / "3.csv").write_text("sid,item,ts,Price\nb,2,1700000000,5\n")
    (logs / "1.csv").write_text("sid,item,ts,price\na,1,1700000000,3\n")
    with pytest.raises(InputError, match="price and Price differ only in which letters are capital"):
        found(spark, logs, keep=("all",))
    for name in ("0.csv", "1.csv", "2.csv", "3.csv"):
        (logs / name).rename(logs / name.replace("csv", "jsonl"))
    (logs / "1.jsonl").write_text('{"session": 1, "item": 2, "ts": 1700000000}')
    (logs / "3.jsonl").unlink()
    assert clicks(spark, found(spark, logs))[0] == [("1", "2", 1.7e9)]
    # Of JSON not each object has all keys.
    with (logs / "1.jsonl").open("a") as file:
        file.write('\n{"session": 1, "item": 3, "ts": 1700000000, "what": "view", "price": 7}')
    source = found(spark, logs, named={"kind": "what"}, keep=("all",))
    assert (source.form.kind, list(source.keep)) == ("what", ["price"])


def test_folders_of_partitions_beside_each_other(spark: SparkSession, tmp_path: Path) -> None:
    frame = spark.createDataFrame([("a", 1, START)], "session string, item int, ts bigint")
    for folder in ("new/day=1", "old/month=1"):
        frame.coalesce(1).write.parquet(str(tmp_path / "logs" / folder))
    with pytest.raises(InputError, match="lie in several folders of partitions"):
        found(spark, tmp_path / "logs")


def test_diginetica_comes_in_with_its_counts(spark: SparkSession, shared_data: Path, tmp_path: Path) -> None:
    place = shared_data / "diginetica" / "sessions_train.parquet"
    with configured(spark, COMPILED):
        run = ingest(spark, place, tmp_path / "out", max_bad=0.0).run
    assert (run["rows_read"], run["sessions"], run["clicks"]) == (906_140, 186_670, 906_140)
    assert (run["items"], run["longest"], run["median_length"], run["top_item"]) == (43_097, 70, 4.0, 911)
    assert run["repeated_sessions"] == 6_526 and run["item_gini"] == pytest.approx(0.559, abs=5e-4)
    assert run["one_item"] == pytest.approx(0.056, abs=5e-4)
    assert run["repeated_clicks"] == pytest.approx(0.092, abs=5e-4) and run["first"] is None
    table = spark.read.format("delta").load(str(tmp_path / "out"))
    assert table.columns == ["session_id", "items", "ingest_run"]
    before, after = (spark.read.parquet(str(place)), table)
    joined = before.join(after.withColumnRenamed("items", "new"), "session_id")
    with configured(spark, COMPILED):
        assert joined.where("items <> CAST(new AS ARRAY<BIGINT>)").isEmpty()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "log.csv.gz",
            gzip.compress(b"session_id,item_id,ts\n" + b"a,1,1700000000\n" * 5000)[:-20],
            "cannot be read",
        ),
        ("log.gz", b"session_id,item_id,ts\na,1,1700000000\n", "cannot be read"),
        ("log.jsonl", b"no\nobject\n", "no JSON object: 'no'"),
        ("log", b"one word\n", "Neither an ending nor the first line"),
        ("log.parquet", b"PAR1 and no more", "cannot be read"),
    ],
)
def test_files_that_are_none(
    spark: SparkSession, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        ingest(spark, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_format_that_no_ending_tells(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "json").write_text('{"session": 1, "item": 2, "ts": 1700000000}\n')
    (tmp_path / "csv [1]").write_text("session\titem\tts\n1\t2\t1700000000\n")
    for name, what in (
        ("json", "begins as a JSON object"),
        ("csv [1]", "begins with names between delimiters"),
    ):
        source = found(spark, str(tmp_path / name).replace("[", "\\["))
        assert what in source.reason and clicks(spark, source)[0] == [("1", "2", 1.7e9)]


def test_fields_of_a_line_are_seen_through_quotes(spark: SparkSession) -> None:
    """The patterns are Java's, and are asked of Spark."""
    open_quotes = {'a,"b': True, 'a,"b""': True, 'a,5" screen': False, 'a,"b", "c': False, '"a,"': False}
    more_than_two = {"a,b": False, "a,b,": True, '"a,,",b': False, '5",b,c"': True}
    texts = spark.createDataFrame([(text,) for text in {**open_quotes, **more_than_two}], "text string")
    found = {
        row["text"]: (row["open"], row["more"])
        for row in texts.select(
            "text",
            F.col("text").rlike(unclosed(",")).alias("open"),
            F.col("text").rlike(more_fields(",", 2)).alias("more"),
        ).collect()
    }
    assert {text: found[text][0] for text in open_quotes} == open_quotes
    assert {text: found[text][1] for text in more_than_two} == more_than_two
