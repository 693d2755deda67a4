"""How a source is laid out: its format, and which of its columns is what."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from prune_lib.errors import InputError, SettingsError

__all__ = [
    "ROLES",
    "Form",
    "delimiter_of",
    "first_fields",
    "first_object",
    "form_names",
    "guessed",
    "list_columns",
    "load_form",
    "merged",
    "nested_columns",
    "recognised",
]

Format = Literal["csv", "jsonl", "parquet", "delta"]
#: What a column can be of a click.
ROLES = ("session", "user", "item", "time", "offset", "order", "kind")

_OPTIONAL = ("order", "kind")

#: Names by which a column is known, in lower case and without anything but letters and digits.
_KNOWN = {
    "session": ("sessionid", "session", "sid", "usersession", "visitid", "visit"),
    "user": ("userid", "user", "uid", "visitorid", "visitor", "customerid", "reviewerid"),
    "item": (
        "itemid",
        "item",
        "items",
        "itemids",
        "aid",
        "productid",
        "product",
        "sku",
        "articleid",
        "article",
        "movieid",
        "asin",
    ),
    "time": (
        "ts",
        "timestamp",
        "time",
        "times",
        "timestamps",
        "eventtime",
        "datetime",
        "eventts",
        "eventtimestamp",
        "clicktime",
        "createdat",
    ),
    "kind": ("eventtype", "event", "type", "action", "actiontype"),
}


class Form(BaseModel):
    """How a source is laid out; frozen, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format
    #: a row a click, or a row a session, whose item (and time) is a list
    rows: Literal["clicks", "sessions"] = "clicks"
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    #: between the items of a list in a field of text
    list_delimiter: str | None = Field(default=None, min_length=1)
    #: names of the columns of a text file that does not begin with them
    header: tuple[str, ...] | None = None
    #: a quoted field of a text file may go on over several lines
    multi_line: bool = False
    #: of text that is no JSON yet: a pattern of a whole line, and the JSON object that it becomes
    pattern: str | None = None
    replacement: str | None = None
    #: name of a list of objects, each a click, in a JSON line that is a session
    events: str | None = None
    #: roles that such a line has once, not each of its clicks
    outer: tuple[str, ...] = ("session", "user")
    session: str | None = None
    user: str | None = None
    item: str
    #: None: clicks are in order as they stand
    time: str | None = None
    #: how times are written, in Spark's letters, where they are no numbers and no ISO dates; and what is put
    #: before each, such as the year that a file leaves out
    time_format: str | None = None
    time_prefix: str = ""
    #: to be added to the time
    offset: str | None = None
    offset_unit: Literal["ms", "s"] = "ms"
    #: tells clicks of one time apart
    order: str | None = None
    #: what a click is: a view, a purchase
    kind: str | None = None
    #: kinds that are clicks on items, where the file has others, too; all where there are none
    kinds: tuple[str, ...] = ()
    #: days that the field's protocols keep for the test, of this data set
    test_days: float | None = None

    def columns(self) -> dict[str, str]:
        """Columns by role, those that there are."""
        return {role: name for role in ROLES if (name := getattr(self, role)) is not None}


def form_names() -> list[str]:
    """The names of the forms that are kept beside this module."""
    folder = files("prune_lib.ingest") / "forms"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_form(name: str) -> Form:
    """One of the public data sets' forms, or one of the user's own.

    Args:
        name: of a form that is kept beside this module, or a YAML file.

    >>> load_form("diginetica").delimiter
    ';'

    Raises:
        SettingsError: there is none of that name, or the file is no form.
    """
    if name.endswith((".yaml", ".yml")):
        return _own_form(name)
    names = form_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SettingsError(
            f"--form {name}: there is no such form; there are {', '.join(names)}.{hint} A file of your own "
            "ends in .yaml."
        )
    text = (files("prune_lib.ingest") / "forms" / f"{name}.yaml").read_text(encoding="utf-8")
    return Form.model_validate(yaml.safe_load(text))


