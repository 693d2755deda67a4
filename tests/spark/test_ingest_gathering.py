"""Clicks into sessions: arrays, windows and a plain reading of the rules agree."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from prune_lib.ingest.clicks import Cutting
from prune_lib.ingest.form import Form
from prune_lib.ingest.gathering import Gathered, Judgement, gather
from prune_lib.ingest.rules import severities

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
    # The older night took no click twice, and no session that is too long.
    old = {
        (o, us, item): k for k, (o, us, _, item, _) in enumerate(out) if nights and o in "abcd" and k % 3 == 0
    }
    return [(*click[:4], 0 if k in old.values() else 1) for k, click in enumerate(out)]


def plain(clicks: list[Click], cutting: Cutting, warn: bool) -> tuple[dict[str, list[str]], dict[str, int]]:
    """One owner after the other, one click after the other."""
    sessions: dict[str, list[str]] = {}
    counts = {"duplicate": 0, "long_session": 0, "fast_session": 0}
    for owner in {click[0] for click in clicks}:
        mine = sorted((c for c in clicks if c[0] == owner), key=lambda c: (c[1], c[4], c[2]))
        left: list[Click] = []
        for click in mine:
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


def counted(done: Gathered) -> dict[str, Any]:
    assert not set(done.by_rule) & set(done.warned)
    return {**done.by_rule, **done.warned}
