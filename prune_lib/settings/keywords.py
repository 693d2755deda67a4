"""Settings from the keywords of a call: `prune(sessions, ratio=0.1, sampling={"kappa": 1})`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from prune_lib.errors import PruneError
from prune_lib.settings.job import JobSettings
from prune_lib.settings.options import Given, Option, did_you_mean, domain, options_of, written

__all__ = ["as_arguments", "from_keywords"]


_LOGGER = "a call prints nothing, and how much the logger `prune_lib` says is set by `logging`"
# Settings of a job alone, and what a program does instead.
_OF_JOBS = {
    "config": "give the file's keys as arguments",
    "json": "what a call returns has the facts as attributes",
    "log_json": _LOGGER,
    "quiet": _LOGGER,
    "verbose": _LOGGER,
}


@contextmanager
def as_arguments(model: type[JobSettings]) -> Iterator[None]:
    """Within it, a message's flags become what they are in a call: --session-column, `session_column`.

    Args:
        model: the settings that the call takes.
    """
    try:
        yield
    except PruneError as error:
        names = {option.flag: option.key for option in options_of(model)}
        text = re.sub(
            r"--[a-z][a-z-]*",
            lambda found: f"`{names[found.group()]}`" if found.group() in names else found.group(),
            str(error),
        )
        error.args = (text,)
        raise


def from_keywords(
    options: Sequence[Option], keywords: Mapping[str, Any], mistakes: list[str], suggested: set[str]
) -> dict[str, Given]:
    """Take keywords for settings; as text, so that they are read and refused as those of any source are.

    Args:
        options: the leaves of the model.
        keywords: values by name; None is a value that was not given, a group is a mapping or its model.
        mistakes: gets a text for each mistake.
        suggested: gets the keys of settings that a misspelt name seems to mean.

    Returns:
        Values by dotted key.
    """
    by_key = {option.key: option for option in options}
    groups = {option.path[0] for option in options if len(option.path) > 1}
    out: dict[str, Given] = {}
    for key, value in _flat(keywords, groups).items():
        if key in groups:
            inside = sorted(o.path[-1] for o in options if o.path[0] == key)
            mistakes.append(f"`{key}` is a group: give a dictionary with some of {', '.join(inside)}.")
        elif key in _OF_JOBS and value is not None:
            mistakes.append(f"`{key}` is not for a call: {_OF_JOBS[key]}.")
        elif key not in by_key:
            mistakes.append(f"`{key}` is not a setting.{_meant(key, by_key, suggested)}")
        elif isinstance(value, (list, tuple)):
            if by_key[key].is_list:
                elements = tuple(written(part) for part in value)
                out[key] = Given(", ".join(elements), f"`{key}`", elements)
            else:
                mistakes.append(f"`{key}` must be one value, {domain(by_key[key].info)}; got {value!r}.")
                suggested.add(key)  # it is not missing, too
        elif value is not None:
            out[key] = by_key[key].given(written(value), f"`{key}`")
    return out


def _flat(keywords: Mapping[str, Any], groups: set[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in keywords.items():
        if isinstance(value, BaseModel):
            value = value.model_dump(exclude_unset=True)
        if name in groups and isinstance(value, Mapping):
            out |= {f"{name}.{inner}": part for inner, part in value.items()}
        else:
            out[name] = value
    return out


def _meant(key: str, by_key: Mapping[str, Option], suggested: set[str]) -> str:
    hint = did_you_mean(key, {known: known for known in by_key}, suggested)
    group, dot, name = hint.removesuffix("?").rpartition(" ")[2].partition(".")
    return f"{hint} Write {group}={{'{name}': ...}}." if dot else hint
