"""What is to be read, and how it is laid out: files or a table, their columns, their types."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, Literal

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, ParseException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, AtomicType, BinaryType, DataType, MapType, StructType

from prune_lib.errors import InputError, SettingsError
from prune_lib.ingest.form import (
    Form,
    Format,
    delimiter_of,
    first_fields,
    first_object,
    guessed,
    list_columns,
    merged,
    nested_columns,
    recognised,
)
from prune_lib.ingest.lines import BOM, Splits, first_texts, splits_of
from prune_lib.locations import has_scheme, is_location
from prune_lib.sessions.columns import sql_type
from prune_lib.sessions.opening import reached
from prune_lib.sessions.read_errors import reading_errors

__all__ = ["OURS", "Asked", "File", "NoLine", "Place", "Source", "find_place", "find_source", "kept_type"]

_ENDINGS: tuple[tuple[str, Format], ...] = (
    (".csv", "csv"), (".tsv", "csv"), (".txt", "csv"), (".dat", "csv"), (".jsonl", "jsonl"),
    (".ndjson", "jsonl"), (".json", "jsonl"), (".idomaar", "jsonl"), (".parquet", "parquet"),
)  # fmt: skip
#: What a column stays for as long as the log has it.
_STAYING = ("session", "user", "item", "time", "kind")
_PACKED = (".gz", ".bz2", ".zst", ".snappy")
#: Columns of a sessions table that are not the log's.
OURS = ("session_id", "owner", "items", "times", "kinds", "orders", "ingest_run")
#: First lines of JSON, of which one must be an object.
_FIRST = 50


class NoLine(InputError):
    """There are files, and nothing in them."""


@dataclass(frozen=True)
class File:
    """A file as it was when the run began.

    Attributes:
        path: qualified.
        bytes: its length.
        modified: when it was last written.
    """

    path: str
    bytes: int
    modified: datetime


@dataclass(frozen=True)
class Place:
    """Where the clicks are.

    Attributes:
        name: as the user gave it.
        format: of what is there.
        reason: why this format was taken, in a few words.
        files: of text and Parquet, by path; None for tables.
        version: of a Delta table, the one that is read.
        table_id: of a Delta table, what tells it from another that takes its place.
    """

    name: str
    format: Format
    reason: str
    files: tuple[File, ...] | None = None
    version: int | None = None
    table_id: str | None = None


@dataclass(frozen=True)
class Asked:
    """What the user said of the source's layout.

    Attributes:
        form: a form; None to find it.
        delimiter: of lines; None to find it.
        named: columns by role.
        keep: columns that are kept beside those of the roles; `all` alone for every one.
        kept: those that nights before kept, each with the type of its values.
        multi_line: whether a quoted field may go on over lines.
        list_delimiter: between the items of a session in text; None where a row is a click.
        before: what the clicks of nights before had: time, kind, order; None on the first night.
        last: the form by which the night before was read; None on the first night.
    """

    form: Form | None = None
    delimiter: str | None = None
    named: Mapping[str, str | None] = field(default_factory=dict)
    keep: tuple[str, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    multi_line: bool = False
    list_delimiter: str | None = None
    before: frozenset[str] | None = None
    last: Form | None = None


@dataclass(frozen=True)
class Source:
    """What is read, and how.

    Attributes:
        place: as the user named it.
        form: how it is laid out.
        reason: why this form was taken, in a few words.
        keep: columns that are kept beside those of the roles, each with the type that its values have.
        types: of its columns, by name; of text STRING; of nested clicks those that are used.
        paths: files that are read.
        headers: of text with headers, the names of each file's columns by its first line; several where files
            differ.
        splits: of text, where its lines begin.
        frame: of tables, their rows.
        has_files: whether its rows know the file that they came from.
    """

    place: str
    form: Form
    reason: str
    keep: Mapping[str, str]
    types: Mapping[str, str]
    paths: tuple[str, ...] = ()
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    splits: Splits | None = None
    frame: DataFrame | None = None
    has_files: bool = True

    @property
    def used(self) -> tuple[str, ...]:
        """Names of the columns that are read."""
        return (*self.form.columns().values(), *self.keep)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the others."""
        return tuple(name for name in self.types if name not in self.used)

    def rows(self) -> int | None:
        """Rows by the lines of the files, where a line is a row; else None."""
        if self.form.events is not None or self.form.rows == "sessions":
            return None
        return self.lines()

    def lines(self) -> int | None:
        """Lines of the files, headers left out, where a line is a click or a list of them; else None."""
        if self.splits is None or self.form.multi_line:
            return None
        return self.splits.lines - len([h for h in self.splits.headers.values() if h in self.headers])


