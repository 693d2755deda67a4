"""Times of a log in microseconds since the epoch, whatever the session's zone."""

from __future__ import annotations

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import SettingsError
from prune_lib.ingest.form import Form

__all__ = ["PARSER", "check_pattern", "micros_of_number", "micros_of_text"]

#: Settings within which a time that is not written by the form's pattern is none, and no error: Spark's own
#: is to stop where its older parser, of which we know nothing, would have read one.
PARSER = {"spark.sql.legacy.timeParserPolicy": "CORRECTED"}

#: Numbers that fit the decimal below; where they have an exponent, which Spark gives fractions of JSON, with
#: one digit before the point.
_NUMBER = r"^\s*-?(\d{1,18}(\.\d{1,9})?|\d(\.\d{1,17})?[eE](\+?(1[0-8]|\d)|-\d))\s*$"

_NO_TIME = -(2**63)
#: Microseconds of one unit of an offset.
_UNITS = {"ms": 1_000, "s": 1_000_000}


def micros_of_number(number: Column) -> Column:
    """Of a number, BIGINT: seconds, milliseconds or microseconds by its size.

    Whole seconds reach to the year 5138 before they are taken for milliseconds, milliseconds to that year
    before they are microseconds. The least BIGINT is no time.
    """

    def within(size: int) -> Column:
        return (number > -size) & (number < size)

    scale = F.when(within(100_000_000_000), 1_000_000).when(within(100_000_000_000_000), 1_000).otherwise(1)
    # The least of all is how numpy writes that there is no time.
    return F.when(number > _NO_TIME, (number * scale).cast("bigint"))


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


def check_pattern(spark: SparkSession, form: Form) -> None:
    """Try a form's pattern of times; within `PARSER`.

    Raises:
        SettingsError: it is none of Spark's.
    """
    if form.time_format is None:
        return
    try:
        spark.range(1).select(_patterned(F.lit("x"), form)).collect()
    except (PySparkException, Py4JJavaError) as problem:
        raise SettingsError(
            f"time_format {form.time_format} is no pattern of times that Spark reads. Write it in Spark's "
            "letters, such as dd/MM/yyyy HH:mm:ss."
        ) from problem


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
