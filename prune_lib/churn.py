"""How what is kept has changed since the run before: who stayed, who left and why, who came."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DataType

from prune_lib.commits import runs_by_version
from prune_lib.delta import table_version
from prune_lib.errors import UserError
from prune_lib.locations import companion
from prune_lib.schemas import GONE
from prune_lib.tables import read_table

__all__ = ["Churn", "churn_of", "counted"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Churn:
    """What became of the sessions that the run before kept; its fields are those of `runs.churn`.

    Attributes:
        former_run: id of the run before.
        kept_before: sessions that it kept.
        stayed: of these, kept again.
        left: of these, not kept.
        left_because: of those that left, how many by their reason now; `GONE` where the input lacks them.
        came: sessions kept that were not kept before.
        came_new: of these, those that the run before did not have in its input.
    """

    former_run: str
    kept_before: int
    stayed: int
    left: int
    left_because: Mapping[str, int]
    came: int
    came_new: int


def churn_of(spark: SparkSession, output: str, sessions: DataFrame, ids: DataType) -> Churn | None:
    """Compare new decisions with those of the last run to an output.

    Args:
        spark: the session.
        output: the pruned table; its decisions are not replaced yet.
        sessions: session_id, kept BOOLEAN, reason, of samples length, too: a row for every session.
        ids: type of the input's session ids.

    Returns:
        The churn; None where there is no run before, or its decisions cannot be compared with, which is
        logged. Cost: a shuffle of both tables' ids.
    """
    decisions = companion(output, "decisions")
    try:
        if table_version(spark, output) is None or table_version(spark, decisions) is None:
            return None
        run = next(iter(runs_by_version(spark, output).values()), None)
        # Newer ones are of a run that was cut off.
        versions = [version for version, whose in runs_by_version(spark, decisions).items() if whose == run]
        if run is None or not versions:
            _LOG.info("the run before is not in the history of %s: nothing to compare with", decisions)
            return None
        former = read_table(spark, decisions, version=versions[0])
        key = ["session_id", "length"] if "length" in sessions.columns else ["session_id"]
        if former.schema["session_id"].dataType != ids or ("length" in former.columns) != (len(key) == 2):
            _LOG.info("the run before decided on other units or other ids: what is kept is not compared")
            return None
        return counted(run, former.select(*key, "kept"), sessions.select(*key, "kept", "reason"), key)
    except (PySparkException, Py4JJavaError, UserError) as problem:
        first = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        _LOG.warning("what is kept is not compared with the run before: %s", first)
        return None


def counted(run: str, former: DataFrame, now: DataFrame, key: list[str]) -> Churn:
    """Count what became of each session.

    Args:
        run: id of the run before.
        former: its decisions: the key, kept.
        now: the new ones: the key, kept, reason.
        key: columns by which a row is known, compared as text.
    """
    named = [F.col(name).cast("string").alias(f"key_{name}") for name in key]
    before = former.select(*named, F.col("kept").alias("was"))
    after = now.select(*named, "kept", "reason")
    groups = (
        before.join(after, [f"key_{name}" for name in key], "full")
        .where(F.coalesce("was", F.lit(False)) | F.coalesce("kept", F.lit(False)))
        .groupBy("was", "kept", F.when(~F.coalesce("kept", F.lit(False)), F.col("reason")).alias("why"))
        .count()
        .collect()
    )
    stayed = sum(row["count"] for row in groups if row["was"] and row["kept"])
    because: dict[str, int] = {}
    for row in groups:
        if row["was"] and not row["kept"]:
            reason = row["why"] or GONE
            because[reason] = because.get(reason, 0) + int(row["count"])
    left = sum(because.values())
    return Churn(
        former_run=run,
        kept_before=stayed + left,
        stayed=stayed,
        left=left,
        left_because=dict(sorted(because.items())),
        came=sum(row["count"] for row in groups if row["kept"] and not row["was"]),
        came_new=sum(row["count"] for row in groups if row["kept"] and row["was"] is None),
    )
