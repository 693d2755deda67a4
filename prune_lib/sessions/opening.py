"""Opening an input: which table or folder, which version, in which format; no rows are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import InputError
from prune_lib.locations import in_full, is_location, local_path, name_parts, schema_of
from prune_lib.moments import moment
from prune_lib.sessions.columns import (
    EXAMPLES,
    ColumnNames,
    InputTable,
    similar,
    with_columns,
)
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.wording import first_line

__all__ = [
    "connector_hint",
    "hadoop_path",
    "has_commit",
    "in_catalog",
    "load_table",
    "open_input",
    "reached",
    "source_of",
]


def open_input(
    spark: SparkSession,
    name_or_path: str,
    *,
    version: int | None = None,
    timestamp: str | None = None,
    columns: ColumnNames | None = None,
) -> InputTable:
    """Open a Delta or Parquet table and see which column is which.

    Args:
        spark: the session.
        name_or_path: a table of the catalog (`table`, `schema.table`, `catalog.schema.table`) or a
            location (`/folder`, `s3://...`, `dbfs:/...`, `abfss://...`, `file:/...`): a file or a
            folder.
        version: Delta version; by default the newest, pinned now.
        timestamp: the newest Delta version that is not younger than this time (UTC where it says nothing
            else); not with `version`.
        columns: columns that the user named; the others are found by their names and types.

    Returns:
        The table with its columns. Reads metadata only.

    Raises:
        InputError: there is no such table or version, it is neither Delta nor Parquet or cannot be
            read, or a column is missing, ambiguous or of a type that cannot serve.
    """
    if version is not None and timestamp is not None:
        raise InputError("Give --version or --timestamp, not both.")
    with reading_errors(name_or_path):
        source = _source(spark, name_or_path)
        df, pinned = source.load(version, timestamp)
    return with_columns(df, columns or ColumnNames(), name_or_path, pinned, source.format)


def load_table(spark: SparkSession, name_or_path: str, version: int | None = None) -> DataFrame:
    """Open a table, whatever its columns, by default at its newest version; errors as of `open_input`."""
    with reading_errors(name_or_path):
        return _source(spark, name_or_path).load(version, None)[0]


@dataclass(frozen=True)
class _Source:
    """A table that exists: how to read it, at a version where it has any."""

    spark: SparkSession
    name: str
    address: str
    format: str
    by_path: bool

    def load(self, version: int | None, timestamp: str | None) -> tuple[DataFrame, int | None]:
        """The table, and its Delta version."""
        if self.format != "delta":
            if version is not None or timestamp is not None:
                flag = "--version" if timestamp is None else "--timestamp"
                raise InputError(
                    f"The table {self.name} is no Delta table ({self.format}): it has no earlier "
                    f"versions. Leave out {flag}, or convert the table (CONVERT TO DELTA)."
                )
            if self.by_path:
                # The place is known to exist as it is spelt: a [ or * in it is a letter, no pattern.
                literal = self.spark.read.format(self.format).option("__globPaths__", "false")
                return literal.load(self.address), None
            return self.spark.table(self.address), None
        pinned = self._resolve(version, timestamp)
        reader = self.spark.read.format("delta").option("versionAsOf", str(pinned))
        try:
            return reader.load(self.address) if self.by_path else reader.table(self.address), pinned
        except AnalysisException as problem:
            if version is None and timestamp is None:
                raise
            raise InputError(
                f"The table {self.name} has no version {pinned} that can still be read; it has "
                f"{self._versions()}. Give another --version."
            ) from problem

    def _resolve(self, version: int | None, timestamp: str | None) -> int:
        if version is None and timestamp is None:
            newest = self._history(1).select("version").first()
            assert newest is not None  # a Delta table has a commit
            return int(newest["version"])
        if version is not None:
            known = self._history().agg(F.min("version"), F.max("version")).first()
            assert known is not None
            if not known[0] <= version <= known[1]:
                raise InputError(
                    f"The table {self.name} has no version {version} (--version); it has "
                    f"{self._versions()}. Give one of these, or leave out --version for the newest."
                )
            return version
        # Spark would read the text in the session's time zone.
        when = moment(str(timestamp))
        if when is None:
            raise InputError(
                f"{timestamp!r} (--timestamp) is no time. Write it as 2024-05-31 or 2024-05-31T12:00:00."
            )
        row = (
            self._history()
            .agg(
                F.max(F.when(F.col("timestamp") <= F.lit(when), F.col("version"))).alias("version"),
                F.min(_in_utc("timestamp")).alias("first"),
            )
            .first()
        )
        assert row is not None
        if row["version"] is None:
            raise InputError(
                f"The table {self.name} has no version as old as {timestamp} (--timestamp): its "
                f"first is of {row['first']}. It has {self._versions()}."
            )
        return int(row["version"])

    def _history(self, limit: int | None = None) -> DataFrame:
        if self.by_path:
            table = DeltaTable.forPath(self.spark, self.address)
            return table.history() if limit is None else table.history(limit)
        # DeltaTable.forName takes no name of three parts; SQL does.
        few = "" if limit is None else f" LIMIT {limit}"
        return self.spark.sql(f"DESCRIBE HISTORY {self.address}{few}")

    def _versions(self) -> str:
        rows = self._history().select("version", _in_utc("timestamp")).collect()
        versions = sorted((int(row[0]), str(row[1])) for row in rows)
        if len(versions) == 1:
            return f"version {versions[0][0]} ({versions[0][1]}) only"
        first, last = versions[0], versions[-1]
        return f"versions {first[0]} ({first[1]}) to {last[0]} ({last[1]})"


def _in_utc(name: str) -> Column:
    """A time as text, as --timestamp is read."""
    return F.concat(F.to_utc_timestamp(name, F.current_timezone()).cast("string"), F.lit(" UTC"))


def _source(spark: SparkSession, name: str) -> _Source:
    """Find the table: by its location, or in the catalog, or as a path after all."""
    if not ("/" in name or ":" in name) and in_catalog(spark, name):
        return _Source(spark, name, name, _catalog_format(spark, name), by_path=False)
    fs, path, exists = reached(spark, name)
    if not exists:
        raise InputError(_not_found(spark, name, fs, path))
    return _Source(spark, name, path.toString(), _file_format(spark, name, fs, path), by_path=True)


def in_catalog(spark: SparkSession, name: str) -> bool:
    """Whether there is a table or a view of this name; a name that is none has none."""
    try:
        return bool(spark.catalog.tableExists(name))
    except (ParseException, AnalysisException):  # no name, or of a catalog that is not there
        return False


def _catalog_format(spark: SparkSession, name: str) -> str:
    try:
        detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
    except AnalysisException:
        return "view"
    return "view" if detail is None or detail["format"] is None else str(detail["format"])


def hadoop_path(spark: SparkSession, location: str) -> tuple[Any, Any]:
    """Hadoop's file system of a location and its qualified path."""
    jvm: Any = spark._jvm
    session: Any = spark._jsparkSession
    path = jvm.org.apache.hadoop.fs.Path(location)
    fs = path.getFileSystem(session.sessionState().newHadoopConf())
    return fs, fs.makeQualified(path)


