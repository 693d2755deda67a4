"""Reasons, covering sessions and weights against a reference that replays the selection in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark import SparkContext
from pyspark.sql import SparkSession

from prune_lib.decisions import decide
from prune_lib.explanation import HOLDERS
from prune_lib.graph import _WORKER_BYTES, build_graph
from prune_lib.sampling.floors import item_floors
from prune_lib.sampling.select import first_twin, select_sessions
from prune_lib.schemas import DECISIONS
from prune_lib.settings import SamplingSettings, SuspectsSettings
from prune_lib.suspects import find_suspects, session_shapes
from prune_lib.weights import calibrated
from tests import reference
from tests.spark.sessions import encoded, random_sessions

GOLDEN = Path(__file__).parent / "golden" / "decisions.csv"


def difficulty_ranks(n: int) -> np.ndarray:
    """Percentile ranks in an order that has nothing to do with the sessions."""
    return (np.random.default_rng(5).permutation(n) + 0.5) / n


def decided(
    spark: SparkSession, made, graph, *, budget: int, cold: np.ndarray
) -> tuple[pd.DataFrame, pd.Series]:
    """Verdicts by sid, and weights by rank, of a selection with difficulty."""
    n = made.n_sessions
    scores = spark.createDataFrame(
        [(k, float(q)) for k, q in enumerate(difficulty_ranks(n))], "sid bigint, q double"
    )
    x = scores.withColumnRenamed("q", "x")
    twins = first_twin(made.sessions)
    suspects = find_suspects(graph, session_shapes(made), scores, SuspectsSettings()).rows
    selection = select_sessions(
        graph,
        x,
        twins,
        budget=budget,
        cost="n",
        floors=None,
        cold=cold,
        settings=SamplingSettings(),
        suspects=suspects,
    )
    verdicts = decide(made, graph, selection, twins, scores, x, suspects, method=False)
    frame = verdicts.sessions.toPandas().set_index("sid").sort_index()
    return frame, verdicts.weights.rows.toPandas().set_index("rank")["weight"]


class Replay:
    """What each session gained when it was kept, and what the others have still to offer."""

    def __init__(self, graph: reference.Graph, order: list[int], cold_items: set[int]) -> None:
        self.graph, self.order = graph, order
        self.evidence = np.zeros(len(graph.weight))
        self.reason: dict[int, str] = {}
        self.gain: dict[int, np.ndarray] = {}
        self.holders: dict[int, list[int]] = {}
        cold = np.array([name[-1] in cold_items for name in graph.names])
        for s in order:
            pattern, message = graph.row(s)
            gain = self.gain[s] = self.offer(s, self.evidence)
            fresh = self.evidence[pattern] == 0
            self.reason[s] = (
                "REPRESENTATIVE"
                if gain.sum() == 0
                else "COLD_ITEM"
                if gain[fresh & cold[pattern]].sum() >= 0.5 * gain.sum()
                else "NEW_PATTERN"
                if gain[fresh].sum() >= 0.5 * gain.sum()
                else "REPRESENTATIVE"
            )
            self.evidence[pattern] += message
            for p in pattern:
                self.holders.setdefault(int(p), []).append(s)

    def offer(self, s: int, evidence: np.ndarray) -> np.ndarray:
        """Gain of session s by pattern."""
        pattern, message = self.graph.row(s)
        return self.graph.weight[pattern] * np.exp(-evidence[pattern]) * -np.expm1(-message)

    def parts(self, s: int) -> dict[tuple[int, ...], float]:
        """What session s gained when it was kept, or could still gain, by the items of the pattern."""
        gain = self.gain[s] if s in self.gain else self.offer(s, self.evidence)
        names = [self.graph.names[p] for p in self.graph.row(s)[0]]
        return {name: float(g) for name, g in zip(names, gain, strict=True)}

    def still(self, s: int) -> float:
        """Share of what it would have offered alone that it has still to offer."""
        alone = self.offer(s, np.zeros_like(self.evidence)).sum()
        return float(self.offer(s, self.evidence).sum() / alone) if alone > 0 else 1.0

    def closest(self, s: int) -> dict[int, float]:
        """Shared pattern weight with each kept session that it is compared with."""
        shared: dict[int, float] = {}
        for p in self.graph.row(s)[0]:
            for kept in self.holders.get(int(p), [])[:HOLDERS]:
                shared[kept] = shared.get(kept, 0.0) + float(self.graph.weight[p])
        return shared


def parts_of(row: pd.Series, index: dict[int, int]) -> list[tuple[tuple[int, ...], float]]:
    """A row's parts by item indices, in the table's order."""
    return [
        (tuple(index[p[k]] for k in ("item", "next_item") if p[k] is not None), p["gain"])
        for p in row["gain_parts"]
    ]


def assert_parts(row: pd.Series, expected: dict[tuple[int, ...], float], index: dict[int, int]) -> None:
    """The parts of a row are those of the replay, the largest first, and add up to its gain."""
    found = parts_of(row, index)
    assert [g for _, g in found] == sorted((g for _, g in found), reverse=True)
    assert sum(g for _, g in found) == row["gain"]
    assert dict(found).keys() <= expected.keys() and len(dict(found)) == len(found)
    for name, gain in expected.items():
        assert dict(found).get(name, 0.0) == pytest.approx(gain, rel=1e-6, abs=1e-15)


@pytest.mark.parametrize(("seed", "share"), [(31, 0.25), (33, 1.0)])
def test_every_verdict_is_what_a_replay_says(spark: SparkSession, seed: int, share: float) -> None:
    alone = [[900 + 2 * k, 901 + 2 * k] for k in range(80)]  # old sessions that share nothing with anyone
    clicks = [[k] for k in (5, 2000)]  # nothing to predict, so nothing that others could cover
    made, sessions = encoded(spark, alone + clicks + random_sessions(seed, n=300, items=150))
    n = len(sessions)
    cold = made.item_sessions <= 3
    budget = int(share * made.n_interactions)
    frame, weight = decided(
        spark, made, build_graph(made, SamplingSettings(demand="recency")), budget=budget, cold=cold
    )
    graph = reference.build_graph(sessions, age=(n - 1 - np.arange(n)) / (n - 1))
    kept = frame[frame["kept"]].sort_values("rank")
    replay = Replay(graph, kept.index.tolist(), set(np.flatnonzero(cold).tolist()))
    rank_of = kept["rank"].to_dict()
    by_sequence: dict[tuple[int, ...], int] = {}
    for s in kept.index:
        by_sequence.setdefault(tuple(sessions[s]), s)
    q = difficulty_ranks(n)
    index = {int(r["item"]): int(r["idx"]) for r in made.items.collect()}
    transitions = np.array([len(name) == 2 for name in graph.names])
    for s, row in frame.iterrows():
        assert_parts(row, replay.parts(s), index)
        twin = by_sequence.get(tuple(sessions[s]))
        if row["kept"]:
            assert row["reason"] == replay.reason[s], f"seed {seed}, kept {s}"
            assert pd.isna(row["cover_rank"])
            continue
        if twin is not None:
            expected = "DUPLICATE"
        elif q[s] >= 0.75 and not transitions[graph.row(s)[0]].any():
            expected = "NOISE"
        else:
            expected = "COVERED" if replay.still(s) <= 0.5 else "BUDGET"
        assert row["reason"] == expected, f"seed {seed}, pruned {s}"
        shared = replay.closest(s)
        if twin is not None:
            assert row["cover_rank"] == rank_of[twin]
        elif not shared:
            assert pd.isna(row["cover_rank"])
        else:
            chosen = int(kept.index[int(row["cover_rank"]) - 1])
            assert shared[chosen] == pytest.approx(max(shared.values()), rel=1e-4)
    if share < 1:
        assert set(frame["reason"]) >= {"COLD_ITEM", "NEW_PATTERN", "DUPLICATE", "COVERED", "NOISE"}
    else:  # who was set aside, too, by what it added in its turn
        assert set(frame["reason"]) == {"COLD_ITEM", "NEW_PATTERN", "REPRESENTATIVE"}
    held = [sorted(set(sessions[s])) for s in kept.index]
    lengths = np.array([len(items) for items in held])
    expected, _ = calibrated(np.concatenate(held), lengths, made.item_sessions, n)
    assert weight.sort_index().tolist() == expected.tolist()
    assert weight.sum() == pytest.approx(n) and (weight.std() > 0) == (share < 1)


def test_a_gain_below_a_trillionth_is_the_sum_of_its_parts(spark: SparkSession) -> None:
    """All have x and y: after thirty sessions little is left to add, and it is no rounded 0."""
    made, _ = encoded(spark, [[100 + k, 1, 2] for k in range(100)])
    graph = build_graph(made, SamplingSettings())
    cold = np.zeros(made.n_items, dtype=bool)
    frame, _ = decided(spark, made, graph, budget=90, cold=cold)
    left = frame[~frame["kept"]]
    assert (left["gain"] > 0).all() and left["gain"].max() < 1e-12
    assert [sum(p["gain"] for p in parts) for parts in left["gain_parts"]] == left["gain"].tolist()


@pytest.mark.parametrize(("bots", "method"), [("last", False), ("alike", False), ("last", True)])
def test_only_who_was_set_aside_was_pruned_for_what_it_looks_like(
    spark: SparkSession, bots: str, method: bool
) -> None:
    made, _ = encoded(spark, [*random_sessions(36, n=80, items=40), list(range(40)) * 2])
    graph = build_graph(made, SamplingSettings())
    none = spark.createDataFrame([], "sid bigint, q double")
    x, twins = none.withColumnRenamed("q", "x"), first_twin(made.sessions)
    suspects = find_suspects(graph, session_shapes(made), none, SuspectsSettings(bots=bots)).rows
    selection = select_sessions(
        graph,
        x,
        twins,
        budget=60,  # the crawler has 80 clicks
        cost="n",
        floors=None,
        cold=made.item_sessions <= 3,
        settings=SamplingSettings(),
        suspects=suspects,
    )
    sessions = decide(made, graph, selection, twins, none, x, suspects, method=method).sessions
    of_bot = sessions.filter("sid = 80").collect()[0]
    assert not of_bot["kept"] and (of_bot["reason"] == "BOT") == (bots == "last" and not method)


def test_the_column_says_how_many_holders_are_compared() -> None:
    (column,) = (column for column in DECISIONS if column.name == "covered_by")
    assert f"the {HOLDERS} earliest kept ones of each of its patterns" in column.comment


def test_parts_add_up_from_the_first_pick_to_the_last_copy(spark: SparkSession) -> None:
    """Every phase: with the whole budget even copies are kept, and a floor comes before all."""
    made, sessions = encoded(spark, random_sessions(34, n=120, items=40))
    graph = build_graph(made, SamplingSettings())
    none = spark.createDataFrame([], "sid bigint, q double")
    x = none.withColumnRenamed("q", "x")
    twins = first_twin(made.sessions)
    suspects = find_suspects(graph, session_shapes(made), none, SuspectsSettings()).rows
    selection = select_sessions(
        graph,
        x,
        twins,
        budget=made.n_interactions,
        cost="n",
        floors=item_floors(made, 1),
        cold=made.item_sessions <= 3,
        settings=SamplingSettings(),
    )
    frame = decide(made, graph, selection, twins, none, x, suspects, method=False).sessions.toPandas()
    assert frame["kept"].all() and len(frame) == len(sessions)
    frame = frame.sort_values("rank", ignore_index=True)
    total = frame["gain_parts"].map(lambda parts: sum(p["gain"] for p in parts))
    assert total.to_numpy() == pytest.approx(frame["gain"].to_numpy(), abs=1e-12)
    # Whatever chose it, a session's gain is what F rises by: a floor's picks, coverage's, what is in line.
    messages = graph.adjacency.toPandas().set_index("sid")
    evidence, before = np.zeros(graph.n_patterns), 0.0
    for _, row in frame.iterrows():
        of = messages.loc[row["sid"]]
        evidence[np.asarray(of["patterns"], int)] += np.asarray(of["messages"]) / graph.unit
        value = float((graph.weight * -np.expm1(-evidence)).sum())
        assert row["gain"] == pytest.approx(value - before, abs=1e-9), row["rank"]
        before = value
    assert before == pytest.approx(selection.objective.value())
    floor, chosen = frame["reason"] == "FLOOR", sum(r.picked for r in selection.records)
    assert (frame.loc[floor, "gain"] > 0).any() and floor.sum() < chosen < len(frame), "every phase is there"


def arrays_of(value: Any) -> Iterator[np.ndarray]:
    """The arrays that a broadcast value holds."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        yield from (array for part in value for array in arrays_of(part))
    elif is_dataclass(value):
        yield from (array for part in vars(value).values() for array in arrays_of(part))


