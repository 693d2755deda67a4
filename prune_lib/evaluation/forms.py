"""Other forms in which difficulty, propagation and the mixture may enter the choice.

None is a part of pruning: they are ablations (`--ablations forms`), so that what was tried can be measured
again, on other data, too. What came of it is in docs/findings.md. A form changes the graph, or the scores
that go with its sessions, between propagation and sampling; floors, suspects and budgets stay as they are.

    click-weights         a pattern's weight times exp(-kappa mean difficulty of the clicks that end it)
    click-messages        each click's messages times exp(-kappa its difficulty)
    forecast-items        items weigh by how often the mixture expects them, not by how often they came
    forecast-transitions  the same of transitions
    borrowed-weights      an item's recency is in part that of its neighbours, by the GNN's vectors
    credit                keeping an item counts in part for its neighbours
    influence             sessions first whose gradient agrees with that of the newest tenth
    against-influence     the other way round: it goes with loss
    decision-gate         sessions first that help the newest tenth by the experts' scores and a gate for it
    held-lengths          keys corrected so that lengths come nearer to those of all sessions
    held-repeats          the same of the share of immediate repeats
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.batches import lists_of
from prune_lib.difficulty import percentile_rank, score_digits, score_sessions
from prune_lib.errors import SettingsError
from prune_lib.evaluation.decision_gate import gated_by_decision
from prune_lib.evaluation.foresight import Clicks, forecast, influence, neighbours
from prune_lib.experts.settings import EXPERTS
from prune_lib.graph import SessionGraph, build_graph
from prune_lib.samples import sample_id, samples_of, windows
from prune_lib.sampling.keys import received_by_pattern
from prune_lib.settle import settle

if TYPE_CHECKING:
    from prune_lib.experts.bundle import Bundle
    from prune_lib.experts.mixture import Mixture
    from prune_lib.sessions.encoding import Encoded
    from prune_lib.settings import SamplingSettings

__all__ = ["FORMS", "Materials", "formed"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# How strongly a click's difficulty counts, where it does so by click.
_KAPPA = 1.0
# What an item's weight or evidence owes to its neighbours, and how many they are.
_BORROWED, _CREDIT, _LENDERS, _CREDITORS = 0.3, 1 / 3, 10, 3
# The newest sessions, whom influence is to help.
_NEWEST = 0.1
# Corrections of the key are the square root of what would make up for the difference.
_CORRECTION = 0.5
_LONG = 10
# Units of a click's messages beside those of the graph, which are too coarse to be scaled.
_FINER = 100
# Ranks enter sums as integers of this unit: a sum of them does not depend on the order of addition.
_MILLIONTHS = 10**6


@dataclass
class Materials:
    """What forms are made of, of one seed.

    Attributes:
        encoded: the training sessions.
        bundle: their experts, of the same items.
        sampling: the variant's settings.
        spread: own difficulty (sid, x) to propagated.
        choose: sid of the sessions that a graph and scores would keep.
        found: what a form computed and another may use: `sampling` must differ in nothing but kappa.
    """

    encoded: Encoded
    bundle: Bundle
    sampling: SamplingSettings
    spread: Callable[[DataFrame], DataFrame]
    choose: Callable[[SessionGraph, DataFrame], DataFrame]
    found: dict[str, Any]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The sessions, by sid."""
        columns = self.encoded.sessions.select("sid", "items", "fold", "age")
        table: pd.DataFrame = columns.toPandas().sort_values("sid", ignore_index=True)
        return table

    @cached_property
    def clicks(self) -> Clicks:
        """The same in arrays."""
        items = self.rows["items"]
        return Clicks(
            np.concatenate(items.to_list()).astype(np.int32),
            items.str.len().to_numpy(np.int64),
            self.rows["fold"].to_numpy(np.int32),
        )

    @cached_property
    def mixtures(self) -> dict[int, Mixture]:
        """By the fold of the sessions that each reads: the other one's."""
        if self.bundle.n_items != self.encoded.n_items:
            raise SettingsError("it needs experts that were trained on the same items as the sessions have")
        return {fold: self.bundle.mixture(1 - fold) for fold in (0, 1)}

    @property
    def recency(self) -> Floats:
        """exp(-age / half-life) by session; 1 where the input has no order."""
        age = self.rows["age"].to_numpy(np.float64)
        result: Floats = np.where(np.isnan(age), 1.0, np.exp(-age / self.sampling.half_life))
        return result


