"""What came in: sizes, lengths, popularity, time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prune_lib.popularity import gini

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["Profile", "profile_of"]


@dataclass(frozen=True)
class Profile:
    """A table of sessions in numbers.

    Attributes:
        sessions: how many.
        clicks: in them.
        items: distinct items.
        mean_length: clicks of a session, mean.
        median_length: the middle one.
        longest: clicks of the longest.
        one_click: share of sessions of one click.
        one_item: share of sessions that hold one item only, those of one click among them.
        repeated_sessions: sessions whose sequence of items an other one has, too, the first of them left out.
        repeated_clicks: share of steps from a click to the next that stay on the item.
        item_gini: of clicks over items: 0 all alike, 1 one item has all.
        top_item: clicks of the most frequent item.
        first: time of the first click.
        last: time of the last.
    """

    sessions: int
    clicks: int
    items: int
    mean_length: float
    median_length: float
    longest: int
    one_click: float
    one_item: float
    repeated_sessions: int
    repeated_clicks: float
    item_gini: float
    top_item: int
    first: datetime
    last: datetime

    SCHEMA: ClassVar[str] = (
        "sessions bigint, clicks bigint, items bigint, mean_length double, median_length double, "
        "longest bigint, one_click double, one_item double, repeated_sessions bigint, "
        "repeated_clicks double, item_gini double, top_item bigint, first timestamp, last timestamp"
    )

    def columns(self) -> dict[str, Any]:
        """As columns of a table."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """As a short table for people."""
        yield f"sessions     {self.sessions:,}, {self.clicks:,} clicks, {self.items:,} items"
        yield (
            f"lengths      median {self.median_length:g}, mean {self.mean_length:.2f}, longest "
            f"{self.longest:,}; {self.one_click:.1%} of one click, {self.one_item:.1%} of one item"
        )
        yield (
            f"repeats      {self.repeated_sessions:,} sessions as an earlier one, {self.repeated_clicks:.1%} "
            "of the steps stay on the item"
        )
        yield f"popularity   Gini {self.item_gini:.3f}, the most frequent item has {self.top_item:,} clicks"
        yield f"time         {_shown(self.first)} to {_shown(self.last)} UTC"


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")


def profile_of(clicks: DataFrame, sessions: DataFrame) -> Profile:
    """Measure sessions.

    Args:
        clicks: those that are in them: item, us.
        sessions: of `clicks.sessions_of`.

    Returns:
        The numbers. Cost: a count by item and by sequence; an array of the items' counts comes to the driver.
    """
    from pyspark.sql import functions as F

    counts = clicks.groupBy("item").count().select("count").toPandas()["count"].to_numpy(np.int64)
    n = F.size("items")
    stays = F.aggregate(
        F.zip_with(F.slice("items", 1, F.size("items") - 1), F.slice("items", 2, F.size("items")), _same),
        F.lit(0),
        lambda total, one: total + one,
    )
    sequence = F.xxhash64("items", F.to_json("items"))
    found = (
        sessions.select(
            n.alias("n"),
            F.size(F.array_distinct("items")).alias("distinct"),
            F.when(n > 1, stays).otherwise(0).alias("stays"),
            sequence.alias("sequence"),
            "times",
        )
        .agg(
            F.count(F.lit(1)).alias("sessions"),
            F.sum("n").alias("clicks"),
            F.avg("n").alias("mean"),
            F.percentile("n", 0.5).alias("median"),
            F.max("n").alias("longest"),
            F.sum((F.col("n") == 1).cast("int")).alias("one_click"),
            F.sum((F.col("distinct") == 1).cast("int")).alias("one_item"),
            F.count_distinct("sequence").alias("sequences"),
            F.sum("stays").alias("stays"),
            F.min(F.unix_micros(F.get("times", F.lit(0)))).alias("first"),
            F.max(F.unix_micros(F.element_at("times", -1))).alias("last"),
        )
        .first()
    )
    assert found is not None  # an aggregate without keys has one row
    many = int(found["sessions"])
    return Profile(
        sessions=many,
        clicks=int(found["clicks"]),
        items=len(counts),
        mean_length=float(found["mean"]),
        median_length=float(found["median"]),
        longest=int(found["longest"]),
        one_click=found["one_click"] / many,
        one_item=found["one_item"] / many,
        repeated_sessions=many - int(found["sequences"]),
        repeated_clicks=found["stays"] / max(1, found["clicks"] - many),
        item_gini=float(gini(counts)),
        top_item=int(counts.max()),
        first=_moment(found["first"]),
        last=_moment(found["last"]),
    )


def _same(one: Any, other: Any) -> Any:
    return (one == other).cast("int")


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1e6, timezone.utc)
