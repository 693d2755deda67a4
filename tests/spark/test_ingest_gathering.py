"""Clicks into sessions: arrays, windows and a plain reading of the rules agree."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.ingest.clicks import Cutting, judged
from prune_lib.ingest.form import Form
from prune_lib.ingest.gathering import Gathered, Judgement, gather
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
            if len(piece) >= 100 and piece[-1][1] - piece[0][1] < len(piece) * 250_000:
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
            if piece:
                name = f"{owner}@{piece[0][1]}" if cutting.cuts else owner
                sessions[name] = [c[3] for c in piece]
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

    def gathered(old: DataFrame | None) -> tuple[dict[str, list[str]], dict[str, int], DataFrame]:
        new, form = rows()
        done = gather(new, old, Judgement({}, 1, ()), form, severities([]), SESSIONS, row_level)
        found = {row["session_id"]: row["items"] for row in done.sessions.collect()}
        return found, dict(done.by_rule), done.sessions

    lines = [
        '{"session": "a", "items": [1, 2, 1, 1], "ts": 1700000000}',
        '{"session": "b", "items": [3], "ts": 1}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join([*lines, lines[0]]))
    found, by_rule, sessions = gathered(None)
    assert found == {"a": ["1", "2", "1", "1"], "b": ["3"]} and by_rule == {"duplicate": 4}
    # The next night the same row, and one more of it.
    (tmp_path / "log.jsonl").write_text(lines[0] + "\n" + lines[0].replace("1, 1]", "1, 1, 4, 1]"))
    old = old_clicks(sessions, *rows(), keep=())
    found, by_rule, _ = gathered(old)
    assert found == {"a": ["1", "2", "1", "1", "4", "1"], "b": ["3"]} and by_rule == {"known": 8}


def counted(done: Gathered) -> dict[str, Any]:
    assert not set(done.by_rule) & set(done.warned)
    return {**done.by_rule, **done.warned}
