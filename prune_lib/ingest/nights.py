"""What is new since the nights before: files, rows of a table, and the sessions that they go on.

What was read stands in `<output>_inputs`, a row a file or a version of a table. It is the last table that a
run writes: a run that is cut off before reads the same again, and takes no click twice, as those that are
there already are doubles.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StructType

from prune_lib.delta import identifier, special, table_version
from prune_lib.errors import InputError, SettingsError
from prune_lib.ingest.clicks import Cutting, with_occurrences
from prune_lib.ingest.form import Form
from prune_lib.ingest.source import OURS, Place, Source
from prune_lib.sessions.columns import quoted
from prune_lib.tables import read_table

__all__ = [
    "INPUTS_SCHEMA",
    "New",
    "changed",
    "check_columns",
    "check_same",
    "inputs_of",
    "kept_before",
    "last_form",
    "new_rows",
    "old_clicks",
    "old_sessions",
    "roles_before",
    "since",
    "watermark",
]

INPUTS_SCHEMA = (
    "path string, bytes bigint, modified timestamp, version bigint, read_at timestamp, ingest_run string, "
    "table_id string"
)
#: Settings by which sessions are made.
_MAKING = (
    "gap_minutes",
    "max_hours",
    "protocol",
    "collapse_repeats",
    "min_length",
    "min_support",
    "test_days",
)
#: Of a change feed: rows that were changed stay as they were taken, else they would be there twice.
_ADDED = "insert"


#: Arrays of a table of sessions by what they are of its clicks.
_ARRAYS = {"time": "times", "kind": "kinds", "order": "orders"}


@dataclass(frozen=True)
class New:
    """What of a place was not read before.

    Attributes:
        place: with those files only; the whole of it on the first night.
        known: whether something of it was read before.
        since: version of a table up to which it was read; None where it has none, or was not read.
        changed: files that were read before and are other ones now.
        nothing: whether there is nothing new.
    """

    place: Place
    known: bool = False
    since: int | None = None
    changed: tuple[str, ...] = ()
    nothing: bool = False


def since(spark: SparkSession, place: Place, inputs: str) -> New:
    """Compare a place with what was read.

    Args:
        spark: the session.
        place: what is there.
        inputs: the table of what was read; there may be none yet.
    """
    if table_version(spark, inputs) is None:
        return New(place)
    read = read_table(spark, inputs)
    if place.files is None:
        rows = read.where(F.col("path") == place.name)
        # What was written before there were ids is of the table that is there, as far as anybody can tell.
        table = F.col("table_id") if "table_id" in read.columns else F.lit(None).cast("string")
        last = rows.orderBy(F.desc("read_at")).select("version", table.alias("table_id")).first()
        if last is None or (last["table_id"] or place.table_id) != place.table_id:
            return New(place)
        version = last["version"]
        return New(place, True, version, nothing=version is not None and version == place.version)
    latest = F.max_by(F.struct("bytes", "modified"), "read_at").alias("was")
    before = {row["path"]: row["was"] for row in read.groupBy("path").agg(latest).collect()}
    new, changed = [], []
    for file in place.files:
        was = before.get(file.path)
        if was is not None and was["bytes"] == file.bytes and _utc(was["modified"]) == file.modified:
            continue
        new.append(file)
        if was is not None:
            changed.append(file.path)
    return New(replace(place, files=tuple(new)), bool(before), changed=tuple(changed), nothing=not new)


def _utc(when: datetime) -> datetime:
    return when.astimezone(timezone.utc)


def new_rows(spark: SparkSession, new: New) -> tuple[DataFrame, str, str | None]:
    """The rows of a table that were not read before, and by what they are known.

    Args:
        spark: the session.
        new: of `since`; its place is a table.

    Returns:
        The rows; by what they are known: `feed` (those that its change feed says were added since), `newest`
        (all, for there is no feed: `watermark` takes the newest) or `all`; and of the last, where a feed is
        there and does not reach back to what was read before, why it does not.
    """
    place = new.place
    if new.since is None or place.version is None or not _has_feed(spark, place.name):
        every = read_table(spark, place.name, version=place.version)
        return every, "newest" if new.known else "all", None
    first = new.since + 1
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", first).option("endingVersion", place.version)
    try:
        table = identifier(spark, place.name)
        feed = reader.table(place.name) if table == place.name else reader.load(place.name)
        feed = feed.where(F.col("_change_type") == _ADDED)
        # Whether each of those versions has a feed is seen when their files are looked for.
        feed.select("_change_type").limit(1).collect()
    except Exception as problem:
        if any(word in str(problem) for word in ("CHANGE_DATA", "change data", "CHANGE_TABLE", "ChangeData")):
            why = f"was off for some version from {first} to {place.version}, or the columns have changed"
        elif (oldest := _oldest_version(spark, place.name)) > first:
            # Delta has an error of its own for each way in which its log may end.
            why = f"begins at version {oldest}, for older ones are gone from the table's log"
        else:
            raise
        return read_table(spark, place.name, version=place.version), "all", why
    return feed.drop("_change_type", "_commit_version", "_commit_timestamp"), "feed", None


def _has_feed(spark: SparkSession, name: str) -> bool:
    detail = spark.sql(f"DESCRIBE DETAIL {identifier(spark, name)}").select("properties").first()
    return detail is not None and detail["properties"].get("delta.enableChangeDataFeed", "").lower() == "true"


def _oldest_version(spark: SparkSession, name: str) -> int:
    """The first version of which a table's log has the commit. Cost: a look at the whole history."""
    row = spark.sql(f"DESCRIBE HISTORY {identifier(spark, name)}").agg(F.min("version")).first()
    assert row is not None  # an aggregate without keys has one row
    return int(row[0])


