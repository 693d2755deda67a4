"""Rules between settings that no field can state alone: tables that clash, names, times."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from prune_lib.locations import (
    COMPANIONS,
    VIEWS,
    Aside,
    Companion,
    View,
    companion,
    has_scheme,
    is_location,
    is_within,
    local_path,
    name_problem,
    normalised,
    table_in_workspace,
)
from prune_lib.moments import moment, span
from prune_lib.redaction import holds_secret
from prune_lib.settings.fields import Method

__all__ = [
    "evaluate_rules",
    "explain_rules",
    "ingest_rules",
    "is_true",
    "loudness_rules",
    "prune_rules",
    "report_rules",
    "train_rules",
]

_Origin = Callable[[str], str]
#: What an ingest writes beside its output.
_ASIDE: tuple[Aside, ...] = get_args(Aside)


def loudness_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What is wrong with how much a job, whichever, is to say.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    if not (is_true(values["verbose"]) and is_true(values["quiet"])):
        return []
    return [
        f"{origin('verbose')} and {origin('quiet')} exclude each other: one asks for more log lines, the "
        "other for none. Leave one of them out."
    ]


def secret_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """Settings that hold a password or a key: all of them are written into the table of runs.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    return [
        f"{origin(key)} has a password, a key or a signature in its address, and settings are written to "
        "logs and tables. Give the address without it, and the secret to Spark's own configuration (such as "
        "spark.hadoop.fs.s3a.secret.key, or a provider of credentials)."
        for key, value in values.items()
        if any(holds_secret(text) for text in _texts(value))
    ]


def _texts(value: object) -> Iterator[str]:
    """Every text of a value: its own, of a list's elements, of a group's settings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, Sequence):
        for inner in value:
            yield from _texts(inner)


def stray_rules(values: Mapping[str, Any], origin: _Origin, written: Sequence[str]) -> list[str]:
    """Relative paths that lead out of the folder where the job was started, to where it would write.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
        written: fields that name what the job writes.
    """
    out = []
    for key in written:
        name = values.get(key)
        if not isinstance(name, str) or not is_location(name) or has_scheme(name) or name.startswith("/"):
            continue
        if os.path.normpath(name).split(os.sep)[0] == os.pardir:
            out.append(
                f"{origin(key)} '{name}' leads out of this folder, and the job writes there. Name it in "
                f"full: {os.path.abspath(name)}."
            )
    return out


def is_true(value: object) -> bool:
    """Whether a switch is on, from its text or its value; no switch's value is not.

    >>> is_true("yes"), is_true("false"), is_true(True), is_true("maybe")
    (True, False, True, False)
    """
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:  # the field's own message says so
        return False


def prune_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What is wrong with the tables, times and floors of a pruning run.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    broken = _broken_names(values, origin, ("input", "output"))
    idle = _idle_floors(values, origin) + _idle_budget(values, origin)
    folders = [text for key in ("experts", "checkpoints") for text in _no_path(origin(key), values[key])]
    out = _broken_states(values, origin) + _broken_window(values, origin) + idle + folders + broken
    if broken:
        return out
    target = values["output"] or table_in_workspace(_workspace(values), "pruned")
    sources = {"input": _input(values)}
    return out + _clashes(origin, target, sources, "pruning never writes over its input", COMPANIONS, VIEWS)


def evaluate_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What is wrong with the tables and the report's folder of an evaluation.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    broken = _broken_names(values, origin, ("input", "test", "output"))
    if broken:
        return broken
    sources = {"input": _input(values)}
    if values["test"]:
        sources["test"] = values["test"]
        if normalised(values["test"]) == normalised(sources["input"]):
            return [
                f"{origin('test')} '{values['test']}' is the input itself: targets would be tested on what "
                "they learn from. Leave it out, and the newest sessions of the input are the test."
            ]
    target = values["output"] or table_in_workspace(_workspace(values), "evaluation")
    clashes = _clashes(origin, target, sources, "an evaluation never writes over what it reads")
    return clashes + _misplaced_report(values, origin, [target, *sources.values()])


def explain_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What is wrong with the table of an explanation, or that nothing is to be explained.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    out = _broken_names(values, origin, ("output",))
    if values["session"] is None and values["item"] is None:
        out.append(
            "there is nothing to explain: give the id of a session by --session, or of an item by --item."
        )
    elif values["length"] is not None and values["session"] is None:
        out.append(f"{origin('length')} names a sample of a session: give the session's id by --session.")
    return out


def ingest_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What is wrong with the tables, the time and the form of an ingest.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    broken = _broken_names(values, origin, ("output",))
    out = list(broken)
    if values["latest"] and moment(values["latest"]) is None:
        out.append(
            f"{origin('latest')} must be a time such as 2026-11-01 or '2026-11-01 12:00:00'; got "
            f"'{values['latest']}'."
        )
    if values["form"]:
        idle = (
            "format",
            "delimiter",
            "list_delimiter",
            "session_column",
            "user_column",
            "item_column",
            "time_column",
            "order_column",
            "kind_column",
        )
        given = [key for key in idle if values[key] not in (None, "auto")]
        if given:
            out.append(
                f"{origin('form')} says how the input is laid out, and {origin(given[0])} says it again. "
                "Leave one of them out."
            )
    steps = [key for key in ("min_length", "min_support", "test_days") if values[key]]
    if is_true(values["collapse_repeats"]):
        steps.insert(0, "collapse_repeats")
    if is_true(values["append"]) and (values["protocol"] != "none" or steps):
        named = "protocol" if values["protocol"] != "none" else steps[0]
        out.append(
            f"{origin('append')} adds to sessions, and {origin(named)} needs all of them at once. Leave one "
            "of them out."
        )
    return out if broken else out + _written_over(values, origin)


def _written_over(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What of an ingest's tables would lie where its log is read: the next run would read them, too."""
    source = values.get("input")
    if not source:  # the field's own message says so
        return []
    target = values["output"] or table_in_workspace(_workspace(values), "sessions")
    never = (
        "or give --input the log alone, by a folder of its own or a pattern of its files: an ingest never "
        "writes over its input"
    )
    # A file such as clicks.csv looks like a table's name.
    for place in dict.fromkeys((source, source if is_location(source) else f"./{source}")):
        if re.search(r"[*?\[{]", place) is None:
            found = _clashes(origin, target, {"input": place}, never, _ASIDE)
        else:
            found = [
                f"{origin('output')} '{target}': the pattern of the input takes in {table}. Name another "
                f"table with --output; {never} ({source})."
                for table in (target, *(companion(target, kind) for kind in _ASIDE))
                if _takes_in(place, table)
            ][:1]
        if found:
            return found
    return []


