"""The leaves of a settings model: how each source writes them, and what they accept, in words."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from prune_lib.settings.job import JobSettings

__all__ = [
    "Given",
    "Option",
    "bounds_of",
    "did_you_mean",
    "domain",
    "element_of",
    "options_of",
    "plain_type",
    "written",
]


@dataclass(frozen=True)
class Option:
    """One setting: a leaf of the model.

    Attributes:
        path: keys from the root, such as ("sampling", "kappa").
        info: the field.
        env_prefix: what the job's environment variables begin with.
    """

    path: tuple[str, ...]
    info: FieldInfo
    env_prefix: str

    @property
    def key(self) -> str:
        """Dotted key of the YAML file."""
        return ".".join(self.path)

    @property
    def flag(self) -> str:
        """Flag of the command line."""
        return "--" + "-".join(self.path).replace("_", "-")

    @property
    def env(self) -> str:
        """Environment variable."""
        return self.env_prefix + "__".join(self.path).upper()

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return plain_type(self.info) is bool

    @property
    def is_list(self) -> bool:
        """Whether the setting holds several values."""
        return element_of(self.info) is not None

    def given(self, text: str, origin: str) -> Given:
        """The setting as a text, which for a list is its values with commas between them."""
        if not self.is_list:
            return Given(text, origin)
        values = [part.strip() for part in text.split(",")] if text.strip() else []
        return Given(text, origin, tuple(values))


@dataclass(frozen=True)
class Given:
    """A value as the user wrote it, and where: a subject for messages, such as '--ratio'.

    Attributes:
        elements: the values of a list.
    """

    text: str
    origin: str
    elements: tuple[str, ...] | None = None

    @property
    def value(self) -> str | tuple[str, ...]:
        """What the model parses."""
        return self.text if self.elements is None else self.elements


def options_of(model: type[JobSettings]) -> list[Option]:
    """The leaves of a job's settings: its own, then those of every job, then the groups."""
    shared = {_name(field, info) for field, info in JobSettings.model_fields.items()}

    def place(option: Option) -> int:
        return 2 if len(option.path) > 1 else int(option.path[0] in shared)

    return sorted(_leaves(model, (), model.job.env_prefix), key=place)


def _leaves(model: type[BaseModel], path: tuple[str, ...], env_prefix: str) -> list[Option]:
    out: list[Option] = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            out += _leaves(kind, (*path, name), env_prefix)
        else:
            out.append(Option((*path, _name(name, info)), info, env_prefix))
    return out


def _name(field: str, info: FieldInfo) -> str:
    """How the user calls a field."""
    return info.alias or field


def plain_type(info: FieldInfo) -> Any:
    """The field's type without None."""
    kind = info.annotation
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def element_of(info: FieldInfo) -> FieldInfo | None:
    """What each value of a list must be; None where the field is no list."""
    kind = plain_type(info)
    if typing.get_origin(kind) not in (list, tuple):
        return None
    return FieldInfo.from_annotation(typing.get_args(kind)[0])


def written(value: object, between: str = ",") -> str:
    """A default as the user would write it, the values of a list with `between` between them."""
    if isinstance(value, (list, tuple)):
        return between.join(written(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def domain(info: FieldInfo) -> str:
    """What the field accepts, in words."""
    element = element_of(info)
    if element is not None:
        return f"values with commas between them, each {domain(element)}"
    kind = plain_type(info)
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(typing.get_args(kind))
    bounds = bounds_of(info)
    tail = f" {bounds}" if bounds else ""
    if kind is bool:
        return "true or false"
    if kind is int:
        return "a whole number" + tail
    if kind is float:
        return "a number" + tail
    if any(getattr(rule, "max_length", None) == 1 for rule in info.metadata):
        return "one character"
    return f"text such as {info.examples[0]}" if info.examples else "text that is not empty"


def bounds_of(info: FieldInfo) -> str:
    """The field's limits in words, such as `in (0, 1]`; empty where it has none."""
    limits: dict[str, float] = {}
    for rule in info.metadata:
        for name in ("ge", "gt", "le", "lt"):
            if getattr(rule, name, None) is not None:
                limits[name] = getattr(rule, name)
    low = limits.get("ge", limits.get("gt"))
    high = limits.get("le", limits.get("lt"))
    if low is not None and high is not None:
        return f"in {'[' if 'ge' in limits else '('}{low:,}, {high:,}{']' if 'le' in limits else ')'}"
    if low is not None:
        return f"{low:,} or more" if "ge" in limits else f"above {low:,}"
    if high is not None:
        return f"{high:,} or less" if "le" in limits else f"below {high:,}"
    return ""


def did_you_mean(name: str, known: Mapping[str, str], suggested: set[str]) -> str:
    """A sentence with the closest known name, noted as meant; empty where none is close."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not close:  # a key of a group, without the group
        tail = name.lstrip("-")
        close = [k for k in known if k.split(".")[-1] == tail or k.endswith("-" + tail)][:1]
    if not close:
        return ""
    suggested.add(known[close[0]])
    return f" Did you mean {close[0]}?"
