"""How a source is laid out: its format, and which of its columns is what."""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from prune_lib.errors import InputError, SettingsError

__all__ = ["ROLES", "Form", "first_fields", "form_names", "guessed", "load_form"]

Format = Literal["csv", "jsonl", "parquet", "delta"]
#: What a column can be of a click.
ROLES = ("session", "user", "item", "time", "offset_ms", "order", "kind")

#: Names by which a column is known, in lower case and without anything but letters and digits.
_KNOWN = {
    "session": ("sessionid", "session", "sid", "usersession", "visitid", "visit"),
    "user": ("userid", "user", "uid", "visitorid", "visitor", "customerid", "reviewerid"),
    "item": (
        "itemid",
        "item",
        "aid",
        "productid",
        "product",
        "sku",
        "articleid",
        "article",
        "movieid",
        "asin",
    ),
    "time": ("ts", "timestamp", "time", "eventtime", "datetime", "eventts", "eventtimestamp", "clicktime"),
    "kind": ("eventtype", "event", "type", "action", "actiontype"),
}


class Form(BaseModel):
    """How a source is laid out; frozen, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Format
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    #: names of the columns of a text file that does not begin with them
    header: tuple[str, ...] | None = None
    #: name of a list of objects, each a click, in a JSON line that is a session
    events: str | None = None
    session: str | None = None
    user: str | None = None
    item: str
    time: str
    #: milliseconds to be added to the time
    offset_ms: str | None = None
    #: tells clicks of one time apart
    order: str | None = None
    #: what a click is: a view, a purchase
    kind: str | None = None

    def columns(self) -> dict[str, str]:
        """Columns by role, those that there are."""
        return {role: name for role in ROLES if (name := getattr(self, role)) is not None}


def form_names() -> list[str]:
    """The names of the forms that are kept beside this module."""
    folder = files("prune_lib.ingest") / "forms"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_form(name: str) -> Form:
    """One of the public data sets' forms.

    >>> load_form("diginetica").delimiter
    ';'

    Raises:
        SettingsError: there is none of that name.
    """
    names = form_names()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise SettingsError(f"--form {name}: there is no such form; there are {', '.join(names)}.{hint}")
    text = (files("prune_lib.ingest") / "forms" / f"{name}.yaml").read_text(encoding="utf-8")
    return Form.model_validate(yaml.safe_load(text))


def first_fields(format: Format, line: str, delimiter: str) -> list[str]:
    """Names that the first line of a text file gives.

    >>> first_fields("csv", 'a,"b,c"', ","), first_fields("jsonl", '{"a": 1, "b": 2}', ",")
    (['a', 'b,c'], ['a', 'b'])

    Raises:
        InputError: the line is no JSON object.
    """
    if format == "csv":
        return next(csv.reader([line], delimiter=delimiter), [])
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"The first line is no JSON object: {line[:100]!r}. Say what it is by --format.")
    return list(found)


def delimiter_of(line: str) -> str:
    """The delimiter of a header: the commonest of tab, semicolon, bar and comma.

    >>> delimiter_of("session_id;user_id;item_id"), delimiter_of("a")
    (';', ',')
    """
    return max(",\t;|", key=line.count)


def guessed(columns: Sequence[str], named: dict[str, str | None], format: Format, delimiter: str) -> Form:
    """The form of a source by the names of its columns; what the user named comes first.

    Args:
        columns: its columns.
        named: columns by role as the user gave them; None where they did not.
        format: of the source.
        delimiter: of its lines.

    Raises:
        InputError: no column is known for the item, the time, or the session or user.
    """
    there = {_plain(name): name for name in reversed(columns)}
    taken: dict[str, str | None] = {}
    for role in ROLES:
        wanted = named.get(role)
        if wanted is not None and wanted not in columns:
            close = difflib.get_close_matches(wanted, columns, n=3)
            hint = f" Did you mean {' or '.join(close)}?" if close else ""
            raise InputError(
                f"There is no column {wanted} (--{role.replace('_', '-')}-column); the columns are "
                f"{', '.join(columns[:40])}.{hint}"
            )
        known = (there[name] for name in _KNOWN.get(role, ()) if name in there)
        taken[role] = wanted or next(known, None)
    if named.get("user") and not named.get("session"):
        taken["session"] = None  # the user asked for sessions of users
    missing = [role for role in ("item", "time") if taken[role] is None]
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
    return Form(format=format, delimiter=delimiter, **taken)  # type: ignore[arg-type]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
