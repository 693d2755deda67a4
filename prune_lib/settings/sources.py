"""Where settings come from: flags, environment and YAML merged, or keywords; each value with its origin.

Every value arrives as text, whatever its source, and is parsed by the model once. What is wrong is
collected, not raised one by one, so that a user mends a command in one go.
"""

from __future__ import annotations

import difflib
import os
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from prune_lib.errors import SettingsError
from prune_lib.redaction import redacted
from prune_lib.settings.fields import Advice
from prune_lib.settings.file import from_file
from prune_lib.settings.flags import from_flags
from prune_lib.settings.job import JobSettings
from prune_lib.settings.keywords import from_keywords
from prune_lib.settings.options import (
    Given,
    Option,
    bounds_of,
    did_you_mean,
    domain,
    element_of,
    options_of,
    plain_type,
    written,
)
from prune_lib.settings.rules import is_true

__all__ = ["asks_for_json", "load", "of_call", "read_sources"]

Settings = TypeVar("Settings", bound=JobSettings)


def load(
    model: type[Settings],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings of a job's run: flags over environment over the file of --config over defaults.

    Args:
        model: the job's settings model.
        argv: arguments without the program's name; None for this process's own.
        environ: environment; None for this process's own.

    Raises:
        SettingsError: every mistake at once, each with its value, where it came from and the fix.
        SystemExit: --help was printed.
    """
    return model.model_validate(read_sources(model, argv, environ))


def asks_for_json(
    model: type[JobSettings],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> bool:
    """Whether --json is asked for; known also where the settings are wrong otherwise.

    Args:
        model: the job's settings model.
        argv: arguments without the program's name; None for this process's own.
        environ: environment; None for this process's own.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    flags = [text for text in words if text in ("--json", "--no-json")]
    if flags:
        return flags[-1] == "--json"
    variables = os.environ if environ is None else environ
    prefix = model.job.env_prefix
    said = variables.get(f"{prefix}JSON", "")
    return is_true(said or _json_of_file(_file_named(words) or variables.get(f"{prefix}CONFIG", "")))


def _file_named(words: Sequence[str]) -> str:
    """What --config names, as far as that can be told without parsing the rest."""
    named = ""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, given, value = word.partition("=")
        if flag == "--config":
            named = value if given else following
    return named


def _json_of_file(path: str) -> object:
    """The key `json` of a file of settings; nothing where it cannot be read, which is said later."""
    if not path:
        return ""
    try:
        root = yaml.compose(Path(path).read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return ""
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    return next((value.value for name, value in pairs if name.value == "json"), "")


def read_sources(
    model: type[JobSettings],
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Merge flags, environment and file into values that the model accepts.

    Args:
        model: the job's settings model.
        argv: arguments without the program's name; None for this process's own.
        environ: environment; None for this process's own.

    Returns:
        Nested values, checked; only what was given.

    Raises:
        SettingsError: what is wrong, everything at once.
        SystemExit: help was asked for and printed.
    """
    options = options_of(model)
    mistakes: list[str] = []
    suggested: set[str] = set()
    flags = from_flags(model.job, options, sys.argv[1:] if argv is None else argv, mistakes, suggested)
    variables = os.environ if environ is None else environ
    env = _from_env(model.job.env_prefix, options, variables, mistakes, suggested)
    config = flags.get("config") or env.get("config")
    file = from_file(model.job, options, config, mistakes, suggested) if config else {}
    # A file that lists all settings gives none of those that are as they are anyway: `quick`, which fills
    # what is not given, and `device`, which stands for a group's, would do nothing beside it.
    plain = {option.key: written(option.info.get_default(call_default_factory=True)) for option in options}
    file = {key: given for key, given in file.items() if written(given.value) != plain[key]}
    return _checked(model, options, {**file, **env, **flags}, suggested, mistakes, _missing)


def of_call(model: type[Settings], keywords: Mapping[str, Any]) -> Settings:
    """Settings of a call in a program: its keywords over defaults; neither environment nor file is asked.

    Args:
        model: the job's settings model.
        keywords: values by name, groups as mappings.

    Raises:
        SettingsError: every mistake at once, each with its value and the fix.
    """
    options = options_of(model)
    mistakes: list[str] = []
    suggested: set[str] = set()
    given = from_keywords(options, keywords, mistakes, suggested)
    return model.model_validate(_checked(model, options, given, suggested, mistakes, _missing_keyword))


def _checked(
    model: type[JobSettings],
    options: Sequence[Option],
    given: Mapping[str, Given],
    suggested: set[str],
    mistakes: list[str],
    missing: Callable[[Option], str],
) -> dict[str, Any]:
    """What was given as nested values that the model accepts; raises all mistakes, those made before too."""
    values = _nested(given)
    _validate(model, options, values, given, suggested, mistakes, missing)
    defaults = {o.key: o.info.default for o in options if not o.info.is_required()}
    flat = {**defaults, **{key: g.value for key, g in given.items()}}
    mistakes += model.mistakes(
        flat, lambda key: given[key].origin if key in given else f"the default of {key}"
    )
    if mistakes:
        # A value that is no setting can hold a secret, too.
        raise SettingsError(redacted(_together(mistakes)))
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
        inner[last] = value.value
    return out


def _from_env(
    prefix: str,
    options: Sequence[Option],
    environ: Mapping[str, str],
    mistakes: list[str],
    suggested: set[str],
) -> dict[str, Given]:
    known = {option.env: option for option in options}
    keys = {option.env: option.key for option in options}
    out: dict[str, Given] = {}
    for name in sorted(environ):
        # An empty variable is how many tools spell 'not set'.
        if not name.startswith(prefix) or environ[name] == "":
            continue
        if name in known:
            option = known[name]
            out[option.key] = option.given(environ[name], f"the environment variable {name}")
        else:
            mistakes.append(
                f"the environment variable {name} names no setting.{did_you_mean(name, keys, suggested)} "
                f"Unset it, or mend its name: every {prefix}… variable is a setting."
            )
    return out


def _validate(
    model: type[JobSettings],
    options: Iterable[Option],
    values: dict[str, Any],
    given: Mapping[str, Given],
    suggested: set[str],
    mistakes: list[str],
    missing: Callable[[Option], str],
) -> None:
    by_path = {o.path: o for o in options}
    try:
        model.model_validate(values)
    except ValidationError as error:
        found = [(tuple(map(str, e["loc"])), e["type"]) for e in error.errors(include_url=False)]
        # pydantic also finds a list too short where values of it are wrong.
        lists = {path[:-1] for path, _ in found} & by_path.keys()
        for path, kind in found:
            if path[:-1] in lists:
                option = by_path[path[:-1]]
                text = _bad_element(option, given[option.key], int(path[-1]), kind)
                if text not in mistakes:  # the same wrong value twice
                    mistakes.append(text)
            elif path in by_path and path not in lists:
                option = by_path[path]
                if kind != "missing":
                    mistakes.append(_bad_value(option, given[option.key], kind))
                elif option.key not in suggested:  # else it was misspelt, and that is said already
                    mistakes.append(missing(option))
            # What is left is a rule between fields: the model's `problems` have words for it.


def _missing_keyword(option: Option) -> str:
    such = option.info.examples[0] if option.info.examples else "..."
    return f"`{option.key}` is missing: {_meaning(option)}. Give it, such as {option.key}={such}."


def _meaning(option: Option) -> str:
    text = option.info.description or ""
    return text[:1].lower() + text[1:].rstrip(".")


def _missing(option: Option) -> str:
    such = f" such as {option.info.examples[0]}" if option.info.examples else ""
    return (
        f"{option.flag} is missing: {_meaning(option)}. Give {option.flag} with a value{such}, or "
        f"set {option.env}, or the key `{option.key}` in the file of --config."
    )


def _bad_value(option: Option, given: Given, kind: str) -> str:
    info, text = option.info, given.text
    bounds = bounds_of(info)
    if _is_number(info, kind) and bounds:
        must = f"must be {bounds}; got {text}."
    else:
        must = f"must be {domain(info)}; got '{text}'."
    return f"{given.origin} {must}{_fix(info, text, info.default)}"


def _bad_element(option: Option, given: Given, at: int, kind: str) -> str:
    element = element_of(option.info)
    assert element is not None and given.elements is not None
    text = given.elements[at]
    if not text:
        return f"{given.origin}: a value is empty in '{given.text}'. Write one comma between two values."
    bounds = bounds_of(element) if _is_number(element, kind) else ""
    accepted = bounds or domain(element)
    one = accepted.removeprefix("one of ")
    wrong = f"'{text}' is {'not ' if one == accepted else 'none of '}{one}."
    if len(text.split()) > 1:  # `0.1 0.2`
        return f"{given.origin}: {wrong} Write commas between the values."
    return f"{given.origin}: {wrong}{_fix(element, text, option.info.default)}"


def _is_number(info: FieldInfo, kind: str) -> bool:
    """Whether what was refused is a number: the wrong one, then."""
    parsed = not kind.endswith(("_parsing", "_type", "_from_float", "_error"))
    return parsed and plain_type(info) in (int, float)


def _fix(info: FieldInfo, text: str, default: Any) -> str:
    kind = plain_type(info)
    if typing.get_origin(kind) is Literal:
        close = difflib.get_close_matches(text.lower(), typing.get_args(kind), n=1)
        if close:
            return f" Did you mean {close[0]}?"
    for advice in info.metadata:
        if isinstance(advice, Advice):
            return f" {advice.of(text)}"
    if default is not None and default is not PydanticUndefined:
        return f" The default is {written(default) or 'none'}."
    return " Leave it out for the default." if default is None else ""