def _own_form(path: str) -> Form:
    try:
        return Form.model_validate(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    except OSError as problem:
        raise SettingsError(f"--form {path}: the file cannot be read ({problem.strerror}).") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise SettingsError(f"--form {path}: the file is no YAML.") from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise SettingsError(
            f"--form {path}: {where}: {first['msg']}. Keys of a form are {', '.join(Form.model_fields)}."
        ) from problem


def recognised(columns: Sequence[str], format: Format) -> tuple[str, Form] | None:
    """The public data set whose columns these are, by its names.

    Args:
        columns: names that the source has, of JSON lines those of the outermost object.
        format: of the source; Parquet and Delta hold what was CSV before.

    Returns:
        Name and form, in the source's format; None where no form's names are all there. Of several the one
        with the most.

    >>> recognised(["visitorid", "event", "itemid", "timestamp", "transactionid"], "csv")[0]
    'retailrocket'
    """
    best: tuple[int, str, Form] | None = None
    for name in form_names():
        form = load_form(name)
        if form.header is not None or form.pattern is not None:
            continue
        if form.format != format and (form.events is not None or format not in ("parquet", "delta")):
            continue
        wanted = {c for role, c in form.columns().items() if form.events is None or role in form.outer}
        wanted |= {form.events} if form.events is not None else set()
        if wanted <= set(columns) and (best is None or len(wanted) > best[0]):
            best = len(wanted), name, form.model_copy(update={"format": format})
    return best[1:] if best else None


def first_fields(line: str, delimiter: str) -> list[str]:
    """Names that the first line of a text file gives.

    >>> first_fields('a,"b,c"', ",")
    ['a', 'b,c']
    """
    return next(csv.reader([line], delimiter=delimiter), [])


def first_object(line: str) -> dict[str, Any] | None:
    """The JSON object of a line; None where it is none."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def merged(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All keys of some JSON objects, each with its first value that is one.

    >>> merged([{"item": 5}, {"item": 6, "type": None}, {"type": "view"}])
    {'item': 5, 'type': 'view'}
    """
    out: dict[str, Any] = {}
    for found in objects:
        for name, value in found.items():
            if out.get(name) is None:
                out[name] = value
    return out


def list_columns(first: Mapping[str, Any]) -> set[str]:
    """Names of a JSON object's lists of values.

    >>> list_columns({"items": [5, 6], "events": [{"id": 5}], "user": 7})
    {'items'}
    """
    return {name for name, value in first.items() if isinstance(value, list) and not _composed(value)}


def nested_columns(first: Mapping[str, Any]) -> dict[str, str]:
    """What a JSON object holds that is neither a value nor a list of values, in words, by name.

    >>> nested_columns({"items": [5, 6], "events": [{"id": 5}], "user": {"id": 7}})
    {'events': 'a list of objects or lists', 'user': 'an object'}
    """
    lists = {
        n: "a list of objects or lists" for n, v in first.items() if isinstance(v, list) and _composed(v)
    }
    return lists | {name: "an object" for name, value in first.items() if isinstance(value, dict)}


def _composed(values: list[Any]) -> bool:
    return any(isinstance(value, dict | list) for value in values)


def delimiter_of(line: str) -> str:
    """The delimiter of a header: the commonest of tab, semicolon, bar and comma.

    >>> delimiter_of("session_id;user_id;item_id"), delimiter_of("a")
    (';', ',')
    """
    return max(",\t;|", key=line.count)


def guessed(
    columns: Sequence[str],
    named: Mapping[str, str | None],
    format: Format,
    *,
    delimiter: str = ",",
    lists: Collection[str] = (),
    nested: Collection[str] = (),
    list_delimiter: str | None = None,
) -> Form:
    """The form of a source by the names of its columns; what the user named comes first.

    Args:
        columns: its columns.
        named: columns by role as the user gave them; absent or None where they did not.
        format: of the source.
        delimiter: of its lines.
        lists: columns that hold lists: where the item is one of them, a row is a session.
        nested: columns that hold neither values nor lists of them: none that can be done without is taken.
        list_delimiter: between the items of a list in text; None where a row is a click.

    Raises:
        InputError: no column is known for the item, the time, or the session or user.
    """
    there = {_plain(name): name for name in reversed(columns)}
    taken: dict[str, str | None] = {}
    for role in ROLES:
        wanted = named.get(role)
        if wanted is not None and wanted not in columns:
            close = difflib.get_close_matches(wanted, columns, n=3)
            # Not each JSON object has what a click can do without, and only the first were looked at.
            if format == "jsonl" and role in _OPTIONAL and not close:
                taken[role] = wanted
                continue
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise InputError(
                f"There is no column {wanted} (--{role.replace('_', '-')}-column); the columns are "
                f"{', '.join(columns[:40])}.{hint}"
            )
        known = (there[name] for name in _KNOWN.get(role, ()) if name in there)
        taken[role] = wanted or next(known, None)
    if named.get("user") and not named.get("session"):
        taken["session"] = None  # the user asked for sessions of users
    for role in ("kind", *(("user",) if taken["session"] is not None else ())):
        if taken[role] in nested and not named.get(role):
            taken[role] = None
    whole = list_delimiter is not None or taken["item"] in lists
    missing = [role for role in ("item", "time") if taken[role] is None and not (whole and role == "time")]
    if taken["session"] is None and taken["user"] is None:
        missing.insert(0, "session")
    if missing:
        flags = ", ".join(f"--{role}-column" for role in missing)
        raise InputError(
            f"No column is known for the {' and the '.join(missing)} among {', '.join(columns[:40])}. Name "
            f"{'it' if len(missing) == 1 else 'them'} by {flags}"
            + (" (or --user-column, to cut sessions by inactivity)" if "session" in missing else "")
            + ", or give a public data set's form by --form."
        )
    if whole and taken["kind"] not in lists and not named.get("kind"):
        taken["kind"] = None  # what a session is says nothing of its clicks, unless it was asked for
    return Form(
        format=format,
        rows="sessions" if whole else "clicks",
        delimiter=delimiter,
        list_delimiter=list_delimiter,
        **taken,  # type: ignore[arg-type]
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
