"""The demo data: what is planted is true, and the seed alone decides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import OutputError
from prune_lib.sessions.demo import (
    BLOCK,
    SHARES,
    _generated,
    default_items,
    demo_sessions,
    write_demo,
)

pytestmark = pytest.mark.spark

N = BLOCK + 1500  # two blocks, the second one not full


@pytest.fixture(scope="module")
def demo(spark: SparkSession) -> pd.DataFrame:
    frame = demo_sessions(spark, N, seed=3).toPandas()
    frame["length"] = frame["items"].map(len)
    return frame.set_index("session_id", drop=False)


def _edits(a: list[int], b: list[int]) -> int:
    """Levenshtein distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def test_ids_count_from_one_in_order(demo: pd.DataFrame) -> None:
    assert demo["session_id"].tolist() == [f"s{i:010d}" for i in range(1, N + 1)]


def test_all_kinds_have_their_share(demo: pd.DataFrame) -> None:
    share = demo["planted"].value_counts(normalize=True)
    assert set(share.index) == {"organic", *SHARES}
    for kind, wanted in SHARES.items():
        assert share[kind] == pytest.approx(wanted, abs=0.001)


def test_duplicates_have_the_items_of_an_earlier_organic_session(demo: pd.DataFrame) -> None:
    copies = demo[demo["planted"] == "duplicate"]
    twins = demo.loc[copies["twin"]]
    assert (twins["planted"] == "organic").all()
    assert (twins["session_id"].to_numpy() < copies["session_id"].to_numpy()).all()
    assert [*map(tuple, copies["items"])] == [*map(tuple, twins["items"])]


def test_near_duplicates_differ_by_one_edit_of_every_sort(demo: pd.DataFrame) -> None:
    copies = demo[demo["planted"] == "near_duplicate"]
    twins = demo.loc[copies["twin"]]
    assert (twins["planted"] == "organic").all()
    pairs = zip(copies["items"], twins["items"], strict=True)
    assert {_edits(list(a), list(b)) for a, b in pairs} == {1}
    assert set(copies["length"].to_numpy() - twins["length"].to_numpy()) == {-1, 0, 1}


def test_only_copies_have_a_twin(demo: pd.DataFrame) -> None:
    copied = demo["planted"].isin(["duplicate", "near_duplicate"])
    assert (demo["twin"].notna() == copied).all()


def test_cold_sessions_end_on_items_of_few_sessions(demo: pd.DataFrame) -> None:
    clicks = demo[["session_id", "planted", "items"]].explode("items")
    sessions = clicks.groupby("items")["session_id"].nunique()
    cold = demo[demo["planted"] == "cold"]
    last = cold["items"].map(lambda items: items[-1])
    assert (last > default_items(N)).all()
    assert sessions[last].max() <= 4
    # Nobody else holds them.
    assert set(clicks.loc[clicks["items"] > default_items(N), "planted"]) == {"cold"}


def test_bots_are_long_and_cycle_or_crawl(demo: pd.DataFrame) -> None:
    bots = demo[demo["planted"] == "bot"]
    assert bots["length"].min() >= 80
    distinct = bots["items"].map(lambda items: len(set(items)))
    assert ((distinct <= 5) | (distinct == bots["length"])).all()


def test_lengths_are_those_of_real_sessions(demo: pd.DataFrame) -> None:
    assert 4.5 < demo["length"].mean() < 5.8
    organic = demo.loc[demo["planted"] == "organic", "length"]
    assert organic.min() == 2
    assert organic.median() in (3, 4)
    assert 40 < organic.max() <= 70


def test_noise_is_flatter_than_organic_popularity_and_popularity_drifts(
    demo: pd.DataFrame,
) -> None:
    def top_share(items: pd.Series) -> float:
        counts = items.explode().value_counts()
        return float(counts.head(50).sum() / counts.sum())

    organic = demo[demo["planted"] == "organic"]
    noise = demo[demo["planted"] == "noise"]
    assert top_share(organic["items"]) > 1.5 * top_share(noise["items"])
    early, late = organic["items"].head(3000), organic["items"].tail(3000)
    hits = early.explode().value_counts().head(50).index
    assert late.explode().isin(hits).mean() < 0.8 * early.explode().isin(hits).mean()


def test_clicks_have_growing_times_and_sessions_start_in_the_order_of_ids(
    demo: pd.DataFrame,
) -> None:
    assert (demo["times"].map(len) == demo["length"]).all()
    times = demo["times"].map(lambda t: np.asarray(t, "datetime64[ms]").astype(np.int64))
    assert times.map(lambda t: bool((np.diff(t) > 0).all())).all()
    start = times.map(lambda t: t[0])
    assert start.is_monotonic_increasing
    assert 29 < (start.iloc[-1] - start.iloc[0]) / 86_400_000 <= 30
    by_hour = pd.to_datetime(start, unit="ms").dt.hour.value_counts()
    assert by_hour[20] > 2 * by_hour[8]  # evening, and the slack hours


def test_rows_depend_on_the_seed_alone(spark: SparkSession) -> None:
    n = 3 * BLOCK + 700

    def digest(seed: int, partitions: int) -> tuple[int, ...]:
        rows = _generated(spark, n, 2000, seed, partitions)
        row = (
            rows.select(F.xxhash64(*rows.columns).alias("h"))
            .agg(F.count("h"), F.bit_xor("h"), F.sum(F.col("h") % 1_000_003))
            .first()
        )
        assert row is not None
        return tuple(row)

    wanted = digest(3, 1)
    assert wanted[0] == n
    assert digest(3, 8) == wanted
    assert digest(4, 3) != wanted


@pytest.mark.parametrize("n", [2, 30, 700])
def test_small_sizes(spark: SparkSession, n: int) -> None:
    frame = demo_sessions(spark, n, n_items=10).toPandas()
    assert len(frame) == n
    assert frame["items"].map(len).min() >= 2


def test_sizes_that_make_no_sense_are_refused(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="n_sessions must be at least 2; got 1"):
        demo_sessions(spark, 1)
    with pytest.raises(ValueError, match="n_items must be at least 10; got 3"):
        demo_sessions(spark, 100, n_items=3)


def test_written_as_delta_with_comments_and_never_over_a_table(spark: SparkSession, tmp_path: Path) -> None:
    place = str(tmp_path / "sessions")
    write_demo(spark, place, 500, 7)
    back = spark.read.format("delta").load(place)
    assert all(field.metadata["comment"] for field in back.schema.fields)
    wanted = demo_sessions(spark, 500, seed=7).toPandas()
    pd.testing.assert_frame_equal(back.toPandas().sort_values("session_id", ignore_index=True), wanted)
    with pytest.raises(OutputError, match="where nothing is yet"):
        write_demo(spark, place, 500, 7)
