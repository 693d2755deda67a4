"""Samples: every prefix of a session with the click that follows is a data point by itself (`--unit prefix`).

A session i_1 ... i_n gives n - 1 samples, i_1 ... i_t -> i_t+1: what a next-item model learns from, whether
its data are augmented or it reads all positions in one pass. A sample teaches its target and the transitions
that end there, so that only its last clicks count, and the samples of a data set have no more edges than its
sessions. Nothing here is longer than that: whole prefixes are cut out of the input where they are written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructType

from prune_lib.batches import in_pieces, lists_of
from prune_lib.errors import InputError
from prune_lib.sessions.columns import InputTable, column_of, time_lists
from prune_lib.sessions.encoding import Encoded
from prune_lib.sessions.shaping import as_id, as_time, click_order
from prune_lib.settle import settle
from prune_lib.tables import pruned_frame

__all__ = [
    "is_samples",
    "last_clicks",
    "sample_buckets",
    "sample_frame",
    "sample_id",
    "sample_values",
    "samples_of",
    "windows",
]

Ints = npt.NDArray[np.int64]

# A sample's sid is its session's times 2^20, plus its length: 2^43 sessions fit.
_LONGEST = 2**20


def sample_id(sid: Column, length: Column) -> Column:
    """The sid of a sample: of a session, cut to a length."""
    return sid * F.lit(_LONGEST) + length


def samples_of(encoded: Encoded, max_distance: int) -> Encoded:
    """Every prefix of two clicks and more, its last the target.

    Args:
        encoded: the encoded sessions.
        max_distance: clicks, at most, between the two items of a transition.

    Returns:
        An encoding of the same items, in which a row is a sample: sid BIGINT (see `sample_id`), whole BIGINT
        (the session's sid), session_id, length INT, items ARRAY<INT> (the target alone), window ARRAY<INT>
        (the target and up to `max_distance` clicks before it), sequence ARRAY<BIGINT> (128 bits that tell
        prefixes apart), distinct INT (items of the prefix), n INT (1: what a sample costs), age DOUBLE, tie
        BIGINT. n_sessions and n_interactions are the number of samples, item_sessions and item_interactions
        the number that predict an item.

    Raises:
        InputError: a session of 2^20 clicks or more.

    Cost: a pass over the sessions, max_distance + 8 numbers a click, no shuffle; items' counts on the driver.
    """
    sessions = encoded.sessions.select("sid", "session_id", "items", "n", "age", "tie")
    longest = sessions.agg(F.max_by(F.struct("session_id", "n"), "n")).first()
    if longest is not None and longest[0] is not None and longest[0]["n"] >= _LONGEST:
        raise InputError(
            f"The session {longest[0]['session_id']} has {longest[0]['n']:,} clicks; --unit prefix takes "
            f"{_LONGEST - 1:,} at most. Cut such sessions first, or leave --unit out."
        )

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in in_pieces(batches):
            items, lengths = lists_of(batch.column("items"))
            row, length, window, width, sequence, distinct = _samples(items, lengths, max_distance)
            whole = batch.column("sid").to_numpy()[row]
            ones = np.ones(row.size, dtype=np.int32)
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(whole * _LONGEST + length),
                    pa.array(whole),
                    batch.column("session_id").take(pa.array(row)),
                    pa.array(length.astype(np.int32)),
                    _lists(window[np.cumsum(width) - 1], ones),
                    _lists(window, width),
                    _lists(sequence.ravel(), 2 * ones),
                    pa.array(distinct.astype(np.int32)),
                    pa.array(ones),
                    batch.column("age").take(pa.array(row)),
                    pa.array(_mixed(batch.column("tie").to_numpy()[row] ^ _mixed(length))),
                ],
                names=[name for name, _ in columns],
            )

    columns = [
        ("sid", "bigint"),
        ("whole", "bigint"),
        ("session_id", sessions.schema["session_id"].dataType.simpleString()),
        ("length", "int"),
        ("items", "array<int>"),
        ("window", "array<int>"),
        ("sequence", "array<bigint>"),
        ("distinct", "int"),
        ("n", "int"),
        ("age", "double"),
        ("tie", "bigint"),
    ]
    rows = settle(
        sessions.filter("n >= 2").mapInArrow(run, ", ".join(f"{name} {kind}" for name, kind in columns))
    )
    counted = rows.groupBy(F.col("items")[0].alias("item")).agg(F.count(F.lit(1)).alias("n")).toPandas()
    targets = np.zeros(encoded.n_items, dtype=np.int64)
    targets[counted["item"].to_numpy()] = counted["n"].to_numpy()
    n = int(targets.sum())
    return replace(
        encoded,
        sessions=rows,
        n_sessions=n,
        n_interactions=n,
        item_sessions=targets,
        item_interactions=targets,
    )


def windows(samples: Encoded) -> Encoded:
    """Samples with their last clicks as their items, as the graph is built of them."""
    return replace(samples, sessions=samples.sessions.withColumn("items", F.col("window")))


def last_clicks(raw: DataFrame, samples: Encoded, max_distance: int) -> DataFrame:
    """The last clicks of every sample, by the input's own ids.

    Args:
        raw: session_id, items ARRAY of the input's own item ids.
        samples: of its sessions.
        max_distance: as the samples were made.

    Returns:
        session_id, length INT, items ARRAY. Cost: a join by session.
    """
    width = max_distance + 1
    first = F.greatest(F.col("length") - F.lit(max_distance), F.lit(1))
    return raw.join(samples.sessions.select("session_id", "length"), "session_id").select(
        "session_id", "length", F.slice("items", first, F.least(F.col("length"), F.lit(width))).alias("items")
    )


def is_samples(encoded: Encoded) -> bool:
    """Whether the rows of an encoding are samples, and not sessions."""
    return "length" in encoded.sessions.columns


def sample_values(table: InputTable, samples: Encoded, column: str) -> DataFrame:
    """The values that a sample has in a column of the input: those of its clicks, or of all its session.

    Returns:
        sid of the sample, value STRING; each pair once, no nulls. Cost: for events a window by session; a row
        a sample and value.
    """
    kind, value = table.df.schema[column].dataType, column_of(column)
    session = as_id(table.df, table.session_column).alias("session_id")
    if table.layout == "events":
        of_click = F.explode(value) if isinstance(kind, ArrayType) else value
        rows = _placed(table).select(session, F.col(_PLACE).alias("place"), of_click.alias("value"))
    elif not isinstance(kind, ArrayType):
        rows = table.df.select(session, F.lit(1).alias("place"), value.alias("value"))
    else:
        # A list that is not cut with the items is the whole session's.
        cut = F.lit(column in (table.item_column, *time_lists(table)))
        cut &= F.size(value) == F.size(column_of(table.item_column))
        rows = table.df.select(session, cut.alias("cut"), F.posexplode(value).alias("place", "value"))
        rows = rows.withColumn("place", F.when(F.col("cut"), F.col("place") + 1).otherwise(1))
    first = (
        rows.select("session_id", F.col("value").cast("string").alias("value"), "place")
        .dropna()
        .groupBy("session_id", "value")
        .agg(F.min("place").alias("place"))
    )
    of_sample = samples.sessions.select("session_id", "length", "sid")
    return first.join(of_sample, "session_id").filter("place <= length").select("sid", "value")


def sample_buckets(table: InputTable, samples: Encoded, bucket: str) -> DataFrame:
    """The hour, day, week or month of each sample's last click; of its session's, where clicks have no times.

    Returns:
        sid of the sample, value STRING. Cost: for events a window by session.
    """
    session = as_id(table.df, table.session_column).alias("session_id")
    of_sample = samples.sessions.select("session_id", "length", "sid")
    if table.layout == "events":
        at = click_order(table)[0]
        rows = _placed(table).select(session, F.col(_PLACE).alias("length"), at)
    else:
        assert table.time_column is not None
        times, kind = column_of(table.time_column), table.df.schema[table.time_column].dataType
        if not isinstance(kind, ArrayType):
            rows = of_sample.join(table.df.select(session, as_time(times, kind).alias("at")), "session_id")
            return rows.select("sid", F.date_trunc(bucket, "at").cast("string").alias("value"))
        clicks = table.df.select(session, F.posexplode(times).alias("place", "time"))
        at = as_time(F.col("time"), kind.elementType).alias("at")
        rows = clicks.select("session_id", (F.col("place") + 1).alias("length"), at)
    rows = rows.join(of_sample, ["session_id", "length"])
    return rows.select("sid", F.date_trunc(bucket, "at").cast("string").alias("value"))


_PLACE = "__prune_place"


def _placed(table: InputTable) -> DataFrame:
    """Clicks of events with their place in the session, from 1."""
    rest = [column_of(f.name) for f in table.df.schema if not _holds_map(f.dataType)]
    # What two clicks of one item at one time have in other columns must not depend on their order.
    by = Window.partitionBy(column_of(table.session_column)).orderBy(*click_order(table), F.xxhash64(*rest))
    return table.df.withColumn(_PLACE, F.row_number().over(by))


def sample_frame(table: InputTable, selection: DataFrame, run_id: str) -> DataFrame:
    """The kept samples as rows of the input, in its layout, all columns untouched but for what is cut off.

    Args:
        table: the input, events or sessions.
        selection: as for `tables.pruned_frame`, and length INT.
        run_id: id of the run.

    Returns:
        Sessions: a row a sample, its list of items, and lists of times where there are any, cut to the
        sample. Events: the clicks of each sample, once for each sample that they are in. Both with
        `prune_length`, which with the session tells samples apart. Cost: as `pruned_frame`, and for events a
        window by session; the output is as large as the kept prefixes.

    Raises:
        InputError: see `pruned_frame`.
    """
    if table.layout == "events":
        kept = pruned_frame(_placed(table), table.session_column, selection, run_id)
        return kept.filter(F.col(_PLACE) <= F.col("prune_length")).drop(_PLACE)
    frame = pruned_frame(table.df, table.session_column, selection, run_id)
    items = column_of(table.item_column)
    cuts = {table.item_column: F.slice(items, F.lit(1), F.col("prune_length"))}
    for name in time_lists(table):
        # Nobody has looked at times by which sessions are not ranked: not every list need be of the clicks.
        times = column_of(name)
        cut = F.slice(times, F.lit(1), F.col("prune_length"))
        cuts[name] = F.when(F.size(times) == F.size(items), cut).otherwise(times)
    return frame.withColumns(
        {name: cut.alias(name, metadata=frame.schema[name].metadata) for name, cut in cuts.items()}
    )


def _holds_map(kind: DataType) -> bool:
    """Whether there is a map in a type, however deep: no hash is made of one, its entries have no order."""
    if isinstance(kind, StructType):
        return any(_holds_map(field.dataType) for field in kind)
    return isinstance(kind, MapType) or (isinstance(kind, ArrayType) and _holds_map(kind.elementType))


def _samples(
    items: npt.NDArray[np.int32], lengths: Ints, max_distance: int
) -> tuple[Ints, Ints, npt.NDArray[np.int32], Ints, Ints, Ints]:
    """Samples of a block of sessions, in numpy.

    Args:
        items: items of all sessions, one after the other, shape (clicks,).
        lengths: clicks by session, shape (R,).
        max_distance: clicks before the target that a window holds.

    Returns:
        By sample, K of them, session by session from the shortest: row of its session and length, shapes
        (K,); windows one after the other, and their widths, shape (K,); the prefixes' 128 bits, shape (K, 2);
        distinct items of the prefixes, shape (K,).

    >>> made = _samples(np.array([5, 6, 5, 7], np.int32), np.array([3, 1]), 1)
    >>> [made[i].tolist() for i in (0, 1, 2, 3, 5)]
    [[0, 0], [2, 3], [5, 6, 6, 5], [2, 2], [2, 2]]
    """
    start = np.cumsum(lengths) - lengths
    row = np.repeat(np.arange(lengths.size), lengths)
    place = np.arange(items.size) - start[row]
    # The first of its item in the session.
    by_item = np.lexsort((place, items, row))
    again = np.zeros(items.size, dtype=bool)
    again[by_item[1:]] = (row[by_item[1:]] == row[by_item[:-1]]) & (items[by_item[1:]] == items[by_item[:-1]])
    met = np.cumsum(~again)
    distinct = met - np.r_[0, met][start][row]
    chosen = np.flatnonzero(place >= 1)
    width = np.minimum(place[chosen], max_distance) + 1
    ends = np.cumsum(width)
    inside = np.arange(int(width.sum())) - np.repeat(ends - width, width)
    window = items[np.repeat(chosen - width + 1, width) + inside]
    return row[chosen], place[chosen] + 1, window, width, _prefixes(items, lengths)[chosen], distinct[chosen]


def _prefixes(items: npt.NDArray[np.int32], lengths: Ints) -> Ints:
    """128 bits by click that depend on the items up to it and their order, shape (clicks, 2)."""
    start = np.cumsum(lengths) - lengths
    by_length = np.argsort(lengths, kind="stable")
    ordered = lengths[by_length]
    out = np.zeros((items.size, 2), dtype=np.int64)
    state = np.tile(np.array([[1, 2]], dtype=np.int64), (lengths.size, 1))
    for place in range(int(ordered[-1]) if ordered.size else 0):
        alive = by_length[np.searchsorted(ordered, place, side="right") :]
        at = start[alive] + place
        state[alive] = _mixed(_mixed(state[alive]) ^ items[at].astype(np.int64)[:, None])
        out[at] = state[alive]
    return out


def _mixed(values: Ints) -> Ints:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection that scatters bits."""
    z = values.astype(np.int64).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Ints = (z ^ (z >> np.uint64(31))).view(np.int64)
    return mixed


def _lists(values: npt.NDArray[np.generic], lengths: npt.NDArray[np.signedinteger[Any]]) -> pa.ListArray:
    """Lists of a length each, one after the other."""
    return pa.ListArray.from_arrays(pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32)), pa.array(values))