def reached(spark: SparkSession, location: str) -> tuple[Any, Any, bool]:
    """Hadoop's file system of a location that is to be read, its path, and whether something is there.

    Raises:
        InputError: this Spark does not come there.
    """
    try:
        fs, path = hadoop_path(spark, location)
        return fs, path, bool(fs.exists(path))
    # An unknown scheme or host, a store that refuses or does not answer, an empty name.
    except (Py4JJavaError, PySparkException) as problem:
        raise InputError(
            f"{location or 'An empty name'} is no place that this Spark can read: "
            f"{first_line(problem)}. {connector_hint(spark, location)}"
        ) from problem


# The connector of a storage, by the scheme of its locations: Hadoop's own come in Hadoop's version.
_CONNECTORS = {"s3a": "hadoop-aws", "s3": "hadoop-aws", "abfss": "hadoop-azure", "abfs": "hadoop-azure"}


def connector_hint(spark: SparkSession, location: str) -> str:
    """What to see to where Hadoop does not come to a location."""
    scheme = location.partition(":")[0].lower()
    text = "Check the spelling (file:/folder, s3a://bucket/folder), and the rights"
    package = _CONNECTORS.get(scheme)
    if package is None:
        return f"{text}, and that the storage's connector is installed."
    jvm: Any = spark._jvm
    version = jvm.org.apache.hadoop.util.VersionInfo.getVersion()
    text += (
        f"; the storage's connector comes by spark-submit --packages org.apache.hadoop:{package}:{version}"
    )
    return f"{text}, and locations of S3 begin with s3a:// then." if scheme == "s3" else f"{text}."


