"""What a run says at its end: what was kept, and a query to look at it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_lib.locations import companion, is_location
from prune_lib.schemas import REASONS
from prune_lib.settings import PruneSettings
from prune_lib.stages import Stages

__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """The result of a run.

    Attributes:
        text: what is printed.
        run: the run's row of the runs table; empty after a dry run.
        scoring: how sessions were scored, see `difficulty.ScoringInfo`; empty where they were not.
    """

    text: str
    run: Mapping[str, Any] = field(default_factory=dict)
    scoring: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The text for people."""
        return self.text

    @classmethod
    def of(
        cls,
        run: Mapping[str, Any],
        settings: PruneSettings,
        stages: Stages,
        scoring: Mapping[str, Any],
    ) -> Summary:
        """Put a run into words."""
        output = settings.resolved_output

        samples = settings.unit == "prefix"

        def part(what: str, name: str | None = None) -> str:
            after, before = run[f"{what}_after"], run[f"{what}_before"]
            share = 100 * after / before if before else 0.0
            return f"  {name or what:<13}{after:>12,} of {before:>12,}   {share:5.1f} %"

        lines = [
            f"Pruned {run['input']} to {output} (run {run['run_id']}, method {run['method']})",
            *([part("sessions", "samples")] if samples else [part("sessions"), part("interactions")]),
            part("items", "targets" if samples else None),
            f"  duplicates   {run['duplicates_after']:>12,} kept of {run['duplicates_before']:,}",
            f"  popularity   Gini {run['gini_before']:.3f} before, {run['gini_after']:.3f} after",
        ]
        if scoring:
            lines.append(
                f"  difficulty   {scoring['score']} by experts {scoring['experts']}, mean loss "
                f"{scoring['mean_loss']:.3f} nats, {scoring['normaliser']} normaliser"
            )
            if scoring["reused_sessions"]:
                lines.append(f"               {scoring['reused_sessions']:,} sessions were scored before")
        lines.append("  why")
        for name, meaning in REASONS.items():
            if run["reasons"].get(name):
                lines.append(f"    {name:<15}{run['reasons'][name]:>10,}   {meaning}")
        lines.append("  seconds      " + ", ".join(f"{s.name} {s.seconds:.1f}" for s in stages.done))
        lines += [f"  warning      {w}" for w in stages.warnings]
        lines += ["", "Look at it, in spark-sql or a notebook:", "", *_queries(output, settings)]
        return cls("\n".join(lines), run, scoring)


def _sql_name(name: str) -> str:
    """A table's name in SQL; a relative folder in full, so that the query runs from anywhere."""
    if not is_location(name):
        return name
    return f"delta.`{name if ':' in name else Path(name).resolve()}`"


def _queries(output: str, settings: PruneSettings) -> list[str]:
    units = "samples" if settings.unit == "prefix" else "sessions"
    decisions = _sql_name(companion(output, "decisions"))
    return [
        f"  SELECT reason, kept, count(*) AS {units}, round(avg(difficulty), 3) AS difficulty",
        f"  FROM {decisions} GROUP BY reason, kept ORDER BY kept DESC, {units} DESC;",
        "",
        "  -- the first half of what was kept: a smaller budget without running again",
        f"  SELECT * FROM {_sql_name(output)} WHERE prune_rank <= "
        f"(SELECT max(prune_rank) / 2 FROM {_sql_name(output)});",
        "",
        "One session or item in words:",
        "",
        f"  spark-submit jobs/explain.py --output {shlex.quote(output)} --session ID   (or --item ID)",
    ]