Form = Callable[[Materials, SessionGraph, DataFrame], tuple[SessionGraph, DataFrame]]


def formed(
    name: str, materials: Materials, graph: SessionGraph, x: DataFrame
) -> tuple[SessionGraph, DataFrame]:
    """The graph and the scores that a form gives the sampler.

    Args:
        name: one of FORMS.
        materials: what it may use.
        graph: the graph.
        x: sid, x: propagated difficulty.

    Raises:
        SettingsError: the settings or the experts leave the form nothing to work with.
    """
    return FORMS[name](materials, graph, x)


def _of_clicks(materials: Materials, graph: SessionGraph) -> DataFrame:
    """Edges by click after the first: whole (the session's sid), pattern of the graph, message, q."""
    if "clicks" in materials.found:
        known: DataFrame = materials.found["clicks"]
        return known
    encoded = materials.encoded
    points = samples_of(encoded, materials.sampling.max_distance)
    # What two sessions hold, two clicks do: no pattern of the graph is missing.
    ends = build_graph(windows(points), materials.sampling, last_only=True)
    scored = score_sessions(encoded, materials.bundle, by_sample=True)
    found = scored.scores.withColumn("sid", sample_id(F.col("sid"), F.col("length")))
    ranks = settle(percentile_rank(found, "difficulty", digits=score_digits("nll")).select("sid", "q"))
    scored.unpersist()
    place = _places(ends, graph, encoded.n_items)
    shared = encoded.sessions.sparkSession.sparkContext.broadcast(place)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            pattern, lengths = lists_of(batch.column("patterns"))
            message, _ = lists_of(batch.column("messages"))
            own = shared.value[pattern]
            row = np.repeat(np.arange(lengths.size), lengths)
            there = own >= 0
            yield pa.RecordBatch.from_arrays(
                [
                    batch.column("whole").take(pa.array(row[there])),
                    pa.array(own[there]),
                    pa.array(message[there]),
                    batch.column("q").take(pa.array(row[there])),
                ],
                names=["whole", "pattern", "message", "q"],
            )

    rows = (
        ends.adjacency.select("sid", "patterns", "messages")
        .join(points.sessions.select("sid", "whole"), "sid")
        .join(ranks, "sid", "left")
        .withColumn("q", F.coalesce("q", F.lit(0.5)))
    )
    edges = settle(rows.mapInArrow(run, "whole bigint, pattern bigint, message int, q double"))
    materials.found["clicks"] = edges
    return edges


def _places(there: SessionGraph, here: SessionGraph, n_items: int) -> Ints:
    """By pattern of one graph, the number that it has in another of the same items, -1 where it has none."""

    def names(graph: SessionGraph) -> Ints:
        second = graph.second_item.astype(np.int64)
        result: Ints = graph.first_item.astype(np.int64) + np.where(second < 0, 0, (second + 1) * n_items)
        return result

    wanted, known = names(there), names(here)
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known, wanted, sorter=order), known.size - 1)
    return np.where(known[order[at]] == wanted, order[at], -1)


def _rescaled(graph: SessionGraph, weight: Floats) -> SessionGraph:
    """A graph with other weights, of which either family sums to what it did."""
    scaled = weight.copy()
    for family in (graph.is_transition, ~graph.is_transition):
        total = weight[family].sum()
        if total > 0:
            scaled[family] *= graph.weight[family].sum() / total
    return replace(graph, weight=scaled)