def test_the_golden_decisions(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table small enough to read: a change of the method shows as a change of this file."""
    made, sessions = encoded(spark, random_sessions(33, n=30, items=9))
    graph = build_graph(made, SamplingSettings())
    sent: list[list[np.ndarray]] = []

    def broadcast(context: SparkContext, value: Any) -> Any:
        sent.append([array for array in arrays_of(value) if len(array) == graph.n_patterns])
        return original(context, value)

    original = SparkContext.broadcast
    monkeypatch.setattr(SparkContext, "broadcast", broadcast)
    frame, weight = decided(
        spark, made, graph, budget=int(0.4 * made.n_interactions), cold=made.item_sessions <= 4
    )
    # What a message says of the workers' memory is what is sent to them: with the patterns' names (8 bytes),
    # or with the earliest holders of each (4 a holder).
    each = [sum(array.nbytes for array in arrays) / graph.n_patterns for arrays in sent]
    assert 8 + 4 * HOLDERS in each and max(each) <= _WORKER_BYTES
    assert max(size for size in each if size != 8 + 4 * HOLDERS) + 8 <= _WORKER_BYTES
    frame["items"] = [" ".join(map(str, items)) for items in sessions]
    frame["weight"] = frame["rank"].map(weight)
    columns = ["items", "kept", "rank", "reason", "gain", "cover_rank", "weight"]
    text = frame[columns].astype({"rank": "Int64", "cover_rank": "Int64"}).to_csv(float_format="%.6f")
    if not GOLDEN.exists():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
        pytest.fail(f"{GOLDEN} was not there and has been written: read it and run again")
    assert text == GOLDEN.read_text()
