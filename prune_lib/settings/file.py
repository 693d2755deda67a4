"""Settings from a YAML file, each value with its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from prune_lib.settings.job import JobText
from prune_lib.settings.options import Given, Option, did_you_mean, domain

__all__ = ["from_file"]


def from_file(
    job: JobText, options: Sequence[Option], config: Given, mistakes: list[str], suggested: set[str]
) -> dict[str, Given]:
    """Read the file that --config (or PRUNE_CONFIG) names.

    Args:
        job: the job whose settings these are.
        options: the leaves of the model.
        config: the file, and who names it.
        mistakes: gets a text for each mistake.
        suggested: gets the keys of settings that a misspelt name seems to mean.

    Returns:
        Values by dotted key.
    """
    path = Path(config.text)
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        mistakes.append(
            f"{config.origin} names the file {path}, which does not exist (looked for in {Path.cwd()}). Give "
            f"the path of a YAML file, such as {job.listing}."
        )
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(f"{config.origin} names {path}, which cannot be read: {error}. Give a YAML file.")
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        what = getattr(error, "problem", None) or "it cannot be parsed"
        mistakes.append(f"{path}{line} is not YAML: {what}. Write `key: value` lines.")
    else:
        if isinstance(root, yaml.MappingNode):
            reader = _File(path, job, options, mistakes, suggested)
            reader.read(root, ())
            return reader.out
        if root is not None:
            example = ": ".join(job.example)
            mistakes.append(f"{path} holds no keys. Write `key: value` lines, such as `{example}`.")
    return {}


class _File:
    """Walks the nodes of a YAML file: these, unlike its values, know their line and their text."""

    def __init__(
        self,
        path: Path,
        job: JobText,
        options: Sequence[Option],
        mistakes: list[str],
        suggested: set[str],
    ) -> None:
        self.path = path
        self.listing = job.listing
        self.options = {o.path: o for o in options}
        self.groups = {o.path[:i] for o in options for i in range(1, len(o.path))}
        self.mistakes = mistakes
        self.suggested = suggested
        self.out: dict[str, Given] = {}
        self.lines: dict[str, int] = {}

    def read(self, node: yaml.MappingNode, path: tuple[str, ...]) -> None:
        for name, value in node.value:
            # `sampling.kappa: 1` is what `kappa: 1` in the group `sampling` is.
            here = (*path, *str(name.value).replace("-", "_").split("."))
            text = ".".join(here)
            line = name.start_mark.line + 1
            subject = f"the key `{'.'.join((*path, str(name.value)))}` in {self.path} (line {line})"
            if text in self.lines:
                first = self.lines[text]
                self.mistakes.append(f"{subject} is there twice, first in line {first}. Remove one.")
                continue
            self.lines[text] = line
            self._value(here, value, subject)

    def _value(self, path: tuple[str, ...], value: yaml.Node, subject: str) -> None:
        empty = isinstance(value, yaml.ScalarNode) and value.tag.endswith(":null")
        if path in self.groups:
            if isinstance(value, yaml.MappingNode):
                self.read(value, path)
            elif not empty:
                inside = sorted(p[-1] for p in self.options if p[:-1] == path)
                self.mistakes.append(
                    f"{subject} is a group; write its keys below it, indented: {', '.join(inside)}."
                )
        elif path not in self.options:
            known = {o.key: o.key for o in self.options.values()}
            hint = did_you_mean(".".join(path), known, self.suggested)
            self.mistakes.append(f"{subject} is not a setting.{hint} {self.listing} lists all keys.")
        elif path == ("config",) and not empty:
            self.mistakes.append(f"{subject} cannot be set in the file itself; use --config.")
        elif self.options[path].is_list and isinstance(value, yaml.SequenceNode):
            self._list(path, value, subject)
        elif not isinstance(value, yaml.ScalarNode):
            accepted = domain(self.options[path].info)
            must, got = "one value, ", "a list or a group"
            if self.options[path].is_list:
                must, got = "", "a group"
            self.mistakes.append(f"{subject} must be {must}{accepted}; got {got}.")
        elif not empty:
            # The text as written: YAML reads 1e-3 as text, yes as true, 2026-11-01 as a date.
            self.out[".".join(path)] = self.options[path].given(str(value.value), subject)

    def _list(self, path: tuple[str, ...], value: yaml.SequenceNode, subject: str) -> None:
        if not all(isinstance(node, yaml.ScalarNode) for node in value.value):
            accepted = domain(self.options[path].info)
            self.mistakes.append(f"{subject} must be {accepted}; got a list or a group among them.")
            return
        elements = tuple(
            "" if node.tag.endswith(":null") else str(node.value).strip() for node in value.value
        )
        self.out[".".join(path)] = Given(", ".join(elements), subject, elements)
