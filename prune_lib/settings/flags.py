"""Settings from the command line: flags and their help, generated from the model."""

from __future__ import annotations

import argparse
import shutil
import textwrap
import typing
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

from pydantic.fields import FieldInfo

from prune_lib.errors import SettingsError
from prune_lib.settings.job import JobText
from prune_lib.settings.options import (
    Given,
    Option,
    did_you_mean,
    domain,
    element_of,
    plain_type,
    written,
)

__all__ = ["from_flags"]

_NO_VALUE = "\0no value"

# What stands for a value in the help, where neither its type nor its name will do.
_METAVARS = {
    "ratio": "R",
    "input": "TABLE",
    "output": "TABLE",
    "test": "TABLE",
    "config": "FILE",
    "document": "FOLDER",
    "experts": "URI",
    "timestamp": "T",
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        # nargs='?' (of a list '*') is how a flag without its value is noticed; to the user the value is not
        # optional.
        return action.metavar if isinstance(action.metavar, str) else default_metavar


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}. --help lists the flags.")


def from_flags(
    job: JobText,
    options: Sequence[Option],
    argv: Sequence[str],
    mistakes: list[str],
    suggested: set[str],
) -> dict[str, Given]:
    """Parse the command line.

    Args:
        job: the job whose settings these are.
        options: the leaves of the model.
        argv: arguments without the program's name.
        mistakes: gets a text for each mistake.
        suggested: gets the keys of settings that a misspelt flag seems to mean.

    Returns:
        Values by dotted key.

    Raises:
        SystemExit: help was asked for and printed.
    """
    parser = _parser(job, options, everything="--help-all" in argv)
    found, extra = parser.parse_known_args(list(argv))
    out: dict[str, Given] = {}
    for option in options:
        text = getattr(found, option.key, None)
        if text is None:
            continue
        if isinstance(text, list):  # `--ratios 0.1, 0.2`: the shell makes two values of it
            text = " ".join(text) if text else _NO_VALUE
        if text == _NO_VALUE:
            mistakes.append(f"{option.flag} needs a value: {domain(option.info)}.")
            suggested.add(option.key)
        else:
            out[option.key] = option.given(text, option.flag)
    given = list(argv)
    known = {name: o.key for o in options for name in _flag_names(o)}
    example = f"--{job.example[0]} {job.example[1]}"
    after_unknown = False
    for text in extra:
        if text.startswith("-"):
            name = text.partition("=")[0]
            at = given.index(text) if text in given else 0
            before = given[at - 1] if at else ""
            value = f" If it is a value, write {before}={text}." if before in known else ""
            mistakes.append(
                f"{name} is not a flag.{did_you_mean(name, known, suggested)}{value} --help lists the flags."
            )
            after_unknown = "=" not in text
        else:
            if not after_unknown:  # else: the value of an unknown flag, which has its message
                mistakes.append(
                    f"'{text}' does not belong to a flag. Values follow their flag, such as {example}."
                )
            after_unknown = False
    return out


def _flag_names(option: Option) -> list[str]:
    names = [option.flag]
    if len(option.path) > 1:
        names.append("--" + option.key)
    if option.is_switch:
        names.append("--no-" + option.flag[2:])
    return names


def _parser(job: JobText, options: Sequence[Option], everything: bool) -> _Parser:
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    parser = _Parser(
        prog=job.name,
        usage=job.usage,
        description=textwrap.fill(job.description, width),
        epilog=_epilog(job, options, width),
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: _Formatter(prog, max_help_position=28, width=width),
    )
    group = parser.add_argument_group("help")
    group.add_argument("-h", "--help", "--help-all", action="help", help="Show this; --help-all: every flag.")
    for option in options:
        if len(option.path) == 1 and option.path[0] in job.headings:
            group = parser.add_argument_group(job.headings[option.path[0]])
        elif len(option.path) > 1 and (group.title or "") != option.path[0]:
            group = parser.add_argument_group(option.path[0] if everything else None)
            group.title = option.path[0]
        hidden = len(option.path) > 1 and not everything
        if hidden:
            group.title = None
        _add_flag(group, option, hidden)
    return parser


def _epilog(job: JobText, options: Sequence[Option], width: int) -> str:
    nested = [option for option in options if len(option.path) > 1]
    first = next(option for option in options if option.key == job.example[0])
    shown = nested[0] if nested else first
    variables = ", ".join(dict.fromkeys((first.env, shown.env)))
    text = (
        f"Every flag is also a key of the YAML file of --config ({shown.key}; {job.listing} lists all with "
        f"their defaults) and an environment variable ({variables}). Flags win over the environment, it over "
        "the file, and that over the defaults."
    )
    if nested:
        *groups, last = dict.fromkeys(option.path[0] for option in nested)
        text += f" --help-all also shows the flags of the groups {', '.join(groups)} and {last}."
    return textwrap.fill(text, width)


def _add_flag(group: argparse._ArgumentGroup, option: Option, hidden: bool) -> None:
    text = argparse.SUPPRESS if hidden else _help(option.info)
    if option.is_switch:
        group.add_argument(option.flag, dest=option.key, action="store_const", const="true", help=text)
        group.add_argument(
            "--no-" + option.flag[2:],
            dest=option.key,
            action="store_const",
            const="false",
            help=argparse.SUPPRESS,
        )
        return
    names = [name for name in _flag_names(option) if "." not in name]
    _add_value(group, option, names, text)
    if len(option.path) > 1:  # --sampling.kappa, as the key is written elsewhere
        _add_value(group, option, ["--" + option.key], argparse.SUPPRESS)


def _add_value(group: argparse._ArgumentGroup, option: Option, names: list[str], text: str) -> None:
    metavar = _metavar(option)
    if option.is_list:
        group.add_argument(*names, dest=option.key, nargs="*", metavar=metavar, help=text)
    else:
        group.add_argument(*names, dest=option.key, nargs="?", const=_NO_VALUE, metavar=metavar, help=text)


def _metavar(option: Option) -> str:
    element = element_of(option.info)
    if element is not None:
        kind = plain_type(element)
        return ("NAME" if kind is str else _of_type(kind)) + ",..."
    kind = plain_type(option.info)
    name = option.path[-1]
    if len(option.path) == 1 and name in _METAVARS:
        return _METAVARS[name]
    return _of_type(kind) or ("NAME" if name.endswith("_column") else name.upper())


def _of_type(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    return {int: "N", float: "X"}.get(kind, "")


def _help(info: FieldInfo) -> str:
    text = info.description or ""
    if info.is_required():
        text += " Required."
    elif info.default is not None and info.default is not False:
        text += f" (default: {written(info.default) or 'none'})"
    return text.replace("%", "%%")
