"""A frame written down: as a Delta table of the workspace, whose name hangs on what is in it.

A frame that is computed lazily can differ each time it is read. A run reads its input several times, pins its
version, and explanations look at it much later; experts are found again by the input they were trained for.
"""

from __future__ import annotations

import hashlib
import logging
import re

import pandas as pd
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.delta import identifier, replace_table, table_version
from prune_lib.errors import InputError, SettingsError
from prune_lib.fingerprint import fingerprint
from prune_lib.locations import is_location, table_in_workspace
from prune_lib.session import in_utc
from prune_lib.sessions.columns import column_of
from prune_lib.settle import settle
from prune_lib.wording import first_line

__all__ = ["check_name", "spark_frame", "write_down"]

_LOG = logging.getLogger(__name__)

# The property by which a table that was written here is known, and what it holds.
_MARK = "prune.content"
_COMMENT = "A DataFrame that was given to prune_lib.prune, as it was then"
# Everything that a value is made of, at its full precision, in one time zone.
_AS_TEXT = {
    "ignoreNullFields": "false",
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
    "timeZone": "UTC",
}


def check_name(name: str | None) -> None:
    """See that a name can be that of a table and of a folder.

    Raises:
        SettingsError: it cannot.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_]{1,100}", name):
        raise SettingsError(
            f"`name` must be made of letters, digits and underscores, 100 at most; got {name!r}."
        )


def spark_frame(spark: SparkSession, table: pd.DataFrame) -> DataFrame:
    """A pandas frame as one of Spark's; an index that has a name is a column.

    Raises:
        InputError: it is empty, or Spark has no type for what is in it.
    """
    if any(name is not None for name in table.index.names):
        table = table.reset_index()
    if table.empty:
        raise InputError("The DataFrame has no rows. Give one with a row a click or a row a session.")
    try:
        return spark.createDataFrame(table.rename(columns=str))
    except (PySparkException, TypeError, ValueError) as problem:  # of Spark, of its rows, of Arrow
        kinds = ", ".join(f"{column} {kind}" for column, kind in table.dtypes.items())
        raise InputError(
            f"The DataFrame cannot be made one of Spark's: {first_line(problem)}. Its "
            f"columns are {kinds}. Give every column values of one type, or leave columns out."
        ) from problem


def write_down(spark: SparkSession, frame: DataFrame, workspace: str, name: str | None) -> str:
    """Write a frame as a Delta table of the workspace, unless it is there.

    Args:
        spark: the session.
        frame: the rows.
        workspace: a folder, or catalog.schema.
        name: of the table; None for one that hangs on the content. Under the same name other content becomes
            the table's next version.

    Returns:
        The table: `inputs/NAME` of a folder, `input_NAME` of a schema. Cost: the frame is computed once, in
        the session's own zone, and kept on the executors; a pass over it for its content, one to write it.

    Raises:
        InputError: a table of this name is there that was not written here.
    """
    # What reads its times from text, or computes with them, means its session's zone.
    settled = settle(frame)
    with in_utc(spark):
        return _write(spark, settled, workspace, name)


def _write(spark: SparkSession, settled: DataFrame, workspace: str, name: str | None) -> str:
    content = _content(settled)
    name = name or f"frame_{content}"
    place = table_in_workspace(workspace, f"inputs/{name}" if is_location(workspace) else f"input_{name}")
    if table_version(spark, place) is not None:
        known = _known(spark, place)
        if known is None:
            raise InputError(
                f"The table {place} is there, and prune_lib.prune did not write it. Give the frame another "
                "name, or prune the table by its own name."
            )
        if known == content:
            _LOG.info("the DataFrame is in %s already", place)
            return place
    _LOG.info("writing the DataFrame to %s", place)
    replace_table(spark, settled, place, _COMMENT, {_MARK: content})
    return place


def _content(frame: DataFrame) -> str:
    """A hash of a frame's columns and rows, whatever their order; 16 hexadecimal digits."""
    row = F.to_json(F.struct(*(column_of(name) for name in frame.columns)), _AS_TEXT)
    text = f"{frame.schema.simpleString()}/{fingerprint(frame, row)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _known(spark: SparkSession, place: str) -> str | None:
    """Hash of the content that was written to a table; None where it was not written here."""
    detail = spark.sql(f"DESCRIBE DETAIL {identifier(spark, place)}").select("properties").first()
    return None if detail is None else detail["properties"].get(_MARK)
