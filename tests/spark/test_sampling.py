"""Sampling against the sequential greedy oracle, in both of its forms."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import SettingsError
from prune_lib.graph import SessionGraph, build_graph
from prune_lib.sampling.floors import item_floors
from prune_lib.sampling.select import (
    COVERAGE,
    DUPLICATE,
    FLOOR,
    REST,
    Selection,
    first_twin,
    select_sessions,
)
from prune_lib.sessions.encoding import Encoded
from prune_lib.settings import SamplingSettings
from tests import reference
from tests.spark.sessions import encoded, random_sessions

# Difficulty ranks, of some sessions as high as can be.
EASY_TO_HARD = "pmod(sid * 3, 7) / 6"


def run(
    made: Encoded,
    graph: SessionGraph,
    budget: int,
    *,
    floor: int = 0,
    sampler: str = "exact",
    task_edges: int = 300,
    x: str = "0.5",
) -> Selection:
    """A selection, by default at equal difficulty of all; a round is so small that it takes many."""
    return select_sessions(
        graph,
        made.sessions.select("sid", F.expr(x).cast("double").alias("x")),
        first_twin(made.sessions),
        budget=budget,
        cost="n",
        floors=item_floors(made, floor),
        cold=made.item_sessions <= 1,
        settings=SamplingSettings(sampler=sampler, task_edges=task_edges),
    )


def kept_in_order(selection: Selection) -> list[int]:
    return selection.ranked.toPandas().sort_values("rank")["sid"].tolist()


def test_reaches_the_oracles_objective(spark: SparkSession) -> None:
    made, sessions = encoded(spark, random_sessions(11, n=500, items=400))
    graph = build_graph(made, SamplingSettings(demand="recency"))
    n = len(sessions)
    oracle = reference.build_graph(sessions, age=(n - 1 - np.arange(n)) / (n - 1))
    cost = np.array([len(s) for s in sessions])
    budget = int(0.2 * cost.sum())
    selection = run(made, graph, budget)
    kept = kept_in_order(selection)
    best = reference.objective(oracle, reference.greedy(oracle, cost, budget))
    assert cost[kept].sum() == selection.spent <= budget
    assert reference.objective(oracle, kept) >= 0.99 * best
    assert selection.objective.value() == pytest.approx(reference.objective(oracle, kept), rel=1e-5)


@pytest.mark.parametrize("sampler", ["exact", "rounds"])
def test_partitions_do_not_matter(spark: SparkSession, sampler: str) -> None:
    sessions = random_sessions(12, n=80, items=60)
    budget = int(0.3 * sum(map(len, sessions)))
    seen = []
    for partitions in (1, 3, 8):
        made, _ = encoded(spark, sessions, partitions)
        spark.conf.set("spark.sql.shuffle.partitions", str(partitions))
        try:
            graph = build_graph(made, SamplingSettings())
            selection = run(made, graph, budget, sampler=sampler)
            seen.append(selection.ranked.orderBy("rank").collect())
        finally:
            spark.conf.set("spark.sql.shuffle.partitions", "4")
    assert seen[0] == seen[1] == seen[2]


def test_a_smaller_budget_is_a_prefix_and_duplicates_come_last(spark: SparkSession) -> None:
    made, sessions = encoded(spark, random_sessions(13, n=150))
    graph = build_graph(made, SamplingSettings())
    total = sum(map(len, sessions))
    everything = run(made, graph, total)
    order = kept_in_order(everything)
    assert sorted(order) == list(range(150)), "a ratio of 1 keeps every session"
    rows = everything.ranked.toPandas().sort_values("rank")
    seen: set[tuple[int, ...]] = set()
    for sid, phase in zip(rows["sid"], rows["phase"], strict=True):
        assert (tuple(sessions[sid]) in seen) == (phase == DUPLICATE)
        seen.add(tuple(sessions[sid]))
    for share in (0.1, 0.4, 0.9):
        part = kept_in_order(run(made, graph, int(share * total)))
        assert part == order[: len(part)]
        spent = sum(len(sessions[s]) for s in part)
        assert spent <= share * total < spent + len(sessions[order[len(part)]]) + 1


@pytest.mark.parametrize(
    ("task_edges", "floor", "budget"), [(1, 0, 25), (200, 0, 250), (60, 2, 250), (5000, 0, 250)]
)
def test_rounds_pick_what_sequential_greedy_picks(
    spark: SparkSession, task_edges: int, floor: int, budget: int
) -> None:
    """Rank by rank, with the gains of the decisions; the floors' keys are full of ties."""
    made, _ = encoded(spark, random_sessions(17, n=120, items=60))
    graph = build_graph(made, SamplingSettings())
    exact = run(made, graph, budget, floor=floor, x=EASY_TO_HARD)
    rounds = run(made, graph, budget, floor=floor, sampler="rounds", task_edges=task_edges, x=EASY_TO_HARD)
    columns = ["sid", "rank", "phase", "gain", "gain_new", "gain_cold"]
    seen, wanted = (s.ranked.select(columns).orderBy("rank").collect() for s in (rounds, exact))
    assert seen == wanted and len(seen) > 3
    assert (rounds.objective.evidence == exact.objective.evidence).all()
    assert rounds.spent == exact.spent <= budget
    assert [r.phase for r in exact.records] == (["floor", "redundant"] if floor else []) + ["coverage"]
    assert (len(rounds.records) > 2) == (task_edges < 5000), "rounds were taken where they were due"
    for record in (r for r in rounds.records if r.phase != "redundant"):
        assert record.shuffle_bytes is not None
        assert record.picked <= record.candidates and record.edges >= record.candidates


