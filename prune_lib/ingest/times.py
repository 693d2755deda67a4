"""Times of a log in microseconds since the epoch, whatever the session's zone."""

from __future__ import annotations

from pyspark.sql import Column
from pyspark.sql import functions as F

from prune_lib.ingest.form import Form

__all__ = ["micros_of_number", "micros_of_text"]

#: Numbers that fit the decimal below; where they have an exponent, which Spark gives fractions of JSON, with
#: one digit before the point.
_NUMBER = r"^\s*-?(\d{1,18}(\.\d{1,9})?|\d(\.\d{1,17})?[eE](\+?(1[0-8]|\d)|-\d))\s*$"

#: Microseconds of one unit of an offset.
_UNITS = {"ms": 1_000, "s": 1_000_000}


def micros_of_number(number: Column) -> Column:
    """Of a number, BIGINT: seconds, milliseconds or microseconds by its size.

    Whole seconds reach to the year 5138 before they are taken for milliseconds, milliseconds to that year
    before they are microseconds.
    """
    size = F.abs(number)
    scale = F.when(size < 100_000_000_000, 1_000_000).when(size < 100_000_000_000_000, 1_000).otherwise(1)
    return (number * scale).cast("bigint")


def micros_of_text(time: Column, offset: Column | None, form: Form) -> Column:
    """Of a text, BIGINT: a number by its size, else as it is written.

    A text needs a date, or the form's `time_format`; without a zone it is UTC. What is no time is null.

    Args:
        time: STRING.
        offset: STRING, to be added, in the form's `offset_unit`; null and empty are none.
        form: of the source.
    """
    base = _patterned(time, form) if form.time_format is not None else _read(time)
    if offset is None:
        return base
    none = offset.isNull() | (F.trim(offset) == "")
    more = F.when(offset.rlike(r"^\s*-?\d{1,15}\s*$"), offset.cast("bigint") * _UNITS[form.offset_unit])
    return base + F.when(none, F.lit(0)).otherwise(more)


def _read(time: Column) -> Column:
    # Whole numbers are by far the commonest; of decimals a cast costs five times as much.
    whole = F.when(time.rlike(r"^\s*-?\d{1,18}\s*$"), time.cast("bigint"))
    number = F.when(time.rlike(_NUMBER), time.cast("decimal(28,9)"))
    text = F.regexp_replace(F.trim(time), r"\s*UTC$", "Z")
    text = F.regexp_replace(text, r"^(\d{4}-\d{1,2}-\d{1,2})$", "$1 00:00:00")
    # Spark takes no zone behind a time without seconds.
    text = F.regexp_replace(text, r"^(\S+[ T]\d{1,2}:\d{2})(?![\d:.])", "$1:00")
    # The session's zone is not the log's: what has none is UTC.
    text = F.regexp_replace(text, r"^(\S+[ T][\d:.]+)$", "$1Z")
    dated = F.when(text.rlike(r"^\d{4}-\d{1,2}-\d{1,2}"), F.unix_micros(F.try_to_timestamp(text)))
    return F.coalesce(micros_of_number(whole), micros_of_number(number), dated)


def _patterned(time: Column, form: Form) -> Column:
    text = F.concat(F.lit(form.time_prefix), F.trim(time), F.lit(" +0000"))
    return F.unix_micros(F.try_to_timestamp(text, F.lit(f"{form.time_format} Z")))
