"""`report`: from the tables of a run to one HTML file."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

import prune_lib
from prune_lib.errors import InputError, UserError
from prune_lib.experts.settings import EXPERTS
from prune_lib.launcher import job_script, launcher
from prune_lib.locations import companion, sql_name
from prune_lib.lookup import Tables, Versions
from prune_lib.pinned import belonging
from prune_lib.report.facts import Facts, Neighbourhood, Sample
from prune_lib.report.neighbours import example_session, look_around
from prune_lib.report.page import MAP_LIMIT, MapPoints, render
from prune_lib.report.parts import Section
from prune_lib.report.place import check_place, write_page
from prune_lib.report.results import measured
from prune_lib.report.sample import drawn, examples
from prune_lib.report.sections import experts, items, kept, run, sessions
from prune_lib.report.tables import gather
from prune_lib.session import check_runtime, get_spark, in_utc
from prune_lib.settings import PruneSettings
from prune_lib.settings.keywords import as_arguments
from prune_lib.settings.report import MAP_POINTS, ReportSettings
from prune_lib.settings.sources import of_call
from prune_lib.stages import Stages
from prune_lib.tracking import add_artifact

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from prune_lib.experts.bundle import Bundle

__all__ = ["Report", "report", "write_report"]

#: Examples by reason.
_EACH = 4


@dataclass(frozen=True)
class Report:
    """A page that was written.

    Attributes:
        path: its file; None after a dry run.
        run_id: the run that it shows.
        points: of the map; 0 where there is none.
        warnings: what it lacks, and why.
        text: what is printed.
    """

    path: Path | None
    run_id: str
    points: int
    warnings: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        """The text for people."""
        return self.text

    def record(self) -> dict[str, Any]:
        """What --json says."""
        return {
            "dry_run": self.path is None,
            "report": None if self.path is None else str(self.path),
            "run_id": self.run_id,
            "map_points": self.points,
            "warnings": list(self.warnings),
        }


def write_report(
    spark: SparkSession,
    output: str,
    *,
    path: str | os.PathLike[str] | None = None,
    workspace: str = "./workspace",
    session: str | int | None = None,
    map_points: int = MAP_POINTS,
    versions: Versions | None = None,
) -> Report:
    """Write the report of a pruned table.

    Args:
        spark: the session.
        output: the pruned table, as it was given to prune.
        path: the page's file; by default beside the table (see `settings.report.report_place`).
        workspace: where experts, MLflow's store and an evaluation are looked for.
        session: id of the session whose neighbourhood is drawn; by default a covered one.
        map_points: points of the map, at most; 0 for none.
        versions: Delta versions of the tables, by kind (pruned, decisions, items, runs); those of the last
            run that ended where absent.

    Returns:
        Where it lies, and what it lacks.

    Raises:
        UserError: there is no such table or session, or the file cannot be written.
    """
    asked = {
        "output": output,
        "path": None if path is None else os.fspath(path),
        "workspace": workspace,
        "session": session,
        "map_points": map_points,
    }
    with as_arguments(ReportSettings):
        return report(of_call(ReportSettings, asked), spark, versions)


def report(
    settings: ReportSettings, spark: SparkSession | None = None, versions: Versions | None = None
) -> Report:
    """`write_report` by settings.

    Cost: some ten aggregates over the decisions, two passes over the input for the clicks of a sample, and,
    most of it, the layout of the map: about a millisecond a point.
    """
    place = settings.resolved_path.absolute()
    check_place(place)
    spark = spark or get_spark("report")
    check_runtime(spark, only_reads=True)
    with in_utc(spark):
        return _report(settings, spark, place, versions)


def _report(settings: ReportSettings, spark: SparkSession, place: Path, versions: Versions | None) -> Report:
    output = settings.resolved_output
    tables = Tables(spark, output, belonging(spark, output) if versions is None else versions)
    if settings.dry_run:
        run_id = _run_id(tables)
        text = f"Dry run: the report of run {run_id} of {tables.output} would be written to {place}."
        return Report(None, run_id, 0, (), text)
    stages = Stages()
    with stages.stage("tables"):
        facts = gather(tables)
    parts, points = _contents(tables, settings, facts, stages)
    text = render(
        f"What was kept of {facts.run['input']}",
        f"Run {facts.run['run_id']}, {facts.run['started_at']:%d %B %Y, %H:%M} UTC, "
        f"written to {tables.output}",
        parts,
        points,
        prune_lib.__version__,
    )
    write_page(place, text)
    stages.warnings += add_artifact(settings.workspace, "prune", facts.run["run_id"], place)
    return _told(settings, facts, place, text, len(points.x) if points else 0, stages)


def _run_id(tables: Tables) -> str:
    """The run whose tables these are; a look at each of them, no aggregate."""
    tables.companion("items")
    first = tables.companion("decisions").select("run_id").first()
    if first is None:
        raise InputError(f"The decisions beside {tables.output} are empty: prune again.")
    return str(tables.run(first["run_id"])[0]["run_id"])


def _contents(
    tables: Tables, settings: ReportSettings, facts: Facts, stages: Stages
) -> tuple[list[Section], MapPoints | None]:
    """The sections in order, and the points of the map."""
    bundle = _bundle(facts, settings.workspace, stages)
    with stages.stage("sessions"):
        around = _neighbours(tables, settings, facts, stages)
        shown = examples(tables, facts, _EACH)
        sample = drawn(tables, facts, settings.map_points) if settings.map_points else None
    points = None
    if sample is not None and bundle is not None:
        with stages.stage("map") as stage:
            points = _points(facts, sample, bundle, stages)
            stage.rows = len(points.x) if points else 0
    fairness = bundle.metrics.get("fold0", {}).get("fairness") if bundle else None
    found = measured(tables.spark, facts, settings.resolved_evaluation)
    if found is None and settings.evaluation is not None:
        stages.warn(f"no evaluation of {facts.run['input']} is in {settings.evaluation}")
    parts = [
        kept.what_was_kept(facts),
        kept.reasons(facts),
        kept.budgets(facts),
        items.items(facts),
        run.performances(found) if found else None,
        experts.difficulty(facts, fairness),
        experts.map_of(facts, len(points.x), sample.of) if points and sample else None,
        sessions.examples_of(facts, shown),
        sessions.around(around) if around else None,
        run.the_run(facts, _commands(facts)),
    ]
    return [part for part in parts if part is not None], points


def _bundle(facts: Facts, workspace: str, stages: Stages) -> Bundle | None:
    """The experts of the run, in its own workspace or the report's; None where there are none, or no more."""
    version = facts.run["experts_version"]
    if version is None:
        return None
    from prune_lib.model_store import bundle_of_version, find_bundle

    places = dict.fromkeys([str(facts.settings.get("workspace") or workspace), workspace])
    bundle = bundle_of_version(list(places), version)
    if bundle is not None:
        return bundle
    try:
        bundle = find_bundle(PruneSettings.model_validate(facts.settings), str(facts.run["input"]))
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        stages.warn(
            "no map, and no gate by popularity: the run's settings are of another version of this project "
            f"({keys or 'rules between them'})"
        )
        return None
    except UserError as error:
        stages.warn(f"no map, and no gate by popularity: {error}")
        return None
    if bundle is None or bundle.version != version:
        stages.warn(
            f"no map, and no gate by popularity: the run's experts {version} are not in {' or '.join(places)}"
        )
        return None
    return bundle


