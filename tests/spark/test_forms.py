"""The forms that were tried, each against its rule written out on a small graph."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

from pyspark.sql import functions as F  # noqa: E402

from prune_lib.difficulty import score_sessions  # noqa: E402
from prune_lib.errors import SettingsError  # noqa: E402
from prune_lib.evaluation.foresight import neighbours  # noqa: E402
from prune_lib.evaluation.forms import FORMS, Materials, _of_clicks, formed  # noqa: E402
from prune_lib.evaluation.variants import ABLATIONS  # noqa: E402
from prune_lib.graph import build_graph  # noqa: E402
from prune_lib.settings import SamplingSettings  # noqa: E402
from tests.spark.experts import MAX_LENGTH, random_bundle  # noqa: E402
from tests.spark.sessions import encoded, random_sessions  # noqa: E402


@pytest.fixture(scope="module")
def made(spark):
    """Materials, the graph, scores, and the sessions."""
    base, sessions = encoded(spark, random_sessions(3, n=120, items=40))
    sampling = SamplingSettings(demand="recency", kappa=0.5)  # what the rules below are written out for
    graph = build_graph(base, sampling)
    x = base.sessions.selectExpr("sid", "pmod(sid * 37, 101) / 101D AS x").localCheckpoint()
    short = base.sessions.filter("n <= 3").select("sid")
    materials = Materials(base, random_bundle(base), sampling, lambda own: own, lambda *_: short, {})
    return materials, graph, x, sessions


def edges_of(graph) -> dict[int, dict[tuple[int, int], int]]:
    """By session, messages by the items of their patterns."""
    rows = graph.adjacency.toPandas()
    return {
        sid: {
            (int(graph.first_item[p]), int(graph.second_item[p])): int(m)
            for p, m in zip(patterns, messages, strict=True)
        }
        for sid, patterns, messages in zip(rows["sid"], rows["patterns"], rows["messages"], strict=True)
    }


@pytest.fixture(scope="module")
def clicks(made):
    """By session: (pattern, message in sixths, q) of every click after the first."""
    materials, _, _, sessions = made
    scored = score_sessions(materials.encoded, materials.bundle, by_sample=True)
    losses = scored.scores.select("sid", "length", "difficulty").toPandas()
    losses["q"] = losses["difficulty"].rank() / len(losses) - 0.5 / len(losses)
    q = losses.set_index(["sid", "length"])["q"]
    found = defaultdict(list)
    for sid, items in enumerate(sessions):
        for t in range(1, len(items)):
            messages = defaultdict(int, {(items[t], -1): 6})
            for distance in range(1, min(3, t) + 1):
                messages[items[t - distance], items[t]] += 6 // distance
            found[sid] += [(name, message, q[sid, t + 1]) for name, message in messages.items()]
    return found


def by_name(graph, weight) -> dict[tuple[int, int], float]:
    return {
        (int(i), int(j)): float(w)
        for i, j, w in zip(graph.first_item, graph.second_item, weight, strict=True)
    }


def test_weights_by_the_difficulty_of_the_clicks(made, clicks):
    materials, graph, x, _ = made
    out, same = formed("click-weights", materials, graph, x)
    assert same is x
    sums = defaultdict(lambda: np.zeros(2))
    for rows in clicks.values():
        for name, message, q in rows:
            sums[name] += (message * q, message)
    expected = {
        name: w * np.exp(-sums[name][0] / sums[name][1]) for name, w in by_name(graph, graph.weight).items()
    }
    for family in (True, False):
        names = [name for name in expected if (name[1] < 0) == family]
        of_graph, of_form = by_name(graph, graph.weight), by_name(out, out.weight)
        scale = sum(of_graph[n] for n in names) / sum(expected[n] for n in names)
        assert {n: of_form[n] for n in names} == pytest.approx(
            {n: expected[n] * scale for n in names}, rel=1e-6
        )


def test_weights_do_not_depend_on_the_partitions(made):
    materials, graph, x, _ = made
    edges = _of_clicks(materials, graph)
    seen = set()
    for n in (1, 5, 11):
        own = replace(materials, found={"clicks": edges.repartition(n)})
        seen.add(formed("click-weights", own, graph, x)[0].weight.tobytes())
    assert len(seen) == 1


def test_what_a_form_lacks_is_the_settings_mistake(spark, made):
    """Ablations leave such a form out and go on."""
    materials, graph, x, _ = made
    without = replace(materials, sampling=SamplingSettings(kappa=0))
    for name in ("held-lengths", "held-repeats"):
        with pytest.raises(SettingsError, match="--sampling-kappa 0"):
            formed(name, without, graph, x)
    other, _ = encoded(spark, [[1, 2], [2, 1]])
    with pytest.raises(SettingsError, match="trained on the same items"):
        formed("credit", replace(materials, bundle=random_bundle(other)), graph, x)


def test_messages_by_the_difficulty_of_the_clicks(made, clicks):
    materials, graph, x, _ = made
    out, _ = formed("click-messages", materials, graph, x)
    assert out.unit == 100 * graph.unit
    known = set(by_name(graph, graph.weight))
    for sid, found in edges_of(out).items():
        expected: dict[tuple[int, int], int] = defaultdict(int)
        for name, message, q in clicks.get(sid, []):
            scaled = round(message * np.exp(-q) * 100)
            if name in known:
                expected[name] = max(expected[name], scaled) if name[1] < 0 else expected[name] + scaled
        assert found == expected
    assert out.n_edges == graph.n_edges and out.mass == sum(sum(e.values()) for e in edges_of(out).values())


@pytest.mark.parametrize("name", ["forecast-items", "forecast-transitions", "borrowed-weights"])
def test_forms_of_weights_change_one_family_and_keep_its_sum(made, name):
    materials, graph, x, _ = made
    out, same = formed(name, materials, graph, x)
    assert same is x and out.adjacency is graph.adjacency
    changed = graph.is_transition if name == "forecast-transitions" else ~graph.is_transition
    np.testing.assert_array_equal(out.weight[~changed], graph.weight[~changed])
    assert out.weight[changed].sum() == pytest.approx(graph.weight[changed].sum())
    assert (out.weight > 0).all() and np.abs(out.weight / graph.weight - 1)[changed].max() > 0.01


def test_what_is_borrowed_is_a_share_of_the_neighbours_recency(made):
    materials, graph, x, _ = made
    out, _ = formed("borrowed-weights", materials, graph, x)
    items = ~graph.is_transition
    recency = np.zeros(materials.encoded.n_items)
    recency[graph.first_item[items]] = graph.weight[items] ** 4
    near = neighbours(materials.mixtures, 10)
    mixed = (0.7 * recency + 0.3 * recency[near].mean(axis=1))[graph.first_item[items]] ** 0.25
    np.testing.assert_allclose(out.weight[items] / out.weight[items].sum(), mixed / mixed.sum())


def test_credit_goes_to_the_neighbours_of_what_is_there(made):
    materials, graph, x, _ = made
    out, _ = formed("credit", materials, graph, x)
    near = neighbours(materials.mixtures, 3)
    known = set(by_name(graph, graph.weight))
    before, after = edges_of(graph), edges_of(out)
    for sid, own in before.items():
        expected = defaultdict(int, own)
        for item in (i for i, j in own if j < 0):
            for other in near[item]:
                if (int(other), -1) in known:
                    expected[int(other), -1] += 2
        assert after[sid] == expected
    assert out.n_edges == sum(map(len, after.values())) > graph.n_edges


def test_influence_is_a_rank_and_its_opposite(made):
    materials, graph, x, _ = made
    toward, against = (
        formed(name, materials, graph, x)[1].toPandas().set_index("sid")["x"].sort_index()
        for name in ("influence", "against-influence")
    )
    np.testing.assert_allclose(toward + against, 1.0)
    assert len(toward) == 120 and toward.between(0, 1).all() and toward.nunique() > 60


def test_a_gate_for_the_decision_ranks_all_sessions_by_what_their_scores_say(made):
    """Ranks of all 120; sessions of one click, which have no score, are in the middle by every expert."""
    materials, graph, x, sessions = made
    out, spread = formed("decision-gate", materials, graph, x)
    assert out is graph
    found = spread.toPandas().set_index("sid")["x"].sort_index()
    assert len(found) == 120 and found.between(0, 1).all() and found.nunique() > 60
    one = [sid for sid, items in enumerate(sessions) if len(items) == 1]
    assert found[one].nunique() <= 1, "no expert says anything of them"


def test_what_is_kept_too_rarely_becomes_easier(made):
    """Only sessions of three clicks and less were kept: longer ones come earlier in the order."""
    materials, graph, x, sessions = made
    _, out = formed("held-lengths", materials, graph, x)
    change = out.withColumnRenamed("x", "new").join(x, "sid").toPandas().set_index("sid")
    change = change["new"] - change["x"]
    lengths = pd.Series([len(s) for s in sessions])
    clicks = lengths.groupby(lengths).sum()
    kept = clicks[clicks.index <= 3]
    for sid, length in lengths.items():
        share = kept.get(length, 1.0) / kept.sum()
        lift = 0.5 * np.log(clicks[length] / clicks.sum() / share)
        assert change[sid] == pytest.approx(-lift / 0.5, abs=1e-9)
    assert change[lengths > 3].max() < change[lengths <= 3].min()


def test_immediate_repeats_are_a_trait(spark, made):
    base, _ = encoded(spark, [[1, 1, 2], [1, 2, 1], [3], [4, 4, 4]])
    from prune_lib.evaluation.forms import _repeats

    found = {r["sid"]: r["t"] for r in base.sessions.select("sid", _repeats().alias("t")).collect()}
    assert found == {0: 5, 1: 0, 2: 0, 3: 10}
    materials, graph, x, _ = made
    _, out = formed("held-repeats", materials, graph, x)
    assert out.count() == 120 and out.filter(F.col("x").isNull()).count() == 0


def test_every_form_is_an_ablation():
    assert {v.form for v in ABLATIONS.values() if v.form} == set(FORMS)
    assert MAX_LENGTH > 3  # the experts of these tests read whole transitions