def watermark(spark: SparkSession, output: str, late_hours: float) -> int | None:
    """Microseconds from which clicks may be new: those of the newest session, less so many hours."""
    sessions = read_table(spark, output)
    if "times" not in sessions.columns:
        return None
    newest = sessions.agg(F.max(F.unix_micros(F.element_at("times", -1)))).first()
    if newest is None or newest[0] is None:
        return None
    return int(newest[0]) - round(late_hours * 3600e6)


def inputs_of(spark: SparkSession, place: Place, run_id: str, read_at: datetime) -> DataFrame:
    """Rows of what a run read, in `INPUTS_SCHEMA`."""
    rows: list[tuple[Any, ...]]
    if place.files is None:
        rows = [(place.name, None, None, place.version, read_at, run_id, place.table_id)]
    else:
        rows = [(f.path, f.bytes, f.modified, None, read_at, run_id, None) for f in place.files]
    return spark.createDataFrame(rows, INPUTS_SCHEMA)


def check_same(
    spark: SparkSession, ingests: str, source: Source, settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """See that sessions are made as on the nights before, of columns of the same types.

    Args:
        spark: the session.
        ingests: the table of runs.
        source: what is read.
        settings: of this run.

    Returns:
        Columns that the log did not have the last time, and that are not kept.

    Raises:
        SettingsError: they would be made in another way, or of users where they were the log's own.
        InputError: a column has another type.
    """
    runs = read_table(spark, ingests)
    newest = F.max_by(F.struct("settings", "form"), "started_at").alias("newest")
    same = F.when(F.col("input") == source.place, F.col("started_at"))
    types = F.max_by("types", same).alias("types")
    last = runs.agg(newest, types).first()
    assert last is not None  # an aggregate without keys has one row
    asked = json.loads(last["newest"]["settings"])
    for key in _MAKING:
        if asked.get(key) != settings.get(key):
            raise SettingsError(
                f"The sessions that are there were made with {key.replace('_', '-')} {_said(asked.get(key))} "
                f"and this run has {_said(settings.get(key))}: they would not be alike. Give the same, or "
                "ingest everything once more without --append."
            )
    form, was = source.form, json.loads(last["newest"]["form"])
    if (form.session is None) != (was.get("session") is None):
        raise SettingsError(
            f"The sessions that are there were made {_owners(was)}, and those of {source.place} would be "
            f"made {_owners(form.columns())}: they would not be alike. Name the column of before, or ingest "
            "everything once more without --append."
        )
    before: Mapping[str, str] = last["types"] or {}
    for name in source.used:
        kind = source.types.get(name)
        if kind is not None and before.get(name, kind) != kind:
            raise InputError(
                f"The column {name} of {source.place} was {before[name]} the last time and is {kind} now: "
                "values of both would not be the same. Cast it in the log, or give another --output. No "
                "table was touched."
            )
    return tuple(name for name in source.left_out if before and name not in before)


def _owners(columns: Mapping[str, str]) -> str:
    if columns.get("session") is not None:
        return f"of the log's sessions, by {columns['session']}"
    return f"of its users, by {columns['user']}"


def last_form(spark: SparkSession, ingests: str, name: str) -> Form:
    """The form of the newest run that read a place; where none did, that of the newest of all.

    A place may have another name each night, such as that of the day.

    Args:
        spark: the session.
        ingests: the table of runs.
        name: of the place.
    """
    at = F.struct(F.col("input") == name, "started_at")
    newest = read_table(spark, ingests).agg(F.max_by("form", at)).first()
    assert newest is not None  # an aggregate without keys has one row
    return Form.model_validate_json(newest[0])


def _said(value: object) -> str:
    return "no value" if value is None else str(value)


def kept_before(spark: SparkSession, output: str) -> dict[str, str]:
    """Columns of the log that a table of sessions has kept, each with the type of its values."""
    return {
        field.name: field.dataType.elementType.simpleString()
        for field in read_table(spark, output).schema
        if field.name not in OURS and isinstance(field.dataType, ArrayType)
    }


def roles_before(spark: SparkSession, output: str) -> frozenset[str]:
    """What a table of sessions has of its clicks beside the item: time, kind, order."""
    there = read_table(spark, output).columns
    return frozenset(role for role, name in _ARRAYS.items() if name in there)


def check_columns(spark: SparkSession, output: str, source: Source, kept: Mapping[str, str]) -> None:
    """See that tonight's clicks have what the table of sessions holds, and that it can take what is new.

    Args:
        spark: the session.
        output: the table of sessions.
        source: what is read.
        kept: of `kept_before`.

    Raises:
        InputError: a role has no column any more, or one that it had not, a kept one has another type, or a
            new one a name that the table cannot take.
    """
    there = read_table(spark, output).columns
    for role, name in _ARRAYS.items():
        column = getattr(source.form, role)
        if name in there and column is None:
            raise InputError(
                f"The sessions of {output} have {name}, and no column of {source.place} holds any. Name it "
                f"by --{role}-column, or ingest everything once more without --append. No table was touched."
            )
        # A click that is read again would have what it had not, and be taken for another.
        if name not in there and column is not None:
            raise InputError(
                f"The sessions of {output} have no {name}, and {column} of {source.place} is the {role} now: "
                "clicks that are read again would not be known. Leave out what names it, or ingest "
                "everything once more without --append. No table was touched."
            )
    for name, kind in source.keep.items():
        if kept.get(name, kind) != kind:
            raise InputError(
                f"The column {name} of {source.place} is {kind.upper()}, and {output} has kept it as "
                f"{kept[name].upper()}. Cast it in the log, or give another --output. No table was touched."
            )
    unusual = [name for name in source.keep if name not in there and special(name)]
    if unusual and not any(special(name) for name in there):
        raise InputError(
            f"The column {unusual[0]!r} of {source.place} is new, and its name needs Delta's column mapping, "
            f"which {output} was written without. Leave it out of --keep, or ingest everything once more "
            "without --append. No table was touched."
        )


def old_sessions(
    spark: SparkSession, output: str, rows: DataFrame, form: Form, cutting: Cutting
) -> DataFrame:
    """Sessions of nights before, of the owners that have new clicks.

    Args:
        spark: the session.
        output: the table of sessions.
        rows: of `clicks.judged`.
        form: of the source.
        cutting: what is a session.

    Returns:
        The table's columns, and owner STRING. Cost: the new clicks' owners are joined with the table's.

    Raises:
        InputError: the table's sessions were cut and these are not, or the other way round.
    """
    sessions = read_table(spark, output)
    if cutting.cuts != ("owner" in sessions.columns):
        were, be = ("not ", "are to be") if cutting.cuts else ("", "are not to be")
        raise InputError(
            f"The sessions of {output} were {were}cut from users or longer sessions, and these {be}. Give "
            "another --output, or ingest everything once more without --append."
        )
    owners = rows.where(F.isnull("rule")).groupBy("owner").agg(F.min("us").alias("from"))
    owner = F.col("owner") if cutting.cuts else F.col("session_id")
    # By the frame's name: what was kept of the log may be called as a column of ours.
    theirs, new = sessions.withColumn("owner", owner).alias("theirs"), owners.alias("new")
    goes_on = F.col("theirs.owner") == F.col("new.owner")
    if cutting.gap is not None and cutting.longest is None:
        # What ended long before the first new click stays as it is.
        last = F.unix_micros(F.element_at("theirs.times", -1))
        goes_on = goes_on & (last >= F.col("new.from") - F.lit(cutting.gap))
    return theirs.join(new, goes_on, "left_semi")


def changed(sessions: DataFrame, before: DataFrame) -> DataFrame:
    """Sessions that are new, or other ones than they were.

    Without a new click a session can be another one where sessions are cut by a longest time: that counts
    from the first click, and a new one may come before it.

    Args:
        sessions: of `gathering.gather`, with clicks of nights before among them.
        before: of `old_sessions`, all that these clicks are of.

    Returns:
        Those rows of `sessions`. Cost: a join by the id.
    """
    was = before.select(F.col("session_id").alias("was"), F.size("items").alias("clicks"))
    # The clicks of an owner from one time on, and as many: they are the same.
    same = (F.col("session_id") == F.col("was")) & (F.size("items") == F.col("clicks"))
    return sessions.join(was, same & ~F.exists("nights", lambda night: night == 1), "left_anti")


def old_clicks(sessions: DataFrame, rows: DataFrame, form: Form, keep: Collection[str]) -> DataFrame:
    """The clicks of such sessions, as `clicks.judged` has them, night 0.

    Args:
        sessions: of `old_sessions`.
        rows: of `clicks.judged`.
        form: of the source.
        keep: names of the columns that are kept.
    """
    names = {"items": "item", "times": "us", "kinds": "kind", "orders": "order"}
    there = {new: F.col(old) for old, new in names.items() if old in sessions.columns}
    there |= {f"m{k}": F.col(quoted(name)) for k, name in enumerate(keep) if name in sessions.columns}
    named = sessions.select("session_id", "owner", *[column.alias(new) for new, column in there.items()])
    told = form.rows == "sessions" and form.time is not None
    if told:
        named = with_occurrences(named, [name for name in names.values() if name in there])
    flat = named.select("*", F.posexplode("item").alias("seq", "one"))

    def of(name: str) -> Column:
        # Of sessions from before the log gained a column there is none of its values, not even an array.
        return F.get(name, F.col("seq")) if name in there else F.lit(None)

    values: dict[str, Column] = {
        "owner": F.col("owner"),
        "seq": F.col("seq").cast("bigint"),
        "place": F.lit(0) if form.time is not None else F.col("seq"),
        "night": F.lit(0),
        "rule": F.lit(None).cast("string"),
        "item": F.col("one"),
        "us": F.unix_micros(of("us")) if "us" in there else F.lit(None).cast("bigint"),
    }
    for name in ("kind", "order"):
        if name in rows.columns:
            values[name] = of(name).cast("string")
    if form.order is not None:
        values["rank"] = F.lit(None).cast("decimal(38,9)")
        if "order" in there:
            values["rank"] = F.expr("try_cast(get(`order`, seq) AS DECIMAL(38, 9))")
    if "more" in rows.columns:
        kinds = rows.schema["more"].dataType
        assert isinstance(kinds, StructType)
        values["more"] = F.struct(
            *[of(f"m{k}").cast(kinds[f"m{k}"].dataType).alias(f"m{k}") for k in range(len(keep))]
        )
    if told:
        values["nth"] = F.coalesce(F.get("nth", F.col("seq")), F.lit(0))
    if "warned" in rows.columns:
        values["warned"] = F.lit(0)
    return flat.select(*[value.alias(name) for name, value in values.items()])
