"""What the field does to sessions before it trains: short ones and rare items out, the last days for a test.

The steps and their order are those of SR-GNN's `preprocess.py` (Wu et al., AAAI 2019) and of session-rec's
`preprocess_*.py` (Ludewig and Jannach, 2018), which agree but for two things: SR-GNN goes by the day or
second that the log gives a session's last click before anything is left out, and drops sessions that end
exactly where the test begins; session-rec goes by the last click that is left, and has those in the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.errors import InputError
from prune_lib.settle import settle

__all__ = ["Protocol", "prepared"]

_DAY = 86_400_000_000
#: Columns that a session has once.
_SINGLE = ("session_id", "owner")
#: A session of the test has a click to predict, and one before.
_TESTED = 2


@dataclass(frozen=True)
class Protocol:
    """Steps, each off by default.

    Attributes:
        collapse_repeats: a click on the item of the click before is left out.
        min_length: clicks of a session, at least; asked for before and after the support.
        min_support: clicks of an item, at least, counted once.
        test_days: sessions that end in so many last days are the test.
        as_srgnn: whether the parts are told as SR-GNN does, not as session-rec.
        by_day: whether a session's end is a day: the log gives no more.
    """

    collapse_repeats: bool = False
    min_length: int = 1
    min_support: int = 1
    test_days: float | None = None
    as_srgnn: bool = False
    by_day: bool = False

    @property
    def idle(self) -> bool:
        """Whether nothing is asked for."""
        return self == Protocol(as_srgnn=self.as_srgnn, by_day=self.by_day)


@dataclass(frozen=True)
class Prepared:
    """Sessions as a protocol has them.

    Attributes:
        train: those that are to be learnt from; columns of the sessions that went in.
        test: those of the last days; None where none were asked for.
        dropped: clicks by rule.
        edge: microseconds at which the test begins.
    """

    train: DataFrame
    test: DataFrame | None
    dropped: Mapping[str, int]
    edge: int | None = None


def prepared(sessions: DataFrame, protocol: Protocol) -> Prepared:
    """Take the steps.

    Args:
        sessions: of `clicks.sessions_of`.
        protocol: what is asked for.

    Returns:
        The parts. Cost: a count by item and two shuffles of the clicks for a support, the same for a test.

    Raises:
        InputError: nothing is left to learn from.
    """
    if protocol.idle:
        return Prepared(sessions, None, {})
    dropped: Counter[str] = Counter()
    arrays = [name for name in sessions.columns if name not in _SINGLE]
    left = sessions.select(*_SINGLE, F.arrays_zip(*arrays).alias("clicks"))
    left = left.withColumn("ended", _ended(protocol))
    if protocol.collapse_repeats:
        left = left.withColumn("before", F.size("clicks")).withColumn("clicks", _without_repeats())
        left = settle(left)
        dropped["repeated_click"] = _sum(left, F.col("before") - F.size("clicks"))
        left = left.drop("before")
    left = _long_enough(left, protocol.min_length, dropped)
    if protocol.min_support > 1:
        counts = left.select(F.explode("clicks.items").alias("item")).groupBy("item").count()
        often = counts.where(F.col("count") >= protocol.min_support).select("item")
        left = settle(_with_items(left, often, "rare_item", dropped))
        _difference(left, "rare_item", dropped)
        left = _long_enough(left.drop("before"), protocol.min_length, dropped)
    if protocol.test_days is None:
        if left.isEmpty():
            raise _nothing_left(protocol, dropped)
        return Prepared(_whole(left, arrays), None, dict(dropped))
    if not protocol.as_srgnn:
        left = left.withColumn("ended", _ended(protocol))
    ends = left.agg(F.min("ended"), F.max("ended")).first()
    if ends is None or ends[1] is None:
        raise _nothing_left(protocol, dropped)
    edge = int(ends[1]) - round(protocol.test_days * _DAY)
    if ends[0] >= edge:
        raise _all_tested(protocol.test_days, (ends[1] - ends[0]) / _DAY)
    train = left.where(F.col("ended") < edge)
    late = left.where(F.col("ended") > edge if protocol.as_srgnn else F.col("ended") >= edge)
    if protocol.as_srgnn:
        dropped["between_parts"] = _sum(left.where(F.col("ended") == edge), F.size("clicks"))
    seen = train.select(F.explode("clicks.items").alias("item")).distinct()
    test = settle(_with_items(late, seen, "unseen_item", dropped))
    _difference(test, "unseen_item", dropped)
    test = _long_enough(test.drop("before"), max(_TESTED, protocol.min_length), dropped)
    some = {rule: count for rule, count in dropped.items() if count}
    return Prepared(_whole(train, arrays), _whole(test, arrays), some, edge)


def _nothing_left(protocol: Protocol, dropped: Mapping[str, int]) -> InputError:
    steps = {
        "--collapse-repeats": (protocol.collapse_repeats, "repeated_click"),
        f"--min-length {protocol.min_length}": (protocol.min_length > 1, "short_session"),
        f"--min-support {protocol.min_support}": (protocol.min_support > 1, "rare_item"),
    }
    took = [f"{step} ({dropped.get(rule, 0):,} clicks)" for step, (there, rule) in steps.items() if there]
    return InputError(
        f"No session is left to learn from: these steps leave out all clicks: {', '.join(took)}. Give "
        "smaller values, or a larger log. No table was touched."
    )


def _all_tested(test_days: float, span: float) -> InputError:
    return InputError(
        f"No session is left to learn from: the sessions end within {span:.2f} days, and those of the last "
        f"{test_days:g} days (--test-days {test_days:g}) are the test. Give a smaller --test-days, or a "
        "longer log. No table was touched."
    )


def _ended(protocol: Protocol) -> Column:
    last = F.unix_micros(F.element_at("clicks", -1)["times"])
    if protocol.as_srgnn and protocol.by_day:
        return (F.floor(last / _DAY) * _DAY).cast("bigint")
    return last


def _without_repeats() -> Column:
    clicks = F.col("clicks")
    return F.filter(
        clicks, lambda x, i: (i == 0) | (x["items"] != F.get(clicks, F.greatest(i - 1, F.lit(0)))["items"])
    )


def _long_enough(sessions: DataFrame, least: int, dropped: Counter[str]) -> DataFrame:
    if least <= 1:
        return sessions
    dropped["short_session"] += _sum(sessions.where(F.size("clicks") < least), F.size("clicks"))
    return sessions.where(F.size("clicks") >= least)


def _with_items(sessions: DataFrame, items: DataFrame, rule: str, dropped: Counter[str]) -> DataFrame:
    """Sessions with their clicks on some items; `dropped` gets all clicks, less what `_difference` takes."""
    dropped[rule] += _sum(sessions, F.size("clicks"))
    flat = sessions.select("session_id", "owner", "ended", F.posexplode("clicks").alias("pos", "click"))
    found = flat.withColumn("item", F.col("click.items")).join(items, "item", "left_semi")
    again = F.sort_array(F.collect_list(F.struct("pos", "click")))
    grouped = found.groupBy("session_id", "owner", "ended").agg(again.alias("c"))
    return grouped.select("session_id", "owner", F.col("c.click").alias("clicks"), "ended")


def _difference(sessions: DataFrame, rule: str, dropped: Counter[str]) -> None:
    dropped[rule] -= _sum(sessions, F.size("clicks"))


def _sum(sessions: DataFrame, what: Column) -> int:
    row = sessions.agg(F.sum(what)).first()
    return int(row[0] or 0) if row is not None else 0


def _whole(sessions: DataFrame, arrays: list[str]) -> DataFrame:
    return sessions.select(*_SINGLE, *[F.col(f"clicks.{name}").alias(name) for name in arrays])
