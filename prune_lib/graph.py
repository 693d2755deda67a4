"""The session-pattern graph: who shares what with whom, without ever pairing two sessions.

Sessions and *patterns* form a bipartite graph. Patterns come in two families:

* *target items*, the items at positions >= 2 of a session (what a next-item model learns to predict),
  edge message 1;
* *transitions*, ordered pairs of items at most `max_distance` clicks apart, the pair of an item with
  itself included, edge message sum of 1/distance.

Two sessions that share an item or a transition are neighbours in two hops. A transition that only one
session holds joins nobody and is dropped, so the edges number a small constant times the interactions.

Messages are integers in units of 1/`MESSAGE_UNIT`, pattern sums are BIGINT, and a pattern's weight is a
function of such sums: the graph is the same bit for bit whatever the number of partitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.errors import SettingsError
from prune_lib.ordering import with_dense_index
from prune_lib.sessions.encoding import Encoded
from prune_lib.settings import SamplingSettings
from prune_lib.settle import settle

__all__ = ["SessionGraph", "build_graph", "message_unit"]

# Recency is summed over sessions as BIGINT in units of 2^-32: 2^31 sessions fit below 2^63.
_RECENCY_UNIT = float(2**32)
# Raw weights are summed in units of 2^-20 to normalise a family: (10^9 sessions)^0.5 x 10^8 patterns fit.
_WEIGHT_UNIT = float(2**20)


@dataclass
class SessionGraph:
    """The graph as the sampler reads it.

    Attributes:
        adjacency: a row a session: sid BIGINT, n INT, tie BIGINT, patterns ARRAY<INT>,
            messages ARRAY<INT> (units of 1/unit); both arrays empty where a session has no pattern.
            Settled.
        patterns: a row a pattern: pattern INT (dense 0..V-1), item INT, next_item INT (-1 for a target
            item), sessions BIGINT, weight DOUBLE. Settled.
        weight: weights by pattern, shape (V,); the two families sum to 1 and `lambda_items`.
        first_item: by pattern, index of the target item or of a transition's first, shape (V,).
        second_item: of a transition's second, -1 for a target item, shape (V,).
        unit: the unit of the messages (6 for a largest distance of 3).
        n_edges: number of session-pattern edges.
        mass: sum of all messages: what bounds every sum of them.
    """

    adjacency: DataFrame
    patterns: DataFrame
    weight: npt.NDArray[np.float64]
    first_item: npt.NDArray[np.int32]
    second_item: npt.NDArray[np.int32]
    unit: int
    n_edges: int
    mass: int

    @property
    def n_patterns(self) -> int:
        """Number of patterns, V."""
        return int(self.weight.size)

    @property
    def is_transition(self) -> npt.NDArray[np.bool_]:
        """By pattern, shape (V,)."""
        return self.second_item >= 0

    @property
    def item(self) -> npt.NDArray[np.int32]:
        """By pattern, the item that it teaches to predict, shape (V,): the last of its items."""
        return np.where(self.is_transition, self.second_item, self.first_item)


def message_unit(max_distance: int) -> int:
    """The least unit in which every 1/distance is an integer.

    >>> message_unit(3)
    6
    """
    return lcm(*range(1, max_distance + 1))


def _raw_edges(sessions: DataFrame, n_items: int, max_distance: int, last_only: bool) -> DataFrame:
    """Edges before pruning: sid, age, code BIGINT, message INT; one row a session and pattern.

    With `last_only`, only patterns that end at the session's last item: what a sample of one target
    teaches. A target item v has code v, a transition (i, j) code n_items + i * n_items + j: a pattern's name
    without a dictionary. Rows of a session stay in its partition, so the sum needs no shuffle.
    """
    unit = message_unit(max_distance)
    width = F.lit(n_items).cast("bigint")

    length = F.size("items")
    first_target = F.greatest(length, F.lit(2)) if last_only else F.lit(2)

    def pairs(d: int) -> Column:
        start = F.greatest(first_target - d, F.lit(1))
        size = F.greatest(length - d - start + 1, F.lit(0))
        return F.zip_with(
            F.slice("items", start, size),
            F.slice("items", start + d, size),
            lambda i, j: F.struct((width + i * width + j).alias("code"), F.lit(unit // d).alias("message")),
        )

    targets = F.transform(
        F.array_distinct(F.slice("items", first_target, F.greatest(length - first_target + 1, F.lit(0)))),
        lambda i: F.struct(i.cast("bigint").alias("code"), F.lit(unit).alias("message")),
    )
    every = F.concat(targets, *[pairs(d) for d in range(1, max_distance + 1)])
    return (
        sessions.select("sid", "age", F.explode(every).alias("edge"))
        .groupBy("sid", "age", "edge.code")
        .agg(F.sum("edge.message").cast("int").alias("message"))
    )


def build_graph(encoded: Encoded, settings: SamplingSettings, *, last_only: bool = False) -> SessionGraph:
    """Build the session-pattern graph of an encoded input.

    The weight of a target item is r^item_exponent, of a transition
    (r (count - 1) / count)^transition_exponent (leave-one-out: what a single session has is worth nothing),
    where count is the number of sessions that hold the pattern and r = sum over them of
    exp(-age / half_life); r = count where the input has no order.
    Each family's weights are scaled to sum to 1 (target items: lambda_items).

    Cost: linear in interactions; two shuffles of the edges, one of the patterns; one array of the size of
    the patterns on the driver.

    Args:
        encoded: the input.
        settings: exponents, half-life, largest distance.
        last_only: the rows are samples of one target, their last item: only patterns that end there.

    Raises:
        SettingsError: more patterns than `max_patterns`, whose state could not be broadcast.
    """
    n_items = encoded.n_items
    sessions = encoded.sessions.select("sid", "age", "n", "tie", "items").repartition("sid")
    recency = (
        F.rint(F.exp(-F.col("age") / F.lit(settings.half_life)) * F.lit(_RECENCY_UNIT))
        if encoded.has_order
        else F.lit(_RECENCY_UNIT)
    )
    edges = settle(
        _raw_edges(sessions, n_items, settings.max_distance, last_only)
        .withColumn("recency", recency.cast("bigint"))
        .repartition("code")
    )
    is_item = F.col("code") < n_items
    r = F.col("recency") / F.lit(_RECENCY_UNIT)
    leave_one_out = (F.col("sessions") - 1) / F.col("sessions")
    counted = (
        edges.groupBy("code")
        .agg(F.count(F.lit(1)).alias("sessions"), F.sum("recency").alias("recency"))
        .filter(is_item | (F.col("sessions") > 1))
        .withColumn(
            "raw",
            F.when(is_item, F.pow(r, F.lit(settings.item_exponent))).otherwise(
                F.pow(r * leave_one_out, F.lit(settings.transition_exponent))
            ),
        )
        .withColumn("scaled", F.rint(F.col("raw") * _WEIGHT_UNIT).cast("bigint"))
        .withColumn("is_item", is_item)
    )
    patterns = with_dense_index(counted, ["code"], name="pattern")
    totals = {
        bool(row["is_item"]): row
        for row in patterns.groupBy("is_item")
        .agg(F.sum("scaled").alias("total"), F.count(F.lit(1)).alias("n"))
        .collect()
    }
    n_patterns = sum(int(row["n"]) for row in totals.values())
    if n_patterns > settings.max_patterns:
        raise SettingsError(
            f"the graph has {n_patterns:,} patterns, more than sampling.max_patterns = "
            f"{settings.max_patterns:,}, the largest number whose state is sent to every executor. Raise "
            "the setting if driver and executors have the memory (about 30 bytes a pattern), or lower "
            "sampling.max_distance."
        )
    # A family that weighs nothing (no transition occurs twice) must not divide by zero.
    share = {
        family: lam * _WEIGHT_UNIT / max(int(totals[family]["total"]), 1) if family in totals else 0.0
        for family, lam in ((True, settings.lambda_items), (False, 1.0))
    }
    code = F.col("code")
    pair = code - n_items
    patterns = settle(
        patterns.select(
            code,
            F.col("pattern").cast("int").alias("pattern"),
            F.when(F.col("is_item"), code).otherwise(F.floor(pair / n_items)).cast("int").alias("item"),
            F.when(F.col("is_item"), F.lit(-1)).otherwise(pair % n_items).cast("int").alias("next_item"),
            "sessions",
            (F.col("raw") * F.when(F.col("is_item"), share[True]).otherwise(share[False])).alias("weight"),
        )
    )
    table = patterns.select("pattern", "weight", "item", "next_item").toPandas()
    table = table.sort_values("pattern")
    weight = table["weight"].to_numpy(np.float64)

    gathered = (
        edges.join(patterns.select("code", "pattern"), "code")
        .groupBy("sid")
        .agg(F.array_sort(F.collect_list(F.struct("pattern", "message"))).alias("edge"))
    )
    none = F.array().cast("array<int>")
    adjacency = settle(
        sessions.select("sid", "n", "tie")
        .join(gathered, "sid", "left")
        .select(
            "sid",
            "n",
            "tie",
            F.coalesce(F.col("edge.pattern"), none).alias("patterns"),
            F.coalesce(F.col("edge.message"), none).alias("messages"),
        )
    )
    message_sum = F.aggregate("messages", F.lit(0).cast("bigint"), lambda a, m: a + m)
    size = adjacency.agg(F.sum(F.size("patterns")), F.sum(message_sum)).first()
    assert size is not None  # an aggregate without keys has one row
    return SessionGraph(
        adjacency,
        patterns,
        weight,
        table["item"].to_numpy(np.int32),
        table["next_item"].to_numpy(np.int32),
        message_unit(settings.max_distance),
        *(int(x or 0) for x in size),
    )
