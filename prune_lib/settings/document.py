"""The file of all settings: `python -m prune_lib.settings.document > conf/default.yaml`.

Of another job: `python -m prune_lib.settings.document evaluate > conf/evaluate.yaml`, and so on.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence

from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.settings import PruneSettings
from prune_lib.settings.explain import ExplainSettings
from prune_lib.settings.ingest import IngestSettings
from prune_lib.settings.job import JobSettings
from prune_lib.settings.options import Option, options_of, written
from prune_lib.settings.report import ReportSettings
from prune_lib.settings.train import ExpertsSettings

__all__ = ["default_yaml"]

_WIDTH = 98
_JOBS: tuple[type[JobSettings], ...] = (
    PruneSettings,
    EvaluateSettings,
    ExplainSettings,
    IngestSettings,
    ExpertsSettings,
    ReportSettings,
)
_MODELS = {model.job.name: model for model in _JOBS}
_HEAD = """\
# Every setting with its default; copy what you want to change into a file of your own:
#
#     spark-submit {script} --config mine.yaml
#
"""


def default_yaml(model: type[JobSettings] = PruneSettings) -> str:
    """All keys of a job's settings with their defaults, each below its description, as YAML."""
    options = options_of(model)
    head = [_HEAD.format(script=model.job.script), *(f"{line}\n" for line in _ways(model, options))]
    return "".join(head) + "".join(f"{line}\n" for line in _lines(model, options))


def _ways(model: type[JobSettings], options: Sequence[Option]) -> list[str]:
    """How else settings are given."""
    one = next(o for o in options if o.key == model.job.example[0])
    other = next((o for o in options if len(o.path) > 1), options[1])
    required = " and ".join(f"`{o.key}`" for o in options if o.info.is_required())
    text = (
        f"Flags ({one.flag}, {other.flag}) and environment variables ({one.env}, {other.env}) win over the "
        "file. A key without a value has no default of its own"
    )
    return _comment(f"{text}; {required} must be given." if required else f"{text}.", "# ")


def _comment(text: str, margin: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )


def _lines(model: type[JobSettings], options: Sequence[Option]) -> Iterator[str]:
    group = ""
    for option in options:
        if option.key == "config":  # names the file itself
            continue
        *groups, name = option.path
        if groups and groups[0] != group:
            group = groups[0]
            yield from ("", f"# {model.model_fields[group].description}.", f"{group}:")
        elif not groups:
            yield ""
        margin = "  " * len(groups)
        yield from _comment(option.info.description or "", f"{margin}# ")
        yield f"{margin}{name}:{_value(option)}"


def _value(option: Option) -> str:
    default = None if option.info.is_required() else option.info.get_default()
    if default is None:
        return ""
    return f" [{written(default, ', ')}]" if option.is_list else f" {written(default)}"


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else PruneSettings.job.name
    if name not in _MODELS:
        sys.exit(f"there is no job {name}; the jobs are {', '.join(_MODELS)}")
    sys.stdout.write(default_yaml(_MODELS[name]))
