"""What an evaluation works on: training sessions, the vocabulary, and the test cases.

The protocol is that of SR-GNN (Wu et al., AAAI 2019), as most session-based work has it: the test comes
after the training data in time, its items are those of the training data, every proper prefix of a test
session is a case. Everything is encoded once by one vocabulary, that of all training sessions, whatever
is pruned later; pruning and training see training sessions only.

The validation split holds out the newest training sessions and is made in the same way from what is left;
settings are chosen on it, and the test is only reported.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from prune_lib.errors import InputError
from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.files import Split
from prune_lib.fingerprint import fingerprint
from prune_lib.sessions.columns import ColumnNames, InputTable, with_columns
from prune_lib.sessions.encoding import encode
from prune_lib.sessions.opening import load_table
from prune_lib.sessions.reading import check_sessions, settled_sessions
from prune_lib.settle import settle

__all__ = ["make_split", "read_test"]

_LOG = logging.getLogger(__name__)


def make_split(
    spark: SparkSession,
    table: InputTable,
    test: DataFrame | None,
    parent: Path,
    *,
    name: str,
    share: float,
    warn: Callable[[str], None] = _LOG.warning,
) -> Split:
    """Encode the training sessions and the test cases, and write both to a folder of their own.

    Args:
        spark: the session.
        table: the input.
        test: session_id, items of the test; None holds out the newest sessions of the input.
        parent: the folder that gets the split's.
        name: test or validation.
        share: share of the sessions that is held out where there is no test.
        warn: is told what makes the test look unfit: sessions that are in the training data, too, or that
            are older than some of them.

    Raises:
        InputError: the input cannot be used; it has no order and something is to be held out; no case is
            left.
    """
    raw = settled_sessions(table)
    check_sessions(table, raw, warn)
    held_out = test is None
    if test is None:
        raw, test = _hold_out(raw, share, table)
    else:
        _check_apart(raw, test, warn)
    encoded = encode(raw, seed=0)
    sessions = encoded.sessions.select(
        "session_id", F.col("items").cast("array<bigint>").alias("items"), F.col("sid").alias("place")
    )
    cases, unknown = _cases(test, encoded.items)
    if not cases.n_cases:
        raise InputError(_no_case(share if held_out else None, name))
    data_hash = fingerprint(sessions, F.col("session_id").cast("string"), F.col("items"), F.col("place"))
    cases_hash = cases.digest()
    folder = parent / f"{name}-{data_hash[:8]}-{cases_hash[:8]}"
    split = Split(
        folder,
        name,
        encoded.has_order,
        encoded.n_sessions,
        encoded.n_items,
        encoded.n_interactions,
        cases.n_sessions,
        cases.n_cases,
        unknown,
        _repeated(spark, cases, encoded.sessions),
        data_hash,
        cases_hash,
    )
    note = json.dumps({k: v for k, v in asdict(split).items() if k != "folder"}, indent=2) + "\n"
    # What lies there whole is never written again: processes of an earlier run may still read it.
    if not (folder / "split.json").is_file() or (folder / "split.json").read_text() != note:
        folder.mkdir(parents=True, exist_ok=True)
        (
            sessions.write.format("delta")
            .mode("overwrite")
            .option("overwriteSchema", "true")
            .save(str(folder / "sessions"))
        )
        cases.save(folder / "cases.npz")
        np.save(folder / "item_sessions.npy", encoded.item_sessions, allow_pickle=False)
        (folder / "split.json").write_text(note)
    _LOG.info(
        "%s training sessions, %s interactions, %s items; %s test cases in %s sessions",
        *(
            f"{n:,}"
            for n in (
                split.n_sessions,
                split.n_interactions,
                split.n_items,
                split.n_cases,
                split.test_sessions,
            )
        ),
    )
    return split


def _no_case(share: float | None, name: str) -> str:
    """Why there is nothing to test on, and what to do: a share was held out, or a table was given."""
    if share is None:
        return (
            "no test case is left: the test sessions hold fewer than two items that the training data know. "
            "See that both tables name items in the same way."
        )
    ways = "Hold out more by --validation-share" + (", or give a test by --test." if name == "test" else ".")
    return (
        f"no {name} case is left: the newest {share:g} of the sessions are held out, and none of them holds "
        f"two items that the older ones know, too. {ways}"
    )


def _hold_out(raw: DataFrame, share: float, table: InputTable) -> tuple[DataFrame, DataFrame]:
    """The older sessions, and the newest `share` of them as a test."""
    if "ordering" not in raw.columns:
        raise InputError(
            f"the newest sessions of {table.location} are to be held out, and it has neither times nor an "
            "order, or the same for all. Name a column by --time-column or --order-column, or give a test "
            "by --test."
        )
    encoded = encode(raw, seed=0)
    first = encoded.n_sessions - max(1, round(share * encoded.n_sessions))
    ids = settle(encoded.sessions.select("session_id", (F.col("sid") >= first).alias("newest")))
    marked = raw.join(ids, "session_id")
    return (
        settle(marked.filter(~F.col("newest")).drop("newest")),
        settle(marked.filter("newest").select("session_id", "items")),
    )


def _check_apart(raw: DataFrame, test: DataFrame, warn: Callable[[str], None]) -> None:
    """Say where a test that was given is not apart from the training data: both are leaks."""
    there = raw.select(F.col("session_id").cast("string").alias("session_id"), "items")
    asked = test.select("session_id", F.col("items").cast("array<string>").alias("items"))
    both = asked.join(
        there.select("session_id", F.col("items").cast("array<string>").alias("items")),
        ["session_id", "items"],
        "left_semi",
    ).count()
    if both:
        warn(
            f"{both:,} sessions of the test are in the training data, by id and by items: what is learned "
            "from them is asked for in the test. Take them out of the input, or leave --test out to have the "
            "newest sessions cut off."
        )
    if "ordering" not in raw.columns or "ordering" not in test.columns:
        return
    if raw.schema["ordering"].dataType != test.schema["ordering"].dataType:
        return
    last = raw.agg(F.max("ordering").alias("last"))
    early = test.crossJoin(F.broadcast(last)).filter(F.col("ordering") <= F.col("last")).count()
    if early:
        warn(
            f"{early:,} sessions of the test are not later than the newest training session: the protocol "
            "wants the test after the training data, so that nothing is learned from its future."
        )


def _repeated(spark: SparkSession, cases: Cases, sessions: DataFrame) -> int:
    """Test sessions whose items are, one by one, those of a training session."""
    asked = spark.createDataFrame(
        [(s.tolist(),) for s in cases.sessions(0, cases.n_sessions)], "items ARRAY<INT>"
    )
    return asked.join(sessions.select("items").distinct(), "items", "left_semi").count()


def _cases(test: DataFrame, items: DataFrame) -> tuple[Cases, int]:
    """Test sessions in the vocabulary's indices, in order of their ids, and how many clicks were unknown."""
    known = items.select(F.col("item").cast("string").alias("item"), "idx")
    encoded = (
        test.select(F.col("session_id").cast("string"), F.posexplode("items").alias("pos", "item"))
        .withColumn("item", F.col("item").cast("string"))
        .join(F.broadcast(known), "item", "left")
        .groupBy("session_id")
        .agg(F.array_sort(F.collect_list(F.struct("pos", "idx"))).alias("clicks"))
        .select("session_id", F.col("clicks.idx").alias("items"))
        .orderBy("session_id")
    )
    # A test is small beside the training data, and every target is ranked in a process of this machine.
    rows = [np.asarray(row, dtype=np.float64) for row in encoded.toPandas()["items"]]
    unknown = int(sum(np.isnan(row).sum() for row in rows))
    return Cases.from_sessions([row[~np.isnan(row)].astype(np.int32) for row in rows]), unknown


