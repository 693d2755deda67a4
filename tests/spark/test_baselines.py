from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from scipy import stats

from prune_lib import d2
from prune_lib.baselines import (
    CCS_HARDEST,
    CCS_STRATA,
    METHODS,
    NEEDS_DIFFICULTY,
    NEEDS_ORDER,
    rank_baseline,
    take_budget,
)
from prune_lib.d2 import GAMMA, NEIGHBOURS, POSTINGS, Postings, d2_order
from prune_lib.errors import SettingsError

pytestmark = pytest.mark.spark

SEED, SESSIONS, ITEMS, RATIO = 7, 400, 30, 0.3
SCHEMA = (
    "sid bigint, items array<int>, n int, tie bigint, q double, age double, difficulty double, "
    "disagreement double"
)


@pytest.fixture(scope="module")
def made(spark: SparkSession) -> pd.DataFrame:
    """Random sessions: skewed items, some without a difficulty, many ties; and the draw."""
    rng = np.random.default_rng(3)
    n = rng.integers(1, 6, SESSIONS)
    score = np.round(rng.gamma(2.0, 1.0, SESSIONS), 2)
    # On a few sessions the experts agree.
    apart = np.maximum(np.round(rng.normal(0.5, 0.4, SESSIONS), 2), 0)
    q = (pd.Series(score).rank(method="average") - 0.5) / SESSIONS
    frame = pd.DataFrame(
        {
            "sid": np.arange(SESSIONS),
            "items": [np.minimum(rng.geometric(0.15, k) - 1, ITEMS - 1).tolist() for k in n],
            "n": n,
            # Few values: the session id must break these.
            "tie": rng.integers(0, 300, SESSIONS),
            "q": np.where(n == 1, np.nan, q),
            "age": np.round(1 - np.arange(SESSIONS) / (SESSIONS - 1), 2),
            "difficulty": np.where(n == 1, np.nan, score),
            "disagreement": np.where(n == 1, np.nan, apart),
        }
    )
    # Only the hash is taken from Spark.
    draws = (
        spark.createDataFrame(frame[["sid", "tie"]], "sid bigint, tie bigint")
        .select("sid", F.xxhash64(F.lit(SEED).cast("bigint"), "tie").alias("draw"))
        .toPandas()
    )
    return frame.merge(draws, on="sid")


def sessions(spark: SparkSession, made: pd.DataFrame, partitions: int = 3) -> DataFrame:
    plain = made.drop(columns="draw").astype(object)
    rows = plain.where(plain.notna(), None).sample(frac=1, random_state=partitions)
    return spark.createDataFrame(list(rows.itertuples(index=False, name=None)), SCHEMA).repartition(
        partitions
    )


def ordered(spark: SparkSession, made: pd.DataFrame, method: str, parts: int = 3) -> list[int]:
    got = rank_baseline(method, sessions(spark, made, parts), SEED, ratio=RATIO).toPandas()
    got = got.sort_values("rank")
    assert got["rank"].tolist() == list(range(1, SESSIONS + 1))
    assert got["running"].tolist() == got["n"].cumsum().tolist()
    return [int(s) for s in got["sid"]]


def d2_oracle(made: pd.DataFrame) -> list[int]:
    """D2 as the paper has it, by brute force: all distances, then the largest score, one at a time."""
    p = made[made["q"].notna()].set_index("sid").sort_index()
    sets = {sid: frozenset(items) for sid, items in p["items"].items()}
    score, near = p["q"].to_dict(), {}
    for s, mine in sets.items():
        cosine = {k: len(mine & other) / np.sqrt(len(mine) * len(other)) for k, other in sets.items()}
        sharing = [k for k, c in cosine.items() if c > 0 and k != s]
        nearest = sorted(sharing, key=lambda k: (-cosine[k], -k))[:NEIGHBOURS]
        near[s] = {k: np.sqrt(max(2 - 2 * cosine[k], 0)) for k in nearest}
    q = dict(score)
    for s, neighbours in near.items():
        score[s] = q[s] + sum(round(float(np.exp(-d)), 9) * q[k] for k, d in neighbours.items())
    order: list[int] = []
    while score:
        best = min(score, key=lambda s: (-score[s], p["tie"][s], s))
        mine = score.pop(best)
        order.append(best)
        for k, d in near[best].items():
            if k in score:
                score[k] -= round(float(np.exp(-GAMMA * d)), 9) * mine
    return order


