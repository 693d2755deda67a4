"""A window of the input: only sessions whose last click is not older than a moment (`--since`)."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, IntegralType

from prune_lib.errors import InputError
from prune_lib.moments import moment, span
from prune_lib.sessions.columns import InputTable, column_of
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.sessions.shaping import ordering_of, unit_hint

__all__ = ["check_since", "since", "window_line"]

# The first moment that Python can say in every time zone.
_FIRST = datetime(1, 1, 2, tzinfo=timezone.utc)


def window_line(text: str) -> str:
    """What a dry run says of `--since`."""
    return f"since {text}: sessions with a click at that time or later"


def check_since(table: InputTable) -> None:
    """See that an input has times by which a window can be told.

    Raises:
        InputError: it has none, or whole numbers, whose unit nobody knows.
    """
    if table.time_column is None:
        raise InputError(
            f"--since asks for the newest sessions, and {table.location} has no column of times. Name it by "
            "--time-column, or leave --since out."
        )
    kind = table.df.schema[table.time_column].dataType
    if isinstance(kind, ArrayType):
        kind = kind.elementType
    if isinstance(kind, IntegralType):
        raise InputError(
            f"--since asks for a moment, and the times of {table.location} are whole numbers "
            f"({table.time_column}), whose unit nobody knows. Cast them to TIMESTAMP: "
            f"timestamp_seconds({table.time_column}) or timestamp_millis({table.time_column})."
        )


def since(table: InputTable, text: str) -> tuple[InputTable, datetime]:
    """The rows of the sessions whose last click is at a moment or later.

    Args:
        table: the input.
        text: a moment, or a span before the input's newest click (`90d`), which depends on the data alone.

    Returns:
        The input with whole sessions only, and the moment. Rows whose session has no readable time stay, for
        the checks to tell of. Cost: of events a shuffle of session and time, and one of the clicks; of a span
        a pass over the times.

    Raises:
        InputError: it has no times (`check_since`), or no session is as young.
    """
    check_since(table)
    at = ordering_of(table)
    assert at is not None  # checked
    rows = table.df
    with reading_errors(table.location):
        newest = _newest(table)
        begins = moment(text)
        if begins is None:
            before = span(text)
            assert before is not None  # the settings' rules saw to it
            if before > newest - _FIRST:
                raise InputError(
                    f"--since {text} goes back to before the year 1: the newest click of {table.location} is "
                    f"of {_shown(newest)}. Give a shorter span, or leave --since out."
                )
            begins = newest - before
        if newest < begins:
            raise InputError(
                f"--since {text}: the newest click of {table.location} is of {_shown(newest)}, "
                "so that no session would be left. Give an earlier moment."
            )
    young = F.coalesce(F.col("__last") >= F.lit(begins), F.lit(True))
    if table.layout == "sessions":
        left = rows.withColumn("__last", at).where(young).drop("__last")
        return replace(table, df=left), begins
    key = column_of(table.session_column)
    recent = rows.groupBy(key.alias("__session")).agg(F.max(at).alias("__last")).where(young)
    left = rows.join(recent, key.eqNullSafe(F.col("__session")), "left_semi")
    return replace(table, df=left), begins


def _newest(table: InputTable) -> datetime:
    at = ordering_of(table)
    assert at is not None
    row = table.df.agg(F.max(at.cast("timestamp")).alias("at")).select(F.unix_micros("at")).first()
    if row is None or row[0] is None:
        hint = unit_hint(table)
        raise InputError(
            f"No row of {table.location} has a time that can be read in {table.time_column}: --since cannot "
            "tell which sessions are new." + (f" {hint[0].upper()}{hint[1:]}." if hint else "")
        )
    try:
        return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=int(row[0]))
    except OverflowError:
        raise InputError(
            f"The newest click of {table.location} is beyond the year 9999 ({table.time_column}), so that "
            "--since cannot tell which sessions are new. Leave such rows out, or see to their unit "
            "(milliseconds that were cast as seconds?)."
        ) from None


def _shown(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"