def _takes_in(pattern: str, table: str) -> bool:
    """Whether a pattern of files may find something in a table's folder, or a folder around it.

    >>> _takes_in("/logs/*", "/logs/sessions"), _takes_in("/logs/*.csv", "/logs/sessions")
    (True, False)
    >>> _takes_in("/*/sessions/part-[0-9].{csv,gz}", "/logs/sessions"), _takes_in("/logs/*", "/kept/sessions")
    (True, False)
    """
    if not is_location(table):
        return False
    # Less exact than Hadoop, never narrower: what is in brackets is any letter, in braces any text.
    loose = re.sub(r"\\.|\[[^\]]*\]", "?", re.sub(r"\{[^}]*\}", "*", pattern))
    pairs = zip(normalised(loose).split("/"), normalised(table).split("/"), strict=False)
    return all(fnmatchcase(part, wanted) for wanted, part in pairs)


def report_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What is wrong with the tables and the file of a report.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    out = _broken_names(values, origin, ("output", "evaluation"))
    path = values["path"]
    wrong = _no_path(origin("path"), path)
    if wrong:
        out += wrong
    elif path and is_location(path) and local_path(path) is None:
        out.append(
            f"{origin('path')} '{path}' is not a file on this machine, and a report is one: give a path, and "
            "copy the file afterwards."
        )
    return out


