"""Rules between settings that no field can state alone: tables that clash, names, times."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from prune_lib.locations import (
    COMPANIONS,
    companion,
    is_location,
    is_within,
    name_problem,
    normalised,
    table_in_workspace,
)

__all__ = ["between_fields"]


def between_fields(values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
    """Rules that pydantic's fields cannot say: what is wrong with the tables and times.

    Args:
        values: by field, defaults filled in.
        origin: how a message names a field: where its value came from.
    """
    out = []
    if values["version"] is not None and values["timestamp"] is not None:
        out.append(
            f"{origin('version')} ({values['version']}) and {origin('timestamp')} ({values['timestamp']}) "
            "exclude each other: both name a state of the input. Give one of them."
        )
    if values["timestamp"]:
        try:
            datetime.fromisoformat(str(values["timestamp"]).strip().replace("Z", "+00:00"))
        except ValueError:
            out.append(
                f"{origin('timestamp')} must be a time such as 2026-11-01 or '2026-11-01 12:00:00'; got "
                f"'{values['timestamp']}'."
            )
    broken = _broken_names(values, origin)
    return out + broken + ([] if broken else _clashes(values, origin))


def _broken_names(values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
    out = []
    for key, parts in (("input", (2, 3)), ("output", (2, 3)), ("workspace", (2,))):
        name = values[key]
        if name and name.startswith("~"):
            out.append(
                f"{origin(key)} '{name}' begins with a ~ that the shell did not replace. Write the folder in "
                f"full, such as {os.path.expanduser(name)}."
            )
            continue
        problem = name_problem(name, parts) if name and not is_location(name) else None
        if problem:
            shape = "catalog.schema" if key == "workspace" else "schema.table or catalog.schema.table"
            out.append(
                f"{origin(key)} '{name}' {problem}. Write {shape}, or a location with a slash, "
                f"such as ./{name}."
            )
    return out


def _clashes(values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
    workspace = values["workspace"] or "./workspace"
    source = values["input"] or table_in_workspace(workspace, "sessions")
    target = values["output"] or table_in_workspace(workspace, "pruned")
    advice = f"Name another table with --output; pruning never writes over its input ({source})."
    if normalised(source) == normalised(target):
        return [f"{origin('output')} '{target}' is the input itself. {advice}"]
    for kind in COMPANIONS:
        if normalised(companion(target, kind)) == normalised(source):
            return [
                f"{origin('output')} '{target}' would put its companion {companion(target, kind)} in the "
                f"place of the input. {advice}"
            ]
    if is_location(source) and is_location(target):
        for inner, outer in ((target, source), (source, target)):
            if is_within(inner, outer):
                what = "the folder of the input" if inner == target else "around the input"
                return [
                    f"{origin('output')} '{target}' lies {'in ' if inner == target else ''}{what}. {advice}"
                ]
    return []
