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

__all__ = [
    "ENV_PREFIX",
    "Given",
    "Option",
    "bounds_of",
    "did_you_mean",
    "domain",
    "options_of",
    "plain_type",
]

ENV_PREFIX = "PRUNE_"


@dataclass(frozen=True)
class Option:
    """One setting: a leaf of the model.

    Attributes:
        path: keys from the root, such as ("sampling", "kappa").
        info: the field.
    """

    path: tuple[str, ...]
    info: FieldInfo

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
        return ENV_PREFIX + "__".join(self.path).upper()

    @property
    def is_switch(self) -> bool:
        """Whether the flag takes no value."""
        return plain_type(self.info) is bool


@dataclass(frozen=True)
class Given:
    """A value as the user wrote it, and where: a subject for messages, such as '--ratio'."""

    text: str
    origin: str


def options_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> list[Option]:
    """The leaves of a settings model, in its order."""
    out: list[Option] = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            out += options_of(kind, (*path, name))
        else:
            out.append(Option((*path, name), info))
    return out


def plain_type(info: FieldInfo) -> Any:
    """The field's type without None."""
    kind = info.annotation
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(part for part in typing.get_args(kind) if part is not type(None))
    return kind


def domain(info: FieldInfo) -> str:
    """What the field accepts, in words."""
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
    return "text that is not empty"


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
