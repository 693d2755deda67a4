"""The profile of sessions against numpy."""

from __future__ import annotations

import random
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from pyspark.sql import SparkSession

from prune_lib.ingest.profile import profile_of

START = datetime(2026, 11, 1, tzinfo=timezone.utc)


def test_a_profile_against_numpy(spark: SparkSession) -> None:
    draw = random.Random(7)
    rows = []
    for k in range(301):
        # Few items and short sessions: sequences and items come again.
        items = [
            f"i{min(draw.randrange(12), draw.randrange(12))}" for _ in range(draw.choice([1, 1, 2, 3, 9]))
        ]
        gaps = np.cumsum([0.0, *(draw.random() * 60 for _ in items[1:])])
        rows.append((f"s{k}", items, [START + timedelta(minutes=k, seconds=round(g, 3)) for g in gaps]))
    schema = "session_id string, items array<string>, times array<timestamp>"
    frame = spark.createDataFrame(rows, schema).repartition(3)
    found = profile_of(frame)
    lengths = np.array([len(items) for _, items, _ in rows])
    steps = [(a, b) for _, items, _ in rows for a, b in zip(items, items[1:], strict=False)]
    clicked = np.unique([x for _, items, _ in rows for x in items], return_counts=True)[1]
    gaps = [(b - a).total_seconds() for _, _, ts in rows for a, b in zip(ts, ts[1:], strict=False)]
    assert (found.sessions, found.clicks, found.items) == (301, lengths.sum(), len(clicked))
    assert (found.median_length, found.longest) == (np.median(lengths), lengths.max())
    assert found.mean_length == pytest.approx(lengths.mean())
    assert found.one_click == pytest.approx((lengths == 1).mean())
    assert found.one_item == pytest.approx(np.mean([len(set(items)) == 1 for _, items, _ in rows]))
    assert found.repeated_sessions == 301 - len({tuple(items) for _, items, _ in rows}) > 100
    assert found.repeated_clicks == pytest.approx(np.mean([a == b for a, b in steps]))
    assert found.top_item == clicked.max()
    share = np.sort(clicked)[::-1].cumsum()[round(0.5 * len(clicked)) - 1] / clicked.sum()
    assert found.head[-1] == pytest.approx(share)
    assert [found.median_gap, found.long_gap] == pytest.approx(list(np.percentile(gaps, [50, 95])), abs=1e-6)
    assert (found.first, found.last) == (START, max(ts[-1] for _, _, ts in rows))

    untimed = profile_of(frame.drop("times").where("size(items) < 3"))
    assert untimed.longest == 2 and untimed.median_length == np.median(lengths[lengths < 3])
    assert untimed.first is untimed.last is untimed.median_gap is None

    nothing = profile_of(frame.limit(0))
    assert (nothing.sessions, nothing.clicks, nothing.longest, nothing.median_length) == (0, 0, 0, 0)
    assert nothing.first is None and nothing.head == [0.0] * 5
