"""`ingest`: from a click log to a clean table of sessions; what is no click goes to quarantine as it came.

look -> judge -> sessions -> count -> write
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import InputError, PruneError, SettingsError
from prune_lib.ingest.clicks import in_sessions, judged, sessions_of
from prune_lib.ingest.form import load_form
from prune_lib.ingest.profile import Profile, profile_of
from prune_lib.ingest.reading import Source, find_source, read_clicks
from prune_lib.ingest.rules import RULES, Limits, Severity, severities
from prune_lib.locations import companion
from prune_lib.session import check_runtime, get_spark
from prune_lib.settings.ingest import IngestSettings
from prune_lib.stages import Stages
from prune_lib.tables import Written, check_target, write_together

__all__ = ["Ingested", "run_ingest"]

_LOG = logging.getLogger(__name__)

#: Minutes without a click after which a user's next session begins.
_GAP = 30.0
_TEXT = {rule.name: rule.text for rule in RULES}
#: Rows that a message shows.
_SHOWN = 3


@dataclass(frozen=True)
class Counts:
    """What became of the rows of an input; a row is a click, or a line that is none.

    Attributes:
        read: rows.
        clean: rows that are in the sessions.
        quarantined: rows by rule.
        dropped: rows by rule.
        failed: rows by rule whose severity is fail.
        warned: rows by rule that were taken all the same.
    """

    read: int
    clean: int
    quarantined: Mapping[str, int]
    dropped: Mapping[str, int]
    failed: Mapping[str, int]
    warned: Mapping[str, int]

    def check(self, in_sessions: int) -> None:
        """See that no row is lost and none is there twice.

        Args:
            in_sessions: clicks of the sessions that are to be written.

        Raises:
            PruneError: a sum does not hold.
        """
        aside = sum(map(sum, (x.values() for x in (self.quarantined, self.dropped, self.failed))))
        if not (self.read == self.clean + aside and self.clean == in_sessions):
            raise PruneError(
                f"{self.read:,} rows were read, {self.clean:,} are clean, {in_sessions:,} of them in "
                f"sessions, and {aside:,} are quarantined or dropped: that is no sum. No table was touched. "
                "Does another job write to the input?"
            )


@dataclass(frozen=True)
class Ingested:
    """The result of an ingest.

    Attributes:
        text: what is printed.
        run: its row of the `_ingests` table; empty after a dry run.
        warnings: of the run.
    """

    text: str
    run: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def __str__(self) -> str:
        """The text for people."""
        return self.text

    def record(self) -> dict[str, Any]:
        """What --json says."""
        if not self.run:
            return {"dry_run": True, "plan": self.text.splitlines()}
        return {"dry_run": False, **self.run, "warnings": list(self.warnings)}


def run_ingest(settings: IngestSettings, spark: SparkSession | None = None) -> Ingested:
    """Bring a click log into a table of sessions.

    Cost: a pass over text to number its lines, one to count, one to judge, and three shuffles of the clicks.

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
    spark = spark or get_spark("ingest")
    check_runtime(spark)
    stages = Stages()
    output = settings.resolved_output
    targets = {"sessions": output, **{name: companion(output, name) for name in ("quarantine", "ingests")}}
    for target in targets.values():
        check_target(spark, target, "ingest_run", "an ingest")
    with stages.stage("look"):
        source = find_source(
            spark,
            settings.input,
            form=load_form(settings.form) if settings.form else None,
            format=settings.format,
            delimiter=settings.delimiter,
            named={
                role: getattr(settings, f"{role}_column")
                for role in ("session", "user", "item", "time", "order", "kind")
            },
        )
    _LOG.info("%s", _described(source))
    if settings.kinds and source.form.kind is None:
        raise SettingsError(
            "--kinds asks for kinds of clicks, and no column says them. Name it by --kind-column."
        )
    if settings.dry_run:
        lines = ["Dry run: nothing was computed and no table was touched.", _described(source)]
        return Ingested("\n".join([*lines, f"sessions: {output}; quarantine: {targets['quarantine']}"]))
    run_id, began = uuid.uuid4().hex[:12], datetime.now(timezone.utc)
    clicks = _clicks(spark, settings, source, severity, began).persist(StorageLevel.DISK_ONLY)
    try:
        with stages.stage("judge") as stage:
            # Counted apart from what became of them.
            counts = _counted(clicks, severity, read_clicks(spark, source).count())
            stage.rows = counts.read
        _refuse(clicks, counts, settings)
        with stages.stage("sessions") as stage:
            sessions = sessions_of(clicks)
            if source.form.kind is None:
                sessions = sessions.drop("kinds")
            sessions = sessions.persist(StorageLevel.MEMORY_AND_DISK)
            profile = profile_of(clicks.where("taken"), sessions)
            stage.rows = profile.sessions
        counts.check(profile.clicks)
        run = _run(settings, source, run_id, began, counts, profile)
        with stages.stage("write"):
            _write(spark, clicks, sessions, run, severity, targets)
            sessions.unpersist()
    finally:
        clicks.unpersist()
    for name, count in counts.warned.items():
        stages.warn(f"{count:,} rows were taken although {_TEXT[name]} ({name})")
    return Ingested("\n".join(_summary(run, counts, profile, targets, stages)), run, stages.warnings)


