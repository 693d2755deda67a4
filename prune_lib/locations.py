"""Where tables lie: a table is a name (`catalog.schema.table`, `schema.table`) or a location.

Text in, text out: nothing here asks Spark or a store whether a table exists.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

__all__ = [
    "COMPANIONS",
    "VIEWS",
    "Companion",
    "View",
    "companion",
    "has_scheme",
    "in_full",
    "is_location",
    "is_within",
    "last_part",
    "local_path",
    "name_parts",
    "name_problem",
    "named",
    "normalised",
    "on_databricks",
    "schema_of",
    "sql_name",
    "table_in_workspace",
    "workspace_folder",
]

Companion = Literal["decisions", "items", "runs"]
COMPANIONS: tuple[Companion, ...] = ("decisions", "items", "runs")
#: What an ingest writes beside the sessions.
Aside = Literal["quarantine", "ingests", "inputs", "test"]
View = Literal["summary", "item_coverage"]
VIEWS: tuple[View, ...] = ("summary", "item_coverage")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):")
# What Spark's SQL takes without backquotes, and of that what it reads as a number: 2024, 1e5, 5L.
_PART = re.compile(r"`(?:[^`]|``)+`|\w+", re.ASCII)
_NUMBER = re.compile(r"\d+([lsy]|(e\d+)?(f|d|bd)?)", re.ASCII | re.IGNORECASE)
# What a bare `x.parquet` means: nobody calls a table 'parquet' and its schema 'sessions'.
_FILE_ENDINGS = (".parquet", ".delta")


def is_location(name: str) -> bool:
    """Whether the text names a place in a file system or store rather than a table of a catalog.

    A name has a dot between its parts; a path has a slash, a scheme, a leading dot, a file's
    ending, or is a single word (a folder here).

    >>> [is_location(x) for x in ("/a/b", "s3://b/t", "file:/t", "./t", "t", "t.parquet")]
    [True, True, True, True, True, True]
    >>> [is_location(x) for x in ("main.shop.sessions", "shop.sessions", "shop.`my table`")]
    [False, False, False]
    """
    if "`" in name and not name.startswith(("/", ".")):
        return False
    return (
        "/" in name
        or "\\" in name
        or _SCHEME.match(name) is not None
        or name.startswith((".", "~"))
        or name.endswith(_FILE_ENDINGS)
        or "." not in name
    )


def has_scheme(name: str) -> bool:
    """Whether a location says its file system.

    >>> [has_scheme(x) for x in ("s3://b/t", "file:/t", "dbfs:/t", "/t", "../a:b")]
    [True, True, True, False, False]
    """
    return _SCHEME.match(name) is not None


def name_problem(name: str, parts: tuple[int, ...] = (2, 3)) -> str | None:
    """What is wrong with the name of a table (or, by other `parts`, of a schema), if anything.

    >>> name_problem("main.shop.sessions") is None
    True
    >>> name_problem("a.b.c.d")
    'has 4 parts, where 2 or 3 are wanted'
    >>> name_problem("shop.2024")
    'has the part 2024, which SQL reads as a number (put it in backquotes)'
    """
    found = name_parts(name)
    if found is None:
        return "is not a name of letters from a to z, digits and underscores (put other parts in backquotes)"
    if len(found) not in parts:
        return f"has {len(found)} parts, where {' or '.join(map(str, parts))} are wanted"
    number = next(filter(_NUMBER.fullmatch, found), None)
    if number:
        return f"has the part {number}, which SQL reads as a number (put it in backquotes)"
    return None


def name_parts(name: str) -> list[str] | None:
    """The parts of a name as they are written, backquotes and all; None where it is no name.

    >>> name_parts("shop.`my.table`"), name_parts("shop.größe")
    (['shop', '`my.table`'], None)
    """
    parts, at = [], 0
    while True:
        found = _PART.match(name, at)
        if found is None:
            return None
        parts.append(found.group())
        at = found.end()
        if at == len(name):
            return parts
        if name[at] != ".":
            return None
        at += 1


def schema_of(name: str) -> str:
    """The schema of a table's name, as it is written there; empty where it has none.

    >>> schema_of("main.shop.`my.table`")
    'main.shop'
    """
    return ".".join((name_parts(name) or [])[:-1])


def table_in_workspace(workspace: str, name: str) -> str:
    """The table of that name in a workspace.

    >>> table_in_workspace("./workspace/", "sessions"), table_in_workspace("main.shop", "sessions")
    ('./workspace/sessions', 'main.shop.sessions')
    """
    if is_location(workspace):
        return f"{workspace.rstrip('/')}/{name}"
    return f"{workspace}.{name}"


def companion(output: str, kind: Companion | View | Aside) -> str:
    """The table that an output's companion is written to, or the view of an output that is a name.

    >>> companion("/data/pruned/", "decisions"), companion("main.shop.pruned", "runs")
    ('/data/pruned_decisions', 'main.shop.pruned_runs')
    """
    if is_location(output):
        return f"{named(output)}_{kind}"
    if output.endswith("`"):
        return f"{output[:-1]}_{kind}`"
    return f"{output}_{kind}"


def named(location: str) -> str:
    """A location that ends in a name, so that another can be put beside it.

    Without a trailing slash, and in full where it ends in `.` or `..`: beside these as they are is inside
    the folder.

    >>> named("/data/pruned/"), named("/data/pruned/."), named("s3://bucket/kept/x/..")
    ('/data/pruned', '/data/pruned', 's3://bucket/kept')
    """
    place = location.rstrip("/") or "/"
    if place.rpartition("/")[2] not in (".", ".."):
        return place
    scheme = _SCHEME.match(place)
    if scheme is None:
        return os.path.abspath(place)
    return scheme.group() + os.path.normpath(place[scheme.end() :])


def local_path(location: str) -> Path | None:
    """The path of a location on this machine; None for a name or a store.

    >>> str(local_path("file:///a/b")), local_path("s3://b/t"), local_path("shop.sessions")
    ('/a/b', None, None)
    """
    if not is_location(location):
        return None
    scheme = _SCHEME.match(location)
    if scheme is None:
        return Path(location)
    if scheme.group(1).lower() != "file":
        return None
    return Path("/" + location[scheme.end() :].lstrip("/"))


def last_part(location: str) -> str:
    """The name of a location's last folder.

    >>> last_part("s3://bucket/clicks_pruned/"), last_part("./kept"), last_part("/a/b/../c")
    ('clicks_pruned', 'kept', 'c')
    """
    return normalised(location).rstrip("/").rpartition("/")[2]


def workspace_folder(workspace: str) -> Path | None:
    """The workspace's folder on this machine; None where it is a schema or lies in a store."""
    return local_path(workspace)


