"""Floors by what the user names: a column of the input, the popularity band, or a time bucket.

    --floor-by category:5,band:200,week:50

Every value keeps so many sessions, or all that it has. A session has the values of all its rows or, in a
list, of all its elements; a sample those of its clicks.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, AtomicType, DataType, IntegralType, TimestampType

from prune_lib.errors import InputError, SettingsError
from prune_lib.ordering import with_dense_index
from prune_lib.samples import is_samples, sample_buckets, sample_values
from prune_lib.sampling.floors import Floors
from prune_lib.sessions.shaping import session_values
from prune_lib.settle import settle

if TYPE_CHECKING:
    from prune_lib.popularity import Bands
    from prune_lib.sessions.columns import InputTable
    from prune_lib.sessions.encoding import Encoded

__all__ = ["BUCKETS", "FloorBy", "check_columns", "check_fits", "floors_by", "parsed"]

BAND = "band"
#: Buckets of the time of a session's last click.
BUCKETS = ("hour", "day", "week", "month")

# Sessions that no value has.
_BEYOND = 2**62
# Values whose counts go through the driver, at most.
_MANY = 10_000_000


@dataclass(frozen=True)
class FloorBy:
    """Sessions that every value of a column keeps.

    Attributes:
        column: of the input; or `band`, or a bucket of time, where the input has no column of that name.
        sessions: how many.
    """

    column: str
    sessions: int

    def __str__(self) -> str:
        """As a flag."""
        return f"--floor-by {self.column}:{self.sessions}"


def parsed(text: str) -> FloorBy:
    """A floor as it is written.

    >>> parsed("category:5")
    FloorBy(column='category', sessions=5)
    """
    column, _, sessions = text.rpartition(":")
    return FloorBy(column, int(sessions))


def check_columns(table: InputTable, floors: list[FloorBy]) -> None:
    """Refuse columns that the input lacks, or whose values are no names.

    Raises:
        InputError: with the columns that there are.
    """
    for floor in floors:
        name = floor.column
        if name in table.df.columns:
            kind = table.df.schema[name].dataType
            if not _is_plain(kind):
                raise InputError(
                    f"{floor}: the column {name} is of type {kind.simpleString()}; a floor asks for texts, "
                    "numbers, dates or times, or lists of them."
                )
        elif name in BUCKETS:
            if table.time_column is None:
                raise InputError(f"{floor}: the input has no times. Name their column by --time-column.")
            kind = table.df.schema[table.time_column].dataType
            if isinstance(kind.elementType if isinstance(kind, ArrayType) else kind, IntegralType):
                raise InputError(
                    f"{floor}: the times of the input are numbers, and nothing says from when on they count."
                )
        elif name != BAND:
            near = difflib.get_close_matches(name, [*table.df.columns, BAND, *BUCKETS], n=1)
            raise InputError(
                f"{floor}: the input has no column {name}."
                + (f" Did you mean {near[0]}?" if near else "")
                + f" There are {', '.join(table.df.columns)}; beside them, {BAND} (the popularity of a "
                f"session's items) and {', '.join(BUCKETS)} (of its last click)."
            )


def _is_plain(kind: DataType) -> bool:
    return isinstance(kind.elementType if isinstance(kind, ArrayType) else kind, AtomicType)


def floors_by(
    table: InputTable, raw: DataFrame, encoded: Encoded, bands: Bands, floors: list[FloorBy]
) -> list[Floors]:
    """Groups of sessions by value, and what each wants.

    Args:
        table: the input, its columns checked.
        raw: session_id, and `ordering` where there are times.
        encoded: the encoded input.
        bands: of the items' popularity.
        floors: what is asked for.

    Cost: a shuffle of the sessions' values for each; the values' counts on the driver.

    Raises:
        InputError: times that are none, or more values than the driver takes.
    """
    found = [_floor_by(table, _values(table, raw, encoded, bands, floor), floor) for floor in floors]
    # A column of nulls alone has no values, and so no floors.
    return [floor for floor in found if floor.wanted.size]


def _values(table: InputTable, raw: DataFrame, encoded: Encoded, bands: Bands, floor: FloorBy) -> DataFrame:
    """Sid, value STRING, each pair once."""
    name = floor.column
    if name in table.df.columns:
        if is_samples(encoded):
            return sample_values(table, encoded, name)
        values = session_values(table, name)
    elif name == BAND:
        # Items are numbered by falling popularity in sessions, of which samples have a count of their own.
        sessions = encoded.items.select("sessions").toPandas()["sessions"].to_numpy(np.int64)
        popular = int((sessions >= bands.popular_min).sum())
        warm = int((~bands.cold(sessions)).sum())
        item = F.col("item")
        band = F.when(item < popular, "popular").when(item < warm, "mid").otherwise("cold")
        items = encoded.sessions.select("sid", F.explode("items").alias("item"))
        return items.select("sid", band.alias("value")).distinct()
    else:
        if not isinstance(raw.schema["ordering"].dataType, TimestampType):
            raise InputError(
                f"{floor}: the times of the input are numbers, and nothing says from when on they count."
            )
        if is_samples(encoded):
            return sample_buckets(table, encoded, name)
        bucket = F.date_trunc(name, "ordering").cast("string")
        values = raw.select("session_id", bucket.alias("value"))
    return values.join(encoded.sessions.select("session_id", "sid"), "session_id").select("sid", "value")


def _floor_by(table: InputTable, values: DataFrame, floor: FloorBy) -> Floors:
    values = settle(values)
    counted = with_dense_index(
        values.groupBy("value").agg(F.count(F.lit(1)).alias("sessions")), ["value"], name="group"
    ).withColumn("group", F.col("group").cast("int"))
    n = counted.count()
    if n > _MANY:
        raise InputError(f"{floor}: {floor.column} has {n:,} values; {_MANY:,} at most can have floors.")
    sessions = counted.select("group", "sessions").toPandas().sort_values("group")["sessions"]
    rows = values.join(counted.select("value", "group"), "value").groupBy("sid")
    groups = settle(rows.agg(F.array_sort(F.collect_list("group")).alias("groups")))
    return Floors(
        groups,
        # No value has as many as a BIGINT can tell, whatever is asked for.
        np.minimum(sessions.to_numpy(np.int64), min(floor.sessions, _BEYOND)),
        (str(floor),),
        of_sequences=floor.column == BAND and BAND not in table.df.columns,
    )


def check_fits(floors: Floors, encoded: Encoded, budget: int, cost: str, counted: str) -> None:
    """Refuse floors of which the cheapest sessions alone are dearer than the budget.

    A session serves as many groups as it is in, so that what the groups' cheapest sessions cost, divided by
    the largest number of groups of a session, is the least that any selection costs.

    Args:
        floors: of one column, as `floors_by` gives them.
        encoded: the encoded input.
        budget: in interactions ('n') or sessions ('one').
        cost: 'n' or 'one'.
        counted: interactions, sessions or samples: what the budget counts, for the message.

    Raises:
        SettingsError: with the arithmetic.

    Cost: a shuffle of the sessions by group.
    """
    price = F.col("n") if cost == "n" else F.lit(1)
    members = floors.rows.join(encoded.sessions.select("sid", "n"), "sid").select(
        F.explode("groups").alias("group"), price.cast("bigint").alias("price")
    )
    place = F.row_number().over(Window.partitionBy("group").orderBy("price"))
    # A number that Spark knows: it keeps that many of a group where they are, and moves only those.
    cheap = members.withColumn("place", place).filter(F.col("place") <= int(floors.wanted.max()))
    cheapest = int((cheap.agg(F.sum("price")).first() or [0])[0] or 0)
    most = int((floors.rows.agg(F.max(F.size("groups"))).first() or [1])[0] or 1)
    least = -(-cheapest // most)
    if least <= budget:
        return
    one = "sample" if counted == "samples" else "session"
    shared = f" A {one} serves up to {most} of them, so at least {least:,} are needed." if most > 1 else ""
    raise SettingsError(
        f"{', '.join(floors.names)} does not fit the budget of {budget:,} {counted}: its "
        f"{floors.wanted.size:,} values ask for {int(floors.wanted.sum()):,} {one}s, and the shortest have "
        f"{cheapest:,} {counted}.{shared} Raise --ratio, or lower the floor."
    )