def find_place(spark: SparkSession, name: str, format: Format | Literal["auto"], form: Form | None) -> Place:
    """See what is at a place; of its files nothing is read but, where no ending tells, one's first bytes.

    Args:
        spark: the session.
        name: a file, a folder, a pattern of files, or a table.
        format: as the user said it.
        form: where the user gave one.

    Raises:
        InputError: there is nothing, or nothing that tells its format.
    """
    from prune_lib.delta import table_version

    table = _is_table(spark, name)
    version = None
    if not table and has_scheme(name):
        reached(spark, name)
    with reading_errors(name):
        if table or not re.search(r"[*?\[{]", name):
            version = table_version(spark, name)
    if (table or version is not None) and format in ("csv", "jsonl"):
        raise InputError(f"{name} is a table, and --format says {format}. Leave out --format.")
    # A table's files are Parquet whatever the log's form was.
    if table or version is not None:
        reason = "a table of the catalog" if table else "it has a _delta_log"
        table_id = None if version is None else _table_id(spark, name)
        return Place(name, "delta", reason, None, version, table_id)
    guess = None
    with reading_errors(name):
        files = _files(spark, name)
        if format == "auto" and form is None:
            guess = _format_of(spark, name, [f.path for f in files])
    if guess is not None:
        format, reason = guess
    elif form is not None:
        parquet = form.events is None and all(f.path.lower().endswith(".parquet") for f in files)
        format = "parquet" if parquet else form.format
        reason = "the form that was asked for"
    else:
        reason = "the format that was asked for"
    assert format != "auto"
    if format == "delta":
        raise InputError(f"{name} is no Delta table: it has no _delta_log. Leave out --format.")
    return Place(name, format, reason, files)


def find_source(spark: SparkSession, place: Place, frame: DataFrame | None, asked: Asked) -> Source:
    """See how a source is laid out; of its rows only the first of each file are looked at.

    Args:
        spark: the session.
        place: what is there; its files are those that are read.
        frame: of a table, the rows that are read.
        asked: what the user said.

    Raises:
        InputError: it is empty, or a column is missing.
    """
    if asked.form is not None and place.format in ("parquet", "delta"):
        asked = replace(asked, form=asked.form.model_copy(update={"format": place.format}))
    with reading_errors(place.name):
        if place.format in ("parquet", "delta"):
            return _tabular(spark, place, frame, asked)
        return _textual(spark, place, asked)


# -------------------------------------------------------------------------------------------- tables


def _tabular(spark: SparkSession, place: Place, frame: DataFrame | None, asked: Asked) -> Source:
    paths: tuple[str, ...] = ()
    if frame is None:
        paths = tuple(file.path for file in place.files or ())
        frame = _parquet(spark, place.name, paths)
    columns = frame.columns
    lists = {f.name for f in frame.schema if isinstance(f.dataType, ArrayType)}
    nested = {f.name: what for f in frame.schema if (what := _nested(f.dataType)) is not None}
    form, reason = _form_of(place, columns, asked, lists, nested, ",")
    _check(form, columns, place.name)
    _check_values(form, nested, place.name)
    # One that is not there (yet) is kept from the night on which it comes.
    there = [name for name in _kept(asked, columns, form) if name in columns or name in asked.kept]
    keep = {name: kept_type(frame, name, form) if name in columns else asked.kept[name] for name in there}
    types = {name: sql_type(frame, name) for name in columns}
    knows = _knows_files(frame)
    return Source(place.name, form, reason, keep, types, paths, frame=frame, has_files=knows)


def _nested(kind: DataType) -> str | None:
    """What values of a type are, in words, where they are neither values nor lists of values."""
    if isinstance(kind, ArrayType) and isinstance(kind.elementType, StructType | MapType | ArrayType):
        return f"an ARRAY of {kind.elementType.typeName().upper()}"
    return f"a {kind.typeName().upper()}" if isinstance(kind, StructType | MapType) else None