def _clicks(
    spark: SparkSession,
    settings: IngestSettings,
    source: Source,
    severity: Mapping[str, Severity],
    began: datetime,
) -> DataFrame:
    latest = _moment(settings.latest) if settings.latest else began + timedelta(days=1)
    limits = Limits(settings.max_id_length, round(latest.timestamp() * 1e6), settings.kinds)
    by_session = source.form.session is not None
    minutes = settings.gap_minutes or (None if by_session else _GAP)
    return in_sessions(
        judged(read_clicks(spark, source), source.form, limits, severity),
        severity,
        by_session=by_session,
        gap=None if minutes is None else round(minutes * 60e6),
        longest=None if settings.max_hours is None else round(settings.max_hours * 3600e6),
        most_clicks=settings.max_clicks,
    )


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _described(source: Source) -> str:
    columns = ", ".join(f"{role} {name}" for role, name in source.form.columns().items())
    return f"{source.place}: {source.form.format} ({source.reason}); {columns}"


def _counted(clicks: DataFrame, severity: Mapping[str, Severity], read: int) -> Counts:
    by_rule = {row["rule"]: int(row["count"]) for row in clicks.groupBy("rule").count().collect()}
    taken = clicks.where("taken").select(F.explode("warned").alias("rule"))
    warned = taken.groupBy("rule").count().collect()
    of = {
        wanted: {name: n for name, n in sorted(by_rule.items(), key=str) if name and severity[name] == wanted}
        for wanted in ("quarantine", "drop", "fail")
    }
    return Counts(
        read=read,
        clean=by_rule.get(None, 0),
        quarantined=of["quarantine"],
        dropped=of["drop"],
        failed=of["fail"],
        warned={row["rule"]: int(row["count"]) for row in warned},
    )


def _refuse(clicks: DataFrame, counts: Counts, settings: IngestSettings) -> None:
    """Refuse an input with too many bad rows, or with nothing in it.

    Raises:
        InputError: nothing was written.
    """
    if counts.failed:
        name, count = next(iter(counts.failed.items()))
        raise InputError(
            f"{count:,} of {counts.read:,} rows of {settings.input} break the rule {name}, which is to fail "
            f"the run: {_TEXT[name]}. {_examples(clicks, [name])} No table was touched."
        )
    bad = sum(counts.quarantined.values())
    if bad > settings.max_bad * counts.read:
        worst = sorted(counts.quarantined, key=lambda name: -counts.quarantined[name])
        told = "; ".join(f"{counts.quarantined[name]:,} {name}: {_TEXT[name]}" for name in worst[:_SHOWN])
        raise InputError(
            f"{bad:,} of {counts.read:,} rows of {settings.input} are bad, {100 * bad / counts.read:.1f} %, "
            f"and --max-bad allows {100 * settings.max_bad:g} %: {told}. {_examples(clicks, worst[:1])} Is "
            "this the right --form, --format or --delimiter? No table was touched."
        )
    if not counts.clean:
        raise InputError(
            f"{settings.input} holds no click: a header only, or empty files. No table was touched."
        )


