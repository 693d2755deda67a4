"""Where settings come from: flags, environment and YAML merged, each value with its origin.

Every value arrives as text, whatever its source, and is parsed by the model once. What is wrong is
collected, not raised one by one, so that a user mends a command in one go.
"""

from __future__ import annotations

import difflib
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from prune_lib.errors import SettingsError
from prune_lib.settings_file import from_file
from prune_lib.settings_flags import from_flags
from prune_lib.settings_options import (
    ENV_PREFIX,
    Given,
    Option,
    bounds_of,
    did_you_mean,
    domain,
    options_of,
    plain_type,
)

__all__ = ["read_sources"]


def read_sources(
    model: type[BaseModel],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    checks: Callable[[Mapping[str, Any], Callable[[str], str]], list[str]] | None = None,
) -> dict[str, Any]:
    """Merge flags, environment and file into values that the model accepts.

    Args:
        model: the settings model; a field `config` names the YAML file.
        argv: arguments without the program's name; None for this process's own.
        environ: environment; None for this process's own.
        checks: rules between fields: gets the values by field and a function from field to origin,
            returns mistakes.

    Returns:
        Nested values, checked; only what was given.

    Raises:
        SettingsError: what is wrong, everything at once.
        SystemExit: help was asked for and printed.
    """
    options = options_of(model)
    mistakes: list[str] = []
    suggested: set[str] = set()
    flags = from_flags(options, sys.argv[1:] if argv is None else argv, mistakes, suggested)
    env = _from_env(options, os.environ if environ is None else environ, mistakes, suggested)
    config = flags.get("config") or env.get("config")
    file = from_file(options, config, mistakes, suggested) if config else {}
    given = {**file, **env, **flags}
    values = _nested(given)
    _validate(model, options, values, given, suggested, mistakes)
    if checks is not None:
        defaults = {o.key: o.info.default for o in options if not o.info.is_required()}
        flat = {**defaults, **{key: g.text for key, g in given.items()}}
        mistakes += checks(flat, lambda key: given[key].origin if key in given else f"the default of {key}")
    if mistakes:
        raise SettingsError(_together(mistakes))
    return values


def _together(mistakes: Sequence[str]) -> str:
    if len(mistakes) == 1:
        return mistakes[0]
    listed = "".join(f"\n({i}) {text}" for i, text in enumerate(mistakes, 1))
    return f"{len(mistakes)} mistakes in the settings:{listed}"


def _nested(given: Mapping[str, Given]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in given.items():
        *groups, last = key.split(".")
        inner = out
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value.text
    return out


def _from_env(
    options: Sequence[Option],
    environ: Mapping[str, str],
    mistakes: list[str],
    suggested: set[str],
) -> dict[str, Given]:
    known = {option.env: option.key for option in options}
    out: dict[str, Given] = {}
    for name in sorted(environ):
        # An empty variable is how many tools spell 'not set'.
        if not name.startswith(ENV_PREFIX) or environ[name] == "":
            continue
        if name in known:
            out[known[name]] = Given(environ[name], f"the environment variable {name}")
        else:
            mistakes.append(
                f"the environment variable {name} names no setting.{did_you_mean(name, known, suggested)} "
                f"Unset it, or mend its name: every {ENV_PREFIX}… variable is a setting."
            )
    return out


def _validate(
    model: type[BaseModel],
    options: Iterable[Option],
    values: dict[str, Any],
    given: Mapping[str, Given],
    suggested: set[str],
    mistakes: list[str],
) -> None:
    by_path = {o.path: o for o in options}
    try:
        model.model_validate(values)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            option = by_path.get(tuple(str(part) for part in found["loc"]))
            if option is None:  # a rule between fields: `checks` has words for it
                continue
            if found["type"] == "missing":
                if option.key not in suggested:  # else it was misspelt, and that is said already
                    mistakes.append(_missing(option))
            else:
                mistakes.append(_bad_value(option, given[option.key], found["type"]))


def _missing(option: Option) -> str:
    text = option.info.description or ""
    text = text[:1].lower() + text[1:].rstrip(".")
    such = " such as 0.1" if option.key == "ratio" else ""
    return (
        f"{option.flag} is missing: {text}. Give {option.flag} with a value{such}, or set {option.env}, or "
        f"the key `{option.key}` in the file of --config."
    )


def _bad_value(option: Option, given: Given, kind: str) -> str:
    info, text = option.info, given.text
    bounds = bounds_of(info)
    parsed = not kind.endswith(("_parsing", "_type", "_from_float", "_error"))
    plain = plain_type(info)
    if parsed and plain in (int, float) and bounds:
        must = f"must be {bounds}; got {text}."
    else:
        must = f"must be {domain(info)}; got '{text}'."
    return f"{given.origin} {must}{_fix(option, text)}"


def _fix(option: Option, text: str) -> str:
    kind = plain_type(option.info)
    if typing.get_origin(kind) is Literal:
        close = difflib.get_close_matches(text.lower(), typing.get_args(kind), n=1)
        if close:
            return f" Did you mean {close[0]}?"
    if option.key == "ratio":
        try:
            percent = float(text.rstrip("% "))
        except ValueError:
            percent = 0.0
        if (1 < percent <= 100 and (percent >= 2 or text.rstrip().endswith("%"))) or (
            0 < percent <= 1 and "%" in text
        ):
            return f" For {percent:g}% of the data write {percent / 100:g}."
        return " It is the share of the data to keep: 0.1 keeps a tenth, 1 keeps everything."
    default = option.info.default
    if default is not None and default is not PydanticUndefined:
        return f" The default is {str(default).lower() if isinstance(default, bool) else default}."
    return " Leave it out for the default." if default is None else ""
