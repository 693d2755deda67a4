"""What came in: sizes, lengths, popularity, time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from prune_lib.popularity import gini

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["Profile", "profile_of"]


#: Shares of the items, the most frequent first.
_HEADS = (0.01, 0.05, 0.1, 0.2, 0.5)
#: Sessions whose gaps are measured, about.
_MEASURED = 20_000
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


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
        head: share of the clicks that the most frequent items have, by their share of the items: a hundredth,
            a twentieth, a tenth, a fifth, a half.
        median_gap: seconds from a click to the next of its session, the middle one; of about twenty
            thousand sessions, where there are more; None without times, and where no session has two clicks.
        long_gap: a twentieth of those gaps is longer.
        first: time of the first click; None without times.
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
    head: list[float]
    median_gap: float | None
    long_gap: float | None
    first: datetime | None
    last: datetime | None

    SCHEMA: ClassVar[str] = (
        "sessions bigint, clicks bigint, items bigint, mean_length double, median_length double, "
        "longest bigint, one_click double, one_item double, repeated_sessions bigint, "
        "repeated_clicks double, item_gini double, top_item bigint, head array<double>, median_gap double, "
        "long_gap double, first timestamp, last timestamp"
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
        if self.items >= 1 / _HEADS[0]:
            yield (
                f"  head       a hundredth of the items has {self.head[0]:.0%} of the clicks, a tenth "
                f"{self.head[2]:.0%}, half {self.head[4]:.0%}"
            )
        if self.first is not None and self.last is not None:
            yield f"time         {_shown(self.first)} to {_shown(self.last)} UTC"
        if self.median_gap is not None:
            yield (
                f"gaps         from a click to the next {self.median_gap:.3g} s in the middle, a twentieth "
                f"longer than {self.long_gap:.3g} s"
            )


def _shown(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")


def profile_of(sessions: DataFrame) -> Profile:
    """Measure sessions.

    Args:
        sessions: items ARRAY<STRING>; times ARRAY<TIMESTAMP>, if there are any.

    Returns:
        The numbers. Cost: a count by item and one by sequence; an array of the items' counts comes
        to the driver.
    """
    from pyspark.sql import functions as F

    counts = _item_counts(sessions)
    n = F.size("items")
    items = F.col("items")
    stays = F.aggregate(
        F.zip_with(F.slice(items, 1, n - 1), F.slice(items, 2, n), lambda x, y: (x == y).cast("int")),
        F.lit(0),
        lambda total, one: total + one,
    )
    timed = "times" in sessions.columns
    nothing = F.lit(None).cast("bigint")
    each = sessions.select(
        F.xxhash64("items").alias("sequence"),
        n.alias("n"),
        F.when(n > 1, stays).otherwise(0).alias("stays"),
        (F.unix_micros(F.get("times", F.lit(0))) if timed else nothing).alias("first"),
        (F.unix_micros(F.element_at("times", -1)) if timed else nothing).alias("last"),
    )
    # Sessions of one sequence are alike in all but their times. One key that is a number takes half the time
    # of several; sessions and clicks are exact even where two sequences should have one hash.
    alike = each.groupBy("sequence").agg(
        F.count(F.lit(1)).alias("many"),
        F.sum("n").alias("clicks"),
        *[F.max(name).alias(name) for name in ("n", "stays", "last")],
        F.min("first").alias("first"),
    )
    many_of = F.col("many")
    by_length = alike.groupBy("n").agg(
        F.sum("many").alias("sessions"),
        F.sum("clicks").alias("clicks"),
        F.count(F.lit(1)).alias("sequences"),
        F.sum(F.when(F.col("stays") == F.col("n") - 1, many_of).otherwise(0)).alias("one_item"),
        F.sum(F.col("stays") * many_of).alias("stays"),
        F.min("first").alias("first"),
        F.max("last").alias("last"),
    )
    found = by_length.toPandas().sort_values("n")
    lengths, of_length = found["n"].to_numpy(np.int64), found["sessions"].to_numpy(np.int64)
    many, clicks = int(of_length.sum()), int(found["clicks"].sum())
    gaps = _gaps(sessions, many) if timed else (None, None)
    return Profile(
        sessions=many,
        clicks=clicks,
        items=len(counts),
        mean_length=clicks / max(1, many),
        median_length=_median(lengths, of_length),
        longest=int(lengths.max(initial=0)),
        one_click=int(of_length[lengths == 1].sum()) / max(1, many),
        one_item=int(found["one_item"].sum()) / max(1, many),
        repeated_sessions=many - int(found["sequences"].sum()),
        repeated_clicks=int(found["stays"].sum()) / max(1, clicks - many),
        item_gini=float(gini(counts)) if len(counts) else 0.0,
        top_item=int(counts.max(initial=0)),
        head=_head(counts),
        median_gap=gaps[0],
        long_gap=gaps[1],
        first=_moment(found["first"].min() if timed and many else None),
        last=_moment(found["last"].max() if timed and many else None),
    )


def _item_counts(sessions: DataFrame) -> npt.NDArray[np.int64]:
    from pyspark.sql import functions as F

    # By the hash of an item, not by its name, which nobody asks for: a third less time.
    counts = sessions.select(F.explode("items").alias("item")).groupBy(F.xxhash64("item")).count()
    return counts.select("count").toPandas()["count"].to_numpy(np.int64)


def _median(values: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> float:
    """The middle of sorted values, each so often; of two in the middle their mean."""
    total = int(weights.sum())
    if not total:
        return 0.0
    ends = np.cumsum(weights)
    middle = values[np.searchsorted(ends, [(total - 1) // 2, total // 2], side="right")]
    return float(middle.mean())


def _head(counts: npt.NDArray[np.int64]) -> list[float]:
    """Shares of the clicks of the most frequent items, at the shares of `_HEADS`."""
    if not len(counts):
        return [0.0] * len(_HEADS)
    shares = np.cumsum(np.sort(counts)[::-1]) / counts.sum()
    return [float(shares[max(0, round(share * len(counts)) - 1)]) for share in _HEADS]


def _gaps(sessions: DataFrame, many: int) -> tuple[float | None, float | None]:
    from pyspark.sql import functions as F

    some = sessions.where(F.size("times") > 1)
    if many > _MEASURED:
        share = F.pmod(F.xxhash64("session_id"), F.lit(many // _MEASURED)) == 0
        some = some.where(share)
    micros = F.transform("times", F.unix_micros)
    n = F.size(micros)
    between = F.zip_with(F.slice(micros, 2, n), F.slice(micros, 1, n - 1), lambda x, y: x - y)
    row = some.select(F.explode(between).alias("gap")).agg(F.percentile("gap", [0.5, 0.95])).first()
    if row is None or row[0] is None:
        return None, None
    return row[0][0] / 1e6, row[0][1] / 1e6


def _moment(micros: int | None) -> datetime | None:
    if micros is None:
        return None
    # In whole numbers: as a fraction the last microsecond of a year is the next one.
    return _EPOCH + timedelta(microseconds=int(micros))
