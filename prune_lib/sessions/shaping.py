"""One form for every input: a row a session, its items in the order of time."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    FractionalType,
    IntegralType,
    StringType,
)

from prune_lib.sessions.columns import InputTable, check_roles, column_of

__all__ = ["as_time", "click_order", "ordering_of", "session_values", "time_element", "to_sessions"]


def to_sessions(table: InputTable) -> DataFrame:
    """Bring an input into one form.

    Clicks of events are ordered by (time, order column, item): equal times go by the order column
    where there is one, then by the item, so that the result does not depend on partitions or on
    file order.

    Args:
        table: an input in either layout.

    Returns:
        session_id STRING or BIGINT, items ARRAY<STRING> or ARRAY<BIGINT> in time order, and
        `ordering` (TIMESTAMP, BIGINT or STRING: the time of the last click, else the order column's
        last value), absent where the input has neither. Cost: nothing for sessions, one shuffle of
        the clicks for events.

    Raises:
        InputError: events with neither time nor order.
    """
    check_roles(table)
    session = _as_id(table.df, table.session_column).alias("session_id")
    ordering = ordering_of(table)
    if table.layout == "sessions":
        columns = [session, _as_ids(table.df, table.item_column).alias("items")]
        if ordering is not None:
            columns.append(ordering.alias("ordering"))
        return table.df.select(*columns)
    assert ordering is not None  # checked above
    click = F.struct(*click_order(table))
    return (
        table.df.select(session, click.alias("click"))
        .groupBy("session_id")
        .agg(F.array_sort(F.collect_list("click")).alias("clicks"))
        .select(
            "session_id",
            F.col("clicks.item").alias("items"),
            F.get("clicks", F.size("clicks") - 1)["at"].alias("ordering"),
        )
    )


def click_order(table: InputTable) -> list[Column]:
    """What the clicks of a session of events are ordered by: `at`, `then` (where there is one), `item`."""
    at = ordering_of(table)
    assert at is not None  # `to_sessions` refuses such events
    keys = [at.alias("at")]
    if table.time_column is not None and table.order_column is not None:
        keys.append(_as_rank(table.df, table.order_column).alias("then"))
    return [*keys, _as_id(table.df, table.item_column).alias("item")]


def session_values(table: InputTable, column: str) -> DataFrame:
    """The values that a session has in a column of the input: one, or in events or lists several.

    Returns:
        session_id as `to_sessions` gives it, value STRING; each pair once, no nulls.
    """
    kind = table.df.schema[column].dataType
    value = column_of(column)
    rows = table.df.select(
        _as_id(table.df, table.session_column).alias("session_id"),
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
        finite = ~F.isnan(seconds) & (F.abs(seconds) < 9e12)
        return F.when(finite, seconds.cast("timestamp"))
    return column.cast("timestamp")


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


def _as_id(df: DataFrame, name: str) -> Column:
    kind = df.schema[name].dataType
    return column_of(name).cast("bigint") if isinstance(kind, IntegralType) else column_of(name)


def _as_ids(df: DataFrame, name: str) -> Column:
    kind = df.schema[name].dataType
    assert isinstance(kind, ArrayType)
    integers = isinstance(kind.elementType, IntegralType)
    return column_of(name).cast("array<bigint>") if integers else column_of(name)