def _neighbours(
    tables: Tables, settings: ReportSettings, facts: Facts, stages: Stages
) -> Neighbourhood | None:
    wanted, length = (settings.session, None) if settings.session else example_session(tables)
    found = None if wanted is None else look_around(tables, facts, wanted, length)
    if wanted is not None and found is None:
        stages.warn(
            f"no clicks, no map and no neighbours: {facts.run['input']} cannot be read any more as the run "
            "read it"
        )
    return found


def _points(facts: Facts, sample: Sample, bundle: Bundle, stages: Stages) -> MapPoints | None:
    """The map's points; None where the clicks cannot be read, or are too few."""
    from prune_lib.report.datamap import lay_out, session_states

    rows = sample.rows[sample.rows["clicks"].notna()].reset_index(drop=True)
    clicks: list[list[Any]] = list(rows["clicks"])
    # A sample is where the experts stand before its target.
    seen = [c[:-1] for c in clicks] if facts.samples else clicks
    gates = rows[[f"gate_{kind}" for kind in EXPERTS]].to_numpy(np.float64)
    layout = lay_out(session_states(bundle, seen, gates), clicks)
    if layout is None:
        stages.warn(f"no map: {len(rows)} sessions are too few for one")
        return None
    names = rows["session_id"].astype(str)
    if facts.samples:
        names = names + ", first " + rows["length"].astype(str)
    points = MapPoints(
        x=layout.x,
        y=layout.y,
        session=list(names),
        clicks=clicks,
        difficulty=rows["difficulty"].to_numpy(np.float64),
        cluster=layout.cluster,
        reason=list(rows["reason"]),
        rank=rows["rank"].to_numpy(np.float64),
        clusters=layout.names,
        unit="samples" if facts.samples else "sessions",
    )
    fitting = points.fitting(MAP_LIMIT)
    if len(fitting.x) < len(points.x):
        stages.warn(f"the map shows {len(fitting.x):,} points, so that the page stays small")
    return fitting


def _commands(facts: Facts) -> list[tuple[str, str]]:
    """What to paste to look further."""
    decisions = sql_name(companion(facts.output, "decisions"))
    output = shlex.quote(facts.output)
    return [
        (
            "Who stands for a dropped session",
            "SELECT session_id, reason, covered_by, shared_items\n"
            f"FROM {decisions}{facts.as_of('decisions')} WHERE NOT kept;",
        ),
        ("One session in words", f"{launcher()} {job_script('explain')} --output {output} --session ID"),
    ]


def _told(
    settings: ReportSettings, facts: Facts, place: Path, text: str, points: int, stages: Stages
) -> Report:
    size, seconds = len(text.encode()) / 1e6, sum(stage.seconds for stage in stages.done)
    lines = [
        f"Report of {facts.output}, run {facts.run['run_id']}: {place}",
        f"  {size:.1f} MB, {points:,} points on the map, {seconds:.0f} s; open it in any browser",
        *(f"  warning: {warning}" for warning in stages.warnings),
    ]
    return Report(place, facts.run["run_id"], points, tuple(stages.warnings), "\n".join(lines))
