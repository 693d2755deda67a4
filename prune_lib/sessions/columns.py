"""Columns of an input: which one is the session, the item, the time, the order; named or found."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DateType,
    FractionalType,
    IntegralType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from prune_lib.errors import InputError

__all__ = [
    "EXAMPLES",
    "ColumnNames",
    "InputTable",
    "Layout",
    "check_roles",
    "column_of",
    "quoted",
    "similar",
    "sql_type",
    "time_lists",
    "with_columns",
]

# Examples in a message: enough to see the pattern.
EXAMPLES = 3

Role = Literal["session", "item", "time", "order"]
Layout = Literal["events", "sessions"]

#: Names by which a column is known, in lower case and without anything but letters and digits.
_KNOWN: dict[Role, tuple[str, ...]] = {
    "session": ("sessionid", "session", "sid", "sessid", "sessionkey", "visitid", "visit"),
    "item": (
        "items", "itemids", "itemlist", "itemsequence", "sequence", "itemid", "item", "aid", "aids",
        "sku", "skus", "productid", "product", "productids", "products", "articleid", "article",
    ),
    "time": (
        "times", "ts", "timestamp", "timestamps", "time", "datetime", "eventtime", "eventtimestamp",
        "eventdate", "eventts", "clicktime", "clickedat", "createdat",
    ),
    "order": (),
}  # fmt: skip


@dataclass(frozen=True)
class ColumnNames:
    """Columns as the user named them, in any case; None: to be found, or not there.

    Attributes:
        session: session id (--session-column).
        item: item of a click, or array of a session's items (--item-column).
        time: time of a click, or a session's array of times or one time (--time-column).
        order: ranks sessions from old to new where there are no times, and clicks of one time
            (--order-column); never found by itself.
    """

    session: str | None = None
    item: str | None = None
    time: str | None = None
    order: str | None = None


@dataclass(frozen=True)
class InputTable:
    """An input that was opened; nothing of its rows is read yet.

    Attributes:
        df: the table, pinned at its version; all columns untouched.
        layout: 'events' (a row a click) or 'sessions' (a row a session).
        session_column: name of the session id's column.
        item_column: name of the item's column.
        time_column: name of the time's column, or None.
        order_column: name of the order's column, or None.
        location: the table as the user named it.
        version: Delta version; None where the table is not Delta.
        format: 'delta', 'parquet', or what the catalog says ('view', ...).
        reasons: why a column was taken, by role.
    """

    df: DataFrame
    layout: Layout
    session_column: str
    item_column: str
    time_column: str | None
    order_column: str | None
    location: str
    version: int | None
    format: str
    reasons: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """What was taken for what, and why; for --dry-run."""
        version = "" if self.version is None else f", version {self.version}"
        rows = "a row a click" if self.layout == "events" else "a row a session"
        lines = [f"input {self.location} ({self.format}{version}): {self.layout}, {rows}"]
        for role in ("session", "item", "time", "order"):
            name = getattr(self, f"{role}_column")
            kind = "" if name is None else f" {sql_type(self.df, name)}"
            reason = self.reasons.get(role, "")
            lines.append(f"  {role:<8}{name or 'none'}{kind}{f' ({reason})' if reason else ''}")
        lines.append(f"  {'ranked':<8}{self._ranking()}")
        return "\n".join(lines)

    def _ranking(self) -> str:
        if self.time_column is not None:
            return f"from old to new by the time of the last click ({self.time_column})"
        if self.order_column is not None:
            return f"from old to new by {self.order_column}"
        return "not at all: neither --time-column nor --order-column"


def _is_id(kind: DataType) -> bool:
    return isinstance(kind, StringType | IntegralType)


def _is_rank(kind: DataType) -> bool:
    return _is_id(kind) or isinstance(kind, TimestampType | TimestampNTZType | DateType)


def _is_time(kind: DataType) -> bool:
    return _is_rank(kind) or isinstance(kind, FractionalType)


def _is_ids(kind: DataType) -> bool:
    return isinstance(kind, ArrayType) and _is_id(kind.elementType)


def _is_times(kind: DataType) -> bool:
    return isinstance(kind, ArrayType) and _is_time(kind.elementType)


_Fits = Callable[[DataType], bool]
_RANK_TYPES = "an integer, string, date or timestamp"


class _Finder:
    """Takes columns for roles, one after the other, and says why."""

    def __init__(self, df: DataFrame, named: ColumnNames, table: str) -> None:
        self.df, self.named, self.table = df, named, table
        self.reasons: dict[str, str] = {}

    def find(self, role: Role, fits: _Fits, expected: str, required: bool) -> str | None:
        """Name of the column for a role, or None where it is not there and need not be."""
        name = getattr(self.named, role)
        if name is not None:
            column = self._named(role, name, fits, expected)
            self.reasons[role] = f"by --{role}-column"
            return column
        known = [c for c in self.df.columns if _plain(c) in _KNOWN[role]]
        fitting = [c for c in known if fits(self._type(c))]
        if len(fitting) > 1:
            raise InputError(
                f"The table {self.table} has {len(fitting)} columns that can be the {role}: "
                f"{self._listed(fitting)}. Say which one by --{role}-column."
            )
        if fitting:
            self.reasons[role] = "found by its name"
            return fitting[0]
        if required and known:
            raise InputError(
                f"The column {self._listed(known)} of the table {self.table} cannot be the "
                f"{role}: it must be {expected}. Cast it, or name another by --{role}-column."
            )
        if required:
            raise InputError(
                f"The table {self.table} has no column that is known as the {role}. Its columns "
                f"are {self._listed(self.df.columns)}. Name the right one by --{role}-column."
            )
        return None

    def _named(self, role: Role, name: str, fits: _Fits, expected: str) -> str:
        exact = [c for c in self.df.columns if c == name]
        columns = exact or [c for c in self.df.columns if c.lower() == name.lower()]
        if not columns:
            close = similar(name, self.df.columns)
            raise InputError(
                f"The table {self.table} has no column {name} (--{role}-column). Its columns are "
                f"{self._listed(self.df.columns)}{close}."
            )
        if len(columns) > 1:
            raise InputError(
                f"The table {self.table} has {len(columns)} columns called {name} "
                f"(--{role}-column): {', '.join(columns)}. Rename all but one."
            )
        if not fits(self._type(columns[0])):
            raise InputError(
                f"The column {self._listed(columns)} of the table {self.table} (--{role}-column) "
                f"cannot be the {role}: it must be {expected}. Cast it, or name another column."
            )
        return columns[0]

    def _type(self, column: str) -> DataType:
        return self.df.schema[column].dataType

    def _listed(self, columns: Sequence[str]) -> str:
        shown = [f"{c} {sql_type(self.df, c)}" for c in columns[:40]]
        return ", ".join(shown) + (", ..." if len(columns) > 40 else "")


def with_columns(df: DataFrame, named: ColumnNames, table: str, version: int | None, form: str) -> InputTable:
    """The table with a column for each role.

    Raises:
        InputError: a column is missing, ambiguous or of a type that cannot serve.
    """
    finder = _Finder(df, named, table)
    session = finder.find("session", _is_id, "a string or an integer", required=True)
    item = finder.find(
        "item",
        lambda kind: _is_id(kind) or _is_ids(kind),
        "a string, an integer, or an array of these",
        required=True,
    )
    assert session is not None and item is not None  # required
    if isinstance(df.schema[item].dataType, ArrayType):
        layout: Layout = "sessions"
        time_fits: _Fits = lambda kind: _is_time(kind) or _is_times(kind)  # noqa: E731
        expected = "a timestamp, date, number or string, or an array of these"
    else:
        layout, time_fits = "events", _is_time
        expected = "a timestamp, date, number or string"
    time = None
    # Sessions need one ranking, and the column asked for wins over any that would be found by its name.
    if layout == "events" or named.order is None or named.time is not None:
        time = finder.find("time", time_fits, expected, required=False)
    order = finder.find("order", _is_rank, _RANK_TYPES, required=False)
    taken = InputTable(df, layout, session, item, time, order, table, version, form, finder.reasons)
    check_roles(taken)
    return taken


def check_roles(table: InputTable) -> None:
    """No column twice where that makes no sense, and events that can be ordered."""
    taken = {"--item-column": table.item_column, "--time-column": table.time_column}
    for flag, column in taken.items():
        if column == table.session_column:
            raise InputError(
                f"The column {column} of the table {table.location} is taken for the session and "
                f"by {flag}. Name another column by {flag} or --session-column."
            )
    if table.item_column == table.time_column:
        raise InputError(
            f"The column {table.item_column} of the table {table.location} is taken for the item "
            "and the time. Name another column by --item-column or --time-column."
        )
    if table.layout == "events":
        _check_click_order(table)


def _check_click_order(table: InputTable) -> None:
    """Clicks that all tie would be put in the order of their items, without a word."""
    names = [name for name in (table.time_column, table.order_column) if name is not None]
    if not names:
        raise InputError(
            f"The table {table.location} is one of events (a row a click), and nothing tells the "
            f"order of a session's clicks. Its columns are {', '.join(table.df.columns)}. Name "
            "the time by --time-column, or one that grows from click to click by --order-column."
        )
    if table.order_column == table.session_column:
        raise InputError(
            f"The column {table.order_column} of the table {table.location} is taken for the session and by "
            "--order-column: all clicks of a session have the same. Name a column that grows from click to "
            "click by --order-column, or leave it out where a time with hours and seconds (--time-column) "
            "tells their order."
        )
    if all(isinstance(table.df.schema[name].dataType, DateType) for name in names):
        first = "" if table.time_column is None else " (the date is then used first)"
        raise InputError(
            f"The column {names[-1]} of the table {table.location} is a DATE: it orders days, "
            "not the clicks of a session. Name a time with hours and seconds by --time-column, or a "
            f"column that grows from click to click by --order-column{first}."
        )


def time_lists(table: InputTable) -> list[str]:
    """Columns that hold a time for each click of a session, whether sessions are ranked by them or not."""
    known = (f.name for f in table.df.schema if _plain(f.name) in _KNOWN["time"] and _is_times(f.dataType))
    own = table.time_column
    named = [own] if own is not None and _is_times(table.df.schema[own].dataType) else []
    return [*named, *(name for name in known if name != own)]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def sql_type(df: DataFrame, column: str) -> str:
    """A column's type as SQL writes it."""
    return str(df.schema[column].dataType.simpleString()).upper()


def column_of(name: str) -> Column:
    """The column of a name, whatever characters it holds."""
    return F.col(quoted(name))


def quoted(name: str) -> str:
    """A name in backquotes, as SQL wants it."""
    return "`" + name.replace("`", "``") + "`"


def similar(wanted: str, names: Sequence[str]) -> str:
    """', with ... in it' for names like the one that was meant."""
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(wanted.lower(), list(lower), n=EXAMPLES, cutoff=0.6)
    return f"; similar names there: {', '.join(lower[c] for c in close)}" if close else ""