def _knows_files(frame: DataFrame) -> bool:
    try:
        frame.select("_metadata.file_path")
    except AnalysisException:
        return False
    return True


def _parquet(spark: SparkSession, name: str, paths: Sequence[str]) -> DataFrame:
    # Files of a log that gained a column have it or have it not.
    reader = spark.read.option("mergeSchema", "true")
    if not re.search(r"[*?\[{]", name) and not paths[0].rstrip("/").endswith(name.rstrip("/")):
        reader = reader.option("basePath", name)
    try:
        return reader.parquet(*[escaped(path) for path in paths])
    except (PySparkException, Py4JJavaError) as problem:
        found = re.search(r"[Ff]ailed to merge (?:incompatible data types|fields) ([^\n]*)", str(problem))
        if "Conflicting directory structures" in str(problem):
            raise InputError(
                f"The files of {name} lie in several folders of partitions (name=value), and nothing tells "
                "which columns they have: read each of these folders by a run of its own, those after the "
                "first with --append."
            ) from problem
        if found is None and "MERGE_SCHEMA" not in str(problem):
            raise
        said = f" ({found[1].strip().rstrip('.')})" if found else ""
        raise InputError(
            f"The files of {name} have a column of one name and two types{said}. Read them in two runs with "
            "another --output, or cast the column in the older files."
        ) from problem


# ---------------------------------------------------------------------------------------------- text


def _textual(spark: SparkSession, place: Place, asked: Asked) -> Source:
    paths = tuple(escaped(file.path) for file in place.files or () if file.bytes)
    splits = splits_of(spark, paths) if paths else None
    if splits is None or not splits.headers:
        raise NoLine(f"{place.name} is empty: no file of it has a line. Give another --input.")
    first = next(iter(splits.headers.values())).removeprefix(BOM)
    nested: dict[str, str] = {}
    if place.format == "csv":
        mark = asked.form.delimiter if asked.form else asked.delimiter or delimiter_of(first)
        columns = list((asked.form and asked.form.header) or first_fields(first, mark))
        form, reason = _form_of(place, columns, asked, set(), nested, mark)
        reason += f", delimiter {'tab' if mark == chr(9) else mark}"
    else:
        mark = ","
        example = {} if asked.form else _example(spark, paths)
        columns, nested = list(example), nested_columns(example)
        form, reason = _form_of(place, columns, asked, list_columns(example), nested, mark)
    if form.events is None:
        _check_values(form, nested, place.name)
    form = form.model_copy(update={"multi_line": form.multi_line or asked.multi_line})
    headers: dict[str, tuple[str, ...]] = {}
    if place.format == "csv" and form.header is None:
        for file, line in splits.headers.items():
            headers[line] = tuple(first_fields(line.removeprefix(BOM), mark))
            _check(form, headers[line], file)
        # Of all files, in the order in which they come up.
        columns = list(dict.fromkeys(name for names in headers.values() for name in names))
    kept = _kept(asked, columns, form)
    if place.format == "csv":
        # Of JSON not each object has all keys; a header has all names.
        kept = [name for name in kept if name in columns or name in asked.kept]
    keep = dict.fromkeys(kept, "string")
    for file, line in splits.headers.items():
        _check_once([*form.columns().values(), *keep], headers.get(line, form.header or ()), file)
    others = columns if form.events is None else []
    types = dict.fromkeys([*form.columns().values(), *keep, *others], "STRING")
    return Source(place.name, form, reason, keep, types, paths, headers, splits)


def _example(spark: SparkSession, paths: Sequence[str]) -> dict[str, Any]:
    """What the first JSON objects hold, together, of the first file that has more than blanks."""
    texts = next(texts for path in paths if (texts := first_texts(spark, path, _FIRST)))
    objects = [found for text in texts if (found := first_object(text)) is not None]
    if objects:
        return merged(objects)
    raise InputError(f"The first lines are no JSON object: {texts[0][:100]!r}. Say what it is by --format.")


def escaped(path: str) -> str:
    """A path that Spark does not take for a pattern."""
    return re.sub(r"([{}\[\]*?\\])", r"\\\1", path)


# ---------------------------------------------------------------------------------------------- both