def _click_weights(materials: Materials, graph: SessionGraph, x: DataFrame) -> tuple[SessionGraph, DataFrame]:
    weighed = F.rint(F.col("q") * _MILLIONTHS).cast("bigint") * F.col("message")
    mean = (
        _of_clicks(materials, graph)
        .groupBy("pattern")
        .agg((F.sum(weighed) / F.sum("message") / _MILLIONTHS).alias("q"))
        .toPandas()
    )
    q = np.full(graph.n_patterns, 0.5)
    q[mean["pattern"].to_numpy()] = mean["q"].to_numpy()
    return _rescaled(graph, graph.weight * np.exp(-_KAPPA * q)), x


def _click_messages(
    materials: Materials, graph: SessionGraph, x: DataFrame
) -> tuple[SessionGraph, DataFrame]:
    scaled = F.rint(F.col("message") * F.exp(-_KAPPA * F.col("q")) * _FINER).cast("int")
    # A target item counts once a session, a transition at every place; items are numbered first.
    of_item = F.first("pattern") < int((~graph.is_transition).sum())
    edges = (
        _of_clicks(materials, graph)
        .groupBy(F.col("whole").alias("sid"), F.col("pattern").cast("int").alias("pattern"))
        .agg(F.when(of_item, F.max(scaled)).otherwise(F.sum(scaled)).cast("int").alias("message"))
    )
    return _with_edges(graph, edges, graph.unit * _FINER), x


def _with_edges(graph: SessionGraph, edges: DataFrame, unit: int) -> SessionGraph:
    """A graph with other edges: sid, pattern INT, message INT in units of 1/unit."""
    lists = edges.groupBy("sid").agg(F.sort_array(F.collect_list(F.struct("pattern", "message"))).alias("e"))
    none = F.array().cast("array<int>")
    adjacency = settle(
        graph.adjacency.select("sid", "n", "tie")
        .join(lists, "sid", "left")
        .select(
            "sid",
            "n",
            "tie",
            F.coalesce("e.pattern", none).alias("patterns"),
            F.coalesce("e.message", none).alias("messages"),
        )
    )
    pattern, received = received_by_pattern(adjacency)
    evidence = np.zeros(graph.n_patterns, dtype=np.int64)
    evidence[pattern] = received
    count = adjacency.agg(F.sum(F.size("patterns"))).first()
    return replace(
        graph,
        adjacency=adjacency,
        unit=unit,
        evidence=evidence,
        n_edges=int((count or [0])[0] or 0),
        mass=int(evidence.sum()),
    )


def _forecast(materials: Materials, graph: SessionGraph) -> tuple[Floats, Floats]:
    """By pattern of either family, in the graph's order, what the mixture expects of it."""
    pairs = graph.is_transition
    if "forecast" not in materials.found:
        materials.found["forecast"] = forecast(
            materials.clicks,
            materials.mixtures,
            materials.recency,
            graph.first_item[pairs],
            graph.second_item[pairs],
            max_distance=materials.sampling.max_distance,
            max_length=materials.bundle.max_length,
        )
    by_item, by_pair = materials.found["forecast"]
    return by_item[graph.first_item[~pairs]], by_pair


def _exponent(sampling: SamplingSettings, graph: SessionGraph) -> float:
    """To what power of its demand an item weighs."""
    return sampling.forecast_exponent if graph.demand == "forecast" else sampling.item_exponent


def _forecast_items(
    materials: Materials, graph: SessionGraph, x: DataFrame
) -> tuple[SessionGraph, DataFrame]:
    weight = graph.weight.copy()
    weight[~graph.is_transition] = _forecast(materials, graph)[0] ** _exponent(materials.sampling, graph)
    return _rescaled(graph, weight), x


