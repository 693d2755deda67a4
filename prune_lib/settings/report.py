"""What can be set about a report: the model of its YAML file, its environment and its flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from prune_lib.locations import local_path, named, table_in_workspace, workspace_folder
from prune_lib.settings.job import JobSettings, JobText
from prune_lib.settings.rules import report_rules

__all__ = ["MAP_POINTS", "ReportSettings", "report_place"]

#: Points of the map, at most: what a browser draws at once, and a page of a few megabytes holds.
MAP_POINTS = 50_000


class ReportSettings(JobSettings):
    """Settings of a report; frozen, unknown keys are refused."""

    job: ClassVar[JobText] = JobText(
        name="report",
        usage="spark-submit jobs/report.py [flags], or: report-pruning [flags]",
        description="Show a pruning run: one HTML page with what was kept, what was not, and why.",
        script="jobs/report.py",
        listing="conf/report.yaml",
        example=("output", "clicks_pruned"),
        headings={"output": "what to show", "config": "the run"},
    )

    output: str | None = Field(
        default=None,
        min_length=1,
        description="The pruned table, as it was given to prune. Default: the workspace's `pruned`.",
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="File of the page, on this machine. Default: beside a pruned table that lies on this "
        "machine, <output>_report.html; else in the workspace's folder, or in the current one.",
    )
    session: str | None = Field(
        default=None,
        min_length=1,
        description="Id of the session whose neighbourhood is drawn. Default: a covered one.",
    )
    map_points: int = Field(
        default=MAP_POINTS,
        ge=0,
        le=MAP_POINTS,
        description="Points of the map of sessions, at most; of more sessions a sample by hash is drawn. "
        "0: no map, which is most of the report's time.",
    )
    evaluation: str | None = Field(
        default=None,
        min_length=1,
        description="Table of an evaluation, as it was given to evaluate by --output. Default: the "
        "workspace's `evaluation`; what it measured on this input is shown.",
    )

    @classmethod
    def problems(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """Names that are none, a page that is not to lie on this machine."""
        return report_rules(values, origin)

    @classmethod
    def writes(cls, values: Mapping[str, Any]) -> Sequence[str]:
        """Beside the pruned table, unless the page has a place of its own."""
        return [name for name in cls.written if not (name == "output" and values["path"])]

    @property
    def resolved_output(self) -> str:
        """The pruned table: what was given, or the workspace's `pruned`."""
        return self.output or table_in_workspace(self.workspace, "pruned")

    @property
    def resolved_evaluation(self) -> str:
        """The evaluation's table: what was given, or the workspace's `evaluation`."""
        return self.evaluation or table_in_workspace(self.workspace, "evaluation")

    @property
    def resolved_path(self) -> Path:
        """The page's file."""
        if self.path is not None:
            return local_path(self.path) or Path(self.path)
        return report_place(self.resolved_output, self.workspace)


def report_place(output: str, workspace: str) -> Path:
    """Where the page of a pruned table lies by default.

    >>> report_place("/data/pruned/", "./workspace").as_posix()
    '/data/pruned_report.html'
    >>> report_place("main.shop.`my table`", "main.shop").as_posix()
    'main.shop.my table_report.html'
    """
    # A folder that is the root has no name that the page could have.
    beside = local_path(named(output))
    if beside is not None and beside.name:
        return beside.with_name(f"{beside.name}_report.html")
    name = output.rstrip("/").rpartition("/")[2].replace("`", "")
    return (workspace_folder(workspace) or Path()) / f"{name}_report.html"