def _form_of(
    place: Place,
    columns: Sequence[str],
    asked: Asked,
    lists: set[str],
    nested: Collection[str],
    mark: str,
) -> tuple[Form, str]:
    if asked.form is not None:
        return asked.form, place.reason
    form, reason = _found_form(place, columns, asked, lists, nested, mark)
    if asked.last is not None and _moved(form, asked.last, columns, asked.named):
        form = _as_before(asked.last, place, columns, asked, lists, nested, mark)
        reason = f"{place.reason}; columns as the last time"
    # A column that only its name makes a kind, which the log has gained, is one like any other.
    if asked.before is not None and "kind" not in asked.before and not asked.named.get("kind"):
        form = form if form.kinds else form.model_copy(update={"kind": None})
    return form, reason


def _found_form(
    place: Place,
    columns: Sequence[str],
    asked: Asked,
    lists: set[str],
    nested: Collection[str],
    mark: str,
) -> tuple[Form, str]:
    named = any(asked.named.values()) or asked.list_delimiter is not None
    known = None if named else recognised(columns, place.format)
    if known is not None:
        name, form = known
        # What the file's own header shows is worth more than the form's.
        return form.model_copy(update={"delimiter": mark}), f"{place.reason}; columns as {name} has them"
    form = guessed(
        columns,
        asked.named,
        place.format,
        delimiter=mark,
        lists=lists,
        nested=nested,
        list_delimiter=asked.list_delimiter,
    )
    return form, f"{place.reason}; columns {'as named' if named else 'by their names'}"


def _moved(form: Form, last: Form, columns: Sequence[str], named: Mapping[str, str | None]) -> bool:
    """Whether a column that the log has gained is now what another one was that is still there."""
    # Who was a user stays one, though there are sessions now.
    sessions = form.session is not None and last.session is None and last.user in columns
    if sessions and not named.get("session"):
        return True
    return any(
        was in columns and now not in (None, was) and not named.get(role)
        for role in _STAYING
        for was, now in [(getattr(last, role), getattr(form, role))]
    )


def _as_before(
    last: Form,
    place: Place,
    columns: Sequence[str],
    asked: Asked,
    lists: set[str],
    nested: Collection[str],
    mark: str,
) -> Form:
    """The form of the night before; where it is that of another layout, one with the same columns."""
    flags = {role: name for role, name in asked.named.items() if name}
    used = [*last.columns().values(), *filter(None, [last.events])]
    alike = last.format == place.format and last.header is None and last.pattern is None
    if alike and not flags and asked.list_delimiter == last.list_delimiter and set(used) <= set(columns):
        return last.model_copy(update={"delimiter": mark, "multi_line": False})
    was = {role: name for role in _STAYING if (name := getattr(last, role)) in columns}
    if "session" in flags or "user" in flags:
        was = {role: name for role, name in was.items() if role not in ("session", "user")}
    return guessed(
        columns,
        was | flags,
        place.format,
        delimiter=mark,
        lists=lists,
        nested=nested,
        list_delimiter=asked.list_delimiter,
    )


def _check(form: Form, columns: Sequence[str], where: str) -> None:
    wanted = form.columns() if form.events is None else {}
    missing = [name for name in wanted.values() if name not in columns]
    if missing:
        raise InputError(
            f"There is no column {' and no column '.join(missing)} in {where}; the columns are "
            f"{', '.join(columns[:40])}. Is this the right --form and delimiter?"
        )


def _check_values(form: Form, nested: Mapping[str, str], where: str) -> None:
    wrong = next((name for name in form.columns().values() if name in nested), None)
    if wrong is not None:
        raise InputError(
            f"The column {wrong} of {where} is {nested[wrong]}, and no value or list of values. Name another "
            "by a --…-column flag, or read a view (of files: a copy) that takes it apart."
        )


def _check_once(used: Sequence[str], header: Sequence[str], file: str) -> None:
    double = next((name for name in used if header.count(name) > 1), None)
    if double is not None:
        raise InputError(
            f"The column {double} stands twice in the header of {file}: nothing tells which is meant. Rename "
            "one of them there, or name other columns by the --…-column flags and --keep."
        )