def _file_format(spark: SparkSession, name: str, fs: Any, path: Any) -> str:
    """'delta' or 'parquet'; an error for anything else."""
    jvm: Any = spark._jvm
    if not fs.getFileStatus(path).isDirectory():
        return "parquet"  # a file's ending says nothing; its footer will tell
    log = jvm.org.apache.hadoop.fs.Path(path, "_delta_log")
    if fs.exists(log):
        if has_commit(fs, log):
            return "delta"
        # Its Parquet files are a part of a table, and nobody knows which.
        raise InputError(
            f"The folder {name} is a Delta table that was never committed: writing it was interrupted. Write "
            "it again, or give another table by --input."
        )
    files = _some_files(fs, path)
    if any(file.lower().endswith((".parquet", ".parq", ".pq")) for file in files):
        return "parquet"
    there = f"it has {', '.join(files[:EXAMPLES])}" if files else "it is empty"
    more = ", ..." if len(files) > EXAMPLES else ""
    raise InputError(
        f"The folder {name} is neither a Delta table (it has no _delta_log with a commit) nor "
        f"Parquet (no file that ends in .parquet): {there}{more}. Give a Delta or Parquet table "
        "by --input; bring other formats into one of these first."
    )


def has_commit(fs: Any, log: Any) -> bool:
    """Whether a table's `_delta_log` (a path of Hadoop's, in its file system) holds a commit."""
    return any(status.getPath().getName().endswith((".json", ".parquet")) for status in fs.listStatus(log))


def _some_files(fs: Any, path: Any, limit: int = 1000) -> list[str]:
    """Names of files under a folder, hidden ones left out; at most so many are looked at."""
    names: list[str] = []
    walk = fs.listFiles(path, True)
    while walk.hasNext() and len(names) < limit:
        name = str(walk.next().getPath().getName())
        if not name.startswith(("_", ".")):
            names.append(name)
    return sorted(names)


def source_of(table: InputTable) -> str:
    """How records name their input, a run and a bundle alike: read in any folder, they mean the same one."""
    name = table.location
    path = local_path(name)
    if ("/" in name or ":" in name) and (path is None or path.is_absolute()):
        return in_full(name)
    # What could be a table's name may be a file's of Spark's folder; `open_input` asks the catalog first.
    if "/" not in name and in_catalog(table.df.sparkSession, name):
        return name
    # By Spark's own folder, which may be one of HDFS, or not the one that a notebook has gone to since.
    return in_full(str(hadoop_path(table.df.sparkSession, name)[1].toString()))


def _not_found(spark: SparkSession, name: str, fs: Any, path: Any) -> str:
    """What there is instead: the nearest folder above, names like the one that is missing."""
    wanted, above = str(path.getName()), path.getParent()
    while above is not None and not fs.exists(above):
        wanted, above = str(above.getName()), above.getParent()
    hint = ""
    if above is not None:
        names = []
        if fs.getFileStatus(above).isDirectory():
            names = [str(s.getPath().getName()) for s in fs.listStatus(above)][:1000]
        shown = above.toString().removeprefix("file:")
        hint = f" The nearest folder that exists is {shown}{similar(wanted, names)}."
    if is_location(name) and ("/" in name or ":" in name):
        return f"There is no table at {name}.{hint} Give an existing one by --input."
    schema, table = schema_of(name), (name_parts(name) or [name])[-1]
    try:
        tables = [t.name for t in spark.catalog.listTables(schema or None)]
        inside = f" In {schema or 'the current schema'} there are {len(tables)} tables"
        inside += f"{similar(table.strip('`'), tables)}."
    except (ParseException, AnalysisException):
        inside = f" There is no schema {schema}."
    return (
        f"There is no table {name} in the catalog, and no file or folder of this name.{inside} "
        "Give an existing table (catalog.schema.table) or a location (with a '/') by --input."
    )
