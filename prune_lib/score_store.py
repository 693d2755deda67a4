"""Scores that are kept: a session that the same experts have scored before is not scored again.

The workspace's Delta table `scores` has a row a session and `basis`. A basis is a hash of what a session's
losses depend on besides itself: experts, normaliser, score, the kind of device (GPU or CPU), and the code
that computes them. What is in the table is what would be computed anew, bit for bit (experts/scoring.py), so
that a run does not depend on those before it. Two processors of one kind may still differ in a loss's last
bits, and are not told apart. A session whose items changed is scored again, beside its former row, which may
be another input's; both go with the basis.

The table is a cache: it may be deleted at any time, and where it cannot be read or written the run says so
and goes on.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from functools import cached_property

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.delta import identifier, table_version
from prune_lib.errors import UserError
from prune_lib.experts.code import code_hash
from prune_lib.experts.scoring import MEANS
from prune_lib.locations import table_in_workspace
from prune_lib.settle import settle
from prune_lib.tables import read_table
from prune_lib.wording import first_line

__all__ = ["KEYS", "ScoreStore"]

_LOG = logging.getLogger(__name__)

#: What a session is found by within a basis: its id, and a hash of its items in their order.
KEYS = ("session_id", "content")
_SCORES = ("losses", "bands", *MEANS, "extra")
_SCHEMA = (
    "basis STRING COMMENT 'hash of the experts, the normaliser, the score and the code', "
    "experts STRING COMMENT 'version of the experts', "
    "session_id STRING COMMENT 'the session', "
    "content BIGINT COMMENT 'hash of its items in their order', "
    "losses ARRAY<BIGINT> COMMENT 'loss of each click that can be scored, in millionths of a nat', "
    "bands ARRAY<INT> COMMENT 'popularity band of each of them', "
    + "".join(f"{name} DOUBLE COMMENT 'mean over them', " for name in MEANS)
    + "extra DOUBLE COMMENT 'the score, where it is one of el2n, margin, entropy, forgetting, variability', "
    "scored_at TIMESTAMP COMMENT 'when'"
)
#: Bases that are kept, the newest: the others' scores are deleted when one comes in.
_KEPT = 8
_PROBLEMS = (PySparkException, Py4JError, UserError)


@dataclass(frozen=True)
class ScoreStore:
    """Scores of a workspace under one basis.

    Attributes:
        spark: the session.
        table: name or location of the table.
        experts: version of the experts.
        basis: see the module's head.
    """

    spark: SparkSession
    table: str
    experts: str
    basis: str

    @classmethod
    def of(
        cls,
        spark: SparkSession,
        workspace: str,
        *,
        experts: str,
        bundle_hash: str,
        normaliser: int,
        kind: str,
    ) -> ScoreStore:
        """Take the store of a workspace.

        Args:
            spark: the session.
            workspace: a folder, or a schema of the catalog.
            experts: version of the experts, for people.
            bundle_hash: hash of their bundle.
            normaliser: number of shared negatives, 0 for the exact one.
            kind: the score, where it takes numbers of its own, and how batches are computed: what else may
                show in a loss, if only in its last bits.
        """
        text = "/".join([bundle_hash, str(normaliser), kind, code_hash()])
        basis = hashlib.sha256(text.encode()).hexdigest()[:32]
        return cls(spark, table_in_workspace(workspace, "scores"), experts, basis)

    @cached_property
    def _columns(self) -> bool:
        """Whether the table is there, with the columns that it should have."""
        if table_version(self.spark, self.table) is None:
            return False
        there = [(f.name, f.dataType) for f in read_table(self.spark, self.table).schema]
        wanted = [(f.name, f.dataType) for f in self.spark.createDataFrame([], _SCHEMA).schema]
        if there != wanted:
            raise UserError(f"the table {self.table} has other columns than kept scores have")
        return True

    def known(self, sessions: DataFrame) -> DataFrame | None:
        """Scores of the sessions that were scored before.

        Args:
            sessions: sid BIGINT, session_id STRING, content BIGINT.

        Returns:
            A row a known session: sid, and the columns of `experts.scoring.BLOCK_SCHEMA`; None where there
            are none, or where the table cannot be read, which is logged. Cost: two shuffles of the keys.
            Settled.
        """
        try:
            if not self._columns:
                return None
            kept = read_table(self.spark, self.table).where(F.col("basis") == self.basis)
            if kept.isEmpty():
                return None
            # Runs side by side may have added the same session twice: the same row but for the time.
            kept = kept.select(*KEYS, *_SCORES).dropDuplicates(list(KEYS))
            found = sessions.select("sid", *KEYS).join(kept, list(KEYS)).select("sid", *_SCORES)
            return settle(found)  # a file that cannot be read is found out here
        except _PROBLEMS as problem:
            _LOG.warning("kept scores are not used: %s", first_line(problem))
            return None

    def add(self, scores: DataFrame) -> None:
        """Keep scores; a problem is logged, and is none of the run's.

        Args:
            scores: session_id, content, and the columns of `known` but sid, of sessions that are not known.

        Cost: a MERGE with the rows of this basis, a plain append where there are none.
        """
        rows = scores.select(
            F.lit(self.basis).alias("basis"),
            F.lit(self.experts).alias("experts"),
            *KEYS,
            *_SCORES,
            F.current_timestamp().alias("scored_at"),
        )
        name = identifier(self.spark, self.table)
        try:
            if not self._columns:
                self.spark.sql(
                    f"CREATE TABLE IF NOT EXISTS {name} ({_SCHEMA}) USING delta PARTITIONED BY (basis) "
                    "COMMENT 'scores of sessions by experts that scored them before: a cache'"
                )
            kept = read_table(self.spark, self.table)
            if kept.where(F.col("basis") == self.basis).isEmpty():
                self._forget_old(kept, name)
                rows.writeTo(name).append()
                return
            view = f"prune_scores_{self.basis}"
            rows.createOrReplaceTempView(view)
            try:
                self.spark.sql(
                    f"MERGE INTO {name} AS kept USING {view} AS new ON kept.basis = '{self.basis}' "
                    "AND kept.session_id = new.session_id AND kept.content = new.content "
                    "WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
                )
            finally:
                self.spark.catalog.dropTempView(view)
        except _PROBLEMS as problem:
            _LOG.warning("scores are not kept for the next run: %s", first_line(problem))

    def _forget_old(self, kept: DataFrame, name: str) -> None:
        newest = kept.groupBy("basis").agg(F.max("scored_at").alias("at")).orderBy(F.desc("at"), "basis")
        old = [row["basis"] for row in newest.collect()[_KEPT - 1 :]]
        if old:
            listed = ", ".join(f"'{basis}'" for basis in old)
            self.spark.sql(f"DELETE FROM {name} WHERE basis IN ({listed})")
