"""Every output column in one place: name, type, and the comment that readers of the tables see.

Two types depend on the input and are written as placeholders: `ID` is the type of its session ids,
`ITEM` the type of its item ids. Every difficulty points the same way: higher = harder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = [
    "GONE",
    "DECISIONS",
    "ITEMS",
    "KEPT_REASONS",
    "PRUNED",
    "PRUNED_REASONS",
    "REASONS",
    "RUNS",
    "TABLES",
    "TABLE_COMMENTS",
    "OutColumn",
    "column_type",
    "conform",
]

ID, ITEM = "ID", "ITEM"


@dataclass(frozen=True)
class OutColumn:
    """A column of an output table.

    Attributes:
        name: its name.
        type: Spark DDL type; `ID` and `ITEM` stand for the input's types.
        comment: meaning and unit, one line; becomes the Delta column comment.
        required: whether the frame must bring it; a column that is not required and is absent is
            NULL (a baseline has no gates).
        of_samples: whether only tables of samples have it (`--unit prefix`).
    """

    name: str
    type: str
    comment: str
    required: bool = False
    of_samples: bool = False


KEPT_REASONS = {
    "COLD_ITEM": "kept: most of what it added no kept session had held, and was for rare items",
    "NEW_PATTERN": "kept: most of what it added were patterns that no kept session held",
    "REPRESENTATIVE": "kept: it adds evidence of patterns that many other sessions hold too",
    "FLOOR": "kept: needed so that an item, or a value of a column, keeps its minimum number of sessions",
    "METHOD": "kept: chosen by the rule of a baseline method, which gives no further reason",
}
PRUNED_REASONS = {
    "DUPLICATE": "pruned: its sequence of items is kept in another session",
    "COVERED": "pruned: the kept sessions already give most of what it has to offer",
    "BOT": "pruned: far longer than other sessions, or with clicks on far fewer items",
    "NOISE": "pruned: among the hardest sessions, and too few others, if any, hold one of its transitions",
    "BUDGET": "pruned: next in line, but the budget ended before its turn",
}
REASONS = {**KEPT_REASONS, **PRUNED_REASONS}
#: Why a session that the run before kept is not kept any more, where the input does not have it.
GONE = "GONE"

_RUN_ID = OutColumn("run_id", "string", "Run that wrote this row; see the runs table", True)

_STAGES = "array<struct<name: string, seconds: double, `rows`: bigint>>"
_ROUNDS = (
    "array<struct<phase: string, round: int, threshold: double, candidates: bigint, "
    "picked: bigint, interactions: bigint, seconds: double, edges: bigint, shuffle_bytes: bigint>>"
)

PRUNED = (
    OutColumn(
        "prune_rank",
        "bigint",
        "Order of choice by session, 1 = chosen first; WHERE prune_rank <= k is a smaller budget",
        True,
    ),
    OutColumn("prune_reason", "string", "Why it was kept: " + ", ".join(KEPT_REASONS), True),
    OutColumn(
        "prune_difficulty",
        "double",
        "Percentile rank in (0, 1) of the session's difficulty, higher = harder; NULL where it has none",
    ),
    OutColumn(
        "prune_weight",
        "double",
        "Number of sessions of the full data that this session stands for, so that weighted counts of "
        "items are near the full data's; over sessions it sums to their number",
        True,
    ),
    OutColumn(
        "prune_length",
        "int",
        "Clicks of the sample, the last of which is its target; with the session it names the sample",
        of_samples=True,
    ),
    OutColumn("prune_run_id", "string", "Run that wrote this row; see the runs table", True),
)

DECISIONS = (
    OutColumn("session_id", ID, "Session id, as in the input", True),
    OutColumn(
        "length",
        "int",
        "Clicks of the sample, the last of which is its target; with the session it names the sample",
        of_samples=True,
    ),
    OutColumn("target", ITEM, "Item that the sample predicts", of_samples=True),
    OutColumn("kept", "boolean", "Whether the session is in the pruned table", True),
    OutColumn("rank", "bigint", "Order of choice, 1 = chosen first; NULL where pruned"),
    OutColumn("reason", "string", "Why it was kept or pruned: " + ", ".join(REASONS), True),
    OutColumn(
        "difficulty",
        "double",
        "Percentile rank in (0, 1) of the difficulty (`score` in the run's settings; by default the "
        "log-likelihood adjusted for popularity), higher = harder; NULL where there is no position to score",
    ),
    OutColumn(
        "raw_difficulty",
        "double",
        "Mean negative log-likelihood under the mixture of experts, nats, higher = harder",
    ),
    *(
        OutColumn(
            f"difficulty_{expert}",
            "double",
            f"Mean negative log-likelihood under the {label} expert, nats, higher = harder",
        )
        for expert, label in (("gnn", "GNN"), ("rnn", "RNN"), ("transformer", "transformer"))
    ),
    *(
        OutColumn(
            f"gate_{expert}",
            "double",
            f"Mean weight that the gate gives the {label} expert, in [0, 1]; the three sum to 1",
        )
        for expert, label in (("gnn", "GNN"), ("rnn", "RNN"), ("transformer", "transformer"))
    ),
    OutColumn(
        "disagreement",
        "double",
        "Mean standard deviation of the experts' negative log-likelihoods, nats",
    ),
    OutColumn(
        "propagated",
        "double",
        "Difficulty after aggregation and propagation over the session graph, in (0, 1), higher = harder",
    ),
    OutColumn(
        "gain",
        "double",
        "Kept: what it added to the objective when chosen; pruned: what it could still add. All transitions "
        "together weigh 1 in it, all target items `lambda_items`; NULL where a baseline's rule chose it",
    ),
    OutColumn(
        "gain_parts",
        f"array<struct<item: {ITEM}, next_item: {ITEM}, gain: double>>",
        "What the gain is made of, largest first; they sum to it: a target item (next_item NULL), or the "
        "transition from item to next_item",
    ),
    OutColumn("interactions", "int", "Length of the session, interactions", True),
    OutColumn("items", "int", "Number of distinct items of the session", True),
    OutColumn(
        "covered_by",
        ID,
        "Pruned: a kept session that shares much of its pattern weight, the most of those that are compared: "
        "the 4 earliest kept ones of each of its patterns; of a duplicate, the one with its sequence; NULL "
        "where none shares any",
    ),
    OutColumn(
        "covered_by_length",
        "int",
        "Clicks of the sample of covered_by, of which this is the session",
        of_samples=True,
    ),
    OutColumn(
        "shared_items",
        f"array<{ITEM}>",
        "Items that it shares with covered_by; of samples, among the last clicks, which make its patterns",
    ),
    _RUN_ID,
)

ITEMS = (
    OutColumn("item", ITEM, "Item id, as in the input", True),
    OutColumn("sessions_before", "bigint", "Sessions of the input that hold the item", True),
    OutColumn("interactions_before", "bigint", "Interactions of the input with the item", True),
    OutColumn("sessions_after", "bigint", "Kept sessions that hold the item", True),
    OutColumn("interactions_after", "bigint", "Kept interactions with the item", True),
    OutColumn(
        "share_kept", "double", "Share of the item's sessions kept, in [0, 1]; NULL where it has none", True
    ),
    OutColumn(
        "mean_difficulty",
        "double",
        "Mean difficulty rank of the item's sessions, in (0, 1), higher = harder",
    ),
    OutColumn("band", "string", "Popularity of the item in the input: cold, mid or popular", True),
    OutColumn("first_kept_session", ID, "Earliest chosen session that holds the item; NULL where none"),
    _RUN_ID,
)

RUNS = (
    OutColumn("run_id", "string", "Id of the run", True),
    OutColumn("started_at", "timestamp", "When the run started", True),
    OutColumn("finished_at", "timestamp", "When its tables were ready to be written", True),
    OutColumn("method", "string", "Selection method: graph, or the name of a baseline", True),
    OutColumn(
        "unit",
        "string",
        "What was chosen or left, one by one: session; or prefix, the samples i_1 ... i_t -> i_t+1, and then "
        "what is said of sessions here and in the other tables is said of samples, an item's being those "
        "that predict it, and a sample counts as one interaction",
    ),
    OutColumn("ratio", "double", "Share of the data to keep, in (0, 1]", True),
    OutColumn("budget", "string", "What the ratio counts: interactions, sessions or samples", True),
    OutColumn("seed", "bigint", "Seed of every random choice", True),
    OutColumn("settings", "string", "All settings of the run, JSON", True),
    OutColumn("settings_hash", "string", "Hash of the settings that decide the result", True),
    OutColumn("input", "string", "Input table, name or location", True),
    OutColumn("input_format", "string", "Format of the input: delta, parquet, or view"),
    OutColumn("input_version", "bigint", "Delta version that was read; NULL for Parquet"),
    OutColumn(
        "since",
        "timestamp",
        "Only sessions whose last click is at this time or later were pruned; NULL for all",
    ),
    OutColumn("experts_version", "string", "Version of the experts; NULL where none were used"),
    OutColumn("sessions_before", "bigint", "Sessions of the input", True),
    OutColumn("sessions_after", "bigint", "Sessions kept", True),
    OutColumn("interactions_before", "bigint", "Interactions of the input", True),
    OutColumn("interactions_after", "bigint", "Interactions kept", True),
    OutColumn("items_before", "bigint", "Distinct items of the input", True),
    OutColumn("items_after", "bigint", "Distinct items kept", True),
    OutColumn("item_coverage", "double", "items_after / items_before, in [0, 1]", True),
    OutColumn(
        "gini_before",
        "double",
        "Gini coefficient of the items' interactions in the input: 0 = even, 1 = one item has all",
    ),
    OutColumn(
        "gini_after",
        "double",
        "Gini coefficient of the items' kept interactions: 0 = even, 1 = one item has all",
    ),
    OutColumn("duplicates_before", "bigint", "Sessions of the input whose sequence an earlier one has"),
    OutColumn("duplicates_after", "bigint", "Kept sessions whose sequence another kept one has"),
    OutColumn(
        "objective",
        "double",
        "Evidence of items and transitions, weighed and with falling returns, that the kept sessions hold: "
        "the share of what all sessions hold, in [0, 1]",
    ),
    OutColumn(
        "demand",
        "string",
        "What items and transitions were weighed by: forecast (the sessions expected to hold them next, "
        "learned from the input's past), recency (recency-weighted counts; also where the past was too short "
        "to learn from) or count (sessions, as the input has no order); NULL in runs before this column was",
    ),
    OutColumn(
        "weight_error",
        "double",
        "How far counts by prune_weight are from the input's: over the kept items, the sum of |weighted "
        "sessions - sessions before| as a share of the sessions before",
    ),
    OutColumn(
        "bot_limits",
        "struct<clicks: double, repeats: double>",
        "Beyond which a session looks like a bot's: its clicks, or clicks by distinct item, after the first",
    ),
    OutColumn("reasons", "map<string, bigint>", "Number of sessions by reason"),
    OutColumn(
        "churn",
        "struct<former_run: string, kept_before: bigint, stayed: bigint, `left`: bigint, "
        "left_because: map<string, bigint>, came: bigint, came_new: bigint>",
        "What became of the sessions that the run before (former_run) kept: how many stayed, and how many "
        "left, by their reason now (GONE: no longer in the input); and how many came, of which came_new were "
        "not in its input; NULL where there is none to compare with",
    ),
    OutColumn("stages", _STAGES, "Stages of the run: name, seconds, rows that came out"),
    OutColumn(
        "rounds",
        _ROUNDS,
        "Rounds of the sampler: phase, round, threshold (smallest key picked), candidates and picked "
        "(sessions), interactions picked, seconds, edges looked at, bytes that shuffles wrote; of the phase "
        "redundant what is taken back of a floor, with negative numbers",
    ),
    OutColumn("warnings", "array<string>", "What the run warned about"),
    OutColumn("versions", "map<string, string>", "Versions of the software that ran"),
)

TABLES: dict[str, tuple[OutColumn, ...]] = {
    "pruned": PRUNED,
    "decisions": DECISIONS,
    "items": ITEMS,
    "runs": RUNS,
}
TABLE_COMMENTS = {
    "pruned": "Kept rows of the input, with rank, reason, difficulty and weight of their session",
    "decisions": "One row for every session of the input: kept or pruned, and why",
    "items": "One row for every item of the input: popularity before and after pruning",
    "runs": "One row for every pruning run: settings, counts, timings, warnings",
}


def column_type(column: OutColumn, id_type: str, item_type: str) -> str:
    """The column's DDL type with the input's types filled in.

    >>> column_type(OutColumn("shared_items", "array<ITEM>", ""), "bigint", "string")
    'array<string>'
    """
    filled = re.sub(rf"\b{ITEM}\b", item_type, column.type)
    return re.sub(rf"\b{ID}\b", id_type, filled)


def conform(df: DataFrame, table: str, id_type: str, item_type: str) -> DataFrame:
    """Bring a frame to a table's schema: its columns, in its order, cast and commented.

    Args:
        df: a frame with the table's columns by name; other columns are left out, except in
            `pruned`, where the input's own columns come first, untouched.
        table: pruned, decisions, items or runs.
        id_type: DDL type of the input's session ids, such as 'string'.
        item_type: DDL type of the input's item ids, such as 'bigint'.

    Returns:
        The frame; each of the table's columns carries its comment as metadata; columns of samples are there
        where the frame brings them. No job runs.

    Raises:
        ValueError: a column that the table cannot do without is missing.
    """
    from pyspark.sql import functions as F

    columns = TABLES[table]
    missing = [c.name for c in columns if c.required and c.name not in df.columns]
    if missing:
        raise ValueError(f"the frame for the table {table} lacks {', '.join(missing)}")
    ours = {c.name for c in columns}
    # Backquotes: the input's own names may hold dots or spaces.
    own = [df[_quoted(name)] for name in _others(df, ours)] if table == "pruned" else []
    there = [c for c in columns if c.name in df.columns or not c.of_samples]
    cast = [
        (F.col(c.name) if c.name in df.columns else F.lit(None))
        .cast(column_type(c, id_type, item_type))
        .alias(c.name, metadata={"comment": c.comment})
        for c in there
    ]
    return df.select(*own, *cast)


def _others(df: DataFrame, ours: Iterable[str]) -> list[str]:
    taken = set(ours)
    return [name for name in df.columns if name not in taken]


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