def _kept(asked: Asked, columns: Sequence[str], form: Form) -> list[str]:
    """Columns that are kept: those that were named, or all that have no role, and those of nights before."""
    kept = _named_or_all(asked, columns, form)
    by_letters: dict[str, str] = {}
    for name in kept:
        other = by_letters.setdefault(name.lower(), name)
        if other != name:
            raise InputError(
                f"The columns {other} and {name} differ only in which letters are capital, and a table "
                "cannot have both. Rename one of them in the log, or name by --keep what is to be kept."
            )
    return kept


def _named_or_all(asked: Asked, columns: Sequence[str], form: Form) -> list[str]:
    if "all" in asked.keep and "all" not in columns:
        if len(asked.keep) > 1:
            raise SettingsError(
                f"--keep {','.join(asked.keep)}: all is every column, and others are named beside it. Give "
                "all alone, or leave it out."
            )
        if form.events is not None:
            raise SettingsError("--keep all: the columns of nested clicks are not known. Name them.")
        taken = set(form.columns().values())
        found = [c for c in columns if c not in taken and c.lower() not in OURS]
        return list(dict.fromkeys([*asked.kept, *found]))
    clash = [name for name in asked.keep if name.lower() in OURS]
    if clash:
        raise SettingsError(
            f"--keep {clash[0]}: the sessions have a column of that name of their own. Rename it in the log."
        )
    return list(dict.fromkeys([*asked.kept, *asked.keep]))


def kept_type(frame: DataFrame, name: str, form: Form) -> str:
    """The type of a column's values where they are kept: its own, if they can be ordered; else as text.

    Of a list beside a list of items it is that of its elements: each goes with the item at its place.
    """
    kind = frame.schema[name].dataType
    if form.rows == "sessions" and isinstance(kind, ArrayType):
        kind = kind.elementType
    plain = isinstance(kind, AtomicType) and not isinstance(kind, BinaryType)
    return kind.simpleString() if plain else "string"


def _files(spark: SparkSession, name: str) -> tuple[File, ...]:
    """The files of a place by path, hidden ones left out; their contents are not read."""
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    try:
        found = reader.load(name).select("path", "length", "modificationTime").collect()
    except AnalysisException as problem:
        if "PATH_NOT_FOUND" not in str(problem):
            raise
        raise InputError(
            f"There is nothing at {name}. Give an existing file, folder, pattern or table by --input."
        ) from problem
    if not found:
        # Spark does not list files of no length.
        raise InputError(f"{name} is empty: no file of it has a line. Give another --input.")
    rows = sorted((row["path"], int(row["length"]), row["modificationTime"]) for row in found)
    return tuple(File(path, length, when.astimezone(timezone.utc)) for path, length, when in rows)


def _format_of(spark: SparkSession, place: str, paths: Sequence[str]) -> tuple[Format, str]:
    """The format of files by their names, else by what the first begins with."""
    for path in paths:
        name = path.rsplit("/", 1)[-1]
        plain = name.lower()
        for packed in _PACKED:
            plain = plain.removesuffix(packed)
        for ending, what in _ENDINGS:
            if plain.endswith(ending):
                return what, f"the ending of {name}"
    texts = first_texts(spark, escaped(paths[0]), 1)
    name = paths[0].rsplit("/", 1)[-1]
    if texts and texts[0].startswith("PAR1"):
        return "parquet", f"{name} begins as Parquet does"
    if texts and texts[0].lstrip().startswith("{"):
        return "jsonl", f"{name} begins as a JSON object"
    if texts and delimiter_of(texts[0]) in texts[0]:
        return "csv", f"{name} begins with names between delimiters"
    raise InputError(
        f"Neither an ending nor the first line in {place} tells its format (there is "
        f"{', '.join(path.rsplit('/', 1)[-1] for path in paths[:3])}). Say it by --format."
    )


def _table_id(spark: SparkSession, name: str) -> str:
    """The id that Delta gave a table when it was made, or made anew by CREATE OR REPLACE."""
    from prune_lib.delta import identifier

    (row,) = spark.sql(f"DESCRIBE DETAIL {identifier(spark, name)}").select("id").collect()
    return str(row["id"])


def _is_table(spark: SparkSession, place: str) -> bool:
    """Whether a name is that of a table; `clicks.csv` looks like one, too."""
    try:
        return not is_location(place) and bool(spark.catalog.tableExists(place))
    except (ParseException, AnalysisException):
        return False
