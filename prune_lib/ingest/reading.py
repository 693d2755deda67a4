"""Every click of a source with where it came from: file, line, and the record as it came.

Text is read line by line by Spark itself; what stands in a line is taken apart afterwards, so that a line
that is no record is still there as it came. The number of a line is exact whatever the splits: the lines of
each split are counted first (a pass over the text that reads nothing else), and a click's number is that of
its split's first line and its place in the split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType, StructField, StructType, TimestampType

from prune_lib.errors import InputError
from prune_lib.ingest.form import ROLES, Form, Format, delimiter_of, first_fields, guessed
from prune_lib.locations import is_location
from prune_lib.sessions.columns import quoted
from prune_lib.sessions.read_errors import reading_errors

__all__ = ["Source", "find_source", "read_clicks"]

_BOM = "\ufeff"
# No field of a JSON line has this name.
_UNREADABLE = "\x00unreadable"
_ENDINGS: tuple[tuple[str, Format], ...] = (
    (".csv", "csv"), (".tsv", "csv"), (".txt", "csv"), (".dat", "csv"), (".jsonl", "jsonl"),
    (".ndjson", "jsonl"), (".json", "jsonl"), (".parquet", "parquet"),
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """What is read, and how.

    Attributes:
        place: as the user named it.
        form: how it is laid out.
        reason: why this form was taken, in a few words.
        headers: of text with headers, the names of each file's columns by its first line; several where files
            differ.
        lines: of text, a row a split of a file: file, block, first (id of its first row), before (lines of
            the file before it); None for tables.
    """

    place: str
    form: Form
    reason: str
    headers: dict[str, tuple[str, ...]]
    lines: DataFrame | None = None


def find_source(
    spark: SparkSession,
    place: str,
    *,
    form: Form | None,
    format: Format | Literal["auto"],
    delimiter: str | None,
    named: dict[str, str | None],
) -> Source:
    """Look at a source and see how it is laid out; of its rows only the first are read.

    Args:
        spark: the session.
        place: a file, a folder, a pattern of files, or a table.
        form: where the user gave one; None to find it.
        format: csv, jsonl, parquet, delta, or auto.
        delimiter: of lines; None to find it.
        named: columns by role as the user gave them.

    Raises:
        InputError: there is nothing, it is empty, or a column is missing.
    """
    with reading_errors(place):
        what: Format
        if form is not None:
            what, reason = form.format, "the form that was asked for"
        elif format != "auto":
            what, reason = format, "the format that was asked for"
        else:
            what, reason = _format_of(spark, place)
        if what in ("parquet", "delta"):
            columns = _table(spark, place, what).columns
            found = form or guessed(columns, named, what, ",")
            _check(found, columns)
            return Source(place, found, reason, {})
        splits = _splits(spark, place)
        first = next((row["line"] for row in splits if row["block"] == 0 and row["line"] is not None), None)
        if first is None:
            raise InputError(f"{place} is empty: no file of it has a line. Give another --input.")
        lines = _first_lines(spark, splits)
        first = first.removeprefix(_BOM)
        if form is None:
            mark = delimiter or delimiter_of(first)
            found = guessed(first_fields(what, first, mark), named, what, mark)
            reason += f", delimiter {mark!r}" if what == "csv" else ""
        else:
            found = form
        headers: dict[str, tuple[str, ...]] = {}
        if what == "csv" and found.header is None:
            for row in splits:
                if row["block"] == 0 and row["line"] is not None:
                    line = row["line"].removeprefix(_BOM)
                    headers[row["line"]] = tuple(first_fields("csv", line, found.delimiter))
            for columns_of in headers.values():
                _check(found, columns_of)
        return Source(place, found, reason, headers, lines)


def _check(form: Form, columns: Sequence[str]) -> None:
    missing = [name for name in form.columns().values() if name not in columns]
    if missing and form.events is None:
        raise InputError(
            f"There is no column {' and no column '.join(missing)}; the columns are "
            f"{', '.join(columns[:40])}. Is this the right --form and delimiter?"
        )


def _format_of(spark: SparkSession, place: str) -> tuple[Format, str]:
    """The format of a place by the names of its files."""
    if _is_table(spark, place):
        return "delta", "a table of the catalog"
    jvm: Any = spark._jvm
    conf = spark._jsparkSession.sessionState().newHadoopConf()
    path = jvm.org.apache.hadoop.fs.Path(place)
    fs = path.getFileSystem(conf)
    found = fs.globStatus(path)
    if not found:
        raise InputError(
            f"There is nothing at {place}. Give an existing file, folder, pattern or table by --input."
        )
    if found[0].isDirectory() and fs.exists(jvm.org.apache.hadoop.fs.Path(found[0].getPath(), "_delta_log")):
        return "delta", "it has a _delta_log"
    names = [str(status.getPath().getName()) for status in found if not status.isDirectory()]
    for status in found:
        if status.isDirectory() and not names:
            walk = fs.listFiles(status.getPath(), True)
            while walk.hasNext() and len(names) < 100:
                names.append(str(walk.next().getPath().getName()))
    names = sorted(name for name in names if not name.startswith(("_", ".")))
    for name in names:
        plain = name.lower()
        for packed in (".gz", ".bz2", ".zst", ".snappy"):
            plain = plain.removesuffix(packed)
        for ending, what in _ENDINGS:
            if plain.endswith(ending):
                return what, f"the ending of {name}"
    there = ", ".join(names[:3]) or "nothing"
    raise InputError(f"No ending in {place} tells its format (there is {there}). Say it by --format.")


# --------------------------------------------------------------------------------------------- lines


def _text(spark: SparkSession, place: str) -> DataFrame:
    return spark.read.text(place, recursiveFileLookup=True).select(
        F.col("value").alias("line"),
        F.col("_metadata.file_path").alias("file"),
        F.col("_metadata.file_block_start").alias("block"),
        F.monotonically_increasing_id().alias("row"),
    )


def _splits(spark: SparkSession, place: str) -> list[Any]:
    """A row a split: file, block, first, count, line (the first, of the file's first split)."""
    first_line = F.min_by("line", "row")
    return (
        _text(spark, place)
        .groupBy("file", "block")
        .agg(
            F.min("row").alias("first"),
            F.count(F.lit(1)).alias("count"),
            F.when(F.col("block") == 0, first_line).alias("line"),
        )
        .orderBy("file", "block")
        .collect()
    )


def _first_lines(spark: SparkSession, splits: list[Any]) -> DataFrame:
    before, rows, file = 0, [], None
    for split in splits:
        if split["file"] != file:
            file, before = split["file"], 0
            header = split["line"]
        rows.append((split["file"], split["block"], split["first"], before, header))
        before += split["count"]
    schema = "file string, block bigint, first bigint, before bigint, header string"
    return spark.createDataFrame(rows, schema)


def read_clicks(spark: SparkSession, source: Source) -> DataFrame:
    """Every click of a source.

    Returns:
        file STRING; origin STRING, at BIGINT (the file once more, and line or row in it, from 1: what clicks
        are ordered by last; null in a Delta table, whose files are cut anew at times), record STRING (as it
        came), readable, utf8 BOOLEAN, and all else STRING: session, user, item, time, offset_ms, order, kind.
        Nothing is computed yet.
    """
    form = source.form
    if form.format in ("parquet", "delta"):
        return _of_table(spark, source)
    assert source.lines is not None
    lines = (
        _text(spark, source.place)
        .join(F.broadcast(source.lines), ["file", "block"])
        .withColumn("at", F.col("row") - F.col("first") + F.col("before") + 1)
        .withColumn("text", F.decode(F.col("line").cast("binary"), "UTF-8"))
        .withColumn("utf8", F.encode("text", "UTF-8") == F.col("line").cast("binary"))
        .withColumn(
            "text",
            F.when(F.col("at") == 1, F.regexp_replace("text", f"^{_BOM}", "")).otherwise(F.col("text")),
        )
        .where(F.trim("text") != "")
    )
    if form.format == "jsonl":
        return _of_json(lines, form)
    if form.header is not None:
        return _of_csv(lines, form, form.header)
    lines = lines.where(F.col("at") > 1)
    parts = [
        _of_csv(lines.where(F.col("header") == header), form, columns)
        for header, columns in sorted(source.headers.items())
    ]
    out = parts[0]
    for part in parts[1:]:
        out = out.unionByName(part)
    return out


def _of_csv(lines: DataFrame, form: Form, columns: Sequence[str]) -> DataFrame:
    # By number: a column's name may hold anything.
    names = [f"c{k}" for k in range(len(columns))]
    schema = ", ".join(f"{name} STRING" for name in (*names, "bad"))
    # As RFC 4180 and Python's csv have it: a quote within quotes is doubled, a backslash is a letter.
    options = {
        "sep": form.delimiter,
        "escape": '"',
        "columnNameOfCorruptRecord": "bad",
        "mode": "PERMISSIVE",
    }
    parsed = lines.withColumn("fields", F.from_csv("text", schema, options))
    at = {column: name for name, column in zip(names, columns, strict=True)}
    return _clicks(
        parsed,
        form,
        {role: F.col(f"fields.{at[name]}") for role, name in form.columns().items()},
        F.col("fields").isNotNull() & F.col("fields.bad").isNull(),
    )


def _of_json(lines: DataFrame, form: Form) -> DataFrame:
    columns = form.columns()
    outer = {"session", "user"} if form.events is not None else set(columns)
    fields = [StructField(name, StringType()) for role, name in columns.items() if role in outer]
    if form.events is not None:
        names = dict.fromkeys(name for role, name in columns.items() if role not in outer)
        inner = [StructField(name, StringType()) for name in names]
        fields.append(StructField(form.events, ArrayType(StructType(inner))))
    # Two roles may have one column.
    fields = list({field.name: field for field in fields}.values())
    schema = StructType([*fields, StructField(_UNREADABLE, StringType())])
    options = {"columnNameOfCorruptRecord": _UNREADABLE, "mode": "PERMISSIVE"}
    parsed = lines.withColumn("fields", F.from_json("text", schema, options))
    readable = F.col("fields").isNotNull() & _field("fields", _UNREADABLE).isNull()
    if form.events is None:
        return _clicks(parsed, form, {r: _field("fields", n) for r, n in columns.items()}, readable)
    # A session without a click stays one row, and is judged as a click without an item.
    parsed = parsed.withColumn("readable", readable).select(
        "*", F.posexplode_outer(_field("fields", form.events)).alias("place", "click")
    )
    values = {r: _field("fields" if r in outer else "click", n) for r, n in columns.items()}
    return _clicks(parsed, form, values, F.col("readable"), F.col("place"))


def _of_table(spark: SparkSession, source: Source) -> DataFrame:
    frame = _table(spark, source.place, source.form.format)
    meta = [F.col("_metadata.file_path").alias("file")]
    at: Column = F.lit(None).cast("bigint")
    if source.form.format == "parquet":
        at = F.col("_metadata.row_index") + 1
    own = [F.col(quoted(name)) for name in frame.columns]
    wanted = {role: _as_text(frame, name) for role, name in source.form.columns().items()}
    rows = frame.select(
        *meta,
        at.alias("at"),
        F.to_json(F.struct(*own)).alias("line"),
        F.struct(*[value.alias(role) for role, value in wanted.items()]).alias("fields"),
        F.lit(True).alias("utf8"),
    )
    return _clicks(rows, source.form, {role: F.col(f"fields.{role}") for role in wanted}, F.lit(True))


def _table(spark: SparkSession, place: str, format: Format) -> DataFrame:
    return spark.table(place) if _is_table(spark, place) else spark.read.format(format).load(place)


def _is_table(spark: SparkSession, place: str) -> bool:
    """Whether a name is that of a table; `clicks.csv` looks like one, too."""
    try:
        return not is_location(place) and bool(spark.catalog.tableExists(place))
    except (ParseException, AnalysisException):
        return False


def _as_text(frame: DataFrame, name: str) -> Column:
    """A value as text; a time as seconds since the epoch, which no zone changes."""
    column = F.col(quoted(name))
    if isinstance(frame.schema[name].dataType, TimestampType):
        return (F.unix_micros(column).cast("decimal(20,0)") / 1_000_000).cast("decimal(26,6)").cast("string")
    return column.cast("string")


def _clicks(
    rows: DataFrame, form: Form, values: dict[str, Column], readable: Column, place: Column | None = None
) -> DataFrame:
    empty = F.lit(None).cast("string")
    return rows.select(
        "file",
        F.when(F.col("at").isNotNull(), F.col("file")).alias("origin"),
        "at",
        (F.lit(0) if place is None else F.coalesce(place, F.lit(0))).alias("place"),
        F.col("line").alias("record"),
        readable.alias("readable"),
        "utf8",
        *[values.get(role, empty).alias(role) for role in ROLES],
    )


def _field(of: str, name: str) -> Column:
    return F.col(of).getField(name)
