"""docs/method.md works six sessions out by hand: every number in its tables is what the code computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from prune_lib.decisions import decide
from prune_lib.graph import build_graph
from prune_lib.propagation import propagate
from prune_lib.sampling.select import first_twin, select_sessions
from prune_lib.settings import PropagationSettings, SamplingSettings, SuspectsSettings
from prune_lib.suspects import find_suspects, session_shapes
from tests.spark.sessions import encoded

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "method.md"
SESSIONS = ["abc", "ab", "de", "abc", "bc", "de"]
BUDGET = 7


def tables() -> list[list[list[str]]]:
    """The document's tables: rows of cells, without the heading."""
    found: list[list[list[str]]] = [[]]
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [table[2:] for table in found if table]


@pytest.fixture(scope="module")
def worked(spark: SparkSession) -> dict[str, object]:
    """The six sessions through the code, with everything that the document shows."""
    made, _ = encoded(spark, [[ord(c) - ord("a") for c in s] for s in SESSIONS])
    letters = {int(r["idx"]): "abcde"[int(r["item"])] for r in made.items.collect()}
    graph = build_graph(made, SamplingSettings())
    x = made.sessions.selectExpr("sid", "(sid + 0.5D) / 6 AS x")
    spread = PropagationSettings()
    propagated = propagate(graph, x, spread.alpha, spread.rounds)
    twins = first_twin(made.sessions)
    selection = select_sessions(
        graph,
        propagated,
        twins,
        budget=BUDGET,
        cost="n",
        floors=None,
        cold=np.zeros(made.n_items, bool),
        settings=SamplingSettings(),
    )
    scores = x.withColumnRenamed("x", "q")
    suspects = find_suspects(graph, session_shapes(made), scores, SuspectsSettings()).rows
    decided = decide(made, graph, selection, twins, scores, propagated, suspects, method=False).sessions
    return {
        "letters": letters,
        "graph": graph,
        "age": made.sessions.select("sid", "age").toPandas().set_index("sid")["age"],
        "x": x.toPandas().set_index("sid")["x"],
        "spread": propagated.toPandas().set_index("sid")["x"],
        "decided": decided.toPandas().set_index("sid").sort_index(),
    }


def test_the_sessions(worked) -> None:
    expected = [
        [
            str(s + 1),
            " ".join(SESSIONS[s]),
            f"{worked['age'][s]:.1f}",
            f"{worked['x'][s]:.3f}",
            f"{worked['spread'][s]:.3f}",
        ]
        for s in range(len(SESSIONS))
    ]
    assert tables()[0] == expected


def test_the_patterns(worked) -> None:
    graph, letters = worked["graph"], worked["letters"]
    holders: dict[int, list[int]] = {}
    for row in graph.adjacency.collect():
        for pattern in row["patterns"]:
            holders.setdefault(pattern, []).append(row["sid"])
    expected = []
    for p in range(graph.n_patterns):
        first, second = int(graph.first_item[p]), int(graph.second_item[p])
        name = letters[first] if second < 0 else f"{letters[first]}→{letters[second]}"
        held = sorted(holders[p])
        r = np.exp(-worked["age"][held] / SamplingSettings().half_life).sum()
        expected.append([name, ", ".join(str(s + 1) for s in held), f"{r:.3f}", f"{graph.weight[p]:.3f}"])
    assert sorted(tables()[1]) == sorted(expected)


def test_the_steps_and_the_verdicts(worked) -> None:
    graph, decided = worked["graph"], worked["decided"]
    kappa = SamplingSettings().kappa
    rows = {r["sid"]: (np.array(r["patterns"]), np.array(r["messages"])) for r in graph.adjacency.collect()}
    evidence = np.zeros(graph.n_patterns)
    shown, expected = [1, 3, 4, 5], []
    order = decided[decided["kept"]].sort_values("rank").index.tolist()
    left = set(shown)
    for step, pick in enumerate(order, 1):
        gain = {
            s: float(
                (
                    graph.weight[rows[s][0]]
                    * np.exp(-evidence[rows[s][0]])
                    * -np.expm1(-rows[s][1] / graph.unit)
                ).sum()
            )
            for s in left
        }
        key = {s: np.exp(-kappa * worked["spread"][s]) * gain[s] / len(SESSIONS[s]) for s in left}
        assert max(key, key=lambda s: key[s]) == pick
        assert gain[pick] == pytest.approx(decided.loc[pick, "gain"], abs=1e-9)
        for name, values in (("gain", gain), ("key", key)):
            cells = [f"{values[s]:.3f}" if s in left else "–" for s in shown]
            expected.append([f"{step}, {name}", *cells, str(pick + 1) if name == "key" else ""])
        evidence[rows[pick][0]] += rows[pick][1] / graph.unit
        left.remove(pick)
    assert tables()[2] == expected
    assert decided["reason"][[0, 2]].tolist() == ["DUPLICATE"] * 2
    assert decided["reason"][1] == "COVERED"
    covers = pd.Series(order)[int(decided["cover_rank"][1]) - 1]
    assert covers == 3 and f"{decided['gain'][1]:.3f}" == "0.099"
