"""Clicks into sessions: arrays, windows and a plain reading of the rules agree."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.ingest import gathering
from prune_lib.ingest.clicks import Cutting, gathered, judged
from prune_lib.ingest.form import Form
from prune_lib.ingest.gathering import Gathered, Judgement, gather, judgement
from prune_lib.ingest.nights import old_clicks
from prune_lib.ingest.reading import read_clicks
from prune_lib.ingest.rules import Limits, severities
from prune_lib.ingest.source import Asked, find_place, find_source

START = 1_700_000_000_000_000
MINUTE = 60_000_000
Click = tuple[str, int, int, str, int]  # owner, µs, number in the log, item, night

SESSIONS = Cutting(True, None, None, 110, 4.0)
USERS = Cutting(False, 30 * MINUTE, None, 40, 4.0)
PIECES = Cutting(True, 10 * MINUTE, 25 * MINUTE, 40, 4.0)


def log(seed: int, nights: bool) -> list[Click]:
    """Owners of few and of many clicks, fast and slow, with doubles and clicks of one time."""
    draw = random.Random(seed)
    out: list[Click] = []
    for owner in "abcdefgh":
        n = draw.choice([1, 2, 5, 20, 60, 130, 150])
        step = draw.choice([10_000, 1_000_000, 5 * MINUTE])
        at = START
        for _ in range(n):
            at += draw.choice([0, 0, step, step, 40 * MINUTE if n < 100 else step])
            out.append((owner, at, len(out), draw.choice("xyz"), 1))
    # The older night took no session that is too long, and no click twice, unless doubles were to warn.
    old = {
        (o, us, item): k for k, (o, us, _, item, _) in enumerate(out) if nights and o in "abcd" and k % 3 == 0
    }
    clicks = [(*click[:4], 0 if k in old.values() else 1) for k, click in enumerate(out)]
    twice = [click for click in clicks if click[4] == 0][::5]
    return clicks + [(*click[:2], len(out) + k, *click[3:]) for k, click in enumerate(twice)]


def plain(clicks: list[Click], cutting: Cutting, warn: bool) -> tuple[dict[str, list[str]], dict[str, int]]:
    """One owner after the other, one click after the other."""
    sessions: dict[str, list[str]] = {}
    counts = {"duplicate": 0, "known": 0, "long_session": 0, "fast_session": 0}
    for owner in {click[0] for click in clicks}:
        mine = sorted((c for c in clicks if c[0] == owner), key=lambda c: (c[1], c[4], c[2]))
        left: list[Click] = []
        before = {(c[1], c[3]) for c in mine if c[4] == 0}
        for click in mine:
            if click[4] == 1 and (click[1], click[3]) in before:
                counts["known"] += 1
                continue
            if any((click[1], click[3]) == (c[1], c[3]) for c in left) and click[4] == 1:
                counts["duplicate"] += 1
                if not warn:
                    continue
            left.append(click)
        pieces: list[list[Click]] = []
        for click in left:
            if not pieces or (cutting.gap is not None and click[1] - pieces[-1][-1][1] > cutting.gap):
                pieces.append([])
            pieces[-1].append(click)
        if cutting.longest is not None:
            cut: dict[tuple[int, int], list[Click]] = {}
            for k, piece in enumerate(pieces):
                for click in piece:
                    cut.setdefault((k, (click[1] - piece[0][1]) // cutting.longest), []).append(click)
            pieces = list(cut.values())
        for piece in pieces:
            rule = None
            if len(piece) >= 100 and 0 < piece[-1][1] - piece[0][1] < len(piece) * 1e6 / cutting.rate:
                rule = "fast_session"
            if len(piece) > cutting.most_clicks:
                rule = "long_session"
            if rule is not None:
                counts[rule] += sum(c[4] for c in piece)
                if warn:
                    # A double of a session that is taken out is not taken with a warning.
                    seen: set[tuple[int, str]] = set()
                    for c in piece:
                        counts["duplicate"] -= int((c[1], c[3]) in seen and c[4] == 1)
                        seen.add((c[1], c[3]))
                piece = [c for c in piece if c[4] == 0]
            # Without the clicks that were taken out there may be gaps again.
            for k, click in enumerate(piece):
                if k == 0 or (cutting.gap is not None and click[1] - piece[k - 1][1] > cutting.gap):
                    name = f"{owner}@{click[1]}" if cutting.cuts else owner
                    sessions[name] = []
                sessions[name].append(click[3])
    return sessions, {rule: n for rule, n in counts.items() if n}


def frame(spark: SparkSession, clicks: list[Click]) -> DataFrame:
    rows = [(*click, None) for click in clicks]
    schema = "owner string, us bigint, seq bigint, item string, night int, rule string"
    return spark.createDataFrame(rows, schema).repartition(3)


@pytest.mark.parametrize("row_level", [False, True])
@pytest.mark.parametrize(
    ("cutting", "seed", "nights", "warn"),
    [
        (SESSIONS, 1, False, False),
        (SESSIONS, 2, True, False),
        (SESSIONS, 3, False, True),
        (SESSIONS, 2, True, True),
        (USERS, 4, False, False),
        (USERS, 5, True, False),
        (PIECES, 6, False, False),
    ],
)
def test_arrays_windows_and_a_plain_reading_agree(
    spark: SparkSession, cutting: Cutting, seed: int, nights: bool, warn: bool, row_level: bool
) -> None:
    clicks = log(seed, nights)
    form = Form(format="parquet", session="owner", item="item", time="us")
    severity = severities(["duplicate:warn"] if warn else [])
    new = [c for c in clicks if c[4] == 1]
    old = frame(spark, [c for c in clicks if c[4] == 0]) if nights else None
    # Every owner is in a group that is looked at: those with too many clicks go row by row in either case.
    found = Judgement({None: len(new)}, 1, (0,))
    done = gather(frame(spark, new), old, found, form, severity, cutting, row_level)
    sessions = {row["session_id"]: list(row["items"]) for row in done.sessions.collect()}
    counts = counted(done)
    expected, expected_counts = plain(clicks, cutting, warn)
    assert sessions == expected
    assert counts == expected_counts
    # No click is lost, and none is there twice.
    assert sum(map(len, sessions.values())) + sum(done.by_rule.values()) == len(clicks)
    assert set(expected_counts) >= {"duplicate"} and len(expected) >= 5
    assert ("known" in expected_counts) == nights


@pytest.mark.parametrize("row_level", [False, True])
@pytest.mark.parametrize(
    ("rule", "cutting"),
    [
        ("fast_session", Cutting(False, 30 * MINUTE, None, 200, 0.01)),
        ("long_session", Cutting(False, 30 * MINUTE, None, 40, 4.0)),
        ("long_session", Cutting(False, 30 * MINUTE, 60 * MINUTE, 40, 4.0)),
    ],
)
def test_sessions_that_clicks_which_are_taken_out_had_bridged_stay_apart(
    spark: SparkSession, rule: str, cutting: Cutting, row_level: bool
) -> None:
    old: list[Click] = [("a", START + k * MINUTE, k, "x", 0) for k in (0, 10, 100, 110)]
    new: list[Click] = [("a", START + k * MINUTE, k, "y", 1) for k in range(11, 100)]
    new += [("a", START + k * MINUTE + 1, k, "y", 1) for k in range(101, 110)]
    new += [("b", START + k * MINUTE, k, "z", 1) for k in range(3)]
    form = Form(format="parquet", session=None, user="owner", item="item", time="us")
    found = Judgement({None: len(new)}, 1, ())
    done = gather(frame(spark, new), frame(spark, old), found, form, severities([]), cutting, row_level)
    sessions = {row["session_id"]: list(row["items"]) for row in done.sessions.collect()}
    assert sessions == {f"a@{START}": ["x", "x"], f"a@{old[2][1]}": ["x", "x"], f"b@{START}": ["z"] * 3}
    assert done.by_rule == {rule: 98}
    assert (sessions, done.by_rule) == plain(old + new, cutting, False)


def test_who_has_many_clicks_of_nights_before_goes_row_by_row(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[str] = []

    def seen(clicks: DataFrame, *others: Any) -> DataFrame:
        whole.extend(row["owner"] for row in clicks.select("owner").distinct().collect())
        return gathered(clicks, *others)

    monkeypatch.setattr(gathering, "gathered", seen)
    # More than a session may have, and with tonight's as many as it may have.
    many = {"a": 38, "b": 37, "c": 1}
    old: list[Click] = [(o, START + k * 40 * MINUTE, k, "x", 0) for o, n in many.items() for k in range(n)]
    new: list[Click] = [(o, START + k * MINUTE, k, "y", 1) for o in many for k in range(3)]
    form = Form(format="parquet", user="owner", item="item", time="us")
    found = judgement(frame(spark, new).withColumns({"record": F.lit(""), "place": F.lit(0)}), len(new), 40)
    assert found.crowded == () and 3 <= found.fullest <= 9
    done = gather(frame(spark, new), frame(spark, old), found, form, severities([]), USERS)
    sessions = {row["session_id"]: list(row["items"]) for row in done.sessions.collect()}
    assert (sessions, {}) == plain(old + new, USERS, False) and sorted(whole) == ["b", "c"]


@pytest.mark.parametrize("row_level", [False, True])
def test_clicks_without_a_time_are_no_doubles_and_three_thousand_in_ten_minutes_a_bots(
    spark: SparkSession, row_level: bool
) -> None:
    severity, found = severities([]), Judgement({None: 1}, 1, ())
    untimed = Form(format="csv", session="owner", item="item")
    rows = spark.createDataFrame(
        [("a", 1, "x", 1), ("a", 2, "x", 1)], "owner string, seq int, item string, night int"
    )
    rows = rows.withColumn("us", F.lit(None).cast("bigint")).withColumn("rule", F.lit(None).cast("string"))
    done = gather(rows, None, found, untimed, severity, SESSIONS, row_level)
    assert [row["items"] for row in done.sessions.collect()] == [["x", "x"]] and not done.by_rule
    # So many times the microseconds of a second are beyond an INT.
    bot = [("b", START + 200_000 * k, k, "x", 1) for k in range(3000)]
    timed = Form(format="csv", session="owner", item="item", time="us")
    slow = Cutting(True, None, None, 5000, 1.0)
    # A hundred clicks and more of one time, a day's or a row's, are nobody's.
    bot += [("c", START, k, str(k), 1) for k in range(200)]
    assert gather(frame(spark, bot), None, found, timed, severity, slow, row_level).by_rule == {
        "fast_session": 3000
    }


@pytest.mark.parametrize("row_level", [False, True])
def test_a_session_of_one_time_keeps_an_item_that_comes_again(
    spark: SparkSession, tmp_path: Path, row_level: bool
) -> None:
    def rows() -> tuple[DataFrame, Form]:
        source = find_source(
            spark, find_place(spark, str(tmp_path / "log.jsonl"), "auto", None), None, Asked()
        )
        judged_rows = judged(read_clicks(spark, source), source.form, Limits(9, 2**62), severities([]))
        return judged_rows, source.form

    def night(old: DataFrame | None) -> tuple[dict[str, list[str]], dict[str, int], DataFrame]:
        new, form = rows()
        done = gather(new, old, Judgement({}, 1, ()), form, severities([]), SESSIONS, row_level)
        found = {row["session_id"]: row["items"] for row in done.sessions.collect()}
        return found, dict(done.by_rule), done.sessions

    lines = [
        '{"session": "a", "items": [1, 2, 1, 1], "ts": 1700000000}',
        '{"session": "b", "items": [3], "ts": 1}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, lines[0]]))
    found, by_rule, sessions = night(None)
    assert found == {"a": ["1", "2", "1", "1"], "b": ["3"]} and by_rule == {"duplicate": 4}
    # The next night the same row, and one more of it.
    (tmp_path / "log.jsonl").write_text(lines[0] + "\n" + lines[0].replace("1, 1]", "1, 1, 4, 1]"))
    old = old_clicks(sessions, *rows(), keep=())
    found, by_rule, _ = night(old)
    assert found == {"a": ["1", "2", "1", "1", "4", "1"], "b": ["3"]} and by_rule == {"known": 8}


@pytest.mark.parametrize("row_level", [False, True])
def test_lists_without_times_are_known_again_whatever_places_their_clicks_had(
    spark: SparkSession, tmp_path: Path, row_level: bool
) -> None:
    def night(old: DataFrame | None, *lines: str) -> tuple[Gathered, DataFrame, Form]:
        (tmp_path / "log.jsonl").write_text("\n".join(lines))
        place = find_place(spark, str(tmp_path / "log.jsonl"), "auto", None)
        source = find_source(spark, place, None, Asked())
        limits = Limits(9, 2**62, timed=False)
        rows = judged(read_clicks(spark, source), source.form, limits, severities([]))
        done = gather(rows, old, Judgement({}, 1, ()), source.form, severities([]), SESSIONS, row_level)
        return done, rows, source.form

    # An item that is missing; a session of two rows; a row that stands there twice.
    lines = [
        '{"session": "a", "items": ["10", null, "12"]}',
        '{"session": "b", "items": [1, 2, 1]}',
        '{"session": "b", "items": [3]}',
        *['{"session": "c", "items": [5, 5]}'] * 2,
    ]
    expected = {"a": ["10", "12"], "b": ["1", "2", "1", "3"], "c": ["5", "5"]}
    done, rows, form = night(None, *lines)
    assert {row["session_id"]: row["items"] for row in done.sessions.collect()} == expected
    assert done.by_rule == {"duplicate": 2}
    old = old_clicks(done.sessions, rows, form, keep=())
    again, _, _ = night(old, *lines)
    assert {row["session_id"]: row["items"] for row in again.sessions.collect()} == expected
    assert again.by_rule == {"known": 10}
    more, _, _ = night(old, *lines, '{"session": "b", "items": [4, 3]}', lines[3].replace("c", "d"))
    found = {row["session_id"]: row["items"] for row in more.sessions.collect()}
    assert found == {**expected, "b": ["1", "2", "1", "3", "4", "3"], "d": ["5", "5"]}
    assert more.by_rule == {"known": 10}


def counted(done: Gathered) -> dict[str, Any]:
    assert not set(done.by_rule) & set(done.warned)
    return {**done.by_rule, **done.warned}
