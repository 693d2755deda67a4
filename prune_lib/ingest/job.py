"""`ingest`: from a click log to a clean table of sessions; what is no click goes to quarantine as it came.

look -> judge -> sessions -> (prepare) -> write
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.commits import Seen, Written, versions_seen, write_together
from prune_lib.errors import InputError, PruneError, SettingsError
from prune_lib.ingest.clicks import Cutting, judged
from prune_lib.ingest.counts import Counts, refused
from prune_lib.ingest.form import Form, load_form
from prune_lib.ingest.gathering import Gathered, gather, judgement, set_aside, warned_clicks
from prune_lib.ingest.lines import same_splits
from prune_lib.ingest.nights import (
    New,
    changed,
    check_columns,
    check_same,
    inputs_of,
    kept_before,
    last_form,
    new_rows,
    old_clicks,
    old_sessions,
    roles_before,
    since,
    watermark,
)
from prune_lib.ingest.output import COMMENTS, RUN_SCHEMA, as_quarantine, as_sessions, summary
from prune_lib.ingest.profile import Profile, profile_of
from prune_lib.ingest.protocol import Prepared, Protocol, prepared
from prune_lib.ingest.reading import read_clicks
from prune_lib.ingest.rules import Limits, Severity, severities
from prune_lib.ingest.source import Asked, NoLine, Source, find_place, find_source
from prune_lib.ingest.times import PARSER, check_pattern
from prune_lib.locations import Aside, companion
from prune_lib.moments import moment
from prune_lib.session import check_runtime, configured, get_spark, measured_joins
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.settings.ingest import IngestSettings
from prune_lib.settle import settle
from prune_lib.stages import Stages, described
from prune_lib.tables import check_target, read_table
from prune_lib.tracking import tracked_run

__all__ = ["Ingested", "run_ingest"]

_LOG = logging.getLogger(__name__)

#: Minutes without a click after which a user's next session begins.
_GAP = 30.0
#: Days of the test by the field's protocols, where the data set's form says nothing else.
_TEST_DAYS = 7.0
_DRY = "Dry run: nothing was computed and no table was touched."
_COMPANIONS: tuple[Aside, ...] = ("quarantine", "ingests", "inputs", "test")


@dataclass(frozen=True)
class Ingested:
    """The result of an ingest.

    Attributes:
        text: what is printed.
        run: its row of the `_ingests` table; empty after a dry run, and where nothing was new.
        warnings: of the run.
        tables: by what they hold (sessions, quarantine, ingests, inputs, test), their names or locations.
        dry_run: whether nothing was computed.
        new: whether there was anything to read that was not read before.
    """

    text: str
    run: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    tables: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False
    new: bool = True

    @property
    def sessions(self) -> DataFrame:
        """The table of sessions, as it is now."""
        return read_table(get_spark("ingest"), self.tables["sessions"])

    @property
    def quarantine(self) -> DataFrame:
        """Rows that broke a rule, those of earlier runs, too."""
        return read_table(get_spark("ingest"), self.tables["quarantine"])

    def __str__(self) -> str:
        """The text for people."""
        return self.text

    def record(self) -> dict[str, Any]:
        """What --json says."""
        if self.dry_run:
            return {"dry_run": True, "new": self.new, "plan": self.text.splitlines()}
        return {"dry_run": False, "new": self.new, **self.run, "warnings": list(self.warnings)}


def run_ingest(settings: IngestSettings, spark: SparkSession | None = None) -> Ingested:
    """Bring a click log into a table of sessions.

    Cost: a pass over text to number its lines, a pass to judge every row, and one to gather the clicks by
    session, with one shuffle of them; a pass more where rows go to quarantine; two shuffles of the clicks of
    owners that have more than a session may.

    Args:
        settings: what is read, how, and where it goes.
        spark: the session to use; None takes the running one or builds one.

    Returns:
        What was read and what became of it, printable; with `dry_run` the plan.

    Raises:
        UserError: the settings, the input or the output cannot be used as they are, or too many rows are bad;
            no table was touched.
    """
    severity = severities(settings.rule)
    form = load_form(settings.form) if settings.form else None
    spark = spark or get_spark("ingest")
    check_runtime(spark)
    with configured(spark, PARSER), same_splits(spark):
        if form is not None:
            check_pattern(spark, form)
        return _ingested(settings, severity, form, spark)


def _ingested(
    settings: IngestSettings, severity: Mapping[str, Severity], form: Form | None, spark: SparkSession
) -> Ingested:
    output = settings.resolved_output
    targets: dict[str, str] = {name: companion(output, name) for name in _COMPANIONS}
    targets["sessions"] = output
    for target in targets.values():
        check_target(spark, target, "ingest_run", "an ingest")
    seen = versions_seen(spark, targets.values())
    stages = Stages()
    with stages.stage("look"):
        place = find_place(spark, settings.input, settings.format, form)
        night = settings.append and seen[output] is not None
        new = since(spark, place, targets["inputs"]) if night else New(place)
        text = f"Nothing is new at {settings.input}; {output} stays as it is."
        if settings.dry_run:
            text = f"{_DRY}\n{text}"
        nothing = Ingested(text, tables=targets, dry_run=settings.dry_run, new=False)
        if new.nothing:
            return nothing
        feed, frame = "", None
        if place.files is None:
            with reading_errors(settings.input):
                frame, feed, short = new_rows(spark, new)
            if short is not None:
                stages.warn(
                    f"the change feed of {settings.input} {short}: all rows are read again; those that were "
                    "taken before are known, those that were changed since come in as new ones"
                )
        kept = kept_before(spark, output) if night else {}
        asked = Asked(
            form,
            settings.delimiter,
            {
                role: getattr(settings, f"{role}_column")
                for role in ("session", "user", "item", "time", "order", "kind")
            },
            settings.keep,
            kept,
            settings.multi_line,
            settings.list_delimiter,
            roles_before(spark, output) if night else None,
            last_form(spark, targets["ingests"], settings.input) if night else None,
        )
        try:
            source = find_source(spark, new.place, frame, asked)
        except NoLine:
            if not night:
                raise
            return nothing
        if night:
            gained = check_same(spark, targets["ingests"], source, json.loads(settings.settings_json()))
            check_columns(spark, output, source, kept)
            if gained:
                stages.warn(
                    f"the log has gained the {_listed('column', gained)}, not kept: --keep {','.join(gained)}"
                )
    # Of JSON only the first lines were looked at.
    unknown = [n for n in settings.keep if n not in source.types and source.form.format != "jsonl"]
    if unknown and settings.keep != ("all",):
        stages.warn(f"--keep: the log has no {_listed('column', unknown)} (yet)")
    _LOG.info("%s", _described(source))
    job = _Job(spark, settings, source, severity, new, night, feed, targets, seen, stages)
    job.check()
    if settings.dry_run:
        lines = [_DRY, *job.plan()]
        return Ingested("\n".join(lines), tables=targets, dry_run=True)
    # Joins of settled frames are adaptive ones.
    with reading_errors(settings.input, analysed=True), measured_joins(spark), described("ingest"):
        return job.run()


def _described(source: Source) -> str:
    columns = ", ".join(f"{role} {name}" for role, name in source.form.columns().items())
    kept = f"; kept {', '.join(source.keep)}" if source.keep else ""
    kept += f"; left out {', '.join(source.left_out[:40])}" if source.left_out else ""
    rows = ", a row a session" if source.form.rows == "sessions" else ""
    return f"{source.place}: {source.form.format}{rows} ({source.reason}); {columns}{kept}"


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}{'s' if len(names) > 1 else ''} {', '.join(names)}"


class _Job:
    """One ingest, its source found."""

    def __init__(
        self,
        spark: SparkSession,
        settings: IngestSettings,
        source: Source,
        severity: Mapping[str, Severity],
        new: New,
        night: bool,
        feed: str,
        targets: Mapping[str, str],
        seen: Seen,
        stages: Stages,
    ) -> None:
        self.spark, self.settings, self.source, self.severity = spark, settings, source, severity
        self.new, self.night, self.feed, self.stages = new, night, feed, stages
        self.targets, self.seen = targets, seen
        self.form = source.form
        self.run_id, self.began = uuid.uuid4().hex[:12], datetime.now(timezone.utc)
        stages.run_id = self.run_id
        self.cutting = self._cutting()
        self.protocol = self._protocol()
        # Of a table that does not say what it gained, clicks that are older were read before.
        self.start: int | None = None
        if night and feed == "newest":
            self.start = watermark(spark, targets["sessions"], settings.late_hours)

    def check(self) -> None:
        """See that the settings fit what was found.

        Raises:
            SettingsError: they do not.
        """
        if self.settings.kinds and self.form.kind is None:
            raise SettingsError(
                "--kinds asks for kinds of clicks, and no column says them. Name it by --kind-column."
            )
        if self.form.time is None and (self.cutting.cuts or self.protocol.test_days is not None):
            what = (
                "--test-days"
                if self.protocol.test_days is not None
                else "sessions of users, and --gap-minutes,"
            )
            raise SettingsError(f"{what} needs times, and no column holds any. Name it by --time-column.")
        # Clicks without times are told from each other by nothing but their place in a list.
        if self.night and self.form.time is None and self.form.rows == "clicks" and self.form.events is None:
            raise SettingsError(
                f"The clicks of {self.settings.input} have no times: nothing tells one that was read before "
                "from a new one. Leave out --append, or name a column of times in the form."
            )
        if self.new.changed and self.severity["duplicate"] == "warn":
            raise InputError(
                f"{self.new.changed[0]} was read before and has changed since: it would be read again, and "
                "nothing tells which of its doubles, that duplicate:warn takes, would be there twice. Leave "
                "out --rule duplicate:warn."
            )

    def _cutting(self) -> Cutting:
        settings, by_session = self.settings, self.form.session is not None
        minutes = settings.gap_minutes or (None if by_session else _GAP)
        return Cutting(
            by_session,
            None if minutes is None else round(minutes * 60e6),
            None if settings.max_hours is None else round(settings.max_hours * 3600e6),
            settings.max_clicks,
            settings.max_rate,
        )

    def _protocol(self) -> Protocol:
        asked, form = self.settings, self.form
        field_has = asked.protocol != "none"
        days = form.test_days or _TEST_DAYS
        return Protocol(
            asked.collapse_repeats,
            asked.min_length or (2 if field_has else 1),
            asked.min_support or (5 if field_has else 1),
            asked.test_days or (days if field_has else None),
            as_srgnn=asked.protocol == "srgnn",
            by_day=form.offset is not None,
        )

    def plan(self) -> list[str]:
        """What a run would do."""
        lines = [_described(self.source), f"sessions: {self.targets['sessions']}"]
        lines.append(f"quarantine: {self.targets['quarantine']}")
        if self.protocol.test_days is not None:
            lines.append(f"test: {self.targets['test']}, the last {self.protocol.test_days:g} days")
        if self.new.place.files is not None:
            again = f", {len(self.new.changed)} of them read before" if self.new.changed else ""
            lines.append(f"files: {len(self.new.place.files):,}{' new' if self.night else ''}{again}")
        return lines

    def run(self) -> Ingested:
        """Read, judge, gather, write."""
        with self.stages.stage("judge") as stage:
            read = stage.rows = self._read()
            found = judgement(
                self._rows(placed=False),
                read,
                self.settings.max_clicks,
                several_lines=self.form.multi_line,
            )
        lines = self.source.lines()
        if lines is not None and lines != found.records:
            raise PruneError(
                f"{lines:,} lines of {self.settings.input} were counted and {found.records:,} read. No table "
                "was touched. Does another job write to the input?"
            )
        rows = self._rows()
        counts = Counts.of(read, found.by_rule, self.severity, lines=found.lines)
        rules = list(counts.failed) or list(counts.quarantined)
        if counts.bad(self.settings.max_bad) or not (counts.clean or self.night):
            none = self.spark.createDataFrame([], "owner string")
            nobody = Gathered(none, {}, {}, None)
            raise refused(counts, self.settings, self._aside(rows, None, nobody, rules))
        old, touched = self._old(rows)
        with self.stages.stage("sessions") as stage:
            done = gather(rows, old, found, self.form, self.severity, self.cutting)
            sessions = done.sessions
            warned = {**warned_clicks(sessions, self.severity), **done.warned}
            by_rule: dict[str | None, int] = dict(found.by_rule)
            by_rule.update(done.by_rule)
            by_rule[None] = found.by_rule.get(None, 0) - sum(done.by_rule.values())
            counts = Counts.of(read, by_rule, self.severity, warned, found.lines)
            rules = list(counts.failed) or list(counts.quarantined)
            # Of a night all may have been there already; of the first that would be no table.
            if counts.bad(self.settings.max_bad) or not (counts.clean or self.night):
                raise refused(counts, self.settings, self._aside(rows, old, done, rules))
            stage.rows = counts.clean
            if touched is not None:
                # What was read again and has nothing new stays as it is.
                sessions = settle(changed(sessions, touched))
        return self._finish(rows, old, touched, done, sessions, counts)

    def _read(self) -> int:
        """How many rows there are, counted apart from what becomes of them."""
        known = self.source.rows()
        return known if known is not None and self.start is None else self._clicks(placed=False).count()

    def _clicks(self, placed: bool) -> DataFrame:
        clicks = read_clicks(self.spark, self.source, placed=placed)
        return clicks if self.start is None else clicks.where(F.col("us") >= self.start)

    def _rows(self, placed: bool = True) -> DataFrame:
        """Every row, judged by itself."""
        latest = (moment(self.settings.latest) if self.settings.latest else None) or self.began + timedelta(
            days=1
        )
        limits = Limits(
            self.settings.max_id_length,
            round(latest.timestamp() * 1e6),
            self.settings.kinds or self.form.kinds,
            timed=self.form.time is not None,
            fields=self.form.format == "csv",
        )
        return judged(self._clicks(placed), self.form, limits, self.severity)

    def _old(self, rows: DataFrame) -> tuple[DataFrame | None, DataFrame | None]:
        """Clicks of nights before that tonight's go on, and their sessions; None where there are none."""
        if not self.night:
            return None, None
        output, judged_rows = self.targets["sessions"], self._rows(placed=False)
        sessions = settle(old_sessions(self.spark, output, judged_rows, self.form, self.cutting))
        if sessions.isEmpty():
            return None, None
        return old_clicks(sessions, rows, self.form, self.source.keep), sessions

    def _aside(self, rows: DataFrame, old: DataFrame | None, done: Gathered, rules: list[str]) -> DataFrame:
        return set_aside(rows, old, done, self.form, self.severity, self.cutting, rules)

    @staticmethod
    def _old_clicks(sessions: DataFrame) -> int:
        """Clicks of nights before that are in the sessions."""
        new = F.aggregate("nights", F.lit(0), lambda total, night: total + night)
        row = sessions.agg(F.sum(F.size("items") - new)).first()
        return int(row[0] or 0) if row is not None else 0

    def _finish(
        self,
        rows: DataFrame,
        old: DataFrame | None,
        touched: DataFrame | None,
        done: Gathered,
        sessions: DataFrame,
        counts: Counts,
    ) -> Ingested:
        if self.protocol.idle:
            parts = Prepared(sessions, None, {})
        else:
            with self.stages.stage("prepare"):
                parts = prepared(sessions, self.protocol)
                counts = counts.prepared(parts.dropped)
        train = as_sessions(parts.train, self.source, self.cutting, self.run_id)
        test = None
        if parts.test is not None:
            test = as_sessions(parts.test, self.source, self.cutting, self.run_id)
        with self.stages.stage("profile") as stage:
            profile = profile_of(train)
            stage.rows = profile.sessions
            tested = profile_of(test) if test is not None else None
        before = self._old_clicks(sessions) if old is not None else 0
        counts.check(profile.clicks + (tested.clicks if tested else 0) - before)
        run = self._run_row(counts, profile, tested, parts)
        with self.stages.stage("write"):
            self._write(rows, old, touched, done, train, test, counts, run)
        for name, count in counts.warned.items():
            self.stages.warn(f"{count:,} rows were taken although {counts.text(name)} ({name})")
        if test is None and self.seen[self.targets["test"]] is not None:
            self.stages.warn(f"{self.targets['test']} is of an ingest before this one, which made no test")
        if self.new.changed:
            many = len(self.new.changed)
            self.stages.warn(
                f"{many:,} file{'s' if many > 1 else ''} had changed since the last time and were read again"
            )
        self._track(run)
        text = "\n".join(summary(run, counts, profile, tested, self.targets, self.stages, self.night))
        return Ingested(text, run, self.stages.warnings, self.targets)

    def _run_row(
        self, counts: Counts, profile: Profile, tested: Profile | None, parts: Prepared
    ) -> dict[str, Any]:
        return {
            "ingest_run": self.run_id,
            "started_at": self.began,
            "input": self.settings.input,
            "input_version": self.new.place.version,
            "form": json.dumps(self.form.model_dump(exclude_none=True, mode="json"), sort_keys=True),
            "types": dict(self.source.types),
            "settings": self.settings.settings_json(),
            "appended": self.night,
            "rows_read": counts.read,
            "rows_clean": counts.clean,
            "rows_quarantined": sum(counts.quarantined.values()),
            "rows_dropped": sum(counts.dropped.values()),
            "by_rule": counts.by_rule,
            "warned": dict(counts.warned),
            "test_sessions": tested.sessions if tested else None,
            "test_clicks": tested.clicks if tested else None,
            **profile.columns(),
        }

    def _write(
        self,
        rows: DataFrame,
        old: DataFrame | None,
        touched: DataFrame | None,
        done: Gathered,
        train: DataFrame,
        test: DataFrame | None,
        counts: Counts,
        run: Mapping[str, Any],
    ) -> None:
        spark, targets = self.spark, self.targets
        # What a run that was cut off has left of these would be there twice; its sessions are known again.
        append = self.seen[targets["inputs"]] is not None

        def added(name: str, frame: DataFrame) -> Written:
            return Written(targets[name], frame, COMMENTS[name], append=append, whole=True)

        # First, as every run writes it: runs side by side contend for one table, whatever each has found.
        tables = [added("ingests", spark.createDataFrame([tuple(run.values())], RUN_SCHEMA))]
        if counts.quarantined or self.seen[targets["quarantine"]] is None:
            aside = as_quarantine(self._aside(rows, old, done, list(counts.quarantined)), self.run_id)
            tables.append(added("quarantine", aside))
        if test is not None:
            tables.append(Written(targets["test"], test, COMMENTS["test"]))
        if not self.night:
            tables.append(Written(targets["sessions"], train, COMMENTS["sessions"]))
        elif run["sessions"]:
            gone = key = None
            if touched is not None:
                key, gone = "session_id", touched.join(done.sessions, "session_id", "left_anti")
            tables.append(Written(targets["sessions"], train, COMMENTS["sessions"], True, key=key, gone=gone))
        # Last: a run that is cut off before reads the same again, and takes no click twice.
        inputs = inputs_of(spark, self.new.place, self.run_id, self.began)
        tables.append(Written(targets["inputs"], inputs, COMMENTS["inputs"], append=self.night))
        write_together(
            spark, tables, json.dumps({"ingest_run": run["ingest_run"]}), self.seen, targets["inputs"]
        )

    def _track(self, run: Mapping[str, Any]) -> None:
        """Log the run to MLflow where it is installed; what fails there never fails the run."""
        asked = ("input", "input_version", "appended", "form")
        numbers = {k: float(v) for k, v in run.items() if isinstance(v, int | float) and k not in asked}
        with tracked_run(
            self.settings.workspace, "ingest", self.run_id, {k: run[k] for k in asked}
        ) as tracker:
            tracker.metrics(numbers)
            tracker.metrics({f"rows_{name}": n for name, n in run["by_rule"].items()})
            tracker.metrics({f"seconds_{s.name}": s.seconds for s in self.stages.done})
            tracker.dict(json.loads(run["settings"]), "settings.json")
        self.stages.warnings.extend(tracker.warnings)