def test_rounds_end_a_full_ranking_too(spark: SparkSession) -> None:
    made, sessions = encoded(spark, random_sessions(14, n=40, items=200))
    graph = build_graph(made, SamplingSettings())
    order = kept_in_order(run(made, graph, sum(map(len, sessions)), sampler="rounds"))
    assert sorted(order) == list(range(40))


@pytest.mark.parametrize("sampler", ["exact", "rounds"])
def test_sessions_that_teach_nothing_are_put_in_line(spark: SparkSession, sampler: str) -> None:
    made, _ = encoded(spark, [[1], [2], [3], [1]])
    graph = build_graph(made, SamplingSettings())
    selection = run(made, graph, 4, sampler=sampler)
    assert sorted(kept_in_order(selection)) == [0, 1, 2, 3]
    assert not any(record.picked for record in selection.records)


@pytest.mark.parametrize("sampler", ["exact", "rounds"])
def test_after_coverage_is_complete_the_easier_come_first(spark: SparkSession, sampler: str) -> None:
    """Three items in 243 orders: forty sessions say all that there is to say."""
    sessions = [list(order) for order in product(range(3), repeat=5)]
    made, _ = encoded(spark, [*sessions, [0], [1]])
    graph = build_graph(made, SamplingSettings())
    difficulty = "pmod(sid * 101, 245) / 245"
    selection = run(made, graph, made.n_interactions, sampler=sampler, x=difficulty, task_edges=1000)
    ranked = selection.ranked.toPandas().sort_values("rank")
    rest = ranked[ranked["phase"] == REST]["sid"].to_numpy()
    assert len(ranked) == 245 and selection.beyond == rest.size - 2 > 100
    assert selection.complete == 5 * (ranked["phase"] == COVERAGE).sum()
    x = rest * 101 % 245
    assert (np.diff(x[:-2]) > 0).all() and sorted(rest[-2:]) == [243, 244], "single clicks are last"
    assert run(made, graph, 50, sampler=sampler).beyond == 0


def test_a_session_beyond_the_budget_does_not_end_it(spark: SparkSession) -> None:
    """Copies come after all that is new; in line before them, it would be the first that does not fit."""
    made, _ = encoded(spark, [[1, 2, 1]] * 40 + [list(range(10, 210))])
    selection = run(made, build_graph(made, SamplingSettings()), 102)
    assert selection.spent == 102 and 40 not in kept_in_order(selection)


@pytest.mark.parametrize("floor", [1, 2])
def test_every_item_keeps_its_floor(spark: SparkSession, floor: int) -> None:
    made, sessions = encoded(spark, random_sessions(15, n=300, items=80))
    graph = build_graph(made, SamplingSettings())
    budget = int(0.75 * sum(map(len, sessions)))
    selection = run(made, graph, budget, floor=floor)
    kept = kept_in_order(selection)
    held = np.zeros(made.n_items, dtype=int)
    for s in kept:
        held[list(set(sessions[s]))] += 1
    able = made.item_sessions >= floor
    assert (held[able] >= floor).all()
    phases = selection.ranked.toPandas().sort_values("rank")["phase"].tolist()
    assert phases[0] == FLOOR and phases == sorted(phases)
    seen: set[tuple[int, ...]] = set()
    for s, phase in zip(kept, phases, strict=True):
        if phase not in (FLOOR, DUPLICATE):
            assert tuple(sessions[s]) not in seen, "its twin was kept for a floor"
        seen.add(tuple(sessions[s]))