def _forecast_transitions(
    materials: Materials, graph: SessionGraph, x: DataFrame
) -> tuple[SessionGraph, DataFrame]:
    weight = graph.weight.copy()
    weight[graph.is_transition] = _forecast(materials, graph)[1] ** materials.sampling.transition_exponent
    return _rescaled(graph, weight), x


def _borrowed_weights(
    materials: Materials, graph: SessionGraph, x: DataFrame
) -> tuple[SessionGraph, DataFrame]:
    own, exponent = ~graph.is_transition, _exponent(materials.sampling, graph)
    if exponent == 0:  # all items weigh the same: there is nothing to borrow
        return graph, x
    demand = np.zeros(materials.encoded.n_items)
    demand[graph.first_item[own]] = graph.weight[own] ** (1 / exponent)
    lent = demand[neighbours(materials.mixtures, _LENDERS)].mean(axis=1)
    weight = graph.weight.copy()
    mixed = (1 - _BORROWED) * demand + _BORROWED * lent
    weight[own] = mixed[graph.first_item[own]] ** exponent
    return _rescaled(graph, weight), x


def _credit(materials: Materials, graph: SessionGraph, x: DataFrame) -> tuple[SessionGraph, DataFrame]:
    own = ~graph.is_transition
    pattern_of = np.full(materials.encoded.n_items, -1, dtype=np.int64)
    pattern_of[graph.first_item[own]] = np.flatnonzero(own)
    near = pattern_of[neighbours(materials.mixtures, _CREDITORS)][graph.first_item[own]]
    shared = graph.adjacency.sparkSession.sparkContext.broadcast(near)
    credit = max(1, round(graph.unit * _CREDIT))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        creditors = shared.value  # by target item, which are numbered first
        for batch in batches:
            pattern, lengths = lists_of(batch.column("patterns"))
            message, _ = lists_of(batch.column("messages"))
            sid = np.repeat(batch.column("sid").to_numpy(), lengths)
            of_item = pattern < len(creditors)
            also = creditors[pattern[of_item]]
            there = also >= 0
            whose = np.repeat(sid[of_item], also.shape[1]).reshape(also.shape)
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(np.r_[sid, whose[there]]),
                    pa.array(np.r_[pattern, also[there]].astype(np.int32)),
                    pa.array(np.r_[message, np.full(int(there.sum()), credit)].astype(np.int32)),
                ],
                names=["sid", "pattern", "message"],
            )

    spread = graph.adjacency.select("sid", "patterns", "messages").mapInArrow(
        run, "sid bigint, pattern int, message int"
    )
    edges = spread.groupBy("sid", "pattern").agg(F.sum("message").cast("int").alias("message"))
    return _with_edges(graph, edges, graph.unit), x


def _found_influence(materials: Materials) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """By session: its influence on the newest, NaN where it has no target; and whether it is one of them."""
    age = materials.rows["age"].to_numpy(np.float64)
    newest = np.nan_to_num(age, nan=0.0) <= _NEWEST
    if "influence" not in materials.found:
        materials.found["influence"] = influence(
            materials.clicks, materials.mixtures, newest, max_length=materials.bundle.max_length
        )
    return materials.found["influence"], newest


def _ranked(value: Floats) -> Floats:
    """Percentile ranks in (0, 1), 0.5 where there is no value."""
    order = pd.Series(value).rank(method="average")
    result: Floats = ((order - 0.5) / order.count()).fillna(0.5).to_numpy()
    return result


def _own(materials: Materials, x: DataFrame, q: Floats) -> DataFrame:
    """Difficulty by session, spread: sid, x."""
    frame = pd.DataFrame({"sid": materials.rows["sid"], "x": q})
    return materials.spread(settle(x.sparkSession.createDataFrame(frame, "sid bigint, x double")))


def _influence(sign: float) -> Form:
    def form(materials: Materials, graph: SessionGraph, x: DataFrame) -> tuple[SessionGraph, DataFrame]:
        return graph, _own(materials, x, _ranked(sign * _found_influence(materials)[0]))

    return form


