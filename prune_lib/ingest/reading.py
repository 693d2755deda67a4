"""Every click of a source with where it came from: file, line, and the record as it came.

Text is read line by line by Spark itself (`lines`); what stands in a line is taken apart afterwards, so that
a line that is no record is still there as it came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    AtomicType,
    BinaryType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    FractionalType,
    IntegralType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from prune_lib.ingest.clicks import with_occurrences
from prune_lib.ingest.fields import more_fields, unclosed, well_quoted
from prune_lib.ingest.form import ROLES, Form
from prune_lib.ingest.lines import filled, numbered, records
from prune_lib.ingest.source import Source
from prune_lib.ingest.times import micros_of_number, micros_of_text
from prune_lib.sessions.columns import quoted

__all__ = ["read_clicks"]

# No field of a JSON line has this name.
_UNREADABLE = "\x00unreadable"
_END = "\x00end"
#: Fields of a line, at most, or as many as its header has; at more Spark's reader stops.
_MOST_FIELDS = 20_480
#: Doubles that are below have no digits that a DECIMAL(20, 0) cannot hold.
_WHOLE = 1e18
#: Rows of a file that have numbers of their own.
_FILE_BITS = 40


def read_clicks(spark: SparkSession, source: Source, *, placed: bool = True) -> DataFrame:
    """Every click of a source.

    Args:
        spark: the session.
        source: what is read.
        placed: whether rows of a table say where they stood; else at and seq are null.

    Returns:
        file STRING, at BIGINT (its line or row there, from 1; null in a Delta table, whose files are cut anew
        at times), seq BIGINT (what orders rows by file and line; null likewise), place INT (in a list of
        clicks), record STRING (as it came), readable, utf8 BOOLEAN, us BIGINT (microseconds since the epoch;
        null where it is none), session, user, item, order, kind STRING, nth INT (where a row is a session
        with times: how many clicks like it stand there before it; else absent), more STRUCT (m0, m1, …: the
        columns that are kept; absent where there are none). Nothing is computed yet.
    """
    form = source.form
    if source.frame is not None:
        return _of_table(spark, source, source.frame, placed)
    assert source.splits is not None
    lines = numbered(spark, source.paths, source.splits)
    if form.format == "jsonl":
        return _of_json(filled(lines), source)
    lines = filled(records(lines, form.delimiter) if form.multi_line else lines)
    if form.header is not None:
        return _of_csv(lines, source, form.header)
    lines = lines.where(F.col("at") > 1)
    parts = [
        _of_csv(lines.where(F.col("header") == header), source, columns)
        for header, columns in sorted(source.headers.items())
    ]
    out = parts[0]
    for part in parts[1:]:
        out = out.unionByName(part)
    return out


def _of_csv(lines: DataFrame, source: Source, columns: Sequence[str]) -> DataFrame:
    form = source.form
    # By number: a column's name may hold anything.
    names = [f"c{k}" for k in range(len(columns))]
    schema = ", ".join(f"{name} STRING" for name in (*names, "bad"))
    most = max(_MOST_FIELDS, len(columns))
    # As RFC 4180 and Python's csv have it: a quote within quotes is doubled, a backslash is a letter.
    options = {
        "sep": form.delimiter,
        "escape": '"',
        "columnNameOfCorruptRecord": "bad",
        "mode": "PERMISSIVE",
        "maxCharsPerColumn": "-1",
        "maxColumns": str(most),
        # Else a line that begins with a null byte is a comment.
        "comment": "",
    }
    text = F.col("text")
    # Few lines are long enough to be looked through.
    wide = (F.octet_length(text) > most) & text.rlike(more_fields(form.delimiter, most))
    parsed = lines.withColumn("fields", F.from_csv(F.when(~wide, text), schema, options))
    at = {column: F.col(f"fields.{name}") for name, column in zip(names, columns, strict=True)}
    readable = F.col("fields").isNotNull() & F.col("fields.bad").isNull()
    readable = readable & ~(text.contains('"') & text.rlike(unclosed(form.delimiter)))
    if form.multi_line:
        # Spark's reader goes no further than to a line break that no quotes are around.
        one_line = ~text.contains("\n")
        readable = readable & F.col("whole") & (one_line | text.rlike(well_quoted(form.delimiter)))
    values = {role: at[name] for role, name in form.columns().items()}
    more = {name: at.get(name, _nothing()) for name in source.keep}
    if form.rows == "clicks":
        return _clicks(parsed, form, values, readable, more)
    parsed = parsed.withColumn("readable", readable)
    lists = _split(values, form)
    more = {name: _split_kept(text, lists["item"], form) for name, text in more.items()}
    return _of_sessions(parsed, form, values, lists, more)


def _split(values: Mapping[str, Column], form: Form, items: Column | None = None) -> dict[str, Column]:
    """Lists in fields of text.

    Args:
        values: STRING, by role.
        form: of the source.
        items: the list of items, where that is no text.
    """
    lists: dict[str, Column] = {
        role: F.when(F.trim(values[role]) != "", _parts(values[role], form))
        for role in ("item", "time", "kind")
        if role in values
    }
    n = F.size(lists["item"] if items is None else items)
    # What is a time, or one kind, as a whole is that of all items.
    if "time" in lists:
        whole = micros_of_text(values["time"], None, form).isNotNull()
        lists["time"] = F.when(whole, F.array_repeat(values["time"], n)).otherwise(lists["time"])
    if "kind" in lists:
        one = F.size(lists["kind"]) == 1
        lists["kind"] = F.when(one, F.array_repeat(F.trim(values["kind"]), n)).otherwise(lists["kind"])
    return lists


def _parts(text: Column, form: Form) -> Column:
    return F.split(F.trim(text), _literally(form.list_delimiter or " "))


def _split_kept(text: Column, items: Column, form: Form) -> Column:
    """A text that is kept beside a list of items: as many parts as there are items are one each.

    Another is kept as it stands, beside each: the delimiter may be a letter of what is no list.
    """
    parts, n = _parts(text, form), F.size(items)
    return F.when((n > 1) & (F.size(parts) == n), parts).otherwise(F.array_repeat(text, n))


def _of_json(lines: DataFrame, source: Source) -> DataFrame:
    form = source.form
    columns = form.columns()
    if form.pattern is not None:
        lines = lines.withColumn("text", F.regexp_replace("text", form.pattern, form.replacement or ""))
    outer = set(form.outer) if form.events is not None else set(columns)
    lists = {"item", "time", "kind"} if form.rows == "sessions" else set()
    # Of all but the items there are as many as items, or one: a list is read as its text first.
    fields = [
        StructField(name, ArrayType(StringType()) if role in lists & {"item"} else StringType())
        for role, name in columns.items()
        if role in outer
    ]
    inner: list[StructField] = []
    if form.events is not None:
        names = dict.fromkeys([name for role, name in columns.items() if role not in outer])
        names.update(dict.fromkeys(source.keep))
        inner = [StructField(name, StringType()) for name in names]
        fields.append(StructField(form.events, ArrayType(StructType(inner))))
    else:
        fields += [StructField(name, StringType()) for name in source.keep]
    # Two roles may have one column, and what has a role may be kept, too.
    fields = list({field.name: field for field in reversed(fields)}.values())
    schema = StructType([*fields, StructField(_UNREADABLE, StringType())])
    options = {"columnNameOfCorruptRecord": _UNREADABLE, "mode": "PERMISSIVE"}
    alone = _alone(F.col("text"))
    parsed = lines.withColumn("fields", F.when(alone, F.from_json("text", schema, options)))
    readable = F.col("fields").isNotNull() & _field("fields", _UNREADABLE).isNull()
    if form.events is None:
        values = {role: _field("fields", name) for role, name in columns.items()}
        more = {name: _field("fields", name) for name in source.keep}
        if form.rows == "clicks":
            return _clicks(parsed, form, values, readable, more)
        parsed = parsed.withColumn("readable", readable)

        def listed(name: str) -> Column:
            items, value = values["item"], _field("fields", name)
            return items if name == form.item else _listed(value, items)

        arrays = {role: listed(columns[role]) for role in lists & set(values)}
        return _of_sessions(parsed, form, values, arrays, {name: listed(name) for name in more})
    # A session without a click stays one row, and is judged as a click without an item.
    parsed = parsed.withColumn("readable", readable).select(
        "*", F.posexplode_outer(_field("fields", form.events)).alias("place", "click")
    )
    values = {r: _field("fields" if r in outer else "click", n) for r, n in columns.items()}
    more = {name: _field("click", name) for name in source.keep}
    return _clicks(parsed, form, values, F.col("readable"), more, F.col("place"))


def _listed(text: Column, items: Column) -> Column:
    """A list of JSON in a text; what is none as often as there are items."""
    found = F.when(text.startswith("["), F.from_json(text, ArrayType(StringType())))
    return F.coalesce(found, F.array_repeat(text, F.size(items)))


def _alone(text: Column) -> Column:
    """Whether nothing follows the first JSON object of a text: Spark reads no further than its end."""
    # Most lines have one closing brace, their last letter, and need no second look.
    flat = text.rlike(r"^[^}]*+}\s*$")
    end = StructType([StructField(_END, StringType())])
    listed = F.from_json(F.concat(F.lit("["), text, F.lit(', {"\\u0000end": 1}]')), ArrayType(end))
    alone = (F.size(listed) == 2) & F.get(listed, F.lit(1)).getField(_END).isNotNull()
    return flat | F.coalesce(alone, F.lit(False))


def _of_table(spark: SparkSession, source: Source, frame: DataFrame, placed: bool) -> DataFrame:
    form = source.form
    # By number: a column's name may be anything, one of ours, too.
    at = {name: F.col(f"c{k}") for k, name in enumerate(frame.columns)}
    numbered = placed and form.format == "parquet" and source.has_files
    nothing = F.lit(None).cast("bigint")
    rows = frame.select(
        *[F.col(quoted(name)).alias(f"c{k}") for k, name in enumerate(frame.columns)],
        (F.col("_metadata.file_path") if source.has_files else F.lit(source.place)).alias("file"),
        (F.col("_metadata.row_index") if numbered else nothing).alias("row"),
    )
    number = F.lit(0).cast("bigint")
    if numbered and len(source.paths) > 1:
        jvm: Any = spark._jvm
        uris = [str(jvm.org.apache.hadoop.fs.Path(path).toUri().toString()) for path in source.paths]
        numbers = spark.createDataFrame(
            [(uri, n) for n, uri in enumerate(uris)], "file string, number bigint"
        )
        rows, number = rows.join(F.broadcast(numbers), "file", "left"), F.col("number")
    rows = (
        rows.withColumn("at", F.col("row") + 1)
        .withColumn("seq", F.shiftleft(number, _FILE_BITS) + F.col("row"))
        # Computed where a row is put aside, and nowhere else.
        .withColumn("line", F.to_json(F.struct(*[column.alias(name) for name, column in at.items()])))
        .withColumn("utf8", F.lit(True))
        .withColumn("readable", F.lit(True))
    )
    kinds = {field.name: field.dataType for field in frame.schema}
    typed = {role: (at[name], kinds[name]) for role, name in form.columns().items()}
    more = {
        name: _plain(at[name], kinds[name], form) if name in at else F.lit(None).cast(kind)
        for name, kind in source.keep.items()
    }
    us = None
    # Texts are taken apart as those of CSV are, unless the items are a list and no delimiter is given.
    whole = isinstance(kinds[form.item], ArrayType) and form.list_delimiter is None
    apart = form.rows == "sessions" and not whole
    if "time" in typed and not (apart and isinstance(typed["time"][1], StringType)):
        column, kind = typed.pop("time")
        offset = at[form.offset].cast("string") if form.offset is not None else None
        if isinstance(kind, ArrayType):
            us = F.transform(column, lambda x: _typed_micros(x, kind.elementType, form, None))
        else:
            us = _typed_micros(column, kind, form, offset)
    if form.rows == "sessions":
        lists = {r: _texts(c, kind) for r, (c, kind) in typed.items() if isinstance(kind, ArrayType)}
        values = {role: _text(column, kind) for role, (column, kind) in typed.items() if role not in lists}
        if apart:
            lists |= _split(values, form, lists.get("item"))
            texts = [name for name in more if isinstance(kinds.get(name), StringType)]
            more |= {name: _split_kept(more[name], lists["item"], form) for name in texts}
        return _of_sessions(rows, form, values, lists, more, us)
    values = {role: _text(column, kind) for role, (column, kind) in typed.items()}
    return _clicks(rows, form, values, F.lit(True), more, us=us)


def _text(column: Column, kind: DataType) -> Column:
    """An id as text; of a DOUBLE, as pandas has ids where some are missing, the digits of a whole number."""
    if not isinstance(kind, DoubleType | FloatType):
        return column.cast("string")
    whole = (column == F.floor(column)) & (F.abs(column) < _WHOLE)
    return (
        F.when(whole, column.cast("decimal(20,0)").cast("string"))
        .when(~F.isnan(column), column.cast("string"))
        .otherwise(_nothing())
    )


def _texts(column: Column, kind: ArrayType) -> Column:
    if not isinstance(kind.elementType, DoubleType | FloatType):
        return column.cast("array<string>")
    return F.transform(column, lambda x: _text(x, kind.elementType))


def _of_sessions(
    rows: DataFrame,
    form: Form,
    values: Mapping[str, Column],
    lists: Mapping[str, Column],
    more: Mapping[str, Column],
    us: Column | None = None,
) -> DataFrame:
    """Rows that are sessions, a row a click: an item beyond the end of a list of times has none.

    Args:
        rows: with file, at, seq, line, utf8, readable.
        form: of the source.
        values: by role, one a session.
        lists: by role, one a click; the item is one of them.
        more: columns that are kept, one a session or, where they are lists, one a click.
        us: microseconds, of a session or a list of its clicks'; None: by the text of the time.
    """
    given = {f"v_{role}": column for role, column in values.items() if role not in lists}
    given |= {f"l_{role}": column for role, column in lists.items()}
    given |= {f"k{n}": column for n, column in enumerate(more.values())}
    given |= {} if us is None else {"us": us}
    base = ["file", "at", "seq", "line", "utf8", "readable"]
    named = rows.select(*base, *[column.alias(name) for name, column in given.items()])
    told = form.time is not None
    if told:
        alike = ("l_item", "l_time", "us", "l_order", "l_kind")
        lists_there = [name for name in alike if name in given and _is_list(named, name)]
        named = with_occurrences(named, lists_there)
    flat = named.select("*", F.posexplode_outer("l_item").alias("place", "v_item"))

    def each(name: str) -> Column:
        return F.get(name, F.col("place")) if _is_list(flat, name) else F.col(name)

    clicks = {r: each(f"l_{r}") if r in lists and r != "item" else F.col(f"v_{r}") for r in (*values, *lists)}
    kept = {name: each(f"k{n}") for n, name in enumerate(more)}
    micros = None if us is None else each("us")
    nth = F.coalesce(F.get("nth", F.col("place")), F.lit(0)) if told else None
    return _clicks(flat, form, clicks, F.col("readable"), kept, F.col("place"), micros, nth)


def _is_list(rows: DataFrame, name: str) -> bool:
    return isinstance(rows.schema[name].dataType, ArrayType)


def _typed_micros(column: Column, kind: DataType, form: Form, offset: Column | None) -> Column:
    """Microseconds of a value by its type: what is a time already is not read from a text."""
    if offset is None and form.time_format is None:
        if isinstance(kind, TimestampType):
            return F.unix_micros(column)
        if isinstance(kind, DateType):
            return F.unix_date(column).cast("bigint") * F.lit(86_400_000_000)
        if isinstance(kind, IntegralType):
            return micros_of_number(column.cast("bigint"))
    if isinstance(kind, TimestampType):
        text = (F.unix_micros(column).cast("decimal(20,0)") / 1_000_000).cast("decimal(26,6)").cast("string")
    elif isinstance(kind, FractionalType):
        text = column.cast("decimal(28,9)").cast("string")
    else:
        text = column.cast("string")
    return micros_of_text(text, offset, form)


def _plain(column: Column, kind: DataType, form: Form) -> Column:
    """A kept value (or list) of `source.kept_type`: as it is, where such can be ordered; else as JSON."""
    if form.rows == "sessions" and isinstance(kind, ArrayType):
        return F.transform(column, lambda x: _atom(x, kind.elementType))
    return _atom(column, kind)


def _atom(column: Column, kind: DataType) -> Column:
    if isinstance(kind, AtomicType) and not isinstance(kind, BinaryType):
        return column
    return column.cast("string") if isinstance(kind, BinaryType) else F.to_json(column)


def _clicks(
    rows: DataFrame,
    form: Form,
    values: Mapping[str, Column],
    readable: Column,
    more: Mapping[str, Column],
    place: Column | None = None,
    us: Column | None = None,
    nth: Column | None = None,
) -> DataFrame:
    empty = _nothing()
    if us is None:
        us = F.lit(None).cast("bigint")
        if form.time is not None:
            us = micros_of_text(values["time"], values.get("offset"), form)
    kept = [value.alias(f"m{n}") for n, value in enumerate(more.values())]
    return rows.select(
        "file",
        "at",
        "seq",
        (F.lit(0) if place is None else F.coalesce(place, F.lit(0))).alias("place"),
        F.col("line").alias("record"),
        readable.alias("readable"),
        "utf8",
        us.alias("us"),
        *[values.get(role, empty).alias(role) for role in ROLES if role not in ("time", "offset")],
        *([] if nth is None else [nth.alias("nth")]),
        *([F.struct(*kept).alias("more")] if kept else []),
    )


def _nothing() -> Column:
    return F.lit(None).cast("string")


def _literally(mark: str) -> str:
    """A pattern that means a text and nothing else."""
    return "\\Q" + mark.replace("\\E", "\\E\\\\E\\Q") + "\\E"


def _field(of: str, name: str) -> Column:
    return F.col(of).getField(name)
