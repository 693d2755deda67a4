"""Settings from the command line: flags and their help, generated from the model."""

from __future__ import annotations

import argparse
import shutil
import textwrap
import typing
from collections.abc import Sequence
from typing import Literal, NoReturn

from pydantic.fields import FieldInfo

from prune_lib.errors import SettingsError
from prune_lib.settings_options import Given, Option, did_you_mean, domain, plain_type

__all__ = ["from_flags"]

_NO_VALUE = "\0no value"

# Headings of --help, each with its first field; fields keep the model's order.
_HEADINGS = {
    "ratio": "what to keep",
    "input": "tables",
    "session_column": "columns of the input",
    "experts": "experts",
    "config": "the run",
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        # nargs='?' is how a flag without its value is noticed; to the user the value is not
        # optional.
        return action.metavar if isinstance(action.metavar, str) else default_metavar


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}. --help lists the flags.")


def from_flags(
    options: Sequence[Option],
    argv: Sequence[str],
    mistakes: list[str],
    suggested: set[str],
) -> dict[str, Given]:
    """Parse the command line.

    Args:
        options: the leaves of the model.
        argv: arguments without the program's name.
        mistakes: gets a text for each mistake.
        suggested: gets the keys of settings that a misspelt flag seems to mean.

    Returns:
        Values by dotted key.

    Raises:
        SystemExit: help was asked for and printed.
    """
    parser = _parser(options, everything="--help-all" in argv)
    found, extra = parser.parse_known_args(list(argv))
    out: dict[str, Given] = {}
    for option in options:
        text = getattr(found, option.key, None)
        if text is None:
            continue
        if text == _NO_VALUE:
            mistakes.append(f"{option.flag} needs a value: {domain(option.info)}.")
            suggested.add(option.key)
        else:
            out[option.key] = Given(text, option.flag)
    known = {name: o.key for o in options for name in _flag_names(o)}
    after_unknown = False
    for text in extra:
        if text.startswith("-"):
            name = text.partition("=")[0]
            mistakes.append(
                f"{name} is not a flag.{did_you_mean(name, known, suggested)} --help lists the flags."
            )
            after_unknown = "=" not in text
        else:
            if not after_unknown:  # else: the value of an unknown flag, which has its message
                mistakes.append(
                    f"'{text}' does not belong to a flag. Values follow their flag, such as --ratio 0.1."
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


def _parser(options: Sequence[Option], everything: bool) -> _Parser:
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    parser = _Parser(
        prog="prune",
        usage="spark-submit jobs/prune.py --ratio R [flags], or: prune --ratio R [flags]",
        description="Keep the share of a data set of sessions from which a recommender learns most.",
        epilog=_epilog(width),
        allow_abbrev=False,
        add_help=False,
        formatter_class=lambda prog: _Formatter(prog, max_help_position=28, width=width),
    )
    group = parser.add_argument_group("help")
    group.add_argument("-h", "--help", "--help-all", action="help", help="Show this; --help-all: every flag.")
    for option in options:
        if len(option.path) == 1 and option.path[0] in _HEADINGS:
            group = parser.add_argument_group(_HEADINGS[option.path[0]])
        elif len(option.path) > 1 and (group.title or "") != option.path[0]:
            group = parser.add_argument_group(option.path[0] if everything else None)
            group.title = option.path[0]
        hidden = len(option.path) > 1 and not everything
        if hidden:
            group.title = None
        _add_flag(group, option, hidden)
    return parser


def _epilog(width: int) -> str:
    text = (
        "Every flag is also a key of the YAML file of --config (sampling.kappa; conf/default.yaml lists all "
        "with their defaults) and an environment variable (PRUNE_RATIO, PRUNE_SAMPLING__KAPPA). Flags win "
        "over the environment, it over the file, and that over the defaults. --help-all also shows the flags "
        "of the groups sampling, propagation, training and demo."
    )
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
    group.add_argument(
        *names, dest=option.key, nargs="?", const=_NO_VALUE, metavar=_metavar(option), help=text
    )
    if len(option.path) > 1:  # --sampling.kappa, as the key is written elsewhere
        group.add_argument(
            "--" + option.key, dest=option.key, nargs="?", const=_NO_VALUE, help=argparse.SUPPRESS
        )


def _metavar(option: Option) -> str:
    kind = plain_type(option.info)
    if typing.get_origin(kind) is Literal:
        return "{" + ",".join(typing.get_args(kind)) + "}"
    if option.path == ("ratio",):
        return "R"
    name = option.path[-1]
    special = {
        "input": "TABLE",
        "output": "TABLE",
        "config": "FILE",
        "experts": "URI",
        "timestamp": "T",
    }
    if kind in (int, float):
        return "N" if kind is int else "X"
    return "NAME" if name.endswith("_column") else special.get(name, name.upper())


def _help(info: FieldInfo) -> str:
    text = info.description or ""
    if info.is_required():
        text += " Required."
    elif info.default is not None and info.default is not False:
        text += f" (default: {info.default})"
    return text.replace("%", "%%")