def oracle(made: pd.DataFrame, method: str) -> list[int]:
    p = made.copy()
    p["late"] = 0
    if method == "random":
        p["key"] = p["draw"]
    elif method == "hardest":
        p["key"] = -p["q"]
    elif method == "easiest":
        p["key"] = p["q"]
    elif method == "moderate":
        p["key"] = (p["q"] - 0.5).abs()
    elif method == "recent":
        p["key"] = p["age"]
    elif method == "item-quota":
        best: dict[int, int] = {}
        place = [0] * ITEMS
        for row in p.sort_values(["draw", "tie", "sid"]).itertuples():
            for item in set(row.items):
                place[item] += 1
                best[row.sid] = min(best.get(row.sid, SESSIONS), place[item])
        p["key"] = p["sid"].map(best)
    elif method == "d2":
        p["key"] = p["sid"].map({sid: place for place, sid in enumerate(d2_oracle(p))})
    elif method == "dual":
        score = p["q"] * p["disagreement"]
        top = p.assign(score=score).sort_values(["score", "tie", "sid"], ascending=[False, True, True])
        b = 15 * (1 - (1 - top["q"][:10]).mean()) * (1 - (1 - RATIO) ** 5.5)
        density = stats.beta.pdf(1 - p["q"], 16 - b, b)
        u = (p["draw"] % 2**53 + 0.5) / 2**53
        p["key"] = (-np.log(u) / (density * score)).where(score > 0)
        p["late"] = np.where(p["q"].isna(), 2, np.where(score > 0, 0, 1))
    else:
        p["late"] = np.where(p["q"].isna(), 2, np.where(p["q"] > 1 - CCS_HARDEST, 1, 0))
        score = p.loc[p["late"] == 0, "difficulty"]
        width = score.max() - score.min()
        stratum = np.minimum(((score - score.min()) / width * CCS_STRATA).astype(int), 49)
        p["key"] = p["q"].where(p["late"] == 1, 0.0)
        order = p.loc[score.index].assign(stratum=stratum).sort_values(["draw", "tie", "sid"])
        p.loc[order.index, "key"] = order.groupby("stratum").cumcount()
    return p.sort_values(["late", "key", "tie", "sid"], na_position="last")["sid"].tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_order_is_the_oracles(spark: SparkSession, made: pd.DataFrame, method: str) -> None:
    assert ordered(spark, made, method) == oracle(made, method)


@pytest.mark.parametrize("method", ["random", "ccs", "d2", "dual", "item-quota"])
def test_the_order_does_not_depend_on_partitions(
    spark: SparkSession, made: pd.DataFrame, method: str
) -> None:
    for parts in (1, 8):  # as with the three of the test above
        assert ordered(spark, made, method, parts) == oracle(made, method)


def test_dual_prefers_easier_sessions_the_less_is_kept(spark: SparkSession, made: pd.DataFrame) -> None:
    q, mean = made.set_index("sid")["q"], []
    for ratio in (0.05, 0.9):
        ranked = rank_baseline("dual", sessions(spark, made), SEED, ratio=ratio).orderBy("rank").toPandas()
        mean.append(q[ranked["sid"][:80]].mean())
    assert mean[0] < 0.3 and mean[1] > 0.6


# What follows of the orders is asked of the oracle's, which are Spark's.


def test_hard_sessions_are_first_where_they_should_be(made: pd.DataFrame) -> None:
    q = made.set_index("sid")["q"]
    scored = int(q.notna().sum())
    mean = {m: q[oracle(made, m)[:40]].mean() for m in ("hardest", "easiest", "moderate")}
    assert mean["hardest"] > 0.85 and mean["easiest"] < 0.15 and 0.4 < mean["moderate"] < 0.6
    for method in sorted(NEEDS_DIFFICULTY):
        assert q[oracle(made, method)[scored:]].isna().all()


def test_ccs_prefixes_have_equal_counts_by_stratum(made: pd.DataFrame) -> None:
    order = oracle(made, "ccs")
    p = made.set_index("sid")
    easy = p[p["q"] <= 1 - CCS_HARDEST]
    low, high = easy["difficulty"].min(), easy["difficulty"].max()
    stratum = np.minimum((easy["difficulty"] - low) / (high - low) * CCS_STRATA, 49).astype(int)
    size = stratum.value_counts()
    for prefix in (10, 60, 120, 200):
        count = stratum[[s for s in order[:prefix] if s in stratum.index]].value_counts()
        count = count.reindex(size.index, fill_value=0)
        open_ones = count[count < size]
        assert open_ones.empty or count.max() - open_ones.min() <= 1


def test_item_quota_serves_every_item_early(made: pd.DataFrame) -> None:
    order = oracle(made, "item-quota")
    items = made.set_index("sid")["items"]
    used = {i for row in items for i in row}
    first = [s for s in order[: len(used)]]
    assert {i for s in first for i in items[s]} == used