def _examples(clicks: DataFrame, rules: list[str]) -> str:
    record = F.decode(F.col("record").cast("binary"), "UTF-8").alias("record")
    bad = clicks.where(F.col("rule").isin(rules)).orderBy("file", "at", "place")
    rows = bad.select("at", record).limit(_SHOWN).collect()
    shown = [(f"line {row['at']}: " if row["at"] else "") + repr((row["record"] or "")[:80]) for row in rows]
    return f"Such as {', '.join(shown)}."


def _run(
    settings: IngestSettings,
    source: Source,
    run_id: str,
    began: datetime,
    counts: Counts,
    profile: Profile,
) -> dict[str, Any]:
    return {
        "ingest_run": run_id,
        "started_at": began,
        "input": settings.input,
        "form": json.dumps(source.form.model_dump(exclude_none=True, mode="json"), sort_keys=True),
        "settings": settings.settings_json(),
        "rows_read": counts.read,
        "rows_clean": counts.clean,
        "rows_quarantined": sum(counts.quarantined.values()),
        "rows_dropped": sum(counts.dropped.values()),
        "by_rule": {**counts.quarantined, **counts.dropped},
        "warned": dict(counts.warned),
        **profile.columns(),
    }


_RUN_SCHEMA = (
    "ingest_run string, started_at timestamp, input string, form string, settings string, rows_read bigint, "
    "rows_clean bigint, rows_quarantined bigint, rows_dropped bigint, by_rule map<string, bigint>, "
    "warned map<string, bigint>, " + Profile.SCHEMA
)
_COMMENTS = {
    "sessions": "Sessions of a click log, a row a session; written by jobs/ingest.py",
    "quarantine": "Rows of click logs that broke a rule, as they came; written by jobs/ingest.py",
    "ingests": "What was read, and what became of it; a row an ingest",
}


def _write(
    spark: SparkSession,
    clicks: DataFrame,
    sessions: DataFrame,
    run: Mapping[str, Any],
    severity: Mapping[str, Severity],
    targets: Mapping[str, str],
) -> None:
    run_id = F.lit(run["ingest_run"]).alias("ingest_run")
    aside = [name for name, what in severity.items() if what == "quarantine"]
    text = F.create_map(*[F.lit(x) for pair in _TEXT.items() for x in pair])
    # A column of text holds no other bytes; what was not UTF-8 is kept beside it.
    quarantine = clicks.where(F.col("rule").isin(aside)).select(
        F.decode(F.col("record").cast("binary"), "UTF-8").alias("record"),
        F.when(~F.col("utf8"), F.col("record").cast("binary")).alias("bytes"),
        "file",
        F.col("at").alias("line"),
        F.when(F.col("place") > 0, F.col("place")).alias("place"),
        "rule",
        text[F.col("rule")].alias("message"),
        run_id,
    )
    row = spark.createDataFrame([tuple(run.values())], _RUN_SCHEMA)
    write_together(
        spark,
        [
            Written(targets["quarantine"], quarantine, _COMMENTS["quarantine"], append=True),
            Written(targets["ingests"], row, _COMMENTS["ingests"], append=True),
            Written(targets["sessions"], sessions.select("*", run_id), _COMMENTS["sessions"]),
        ],
        json.dumps({"ingest_run": run["ingest_run"]}),
    )


def _summary(
    run: Mapping[str, Any], counts: Counts, profile: Profile, targets: Mapping[str, str], stages: Stages
) -> Iterator[str]:
    yield f"Ingested {run['input']} into {targets['sessions']}"
    yield (
        f"  rows         {counts.read:,} read = {counts.clean:,} clean + {run['rows_quarantined']:,} "
        f"quarantined + {run['rows_dropped']:,} dropped"
    )
    for what, found in (("quarantined", counts.quarantined), ("dropped", counts.dropped)):
        for name, count in sorted(found.items(), key=lambda pair: -pair[1]):
            yield f"    {count:>9,} {what}: {_TEXT[name]} ({name})"
    yield from (f"  {line}" for line in profile.lines())
    yield "  seconds      " + ", ".join(f"{s.name} {s.seconds:.1f}" for s in stages.done)
    if run["rows_quarantined"]:
        yield f"  quarantine   {targets['quarantine']}"
    yield from (f"  warning      {w}" for w in stages.warnings)
    yield ""
    yield "Prune it:"
    yield ""
    yield f"  spark-submit jobs/prune.py --ratio 0.1 --input {targets['sessions']}"
