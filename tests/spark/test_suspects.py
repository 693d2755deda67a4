"""Bots and noise: who is suspected, and that suspects are kept last and only where a floor needs them."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.graph import build_graph
from prune_lib.sampling.floors import item_floors
from prune_lib.sampling.select import DUPLICATE, FLOOR, SUSPECT, Selection, first_twin, select_sessions
from prune_lib.sessions.encoding import Encoded
from prune_lib.settings import SamplingSettings, SuspectsSettings
from prune_lib.suspects import Limits, Suspects, far_out, find_suspects, session_shapes
from tests.spark.sessions import encoded, random_sessions

PEOPLE = random_sessions(41, n=200, items=40)


def suspected(spark: SparkSession, sessions: list[list[int]], q: list[float], **settings: object) -> Suspects:
    made, _ = encoded(spark, sessions)
    scores = spark.createDataFrame([(k, v) for k, v in enumerate(q)], "sid bigint, q double")
    graph = build_graph(made, SamplingSettings())
    return find_suspects(graph, session_shapes(made), scores, SuspectsSettings(**settings))


def kinds(found: Suspects) -> dict[int, str]:
    return {row["sid"]: row["suspect"] for row in found.rows.collect()}


def test_the_fence_is_tukeys_of_the_logarithms() -> None:
    lengths = np.random.default_rng(0).lognormal(1, 1, 999)
    q1, q3 = np.quantile(np.log(lengths), [0.25, 0.75], method="hazen")
    fence = far_out(lengths, np.ones(999, dtype=np.int64))
    assert fence == pytest.approx(np.exp(q3 + 3 * (q3 - q1)))


def test_the_order_of_the_counts_says_nothing() -> None:
    values, count = np.array([1.0, 2, 1, 3, 2, 9]), np.array([7, 5, 30, 10, 8, 2])
    fences = {
        far_out(values[order], count[order])
        for order in np.random.default_rng(1).permuted([range(6)] * 9, axis=1)
    }
    assert fences == {far_out(np.array([1.0, 2, 3, 9]), np.array([37, 13, 10, 2]))}


def test_one_session_more_moves_the_fence_by_little() -> None:
    """The third quartile of these lengths is 5 in one case and 6 in the other."""
    lengths = np.array([2.0, 3, 4, 5, 6, 9])
    one, two = (far_out(lengths, np.array([30, 30, 10, 5 + k, 20 - k, 5])) for k in (0, 1))
    assert two == pytest.approx(one, rel=0.1)


def test_lengths_that_hardly_differ_suspect_nobody_who_is_a_little_longer() -> None:
    assert 16 <= far_out(np.array([2.0, 5.0]), np.array([990, 10])) < 30


def test_bots_are_those_far_longer_or_far_more_repetitive(spark: SparkSession) -> None:
    crawler, cycler, over_and_over = list(range(40)) * 2, [1, 2] * 30, [3] * 20
    long, looking_back = list(range(40)), [1, 2, 1, 2, 1]
    sessions = [*PEOPLE, crawler, cycler, over_and_over, long, looking_back]
    found = suspected(spark, sessions, [0.5] * len(sessions))
    assert kinds(found) == dict.fromkeys((200, 201, 202), "BOT")
    assert 50 <= found.limits.clicks < 60 and 8 <= found.limits.repeats < 19
    assert (found.bots, found.bot_clicks) == (3, 160)


def test_noise_is_hard_and_alone(spark: SparkSession) -> None:
    alone, copies, single = [[900, 901], [910, 911]], [[920, 921], [920, 921]], [[930]]
    sessions = [*PEOPLE, *alone, *copies, *single]
    q = [0.95] * 200 + [0.95, 0.7] + [0.95] * 2 + [0.95]
    hard = kinds(suspected(spark, sessions, q))
    # Among 200 random sessions there are some that share no transition: only hardness and company count.
    assert {k: v for k, v in hard.items() if k >= 200} == {200: "NOISE", 204: "NOISE"}
    easy = suspected(spark, sessions, q, hardest=0.96)
    assert kinds(easy) == {}


def test_a_session_without_a_score_is_no_noise(spark: SparkSession) -> None:
    assert kinds(suspected(spark, [*PEOPLE, [900, 901]], [])) == {}


def test_limits_of_the_users_own_win(spark: SparkSession) -> None:
    found = suspected(spark, [[1, 2, 3], [1, 2], [2, 2, 2, 2]], [], max_clicks=3, max_repeats=2)
    assert kinds(found) == {2: "BOT"} and found.limits == Limits(3, 2)
    assert 50 <= suspected(spark, PEOPLE, [], max_repeats=1.5).limits.clicks < 60


def test_alike_names_the_suspects_and_sets_none_aside(spark: SparkSession) -> None:
    sessions = [*PEOPLE, list(range(40)) * 2]
    found = suspected(spark, sessions, [], bots="alike")
    assert [(row["suspect"], row["last"]) for row in found.rows.collect()] == [("BOT", False)]


def test_a_crowd_of_bots_is_warned_of() -> None:
    def found(bots: int) -> Suspects:
        return Suspects(None, Limits(50, 8), bots, 4000)  # type: ignore[arg-type]

    text = found(20).crowd(1000, 10_000)
    assert text is not None
    assert text.startswith("20 sessions (2.0 %, 40.0 % of the clicks) are kept last, as bots")
    assert "over 50 clicks, or 8.0 clicks an item" in text
    assert found(10).crowd(1000, 10_000) is None


def select(
    made: Encoded, suspects: DataFrame, budget: int, *, floor: int = 0, sampler: str = "exact"
) -> Selection:
    return select_sessions(
        build_graph(made, SamplingSettings()),
        made.sessions.select("sid", F.lit(0.5).alias("x")),
        first_twin(made.sessions),
        budget=budget,
        cost="n",
        floors=item_floors(made, floor),
        cold=made.item_sessions <= 1,
        settings=SamplingSettings(sampler=sampler, task_edges=300),
        suspects=suspects,
    )


@pytest.fixture(scope="module")
def crawled(spark: SparkSession) -> tuple[Encoded, list[list[int]], DataFrame]:
    """People, and two crawlers through all their items and ten that nobody else has."""
    sessions = [*PEOPLE, list(range(50)) * 2, list(range(50)) * 2]
    made, own = encoded(spark, sessions)
    suspects = spark.createDataFrame([(200, True), (201, True), (5, False)], "sid bigint, last boolean")
    return made, own, suspects


def test_suspects_come_after_all_others_even_their_copies(crawled) -> None:
    made, sessions, suspects = crawled
    rows = select(made, suspects, made.n_interactions).ranked.orderBy("rank").collect()
    assert sorted(row["sid"] for row in rows) == list(range(len(sessions))), (
        "a ratio of 1 keeps every session"
    )
    assert [row["sid"] for row in rows if row["phase"] == SUSPECT] == [r["sid"] for r in rows[-2:]]
    assert {row["sid"] for row in rows[-2:]} == {200, 201} and rows[-3]["phase"] == DUPLICATE


@pytest.mark.parametrize("sampler", ["exact", "rounds"])
def test_a_floor_takes_suspects_only_for_what_the_others_leave(crawled, sampler: str) -> None:
    made, sessions, suspects = crawled
    budget = 200 + int(0.5 * made.n_interactions)
    rows = select(made, suspects, budget, floor=1, sampler=sampler).ranked.orderBy("rank").collect()
    floor = [row["sid"] for row in rows if row["phase"] == FLOOR]
    assert [sid for sid in floor if sid >= 200] == [floor[-1]], "one crawler, the last of the floor"
    held = {item for sid in floor[:-1] for item in sessions[sid]}
    by_people = {item for sid in range(200) for item in sessions[sid]}
    assert held == by_people, "every item that a person has is kept with one"
    ranks = [row["rank"] for row in rows]
    assert ranks == list(range(1, len(rows) + 1))
    assert sum(len(sessions[row["sid"]]) for row in rows) <= budget


def test_a_floor_of_suspects_alone(spark: SparkSession) -> None:
    made, _ = encoded(spark, [[1, 2], [3, 4]])
    everybody = spark.createDataFrame([(0, True), (1, True)], "sid bigint, last boolean")
    rows = select(made, everybody, 4, floor=1, sampler="rounds").ranked.collect()
    assert [row["phase"] for row in rows] == [FLOOR, FLOOR]


def test_without_a_need_no_suspect_is_in_a_floor(spark: SparkSession) -> None:
    made, _ = encoded(spark, [*PEOPLE, list(range(40)) * 2])
    suspects = spark.createDataFrame([(200, True)], "sid bigint, last boolean")
    people = {item for session in PEOPLE for item in session}
    assert people == set(range(40)), "nothing is left to the crawler"
    rows = select(made, suspects, int(0.6 * made.n_interactions), floor=1).ranked.collect()
    assert 200 not in {row["sid"] for row in rows}
