"""Graph and propagation against numpy on random sessions."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from py4j.protocol import Py4JError
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib import demand as demand_module
from prune_lib import graph as graph_module
from prune_lib import propagation
from prune_lib.errors import SettingsError
from prune_lib.graph import build_graph
from prune_lib.propagation import propagate
from prune_lib.sessions.encoding import encode
from prune_lib.settings import SamplingSettings
from prune_lib.settings.groups import Engine
from tests import reference
from tests.spark.sessions import encoded, frame, random_sessions


@pytest.mark.parametrize(("seed", "support", "propagated"), [(0, 2, (0, 1, 2)), (1, 4, ())])
def test_graph_and_propagation_equal_numpy(
    spark: SparkSession, seed: int, support: int, propagated: tuple[int, ...]
) -> None:
    """Two graphs; over the first, scores after so many rounds."""
    made, sessions = encoded(spark, random_sessions(seed, n=150))
    graph = build_graph(made, SamplingSettings(demand="recency", min_support=support))
    n = len(sessions)
    expected = reference.build_graph(sessions, age=(n - 1 - np.arange(n)) / (n - 1), min_support=support)
    # Patterns in the reference are named by items: compare by name.
    table = graph.patterns.toPandas()
    names = {
        int(p): (int(i),) if j < 0 else (int(i), int(j))
        for p, i, j in zip(table["pattern"], table["item"], table["next_item"], strict=True)
    }
    assert sorted(names.values()) == expected.names, f"seed {seed}"
    weight = {v: w for v, w in zip(expected.names, expected.weight, strict=True)}
    for p, v in names.items():
        assert graph.weight[p] == pytest.approx(weight[v], rel=1e-5), f"seed {seed}"
        assert graph.item[p] == v[-1] and graph.is_transition[p] == (len(v) == 2)
    rows = graph.adjacency.toPandas().set_index("sid").sort_index()
    for s in range(n):
        got = {
            names[int(p)]: m / graph.unit
            for p, m in zip(rows["patterns"][s], rows["messages"][s], strict=True)
        }
        patterns, messages = expected.row(s)
        want = {expected.names[p]: m for p, m in zip(patterns, messages, strict=True)}
        assert got == pytest.approx(want), f"seed {seed}, session {s}"

    x = np.random.default_rng(seed).random(n)
    frame = spark.createDataFrame(pd.DataFrame({"sid": np.arange(n), "x": x}))
    for rounds in propagated:
        want_x = x
        for _ in range(rounds):
            want_x = reference.propagate(expected, want_x, 0.3)
        seen = []
        for engine in ("graphframes", "arrays"):
            fine = by_session(propagate(graph, frame, 0.3, rounds, engine, decimals=12))
            assert len(fine) == n
            assert np.abs(fine - want_x).max() < 1e-9, f"seed {seed}, {engine}"
            seen.append(by_session(propagate(graph, frame, 0.3, rounds, engine)))
            assert np.abs(seen[-1] - want_x).max() < 2e-6 * (rounds + 1), f"seed {seed}, {engine}"
        assert (seen[0] == seen[1]).all(), "the engines agree bit for bit"


def test_too_many_patterns_are_refused_with_the_support_that_leaves_few_enough(spark: SparkSession) -> None:
    made, _ = encoded(spark, random_sessions(0, n=150))
    plain = build_graph(made, SamplingSettings())
    items = int((~plain.is_transition).sum())
    most = (items + plain.n_patterns) // 2
    with pytest.raises(SettingsError, match=r"sampling\.max_patterns = \d+") as refused:
        build_graph(made, SamplingSettings(max_patterns=most))
    said = re.search(r"min_support = (\d+), which leaves the (\d+) that", str(refused.value))
    assert said is not None, refused.value
    support, left = (int(number) for number in said.groups())
    fewer = build_graph(made, SamplingSettings(max_patterns=most, min_support=support))
    assert fewer.n_patterns == left <= most
    # The least that does: one below is refused again.
    with pytest.raises(SettingsError, match=f"min_support = {support}"):
        build_graph(made, SamplingSettings(max_patterns=most, min_support=support - 1))
    # Where the items alone are too many no support helps.
    with pytest.raises(SettingsError) as refused:
        build_graph(made, SamplingSettings(max_patterns=items - 1))
    assert "min_support" not in str(refused.value)


def test_more_patterns_than_the_driver_may_collect_are_refused_before_they_are(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_module, "_ROW_BYTES", 2**40)
    made, _ = encoded(spark, [[1, 2], [1, 2]])
    with pytest.raises(SettingsError, match=r"--conf spark\.driver\.maxResultSize=\d+g"):
        build_graph(made, SamplingSettings())


class Refusing:
    """Java as a managed Spark may show it."""

    def __getattr__(self, name: str) -> object:
        raise Py4JError(f"{name} is not allowed")


def test_a_spark_that_tells_nothing_of_its_memory_is_taken_for_a_small_one() -> None:
    conf = SimpleNamespace(get=lambda *given: "1g")
    spark: Any = SimpleNamespace(_jvm=Refusing(), sparkContext=None, conf=conf)
    graph_module._check_results(spark, 10**12)
    assert 700_000 < propagation._sendable(spark) < 900_000


def by_session(out: DataFrame) -> np.ndarray:
    """Scores in the order of the sessions."""
    scores: np.ndarray = out.toPandas().sort_values("sid")["x"].to_numpy()
    return scores


def test_vertices_that_are_too_many_to_be_sent_give_the_same_scores(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = encoded(spark, random_sessions(2, n=80))
    graph = build_graph(made, SamplingSettings())
    x = made.sessions.selectExpr("sid", "pmod(sid * 37, 101) / 101D AS x")
    found, plans = [], []
    original = propagation._round_of_graphframes

    def spied(*given):
        plans.append(given[-1])
        return original(*given)

    monkeypatch.setattr(propagation, "_round_of_graphframes", spied)
    ways: list[tuple[float, Engine, list[bool]]] = [
        (propagation._SHARE, "auto", [True, True]),
        (0.0, "graphframes", [False, False]),
        (0.0, "auto", []),  # by arrays
    ]
    for share, engine, expected in ways:
        monkeypatch.setattr(propagation, "_SHARE", share)
        plans.clear()
        found.append({r["sid"]: r["x"] for r in propagate(graph, x, 0.3, 2, engine).collect()})
        assert plans == expected
    assert len(found[0]) == 80 and found[0] == found[1] == found[2]


def patterns_of(session: list[int], n: int, *, last_only: bool) -> set[int]:
    """Codes of what a session holds."""
    ends = range(len(session) - 1 if last_only else 1, len(session))
    pairs = {(session[t - d], session[t]) for t in ends for d in (1, 2, 3) if t >= d}
    return {session[t] for t in ends if t} | {n + i * n + j for i, j in pairs}


@pytest.mark.parametrize("last_only", [False, True])
def test_weights_by_the_demand_that_is_foreseen(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, last_only: bool
) -> None:
    monkeypatch.setattr(demand_module, "_LEARNED_FROM", 60)  # every other item, some of the transitions
    monkeypatch.setattr(demand_module, "_LEAST", 100)
    made, sessions = encoded(spark, random_sessions(4, n=900))
    plain = build_graph(made, SamplingSettings(demand="recency"), last_only=last_only)
    settings = SamplingSettings()
    assert settings.demand == "forecast"
    graph = build_graph(made, settings, last_only=last_only)
    assert (graph.demand, plain.demand) == ("forecast", "recency")
    n, pairs = made.n_items, graph.is_transition
    code = np.where(pairs, n + graph.first_item.astype(np.int64) * n + graph.second_item, graph.first_item)
    assert n > 60 and (np.diff(code) > 0).all()
    # What each session holds, from the plain lists.
    held = [patterns_of(s, n, last_only=last_only) for s in sessions]
    name = np.concatenate([sorted(h) for h in held]).astype(np.int64)
    age = np.repeat(1 - np.arange(900) / 899, [len(h) for h in held])

    def known(codes: np.ndarray, cut: float) -> np.ndarray:
        place = np.minimum(np.searchsorted(codes, name), codes.size - 1)
        found = codes[place] == name
        return demand_module.known_of(place[found], age[found], codes.size, cut)

    some = demand_module.remembered(code, n)
    past = np.stack([known(some, cut) for cut in demand_module.CUTS], axis=1)
    foresight = demand_module.learned(some, past, known(np.arange(n), 0.0)[:, :-1], 2)
    assert foresight is not None
    expected = foresight.expected(code, known(code, 0.0)[:, :-1])
    weight = np.where(pairs, np.sqrt(plain.weight * expected), expected**0.4)
    for family in (pairs, ~pairs):
        weight[family] /= weight[family].sum()
    np.testing.assert_allclose(graph.weight, weight, rtol=1e-5)
    rows = graph.patterns.toPandas().sort_values("pattern")
    np.testing.assert_array_equal(rows["weight"], graph.weight)
    # The same bit for bit however the rows lie; and with too small a past, or no order, by recency.
    other, _ = encoded(spark, random_sessions(4, n=900), partitions=7)
    np.testing.assert_array_equal(build_graph(other, settings, last_only=last_only).weight, graph.weight)
    monkeypatch.setattr(demand_module, "_LEAST", 10**9)
    short = build_graph(made, settings, last_only=last_only)
    np.testing.assert_array_equal(short.weight, plain.weight)
    assert short.demand == "recency"


def test_without_an_order_no_demand_is_foreseen(spark: SparkSession) -> None:
    made = encode(frame(spark, random_sessions(4, n=100)).drop("ordering"), seed=0)
    graphs = [build_graph(made, SamplingSettings(demand=d)) for d in ("recency", "forecast")]
    np.testing.assert_array_equal(graphs[0].weight, graphs[1].weight)
    assert [graph.demand for graph in graphs] == ["count", "count"]


def test_sessions_without_patterns_keep_their_score(spark: SparkSession) -> None:
    made, _ = encoded(spark, [[1], [1, 2], [1, 2], [3]])
    graph = build_graph(made, SamplingSettings())
    x = spark.createDataFrame([(0, 0.1), (1, 0.2), (2, 0.6), (3, 0.9)], "sid bigint, x double")
    out = {r["sid"]: r["x"] for r in propagate(graph, x, 0.5, 1).collect()}
    assert out[0] == 0.1 and out[3] == 0.9
    # The two others share everything: each moves half the way to their mean of 0.4.
    assert out[1] == pytest.approx(0.3) and out[2] == pytest.approx(0.5)


@pytest.mark.parametrize("edges", [2**20, 2**56])
def test_scores_stay_within_their_sums_however_large_the_data(spark: SparkSession, edges: int) -> None:
    """Fixed-point sums are as fine as the sum over all messages leaves room for."""
    made, _ = encoded(spark, [[1, 2]] * 6 + [[2, 1]] * 3)
    graph = replace(build_graph(made, SamplingSettings()), mass=edges)
    x = made.sessions.selectExpr("sid", "0.9D AS x")
    out = [r["x"] for r in propagate(graph, x, 0.3, 1).collect()]
    # 62 - 57 bits are left at the second size.
    assert out == pytest.approx([0.9] * 9, abs=2e-6 if edges == 2**20 else 2**-5)


def test_a_pattern_of_millions_of_sessions_does_not_overflow(spark: SparkSession) -> None:
    """Messages of 2520 units (distances up to 10) in 5 million sessions: 2^63 at 30 bits."""
    n, heavy = 20, 2520 * 250_000
    made, _ = encoded(spark, [[1, 2]] * n)
    graph = build_graph(made, SamplingSettings())
    many = F.transform("messages", lambda _: F.lit(heavy))
    graph = replace(graph, adjacency=graph.adjacency.withColumn("messages", many), mass=2 * n * heavy)
    out = propagate(graph, made.sessions.selectExpr("sid", "0.9D AS x"), 0.3, 1)
    assert [r["x"] for r in out.collect()] == pytest.approx([0.9] * n, abs=1e-5)
