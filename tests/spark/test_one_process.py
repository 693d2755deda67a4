"""The method without Spark, which the benchmarks time, picks what the Spark job picks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from benchmarks import inputs, one_process
from prune_lib import demand as demand_module
from prune_lib.graph import build_graph
from prune_lib.propagation import propagate
from prune_lib.sampling.select import first_twin, select_sessions
from prune_lib.sessions.columns import ColumnNames
from prune_lib.sessions.encoding import encode
from prune_lib.sessions.reading import open_input, to_sessions
from prune_lib.settings import PropagationSettings, SamplingSettings
from prune_lib.settle import settle


@pytest.mark.parametrize(("hub", "joined", "demand"), [(0.0, 1, "forecast"), (0.3, 3, "recency")])
def test_the_same_graph_scores_and_picks(
    spark: SparkSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hub: float,
    joined: int,
    demand: Literal["recency", "forecast"],
) -> None:
    monkeypatch.setattr(demand_module, "_LEARNED_FROM", 400)
    monkeypatch.setattr(demand_module, "_LEAST", 200)
    place = inputs.generated(tmp_path, 2_000, hub=hub, joined=joined)
    sampling, spread = SamplingSettings(demand=demand), PropagationSettings()
    table = open_input(spark, str(place), columns=ColumnNames(order="ordering"))
    encoded = encode(settle(to_sessions(table)), seed=0)
    graph = build_graph(encoded, sampling)
    q = F.col("sid") * one_process.SCORE_FACTOR % one_process.SCORE_MODULUS / one_process.SCORE_MODULUS
    scores = settle(encoded.sessions.select("sid", q.alias("x")))
    x = propagate(graph, scores, spread.alpha, spread.rounds, "arrays")
    budget = encoded.n_interactions // 10
    selection = select_sessions(
        graph,
        x,
        settle(first_twin(encoded.sessions)),
        budget=budget,
        cost="n",
        floors=None,
        cold=np.zeros(encoded.n_items, dtype=np.bool_),
        settings=sampling,
    )
    ranked = selection.ranked.toPandas().sort_values("rank")
    spread_in_spark = x.toPandas().sort_values("sid")["x"].to_numpy()
    tie = encoded.sessions.select("sid", "tie").toPandas().sort_values("sid")["tie"].to_numpy()

    own = one_process.encode(one_process.read(place))
    assert (own.n_items, own.n_sessions) == (encoded.n_items, encoded.n_sessions)
    assert own.item_sessions.tolist() == encoded.item_sessions.tolist()
    built = one_process.build(own, sampling)
    assert (built.pattern.size, built.weight.size) == (graph.n_edges, graph.n_patterns)
    np.testing.assert_allclose(built.weight, graph.weight, rtol=1e-12)
    own_x = one_process.propagate(built, one_process.score(own.n_sessions), spread)
    # Halves are rounded up there and to even here.
    np.testing.assert_allclose(own_x, spread_in_spark, atol=1.01e-6)
    picks = one_process.sample(built, own, spread_in_spark, budget, sampling, tie)
    assert picks.tolist() == ranked["sid"].tolist()
    assert built.objective(picks) == pytest.approx(selection.objective.value(), rel=1e-9)