def train_rules(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    """What is wrong with the table, the times and the registry of a training.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    out = _broken_names(values, origin, ("input",))
    out += _broken_states(values, origin) + _broken_window(values, origin)
    out += _no_path(origin("output"), values["output"])
    if values["alias"] and not values["register_as"]:
        out.append(
            f"{origin('alias')} '{values['alias']}' is an alias in MLflow's registry, and nothing is "
            "registered. Name the model by --register-as, or leave the alias out."
        )
    return out


def _workspace(values: Mapping[str, Any]) -> str:
    return str(values["workspace"] or "./workspace")


def _input(values: Mapping[str, Any]) -> str:
    return str(values["input"] or table_in_workspace(_workspace(values), "sessions"))


def _broken_states(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    out = []
    if values["version"] is not None and values["timestamp"] is not None:
        out.append(
            f"{origin('version')} ({values['version']}) and {origin('timestamp')} ({values['timestamp']}) "
            "exclude each other: both name a state of the input. Give one of them."
        )
    if values["timestamp"] and moment(str(values["timestamp"])) is None:
        out.append(
            f"{origin('timestamp')} must be a time such as 2026-11-01 or '2026-11-01 12:00:00'; got "
            f"'{values['timestamp']}'."
        )
    return out


def _broken_window(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    text = values["since"]
    if not text or moment(str(text)) or span(str(text)):
        return []
    return [
        f"{origin('since')} must be a moment, such as 2026-10-01 or '2026-10-01 12:00:00', or a span before "
        f"the newest click, such as 90d, 48h or 12w; got '{text}'."
    ]


def _idle_floors(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    if values["method"] not in get_args(Method) or values["method"] == "graph":
        return []
    # As they were written, by a flag or a file, or as a number or a list.
    asked = [key for key in ("floor", "floor_by") if str(values[key]) not in ("0", "", "()", "[]")]
    return [
        f"{origin(key)} asks for a floor, and {origin('method')} is '{values['method']}': only the method "
        "graph keeps floors. Leave one of them out."
        for key in asked
    ]


def _idle_budget(values: Mapping[str, Any], origin: _Origin) -> list[str]:
    if values["unit"] != "prefix" or values["budget"] != "sessions":
        return []
    return [
        f"{origin('budget')} counts sessions, and {origin('unit')} chooses prefixes, of which the ratio is a "
        "share. Leave one of them out."
    ]


def _broken_names(values: Mapping[str, Any], origin: _Origin, tables: Sequence[str]) -> list[str]:
    out = []
    for key in (*tables, "workspace"):
        name, parts = values[key], (2,) if key == "workspace" else (2, 3)
        wrong = _no_path(origin(key), name)
        if wrong:
            out += wrong
            continue
        problem = name_problem(name, parts) if name and not is_location(name) else None
        if problem:
            shape = "catalog.schema" if key == "workspace" else "schema.table or catalog.schema.table"
            out.append(
                f"{origin(key)} '{name}' {problem}. Write {shape}, or a location with a slash, "
                f"such as ./{name}."
            )
    return out


def _no_path(subject: str, name: str | None) -> list[str]:
    """What no table and no folder can be called."""
    if name and "\0" in name:
        return [f"{subject} holds a character NUL, which no name and no path can. Leave it out."]
    if not name or not name.startswith("~"):
        return []
    return [
        f"{subject} '{name}' begins with a ~ that the shell did not replace. Write the folder in "
        f"full, such as {os.path.expanduser(name)}."
    ]


def _misplaced_report(values: Mapping[str, Any], origin: _Origin, tables: Sequence[str]) -> list[str]:
    folder = values["document"]
    if not folder:
        return []
    subject = f"{origin('document')} '{folder}'"
    wrong = _no_path(origin("document"), folder)
    if wrong:
        return wrong
    if is_location(folder) and local_path(folder) is None:
        return [f"{subject} is no folder of this machine. Name one, such as ./report."]
    for table in tables:
        if is_location(table) and is_within(folder, table):
            return [f"{subject} lies in the folder of a table, {table}. Name another folder."]
    return []


def _clashes(
    origin: _Origin,
    target: str,
    sources: Mapping[str, str],
    never: str,
    companions: Sequence[Companion | Aside] = (),
    views: Sequence[View] = (),
) -> list[str]:
    """What of the output, its companions and views would lie where something is read; the first such."""
    for key, source in sources.items():
        subject = f"{origin('output')} '{target}'"
        found = _clash(subject, target, companions, views, source, f"the {key}")
        if found:
            return [f"{found} Name another table with --output; {never} ({source})."]
    return []


def _clash(
    subject: str,
    target: str,
    companions: Sequence[Companion | Aside],
    views: Sequence[View],
    source: str,
    role: str,
) -> str:
    if normalised(source) == normalised(target):
        return f"{subject} is {role} itself."
    for kind in companions:
        if normalised(companion(target, kind)) == normalised(source):
            return f"{subject} would put its companion {companion(target, kind)} in the place of {role}."
    # Views are made in a catalog only, beside the tables of a pruning run.
    if not is_location(target):
        for view in views:
            if normalised(companion(target, view)) == normalised(source):
                return f"{subject} would put its view {companion(target, view)} in the place of {role}."
    if is_location(source) and is_location(target):
        if is_within(target, source):
            return f"{subject} lies in the folder of {role}."
        if is_within(source, target):
            return f"{subject} lies around {role}."
    return ""
