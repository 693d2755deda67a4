"""Lines of text files with their numbers, and records of several lines.

The number of a line is exact whatever the splits: the lines of each split are counted first (a pass over the
text that looks at nothing else), and a line's number is that of its split's first line and its place in the
split. The splits have to stay what they are meanwhile (`same_splits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from prune_lib.ingest.fields import unclosed
from prune_lib.session import configured

__all__ = [
    "BOM",
    "Splits",
    "filled",
    "first_texts",
    "numbered",
    "records",
    "same_splits",
    "splits_of",
]

BOM = "\ufeff"
#: Lines of a record, at most: where a quote is never closed, the rest of the file is records of so many.
_PIECE = 1000
_LEAST, _LEAVES = "spark.sql.files.minPartitionNum", "spark.sql.leafNodeDefaultParallelism"


@dataclass(frozen=True)
class Splits:
    """The parts in which Spark reads text.

    Attributes:
        rows: file, block, first (id of the part's first line), before (lines of the file before it), offset
            (lines of all files before it), header (first line of the file).
        headers: by file, its first line; files that hold nothing but blanks are not in it.
        lines: of all files that hold more than blanks.
    """

    rows: DataFrame
    headers: dict[str, str]
    lines: int


def same_splits(spark: SparkSession) -> AbstractContextManager[None]:
    """Within it, files are split alike, whatever cores a cluster gains or loses meanwhile."""
    cores = str(spark.sparkContext.defaultParallelism)
    least = spark.conf.get(_LEAST, None) or spark.conf.get(_LEAVES, None) or cores
    return configured(spark, {_LEAST: least})


def splits_of(spark: SparkSession, paths: Sequence[str]) -> Splits:
    """Count the lines of each part; a row a part comes to the driver. Cost: a pass over the text."""
    found = (
        _text(spark, paths)
        .groupBy("file", "block")
        .agg(
            F.min("row").alias("first"),
            F.count(F.lit(1)).alias("count"),
            F.count_if(_filled("line")).alias("filled"),
            F.when(F.col("block") == 0, F.min_by("line", "row")).alias("line"),
        )
        .orderBy("file", "block")
        .collect()
    )
    before, offset, rows, headers = 0, 0, [], {}
    for part in found:
        if part["block"] == 0:
            before = 0
            headers[part["file"]] = part["line"]
        rows.append((part["file"], part["block"], part["first"], before, offset, headers[part["file"]]))
        before += part["count"]
        offset += part["count"]
    schema = "file string, block bigint, first bigint, before bigint, offset bigint, header string"
    written = {part["file"] for part in found if part["filled"]}
    headers = {file: line for file, line in headers.items() if file in written}
    return Splits(spark.createDataFrame(rows, schema), headers, sum(part["filled"] for part in found))


def numbered(spark: SparkSession, paths: Sequence[str], splits: Splits) -> DataFrame:
    """Lines with their places.

    Returns:
        file, header, line STRING (as it came), at BIGINT (its number in the file, from 1), seq BIGINT (in all
        files, by path), text STRING (without byte-order mark, broken bytes replaced), utf8 BOOLEAN. Blank
        lines are in it.
    """
    text = F.decode(F.col("line").cast("binary"), "UTF-8")
    place = F.col("row") - F.col("first") + 1
    return (
        _text(spark, paths)
        .join(F.broadcast(splits.rows), ["file", "block"])
        .select(
            "file",
            "header",
            "line",
            (place + F.col("before")).alias("at"),
            (place + F.col("offset")).alias("seq"),
            text.alias("text"),
            # A replaced letter that was there before is none.
            (F.encode(text, "UTF-8") == F.col("line").cast("binary")).alias("utf8"),
        )
        .withColumn("text", F.when(F.col("at") == 1, _without_mark("text")).otherwise(F.col("text")))
    )


def records(lines: DataFrame, delimiter: str) -> DataFrame:
    """Lines joined where a quoted field goes on: a quote opens one only where a field begins.

    Args:
        lines: of `numbered`.
        delimiter: between fields.

    Returns:
        The same columns, a row a record, `at` and `seq` those of its first line, and whole BOOLEAN: whether
        its quotes are closed. Cost: the lines of a file are sorted by their number in one task; a record of
        more than a thousand lines is cut, and none of its parts is whole.
    """
    text = F.col("text")
    quotes, open_ = text.contains('"'), unclosed(delimiter)
    # Whether a quote is open behind a line, if none was before it, and if one was.
    opens = quotes & text.rlike(open_)
    stays = ~quotes | F.concat(F.lit('"'), text).rlike(open_)
    # Some lines say themselves whether one is open behind them, some turn it round, most leave it.
    upto = Window.partitionBy("file").orderBy("at").rowsBetween(Window.unboundedPreceding, 0)
    before = Window.partitionBy("file").orderBy("at").rowsBetween(Window.unboundedPreceding, -1)
    said = F.when(F.isnotnull("says"), F.struct("says", "turned"))
    first = F.max(F.when(F.col("begins"), F.col("at")))
    since = F.col("turned") - F.col("turns") - F.coalesce(F.col("said.turned"), F.lit(0))
    counted = (
        lines.withColumn("opens", opens)
        .withColumn("stays", stays)
        .withColumn("says", F.when(F.col("opens") == F.col("stays"), F.col("opens").cast("int")))
        .withColumn("turns", (F.col("opens") & ~F.col("stays")).cast("int"))
        .withColumn("turned", F.sum("turns").over(upto))
        .withColumn("said", F.last(said, ignorenulls=True).over(before))
        .withColumn("begins", (F.coalesce(F.col("said.says"), F.lit(0)) + since) % 2 == 0)
        .withColumn("record", first.over(upto))
        .withColumn("piece", F.floor((F.col("at") - F.col("record")) / _PIECE))
    )
    ordered = F.sort_array(F.collect_list(F.struct("at", "seq", "line", "text")))
    joined = (
        counted.groupBy("file", "header", "record", "piece")
        .agg(ordered.alias("parts"), F.bool_and("utf8").alias("utf8"))
        .select(
            "file",
            "header",
            F.array_join("parts.line", "\n").alias("line"),
            F.get("parts", F.lit(0))["at"].alias("at"),
            F.get("parts", F.lit(0))["seq"].alias("seq"),
            F.array_join("parts.text", "\n").alias("text"),
            "utf8",
            "piece",
        )
    )
    return joined.withColumn("whole", (F.col("piece") == 0) & ~(quotes & text.rlike(open_))).drop("piece")


def first_texts(spark: SparkSession, path: str, n: int) -> list[str]:
    """The first lines of a file that hold more than blanks, without its byte-order mark."""
    rows = _text(spark, [path]).where(_filled("line")).limit(n).collect()
    return [str(row["line"]).removeprefix(BOM) for row in rows]


def filled(lines: DataFrame) -> DataFrame:
    """Lines that hold more than blanks."""
    return lines.where(_filled("line"))


def _text(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    return spark.read.text(list(paths)).select(
        F.col("value").alias("line"),
        F.col("_metadata.file_path").alias("file"),
        F.col("_metadata.file_block_start").alias("block"),
        F.monotonically_increasing_id().alias("row"),
    )


def _without_mark(name: str) -> Column:
    return F.regexp_replace(name, f"^{BOM}", "")


def _filled(name: str) -> Column:
    return F.trim(_without_mark(name)) != ""