def test_budgets_are_nested_prefixes(spark: SparkSession, made: pd.DataFrame) -> None:
    by_n = rank_baseline("random", sessions(spark, made), SEED).persist()
    by_one = rank_baseline("random", sessions(spark, made), SEED, cost="one").persist()
    assert by_n.columns == by_one.columns == ["sid", "n", "rank", "running"]
    assert dict(by_n.dtypes) == {"sid": "bigint", "n": "int", "rank": "bigint", "running": "bigint"}
    former: set[int] = set()
    for budget in (0, 1, 50, 333, 10_000):
        kept = take_budget(by_n, budget).toPandas().sort_values("rank")
        assert kept["rank"].tolist() == list(range(1, len(kept) + 1))
        assert kept["n"].sum() <= budget
        rest = by_n.filter(F.col("rank") == len(kept) + 1).first()
        assert rest is None or kept["n"].sum() + rest["n"] > budget
        assert former <= set(kept["sid"])
        former = set(kept["sid"])
        assert take_budget(by_one, budget).count() == min(budget, SESSIONS)


def test_the_seed_matters_and_an_unknown_method_is_refused(spark: SparkSession, made: pd.DataFrame) -> None:
    other = rank_baseline("random", sessions(spark, made), SEED + 1).orderBy("rank").toPandas()
    assert other["sid"].tolist() != oracle(made, "random")
    with pytest.raises(ValueError, match="one of random.*got nonsense"):
        rank_baseline("nonsense", sessions(spark, made), SEED)
    assert {"recent"} == NEEDS_ORDER and set(METHODS) > NEEDS_DIFFICULTY


def test_d2_picks_one_of_each_kind_before_a_second(spark: SparkSession) -> None:
    """Three kinds of sessions that share nothing: after one of each, the others are its neighbours."""
    kinds = [[1, 2], [3, 4], [5, 6]]
    made = pd.DataFrame({"sid": range(9), "items": [kinds[s % 3] for s in range(9)], "tie": range(9)})
    made = made.assign(n=2, q=(made["sid"] + 0.5) / 9, age=0.0, difficulty=1.0, disagreement=1.0)
    got = rank_baseline("d2", sessions(spark, made.assign(draw=0)), SEED).orderBy("rank").toPandas()
    assert {s % 3 for s in got["sid"][:3]} == {0, 1, 2}


def test_d2_sees_the_newest_holders_of_a_popular_item(spark: SparkSession) -> None:
    n = POSTINGS + 20
    frame = spark.createDataFrame(
        [(s, [0] if s else [0, 1]) for s in range(n)], "sid bigint, items array<int>"
    )
    postings = Postings.of(frame)
    assert postings.ends.tolist() == [POSTINGS, POSTINGS + 1]
    assert postings.session[:3].tolist() == [n - 1, n - 2, n - 3]
    ids, distance = postings.nearest(0, np.array([0, 1], np.int32))
    assert ids.tolist() == [n - 1 - k for k in range(NEIGHBOURS)]
    assert distance == pytest.approx(np.sqrt(2 - 2 / np.sqrt(2)))
    alone, far = postings.nearest(0, np.array([1], np.int32))
    assert alone.size == far.size == 0


def test_d2_without_neighbours_is_by_score() -> None:
    none = np.zeros(3, np.int64)
    order = d2_order(np.array([0.2, 0.9, 0.9]), none, none[:0], np.zeros(0), np.array([0, 5, 4]))
    assert order.tolist() == [2, 1, 0]


def test_one_score_alone_is_one_stratum(spark: SparkSession, made: pd.DataFrame) -> None:
    flat = made.assign(q=0.5, difficulty=1.0)
    expected = flat.sort_values(["draw", "tie", "sid"])["sid"].tolist()
    assert ordered(spark, flat, "ccs") == expected


def test_more_postings_than_the_driver_may_collect_are_refused_before_they_are(
    spark: SparkSession, made: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = sum(len(set(items)) for items in made["items"])
    monkeypatch.setattr(d2, "POSTINGS", 1)  # of each item the newest only
    assert Postings.of(sessions(spark, made)).session.size <= ITEMS
    monkeypatch.setattr(d2, "POSTINGS", 10**6)
    assert Postings.of(sessions(spark, made)).session.size == pairs
    monkeypatch.setattr(d2, "_ROW_BYTES", 2**40)
    with pytest.raises(SettingsError, match=rf"by {pairs:,} pairs.*--conf spark\.driver\.maxResultSize=\d+g"):
        Postings.of(sessions(spark, made))