def _decision_gate(materials: Materials, graph: SessionGraph, x: DataFrame) -> tuple[SessionGraph, DataFrame]:
    scored = score_sessions(materials.encoded, materials.bundle)
    found = scored.scores.select("sid", *[f"difficulty_{e}" for e in EXPERTS]).toPandas()
    scored.unpersist()
    losses = found.set_index("sid").reindex(materials.rows["sid"]).to_numpy(np.float64)
    value, newest = _found_influence(materials)
    # The newest have a part in what is to be reached: nothing is learned from how they help it.
    helps = np.where(newest | np.isnan(value), np.nan, _ranked(value) - 0.5)
    clicks, rows = materials.clicks, materials.rows
    popularity = np.log(np.maximum(materials.encoded.item_sessions, 1))[clicks.items]
    mean = np.add.reduceat(popularity, clicks.starts) / clicks.lengths
    age = np.nan_to_num(rows["age"].to_numpy(np.float64), nan=0.5)
    inputs = np.stack([mean, np.log(clicks.lengths), age], axis=1)
    spread = inputs.std(axis=0)
    inputs = (inputs - inputs.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    ranks = np.stack([_ranked(loss) for loss in losses.T], axis=1) - 0.5
    expected, _ = gated_by_decision(ranks, inputs, helps, clicks.fold)
    return graph, _own(materials, x, _ranked(-expected))


def _held(trait: Callable[[], Column]) -> Form:
    """Keys corrected by how much less of the kept clicks than of all have a trait of their session."""

    def form(materials: Materials, graph: SessionGraph, x: DataFrame) -> tuple[SessionGraph, DataFrame]:
        if materials.sampling.kappa == 0:  # the correction goes in by way of the difficulty
            raise SettingsError("it corrects keys by the difficulty, which --sampling-kappa 0 leaves out")
        traits = settle(materials.encoded.sessions.select("sid", "n", trait().alias("trait")))
        kept = traits.join(materials.choose(graph, x).select("sid"), "sid", "left_semi")
        whole, part = (
            frame.groupBy("trait").agg(F.sum("n").alias("n")).toPandas().set_index("trait")["n"]
            for frame in (traits, kept)
        )
        # A trait of which nothing was kept counts as one click of it.
        there = part.reindex(whole.index).fillna(1.0)
        lift = _CORRECTION * np.log((whole / whole.sum()) / (there / part.sum()))
        pairs = [
            F.lit(v) for key, value in lift.items() for v in (key, -float(value) / materials.sampling.kappa)
        ]
        change = F.create_map(*pairs)[F.col("trait")]
        return graph, settle(x.join(traits, "sid").select("sid", (F.col("x") + change).alias("x")))

    return form


def _length() -> Column:
    return F.least(F.size("items"), F.lit(_LONG))


def _repeats() -> Column:
    """Immediate repeats as a share of the clicks after the first, in tenths."""
    after, before = F.slice("items", 2, F.size("items")), F.slice("items", 1, F.size("items") - 1)
    again = F.size(F.filter(F.arrays_zip(after.alias("a"), before.alias("b")), lambda p: p["a"] == p["b"]))
    share = F.rint(10 * again / F.greatest(F.size("items") - 1, F.lit(1)))
    return F.when(F.size("items") > 1, share).otherwise(F.lit(0.0)).cast("int")


FORMS: dict[str, Form] = {
    "click-weights": _click_weights,
    "click-messages": _click_messages,
    "forecast-items": _forecast_items,
    "forecast-transitions": _forecast_transitions,
    "borrowed-weights": _borrowed_weights,
    "credit": _credit,
    "influence": _influence(-1.0),
    "against-influence": _influence(1.0),
    "decision-gate": _decision_gate,
    "held-lengths": _held(_length),
    "held-repeats": _held(_repeats),
}
