"""One form for every input: a row a session, its items in the order of time."""

from __future__ import annotations

from functools import reduce
from operator import and_

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    FractionalType,
    IntegralType,
    StringType,
)

from prune_lib.sessions.columns import InputTable, check_roles, column_of, quoted

__all__ = [
    "as_id",
    "as_time",
    "click_order",
    "ordering_of",
    "session_values",
    "time_element",
    "to_sessions",
    "unit_hint",
]

# The seconds in which the years 1 and 10,000 begin: what Python has no date for is no time of a click.
_FIRST_SECOND, _END = -62_135_596_800, 253_402_300_800


def to_sessions(table: InputTable, *, tied: bool = False) -> DataFrame:
    """Bring an input into one form.

    Clicks of events are ordered by (time, order column, item): equal times go by the order column
    where there is one, then by the item, so that the result does not depend on partitions or on
    file order.

    Args:
        table: an input in either layout.
        tied: also how many clicks of a session of events only their item sets apart from the one before.

    Returns:
        session_id STRING or BIGINT, items ARRAY<STRING> or ARRAY<BIGINT> in time order, and
        `ordering` (TIMESTAMP, BIGINT or STRING: the time of the last click, else the order column's
        last value), absent where the input has neither; of events, where it is asked for, tied INT.
        Cost: nothing for sessions, one shuffle of the clicks for events.

    Raises:
        InputError: events whose clicks nothing puts in an order.
    """
    check_roles(table)
    session = as_id(table.df, table.session_column).alias("session_id")
    ordering = ordering_of(table)
    if table.layout == "sessions":
        columns = [session, _as_ids(table.df, table.item_column).alias("items")]
        if ordering is not None:
            columns.append(ordering.alias("ordering"))
        return table.df.select(*columns)
    assert ordering is not None  # checked above
    click = F.struct(*click_order(table))
    keys = ["at", "then"] if table.time_column is not None and table.order_column is not None else ["at"]
    return (
        table.df.select(session, click.alias("click"))
        .groupBy("session_id")
        .agg(F.array_sort(F.collect_list("click")).alias("clicks"))
        .select(
            "session_id",
            F.col("clicks.item").alias("items"),
            F.get("clicks", F.size("clicks") - 1)["at"].alias("ordering"),
            *([_tied(keys).alias("tied")] if tied else []),
        )
    )


def _tied(keys: list[str]) -> Column:
    """Of sorted clicks, how many have what the one before has, and another item."""

    def only_by_item(click: Column, place: Column) -> Column:
        before = F.get("clicks", place - 1)
        alike = [click[key].eqNullSafe(before[key]) for key in keys]
        return reduce(and_, alike, (place > 0) & (click["item"] != before["item"]))

    return F.size(F.filter("clicks", only_by_item))


def click_order(table: InputTable) -> list[Column]:
    """What the clicks of a session of events are ordered by: `at`, `then` (where there is one), `item`."""
    at = ordering_of(table)
    assert at is not None  # `to_sessions` refuses such events
    keys = [at.alias("at")]
    if table.time_column is not None and table.order_column is not None:
        keys.append(_as_rank(table.df, table.order_column).alias("then"))
    return [*keys, as_id(table.df, table.item_column).alias("item")]


def session_values(table: InputTable, column: str) -> DataFrame:
    """The values that a session has in a column of the input: one, or in events or lists several.

    Returns:
        session_id as `to_sessions` gives it, value STRING; each pair once, no nulls.
    """
    kind = table.df.schema[column].dataType
    value = column_of(column)
    rows = table.df.select(
        as_id(table.df, table.session_column).alias("session_id"),
        (F.explode(value) if isinstance(kind, ArrayType) else value).alias("value"),
    )
    return rows.select("session_id", F.col("value").cast("string").alias("value")).dropna().distinct()


def ordering_of(table: InputTable) -> Column | None:
    """What ranks rows from old to new: clicks of events, or sessions."""
    if table.time_column is not None:
        kind = table.df.schema[table.time_column].dataType
        column = column_of(table.time_column)
        if isinstance(kind, ArrayType):
            return as_time(F.get(column, F.size(column) - 1), kind.elementType)
        return as_time(column, kind)
    if table.order_column is not None:
        return _as_rank(table.df, table.order_column)
    return None


def as_time(column: Column, kind: DataType) -> Column:
    """A time as TIMESTAMP, integers as BIGINT; null where a text or number is no time."""
    if isinstance(kind, IntegralType):
        return column.cast("bigint")
    if isinstance(kind, StringType):
        # A text without a date would be read as a time of today.
        dated = column.rlike(r"^\s*\d{4}-\d{1,2}-\d{1,2}")
        return F.when(dated, F.try_to_timestamp(column))
    if isinstance(kind, FractionalType):  # decimals, too: seconds since the epoch
        seconds = column.cast("double")
        # To Spark not a number is more than any.
        dated = (seconds >= _FIRST_SECOND) & (seconds < _END)
        return F.when(dated, seconds.cast("timestamp"))
    return column.cast("timestamp")


def unit_hint(table: InputTable) -> str:
    """What to see to where times are fractional numbers, which count seconds; empty where they are none."""
    name = table.time_column
    if name is None:
        return ""
    kind = table.df.schema[name].dataType
    if not isinstance(kind.elementType if isinstance(kind, ArrayType) else kind, FractionalType):
        return ""
    return (
        f"see that {quoted(name)} counts seconds since 1970 and none is beyond the year 9999 (from "
        "milliseconds, divide by 1000)"
    )


def time_element(table: InputTable) -> DataType:
    """Type of the elements of the array of times."""
    assert table.time_column is not None
    kind = table.df.schema[table.time_column].dataType
    assert isinstance(kind, ArrayType)
    return kind.elementType


def _as_rank(df: DataFrame, name: str) -> Column:
    kind = df.schema[name].dataType
    if isinstance(kind, StringType):
        return column_of(name)
    return column_of(name).cast("bigint" if isinstance(kind, IntegralType) else "timestamp")


def as_id(df: DataFrame, name: str) -> Column:
    """A column of ids as `to_sessions` gives them."""
    kind = df.schema[name].dataType
    return column_of(name).cast("bigint") if isinstance(kind, IntegralType) else column_of(name)


def _as_ids(df: DataFrame, name: str) -> Column:
    kind = df.schema[name].dataType
    assert isinstance(kind, ArrayType)
    integers = isinstance(kind.elementType, IntegralType)
    return column_of(name).cast("array<bigint>") if integers else column_of(name)
