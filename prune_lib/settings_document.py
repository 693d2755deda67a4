"""The file of all settings: `python -m prune_lib.settings_document > conf/default.yaml`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

from pydantic import BaseModel

from prune_lib.settings import PruneSettings
from prune_lib.settings_options import Option, options_of

__all__ = ["default_yaml"]

_WIDTH = 98
_HEAD = """\
# Every setting with its default; copy what you want to change into a file of your own:
#
#     spark-submit jobs/prune.py --config mine.yaml
#
# Flags (--ratio, --sampling-kappa) and environment variables (PRUNE_RATIO, PRUNE_SAMPLING__KAPPA)
# win over the file. A key without a value has no default of its own; `ratio` must be given.
"""


def default_yaml(model: type[BaseModel] = PruneSettings) -> str:
    """All keys of a settings model with their defaults, each below its description, as YAML."""
    return _HEAD + "".join(f"{line}\n" for line in _lines(model))


def _lines(model: type[BaseModel]) -> Iterator[str]:
    group = ""
    for option in options_of(model):
        if option.key == "config":  # names the file itself
            continue
        *groups, name = option.path
        if groups and groups[0] != group:
            group = groups[0]
            yield from ("", f"# {model.model_fields[group].description}.", f"{group}:")
        elif not groups:
            yield ""
        margin = "  " * len(groups)
        comment = f"{margin}# "
        text = option.info.description or ""
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent=comment, subsequent_indent=comment, break_on_hyphens=False
        )
        yield f"{margin}{name}:{_value(option)}"


def _value(option: Option) -> str:
    default = None if option.info.is_required() else option.info.get_default()
    if default is None:
        return ""
    return f" {str(default).lower() if isinstance(default, bool) else default}"


if __name__ == "__main__":
    sys.stdout.write(default_yaml())
