"""How an evaluation was asked for, in a line that asks for it again: a command, or the call of a program."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from prune_lib.errors import UserError
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.settings.job import SAYING
from prune_lib.settings.sources import load

__all__ = ["asked_by"]

# Where working files lie and how much is said tells nothing of the results.
_UNTOLD = {"workspace", "config", "dry_run", *SAYING}


def asked_by(settings: EvaluateSettings, argv: Sequence[str] | None = None) -> str:
    """The command whose arguments give these settings; where this process has others, the call that does.

    A notebook's process, or a program's, has arguments too, and they are not an evaluation's.

    Args:
        settings: of the evaluation.
        argv: arguments without the program's name; None for this process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if _gives(words, settings):
        return shlex.join([settings.job.script, *_telling(words)])
    plain = type(settings)(quick=settings.quick).model_dump(mode="json")
    given = _other(settings.model_dump(mode="json"), plain)
    if settings.quick:
        given["quick"] = True
    table = given.pop("input", None)
    arguments = [] if table is None else [repr(table)]
    groups_last = sorted(given, key=lambda name: isinstance(given[name], Mapping))
    arguments += [f"{name}={given[name]!r}" for name in groups_last if name not in _UNTOLD]
    return f"prune_lib.evaluate({', '.join(arguments)})"


def _gives(argv: Sequence[str], settings: EvaluateSettings) -> bool:
    """Whether arguments alone are these settings; a reader has not the environment of whoever ran it."""
    if any(word in ("-h", "--help", "--help-all") for word in argv):  # it would be printed
        return False
    try:
        return load(type(settings), argv, environ={}) == settings
    except UserError:
        return False


def _other(values: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are not as in `plain`, of groups those in them.

    >>> _other({"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}, {"a": 1, "b": {"c": 0, "d": 3}, "e": {"f": 4}})
    {'b': {'c': 2}}
    """
    found = {
        name: _other(value, plain[name]) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if value != plain[name]
    }
    return found


def _telling(argv: Sequence[str]) -> list[str]:
    """Arguments without the workspace: where working files lie says nothing.

    >>> _telling(["--seeds", "2", "--workspace", "/tmp/w", "--workspace=x", "--quick"])
    ['--seeds', '2', '--quick']
    >>> _telling([])
    []
    """
    after = ["", *argv][: len(argv)]
    return [
        word
        for word, before in zip(argv, after, strict=True)
        if "--workspace" not in (word, before) and not word.startswith("--workspace=")
    ]
