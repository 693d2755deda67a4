"""What can be set about an explanation: the model of its YAML file, its environment and its flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from prune_lib.locations import table_in_workspace
from prune_lib.settings.job import JobSettings, JobText
from prune_lib.settings.rules import explain_rules

__all__ = ["ExplainSettings"]


class ExplainSettings(JobSettings):
    """Settings of an explanation; frozen, unknown keys are refused."""

    job: ClassVar[JobText] = JobText(
        name="explain",
        usage="spark-submit jobs/explain.py --session X | --item Y [flags], or: explain-pruning [flags]",
        description="Say why a session was kept or pruned, or what became of an item.",
        script="jobs/explain.py",
        listing="conf/explain.yaml",
        example=("session", "4711"),
        headings={"session": "what to explain", "config": "the run"},
    )

    # It looks at the pruned table; only a failure's file is written.
    written: ClassVar[tuple[str, ...]] = ("workspace",)

    session: str | None = Field(default=None, min_length=1, description="Id of a session of the input.")
    length: int | None = Field(
        default=None,
        ge=2,
        description="Which of the session's samples, where samples were chosen (--unit prefix): its clicks, "
        "target included. Without it they are listed.",
    )
    item: str | None = Field(default=None, min_length=1, description="Id of an item of the input.")
    output: str | None = Field(
        default=None,
        min_length=1,
        description="The pruned table, as it was given to prune: its companions hold the decisions. Default: "
        "the workspace's `pruned`.",
    )
    lines: int = Field(
        default=20, ge=1, description="Lines of a list, at most: parts of a gain, or an item's kept sessions."
    )

    @classmethod
    def problems(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """Nothing to explain, names that are none."""
        return explain_rules(values, origin)

    @property
    def resolved_output(self) -> str:
        """The pruned table: what was given, or the workspace's `pruned`."""
        return self.output or table_in_workspace(self.workspace, "pruned")