def read_test(spark: SparkSession, name: str, columns: ColumnNames) -> DataFrame:
    """A test as sessions.

    Args:
        spark: the session.
        name: table of sessions, of events, or of rows of `prefix` (array) and `target`, as the field
            shares its test sets: all proper prefixes of a session in consecutive rows, longest first.
        columns: names that the user gave for the input; those that the test lacks are found.

    Returns:
        session_id STRING, items ARRAY, and `ordering` where the test says when its sessions were.

    Raises:
        InputError: the table cannot be read, or its prefixes are not all those of sessions.
    """
    try:
        return _read_test(spark, name, columns)
    except InputError as error:
        # What reads tables names the flag by which an input is given.
        raise InputError(f"The test {name}: {error}".replace("--input", "--test")) from error


def _read_test(spark: SparkSession, name: str, columns: ColumnNames) -> DataFrame:
    df = load_table(spark, name)
    if {"prefix", "target"} <= set(df.columns):
        return _from_prefixes(df, name)
    given: dict[str, Any] = {
        role: getattr(columns, role) if getattr(columns, role) in df.columns else None
        for role in ("session", "item", "time", "order")
    }
    table = with_columns(df, ColumnNames(**given), name, None, "parquet")
    raw = settled_sessions(table)
    check_sessions(table, raw)
    order = [name for name in ("ordering",) if name in raw.columns]
    return raw.select(F.col("session_id").cast("string").alias("session_id"), "items", *order)


def _from_prefixes(df: DataFrame, name: str) -> DataFrame:
    """Sessions from rows of all their proper prefixes: a row that goes on from none before it is one."""
    # The id grows with the place in the file, and a test fits one task.
    in_order = Window.orderBy("__row")
    sequence = F.concat("prefix", F.array("target"))
    rows = settle(
        df.select("prefix", sequence.alias("items"), F.monotonically_increasing_id().alias("__row"))
        .withColumn("before", F.lag("prefix").over(in_order))
        .withColumn("number", F.row_number().over(in_order))
    )
    first = F.col("before").isNull() | (F.col("items") != F.col("before"))
    sessions = rows.filter(first).select(F.format_string("%012d", "number").alias("session_id"), "items")
    held = sessions.agg(F.sum(F.size("items") - 1)).first()
    there = rows.count()
    if held is None or held[0] != there:
        raise InputError(
            f"the test {name} has {there:,} rows of prefix and target that do not add up to sessions: every "
            "session must come with all its proper prefixes in consecutive rows, the longest first. Give a "
            "table of sessions or events by --test instead."
        )
    return sessions
