"""Sessions that look like bots or noise: they are set aside, and kept only where a floor needs them.

    BOT    far longer than the other sessions, or with clicks on far fewer items
    NOISE  among the hardest quarter, and none of its transitions counts: no other session holds one (or too
           few do, where `min_support` asks for more)

To an objective that counts patterns a crawler of hundreds of items is excellent cover, and one crawler's
transitions are taught by the next. *Far* is Tukey's: beyond the third quartile by a multiple of the
interquartile range, here of logarithms, as lengths are skewed (Tukey, Exploratory Data Analysis, 1977, has 3
ranges for what is "far out"). Up to a quarter of the sessions may be bots before the quartiles move.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.graph import SessionGraph
from prune_lib.sessions.encoding import Encoded
from prune_lib.settings.groups import SuspectsSettings
from prune_lib.settle import settle

__all__ = ["BOT", "NOISE", "Limits", "Suspects", "far_out", "find_suspects", "session_shapes"]

BOT, NOISE = "BOT", "NOISE"

# Where sessions are so short that their quartiles are one click apart, fifty clicks are still a person's.
_LEAST_CLICKS = 50
# Half of the sessions within a factor of less than this say nothing about the others.
_LEAST_SPREAD = 2.0
_FAR = 3
# Bots beyond this share of the sessions may be people with another habit.
_MANY = 0.01

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a session may have before it looks like a bot's.

    Attributes:
        clicks: its length.
        repeats: its clicks after the first, by distinct item of these.
    """

    clicks: float
    repeats: float


@dataclass(frozen=True)
class Suspects:
    """Sessions, or samples, under suspicion.

    Attributes:
        rows: sid BIGINT, suspect STRING (BOT or NOISE), last BOOLEAN (whether it is set aside); no row for
            what is beyond suspicion. Settled.
        limits: those of this input.
        bots: number of sessions that look like a bot's.
        bot_clicks: their interactions.
    """

    rows: DataFrame
    limits: Limits
    bots: int
    bot_clicks: int

    def crowd(self, n_sessions: int, n_interactions: int) -> str | None:
        """A warning where so many sessions are set aside as bots that they may be people."""
        limits = self.limits
        if self.bots <= _MANY * n_sessions:
            return None
        shares = 100 * self.bots / n_sessions, 100 * self.bot_clicks / n_interactions
        return (
            f"{self.bots:,} sessions ({shares[0]:.1f} %, {shares[1]:.1f} % of the clicks) are kept last, "
            f"as bots: they have over {limits.clicks:,.0f} clicks, or {limits.repeats:.1f} clicks an item. "
            "Where they are people, give limits of your own (--suspects-max-clicks, --suspects-max-repeats), "
            "or have them chosen as any other (--suspects-bots alike)."
        )


def far_out(values: npt.NDArray[np.float64], count: npt.NDArray[np.int64]) -> float:
    """Tukey's outer fence of the logarithms, as a value: Q3 (Q3 / Q1)^3, the spread at least twofold.

    Lengths are small integers, and a quartile that jumps from 5 to 6 would double the fence: quartiles are
    those of the mid-distribution function, interpolated between the logarithms.

    Args:
        values: positive values, in any order, shape (k,).
        count: how often each occurs, beside where else it stands in the array, shape (k,).

    >>> round(far_out(np.array([2.0, 4.0, 300.0]), np.array([50, 49, 1])), 1)
    45.2
    """
    values, place = np.unique(values, return_inverse=True)
    total = np.bincount(place, weights=count)
    middle = (np.cumsum(total) - total / 2) / total.sum()
    q1, q3 = np.interp((0.25, 0.75), middle, np.log(values))
    return float(np.exp(q3 + _FAR * max(q3 - q1, np.log(_LEAST_SPREAD))))


def session_shapes(encoded: Encoded) -> DataFrame:
    """What bots are known by: sid BIGINT, clicks INT, targets INT (distinct items after the first click)."""
    after = F.array_distinct(F.slice("items", F.lit(2), F.greatest(F.size("items") - 1, F.lit(0))))
    return encoded.sessions.select("sid", F.size("items").alias("clicks"), F.size(after).alias("targets"))


def find_suspects(
    graph: SessionGraph,
    shapes: DataFrame,
    q: DataFrame,
    settings: SuspectsSettings,
    samples: DataFrame | None = None,
) -> Suspects:
    """Sessions, or samples of sessions, that look like bots or noise.

    Args:
        graph: the session-pattern graph; of samples, theirs.
        shapes: of `session_shapes`.
        q: sid BIGINT, q DOUBLE: own difficulty rank in (0, 1); without it no session is NOISE.
        settings: limits, and what is set aside.
        samples: sid BIGINT, whole BIGINT (the session's sid), where samples are judged: as bots by their
            session, as noise by themselves.

    Cost: two passes over the sessions and a join by sid; lengths' counts on the driver.
    """
    n_targets = int((~graph.is_transition).sum())
    rows = graph.adjacency.select(
        "sid",
        # Target items are numbered first.
        (F.coalesce(F.array_max("patterns"), F.lit(-1)) >= n_targets).alias("joined"),
    )
    limits = _limits(shapes, settings)
    bot = (F.col("clicks") > limits.clicks) | (_repeats() > limits.repeats)
    counted = shapes.filter(bot).agg(F.count(F.lit(1)), F.sum("clicks")).first()
    assert counted is not None  # an aggregate without keys has one row
    bots = shapes.select("sid", bot.alias("bot"))
    if samples is not None:
        bots = samples.select("sid", "whole").join(bots.withColumnRenamed("sid", "whole"), "whole")
    kind = (
        F.when(F.col("bot"), F.lit(BOT))
        .when((F.col("q") >= settings.hardest) & ~F.col("joined"), F.lit(NOISE))
        .otherwise(F.lit(None).cast("string"))
    )
    aside = [name for name, how in ((BOT, settings.bots), (NOISE, settings.noise)) if how == "last"]
    found = settle(
        rows.join(bots, "sid")
        .join(q.select("sid", "q"), "sid", "left")
        .select("sid", kind.alias("suspect"))
        .filter(F.col("suspect").isNotNull())
        .withColumn("last", F.col("suspect").isin(aside))
    )
    _LOG.info(
        "suspects: %d sessions as bots (over %.0f clicks, or %.1f clicks an item), %d %s as noise",
        counted[0],
        limits.clicks,
        limits.repeats,
        found.filter(F.col("suspect") == NOISE).count(),
        "sessions" if samples is None else "samples",
    )
    return Suspects(found, limits, int(counted[0]), int(counted[1] or 0))


def _repeats() -> Column:
    return (F.col("clicks") - 1) / F.greatest("targets", F.lit(1))


def _limits(shapes: DataFrame, settings: SuspectsSettings) -> Limits:
    """Limits from the settings; those that are not given from the sessions of two clicks and more."""
    if settings.max_clicks is not None and settings.max_repeats is not None:
        return Limits(settings.max_clicks, settings.max_repeats)
    counted = shapes.filter("clicks >= 2").groupBy("clicks", "targets").count().toPandas()
    n, count = counted["clicks"].to_numpy(np.float64), counted["count"].to_numpy(np.int64)
    clicks, repeats = float(_LEAST_CLICKS), _LEAST_SPREAD**_FAR
    if n.size:
        clicks = max(clicks, far_out(n, count))
        repeats = far_out((n - 1) / counted["targets"].to_numpy(np.float64), count)
    return Limits(
        settings.max_clicks if settings.max_clicks is not None else clicks,
        settings.max_repeats if settings.max_repeats is not None else repeats,
    )
