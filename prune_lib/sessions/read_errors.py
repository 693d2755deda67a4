"""What Spark says about a table that cannot be read, in words for the user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException

from prune_lib.errors import InputError
from prune_lib.wording import short

__all__ = ["reading_errors"]

#: How Spark and Parquet speak of files that cannot be read; what else fails is no user's mistake.
_BROKEN = (
    r"CANNOT_READ_FILE|FAILED_READ_FILE|error while reading file|is not a Parquet file|"
    r"Could not read (the )?footer|ParquetDecodingException|ParquetCryptoRuntimeException|"
    r"FileNotFoundException|FILE_NOT_EXIST|corrupted|can not read value|EOFException|"
    r"ChecksumException|BlockMissingException"
)
_REFUSED = "Permission denied|AccessControlException|AccessDenied|UNABLE_TO_INFER_SCHEMA"
_UNREADABLE = re.compile(f"{_BROKEN}|{_REFUSED}")
_NANOS = re.compile(r"Illegal Parquet type: INT64 \(TIMESTAMP\(NANOS")


@contextmanager
def reading_errors(table: str, *, analysed: bool = False, writing: bool = False) -> Iterator[None]:
    """Turn what Spark says about a table that cannot be read into an InputError.

    Args:
        table: its name, for the message.
        analysed: whether its columns are known already: a query that is wrong is then no user's mistake.
        writing: whether its rows are written elsewhere meanwhile: rights may then be wanting there.
    """
    unreadable = re.compile(_BROKEN) if writing else _UNREADABLE
    try:
        yield
    except (PySparkException, Py4JJavaError) as problem:
        text = str(problem)
        if "Python worker" in text:  # which ended, and what it was to say with it (EOFException)
            raise
        if _NANOS.search(text):
            raise InputError(
                f"The table {table} has times in nanoseconds, which Spark does not read. Write it "
                "with microseconds (pandas: to_parquet(..., coerce_timestamps='us', "
                "allow_truncated_timestamps=True))."
            ) from problem
        if unreadable.search(text) or (isinstance(problem, AnalysisException) and not analysed):
            raise InputError(
                f"The table {table} cannot be read: {_cause(problem)}. See that its files are "
                "whole and may be read, or give another table by --input."
            ) from problem
        raise


def _cause(problem: Exception) -> str:
    """The line of an error that says most: the deepest cause about files, else the first."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    causes = [line for line in lines if _UNREADABLE.search(line) and not line.startswith("at ")]
    chosen = causes[-1] if causes else lines[0]
    chosen = re.sub(r"^(Caused by: )?([\w$.]+(Exception|Error): )+", "", chosen)
    return short(chosen.removesuffix("Details:").rstrip(". "), 300)
