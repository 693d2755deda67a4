"""Delta tables by name or by location: whether they are there, at which version; one of them written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, AtomicType, DataType, MapType, StructType

from prune_lib.locations import is_location
from prune_lib.sessions.columns import quoted
from prune_lib.sessions.opening import hadoop_path, has_commit, in_catalog

__all__ = [
    "PROPERTIES",
    "child",
    "hadoop_path",
    "identifier",
    "is_delta",
    "leaf_names",
    "mapping",
    "quoted",
    "replace_table",
    "special",
    "table_version",
]

# Tables stay readable by delta-rs and older readers: no deletion vectors where a runtime's default
# turns them on.
PROPERTIES = {"delta.enableDeletionVectors": "false"}

# Parquet refuses these in names; only column mapping gets around it.
_SPECIAL = set(" ,;{}()\n\t=")


def table_version(spark: SparkSession, name: str) -> int | None:
    """Newest version of a Delta table; None where there is no table or it is not Delta."""
    if not is_delta(spark, name):
        return None
    # In SQL: DeltaTable.forName takes no name of three parts.
    last = spark.sql(f"DESCRIBE HISTORY {identifier(spark, name)} LIMIT 1").select("version").first()
    return None if last is None else int(last["version"])


def identifier(spark: SparkSession, name: str) -> str:
    """The table as an SQL identifier; a location is absolute in it."""
    if is_location(name):
        return f"delta.{quoted(hadoop_path(spark, name)[1].toString())}"
    return name


def is_delta(spark: SparkSession, name: str) -> bool:
    """Whether there is a Delta table of this name or at this location, with a commit."""
    if is_location(name):
        fs, path = hadoop_path(spark, name)
        # isDeltaTable also says yes to a folder inside a Delta table and to a log without commits.
        log = child(spark, path, "_delta_log")
        if not fs.exists(log) or not DeltaTable.isDeltaTable(spark, path.toString()):
            return False
        return has_commit(fs, log)
    if not in_catalog(spark, name):
        return False
    try:
        detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
    except AnalysisException:  # a view
        return False
    return detail is not None and detail["format"] == "delta"


def replace_table(
    spark: SparkSession,
    frame: DataFrame,
    name: str,
    comment: str,
    properties: Mapping[str, str] | None = None,
    note: str | None = None,
) -> None:
    """Write a frame as a Delta table in one commit; what was there stays in the table's history.

    Args:
        spark: the session.
        frame: the rows; its columns' comments are its fields' metadata.
        name: a name or a location.
        comment: of the table.
        properties: of the table, beside those of all our tables. Those that its owner has set stay.
        note: user metadata of the commit.
    """
    writer = frame.writeTo(identifier(spark, name)).using("delta").tableProperty("comment", comment)
    if note is not None:
        writer = writer.option("userMetadata", note)
    wanted = {**_owners(spark, name), **PROPERTIES, **mapping(frame.schema), **(properties or {})}
    for key, value in wanted.items():
        writer = writer.tableProperty(key, value)
    writer.createOrReplace()


# Of Delta's own properties those that an owner sets: how long, how often, how large. The others belong to the
# columns that are replaced, or to the protocol.
_OF_OWNERS = (
    "delta.autoOptimize.",
    "delta.checkpointInterval",
    "delta.dataSkippingNumIndexedCols",
    "delta.deletedFileRetentionDuration",
    "delta.logRetentionDuration",
    "delta.targetFileSize",
    "delta.tuneFileSizesForRewrites",
)


def _owners(spark: SparkSession, name: str) -> dict[str, str]:
    """Properties that somebody has set on a table, which replacing it would lose."""
    if not is_delta(spark, name):
        return {}
    detail = spark.sql(f"DESCRIBE DETAIL {identifier(spark, name)}").select("properties").first()
    there: Mapping[str, str] = detail["properties"] if detail is not None else {}
    return {k: v for k, v in there.items() if not k.startswith("delta.") or k.startswith(_OF_OWNERS)}


def mapping(schema: StructType) -> dict[str, str]:
    """Column mapping where names need it; `unusual_names` warns of it."""
    unusual = any(map(special, leaf_names(schema)))
    return {"delta.columnMapping.mode": "name"} if unusual else {}


def leaf_names(data_type: DataType, name: str = "") -> Iterable[str]:
    """Names of all fields, those inside structs included; only leaves are counted by Delta."""
    if isinstance(data_type, StructType):
        for field in data_type.fields:
            yield from leaf_names(field.dataType, f"{name}.{field.name}" if name else field.name)
    elif isinstance(data_type, ArrayType):
        yield from leaf_names(data_type.elementType, name)
    elif isinstance(data_type, MapType):
        of_keys = () if isinstance(data_type.keyType, AtomicType) else leaf_names(data_type.keyType, name)
        yield from (*of_keys, *leaf_names(data_type.valueType, name))
    else:
        yield name


def special(name: str) -> bool:
    """Whether a column's name needs Delta's column mapping."""
    return bool(_SPECIAL & set(name))


def child(spark: SparkSession, path: Any, name: str) -> Any:
    """A path below another, both Hadoop's."""
    jvm: Any = spark._jvm
    return jvm.org.apache.hadoop.fs.Path(path, name)
