"""What an ingest writes and what it prints: the columns of its tables, and its summary."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.ingest.clicks import Cutting
from prune_lib.ingest.counts import Counts
from prune_lib.ingest.profile import Profile
from prune_lib.ingest.rules import PROTOCOL_RULES, RULES
from prune_lib.ingest.source import Source
from prune_lib.launcher import job_script, launcher
from prune_lib.stages import Stages

__all__ = ["COMMENTS", "RUN_SCHEMA", "as_quarantine", "as_sessions", "summary"]

COMMENTS = {
    "sessions": "Sessions of a click log, a row a session; written by jobs/ingest.py",
    "test": "Sessions of the last days, less items that the other sessions lack; written by jobs/ingest.py",
    "quarantine": "Rows of click logs that broke a rule, as they came; written by jobs/ingest.py",
    "ingests": "What was read, what became of it, and the profile of the sessions; a row an ingest",
    "inputs": "Files, and versions of tables, that were read; written last by jobs/ingest.py",
}
RUN_SCHEMA = (
    "ingest_run string, started_at timestamp, input string, input_version bigint, form string, "
    "types map<string, string>, settings string, appended boolean, rows_read bigint, rows_clean bigint, "
    "rows_quarantined bigint, rows_dropped bigint, by_rule map<string, bigint>, "
    "warned map<string, bigint>, test_sessions bigint, test_clicks bigint, " + Profile.SCHEMA
)
_TEXT = {rule.name: rule.text for rule in (*RULES, *PROTOCOL_RULES)}
_COLUMN_COMMENTS = {
    "session_id": "Id of the session: the log's, or its owner and the microseconds of its first click",
    "owner": "Whom the session was cut from: the log's user or session",
    "items": "Items in the order of the clicks",
    "times": "Times of the clicks, UTC",
    "kinds": "What each click is, as the log says",
    "orders": "The log's order column, of each click",
    "ingest_run": "Id of the ingest that wrote the session",
}


def _commented(column: Column, name: str) -> Column:
    comment = _COLUMN_COMMENTS.get(name)
    return column.alias(name, metadata={"comment": comment}) if comment else column.alias(name)


def as_sessions(sessions: DataFrame, source: Source, cutting: Cutting, run_id: str) -> DataFrame:
    """Sessions as their table has them.

    Args:
        sessions: of `clicks.sessions_of`.
        source: where they come from.
        cutting: whether they were cut from owners.
        run_id: of the ingest.

    Returns:
        session_id STRING; owner STRING where sessions were cut; items ARRAY<STRING>; times ARRAY<TIMESTAMP>,
        kinds, orders ARRAY<STRING> where the log has them; an array of each column that is kept, by its name;
        ingest_run STRING.
    """
    form = source.form
    columns = {"session_id": F.col("session_id")}
    wanted = {
        "owner": cutting.cuts,
        "items": True,
        "times": form.time is not None,
        "kinds": form.kind is not None,
        "orders": form.order is not None,
    }
    columns |= {name: F.col(name) for name, there in wanted.items() if there}
    columns |= {name: F.col(f"m{k}") for k, name in enumerate(source.keep)}
    columns["ingest_run"] = F.lit(run_id)
    return sessions.select(*[_commented(column, name) for name, column in columns.items()])


def as_quarantine(aside: DataFrame, run_id: str) -> DataFrame:
    """Rows that broke a rule as the quarantine has them.

    Args:
        aside: of `gathering.set_aside`.
        run_id: of the ingest.
    """
    text = F.create_map(*[F.lit(x) for rule in RULES for x in (rule.name, rule.text)])
    # A column of text holds no other bytes; what was not UTF-8 is kept beside it.
    return aside.select(
        F.decode(F.col("record").cast("binary"), "UTF-8").alias("record"),
        F.when(~F.col("utf8"), F.col("record").cast("binary")).alias("bytes"),
        "file",
        F.col("at").alias("line"),
        F.when(F.col("place") > 0, F.col("place")).alias("place"),
        "rule",
        text[F.col("rule")].alias("message"),
        F.lit(run_id).alias("ingest_run"),
    )


def summary(
    run: Mapping[str, Any],
    counts: Counts,
    profile: Profile,
    tested: Profile | None,
    targets: Mapping[str, str],
    stages: Stages,
    night: bool,
) -> Iterator[str]:
    """What is printed at the end."""
    yield f"Ingested {run['input']} into {targets['sessions']}"
    yield (
        f"  rows         {counts.read:,} read = {counts.clean:,} clean + {run['rows_quarantined']:,} "
        f"quarantined + {run['rows_dropped']:,} dropped"
    )
    for what, found in (("quarantined", counts.quarantined), ("dropped", counts.dropped)):
        for name, count in sorted(found.items(), key=lambda pair: -pair[1]):
            yield f"    {count:>9,} {what}: {_TEXT[name]} ({name})"
    if night:
        yield "  appended     what follows is of the sessions that are new, or have new clicks"
    yield from (f"  {line}" for line in profile.lines())
    if tested is not None:
        yield f"  test         {tested.sessions:,} sessions, {tested.clicks:,} clicks, {tested.items:,} items"
    yield "  seconds      " + ", ".join(f"{s.name} {s.seconds:.1f}" for s in stages.done)
    if run["rows_quarantined"]:
        yield f"  quarantine   {targets['quarantine']}"
    yield from (f"  warning      {w}" for w in stages.warnings)
    yield ""
    yield "Prune it:"
    yield ""
    yield f"  {launcher()} {job_script('prune')} --ratio 0.1 --input {shlex.quote(targets['sessions'])}"
    if tested is not None:
        yield ""
        yield "Or see what pruning costs:"
        yield ""
        sessions, test = (shlex.quote(targets[kind]) for kind in ("sessions", "test"))
        yield f"  {launcher()} {job_script('evaluate')} --input {sessions} --test {test}"