def on_databricks() -> bool:
    """Whether this runs on a cluster of Databricks; its runtime says so."""
    return bool(os.environ.get("DATABRICKS_RUNTIME_VERSION"))


def sql_name(name: str) -> str:
    """A table's name in SQL; a relative folder in full, so that the query runs from anywhere.

    >>> sql_name("main.shop.pruned"), sql_name("s3://bucket/pruned")
    ('main.shop.pruned', 'delta.`s3://bucket/pruned`')
    """
    if not is_location(name):
        return name
    place = name if ":" in name else str(Path(name).resolve())
    return f"delta.`{place.replace('`', '``')}`"


def normalised(table: str) -> str:
    """One text for every way to write the same table, as far as the text can tell.

    Local paths: absolute, symbolic links resolved, without scheme and trailing slash. Stores: one
    scheme for s3, s3a and s3n, single slashes. Names: lower case, without backquotes and Spark's
    default catalog.

    >>> normalised("file:///a//b/") == normalised("/a/b") == normalised("/a/c/../b")
    True
    >>> normalised("s3a://bucket/t/") == normalised("s3://bucket//t")
    True
    >>> normalised("Shop.`Sessions`") == normalised("spark_catalog.shop.sessions")
    True
    """
    path = local_path(table)
    if path is not None:
        return os.path.realpath(path)
    if is_location(table):
        scheme, _, rest = table.partition(":")
        scheme = scheme.lower()
        scheme = "s3" if scheme in ("s3a", "s3n") else scheme
        return f"{scheme}:/" + re.sub(r"/+", "/", "/" + rest).rstrip("/")
    parts = [part.strip("`").lower() for part in name_parts(table) or [table]]
    return ".".join(parts[1:] if len(parts) == 3 and parts[0] == "spark_catalog" else parts)


def in_full(location: str) -> str:
    """A location of this machine that means the same wherever a job is started; others as they are.

    >>> in_full("file:/a//b/"), in_full("s3://bucket/t/"), in_full("shop.sessions")
    ('/a/b', 's3://bucket/t/', 'shop.sessions')
    """
    path = local_path(location)
    return location if path is None else os.path.abspath(path)


def is_within(inner: str, outer: str) -> bool:
    """Whether a location lies in the folder of another (or is it).

    >>> is_within("/a/b/c", "/a/b"), is_within("/a/bc", "/a/b")
    (True, False)
    """
    if not (is_location(inner) and is_location(outer)):
        return normalised(inner) == normalised(outer)
    return (normalised(inner) + "/").startswith(normalised(outer) + "/")