def floor_oracle(made: Encoded, sessions: list[list[int]], trust: list[float], floor: int) -> list[int]:
    """Greedy set cover in plain Python, one pick at a time, and then without what it made redundant."""
    tie = {row["sid"]: row["tie"] for row in made.sessions.select("sid", "tie").collect()}
    wanted = {i: floor for i in range(made.n_items) if made.item_sessions[i] >= floor}
    own = {row["sid"] for row in first_twin(made.sessions).filter("sid = twin").collect()}
    able = [s for s in range(len(sessions)) if floor > 1 or s in own]
    held, picks = dict.fromkeys(wanted, 0), list[int]()
    while any(held[i] < wanted[i] for i in wanted):

        def order(s: int) -> tuple[float, int, int]:
            new = sum(held[i] < wanted[i] for i in set(sessions[s]) if i in wanted)
            return -new * (trust[s] / len(sessions[s])), tie[s], s

        best = min((s for s in able if s not in picks), key=order)
        picks.append(best)
        for i in set(sessions[best]) & set(wanted):
            held[i] += 1
    for s in reversed(list(picks)):
        served = set(sessions[s]) & set(wanted)
        if all(held[i] > wanted[i] for i in served):
            picks.remove(s)
            for i in served:
                held[i] -= 1
    return picks


@pytest.mark.parametrize("floor", [1, 2])
def test_a_floor_is_a_set_cover_without_redundant_sessions(spark: SparkSession, floor: int) -> None:
    made, sessions = encoded(spark, random_sessions(17, n=300, items=150))
    graph = build_graph(made, SamplingSettings())
    budget = int(0.6 * made.n_interactions)
    selection = run(made, graph, budget, floor=floor, x=EASY_TO_HARD)
    ranked = selection.ranked.filter(F.col("phase") == FLOOR).orderBy("rank").collect()
    held_by = Counter(pair for items in sessions for pair in pairs_of(items))
    shared = {pair for pair, n in held_by.items() if n > 1}
    alone = [not shared.intersection(pairs_of(items)) for items in sessions]
    assert 0 < sum(alone) < len(alone)
    trust = [max(1 - s * 3 % 7 / 6, 1 / 64) if alone[s] else 1.0 for s in range(len(sessions))]
    assert min(trust) == 1 / 64
    assert [row["sid"] for row in ranked] == floor_oracle(made, sessions, trust, floor)
    taken_back = [record for record in selection.records if record.phase == "redundant"]
    assert len(taken_back) == 1 and taken_back[0].picked < 0 and taken_back[0].interactions < 0
    assert sum(record.interactions for record in selection.records) <= selection.spent <= budget


def pairs_of(items: list[int]) -> set[tuple[int, int]]:
    """Transitions: ordered pairs at most three clicks apart."""
    return {(a, b) for k, a in enumerate(items) for b in items[k + 1 : k + 4]}


def test_a_floor_takes_what_shares_no_transition_only_where_it_serves_twice_as_much(
    spark: SparkSession,
) -> None:
    """Clicks at random cover more items a click, and teach nothing that anybody does."""
    sessions = [[8, 9], [1, 2, 8], [1, 2, 9], [1, 2], [5, 6]]
    made, _ = encoded(spark, sessions)
    selection = run(made, build_graph(made, SamplingSettings()), 11, floor=1)
    by_floor = selection.ranked.filter(F.col("phase") == FLOOR).collect()
    # 5 and 6 are nowhere else; 8 and 9 have sessions of more clicks than [8, 9].
    assert {row["sid"] for row in by_floor} == {1, 2, 4}


def test_what_later_sessions_make_redundant_is_taken_back(spark: SparkSession) -> None:
    made, _ = encoded(spark, [[2, 3], [1, 1, 2], [3, 3, 4]])
    selection = run(made, build_graph(made, SamplingSettings()), 6, floor=1)
    assert sorted(kept_in_order(selection)) == [1, 2], "the first that greedy takes is [2, 3]"


def test_a_floor_that_no_item_reaches_changes_nothing(spark: SparkSession) -> None:
    made, _ = encoded(spark, random_sessions(16, n=40, items=30))
    graph = build_graph(made, SamplingSettings())
    with_floor = kept_in_order(run(made, graph, 60, floor=1000))
    assert with_floor == kept_in_order(run(made, graph, 60))


def test_a_floor_beyond_the_budget_is_the_users_mistake(spark: SparkSession) -> None:
    made, _ = encoded(spark, random_sessions(15, n=60, items=80))
    graph = build_graph(made, SamplingSettings())
    with pytest.raises(
        SettingsError,
        match=r"floor does not fit the budget \(--floor 1\): what \d+ groups ask for was found in \d+ "
        r"interactions, and the budget is 20. Raise --ratio to 0.\d+, or lower",
    ) as refused:
        run(made, graph, 20, floor=1)
    price = int(str(refused.value).partition(" interactions")[0].rpartition(" ")[2])
    run(made, graph, price, floor=1)
    with pytest.raises(SettingsError, match=f"the budget is {price - 1}"):
        run(made, graph, price - 1, floor=1)
