"""The built-in demo data: realistic sessions of any size, with planted and labelled truths.

Items follow a Zipf law whose order drifts over the days; they form clusters, and a session walks
from item to item mostly inside a cluster, by a Markov chain with clicks repeated and taken back.
Into these *organic* sessions are planted, each with its label:

* ``duplicate``: the items of an earlier organic session (its ``twin``), at another time;
* ``near_duplicate``: the same with one click changed, dropped or inserted;
* ``bot``: very long, cycling over a few items or crawling through the catalogue;
* ``noise``: items drawn uniformly;
* ``cold``: the last click or two are items that at most four sessions hold.

Sessions are made in blocks of `BLOCK`, each from its own seed sequence (seed, block): the rows
depend on the seed, the number of sessions and of items, and on nothing else. Popular short sessions
are equal by chance, too, and count as organic, as in real data.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from prune_lib.errors import OutputError
from prune_lib.locations import is_location
from prune_lib.wording import first_line

__all__ = ["BLOCK", "SHARES", "default_items", "demo_batches", "demo_sessions", "write_demo"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

#: Sessions made at once: large enough for numpy, small enough (a few MB) for any worker.
BLOCK = 8192
#: Share of each planted kind; the others are organic.
SHARES = {"duplicate": 0.04, "near_duplicate": 0.04, "bot": 0.003, "noise": 0.03, "cold": 0.03}

_KINDS = ("organic", *SHARES)
_ORGANIC, _DUPLICATE, _NEAR, _BOT, _NOISE, _COLD = range(len(_KINDS))

_DAYS = 30
_DAY_MS = 86_400_000
_FIRST_MS = int(datetime(2024, 1, 1, tzinfo=timezone.utc).timestamp()) * 1000  # a Monday
# Lengths are 2 + a log-normal: median 3, mean 4.7 (yoochoose 3 and 4.0, diginetica 4 and 4.9); the
# longest session of diginetica has 70 clicks.
_LENGTH_MU, _LENGTH_SIGMA, _LENGTH_MAX = 0.65, 1.0, 70
_BOT_LENGTH = (80, 300)
# Zipf-Mandelbrot: the flat head keeps the top item near 1% of the clicks.
_ZIPF_EXPONENT, _ZIPF_SHIFT = 1.0, 8.0
# An item's popularity rises and falls by e^0.8 over 45 days; an eighth of the items come out later.
_DRIFT, _DRIFT_DAYS, _NEW_ITEMS = 0.8, 45.0, 0.125
_CLUSTER = 24
# A step of the walk: the same item again, back to the one before, a successor; else any item.
_REPEAT, _BACK, _ONWARD = 0.14, 0.08, 0.58
_SUCCESSOR_CUM = np.cumsum([0.40, 0.24, 0.16, 0.12, 0.08])
# Clicks are a median of 40 seconds apart, at most half an hour.
_GAP_MU, _GAP_SIGMA, _GAP_MAX = float(np.log(40_000)), 1.1, 1_800_000
# Sessions that hold the same cold item as their last click.
_COLD_SHARED = 2

_COMMENTS = {
    "session_id": "Session id; ids grow with the start of the session",
    "items": "Clicked items in time order",
    "times": "Time of each click, UTC",
    "planted": "Truth that was planted: organic, duplicate (the items of an earlier session), "
    "near_duplicate (one click changed, dropped or inserted), bot, noise (uniform items), cold "
    "(the last clicks are items of very few sessions)",
    "twin": "Session that a duplicate or near-duplicate was copied from; null for the others",
}
_TYPES = {
    "session_id": StringType(),
    "items": ArrayType(LongType()),
    "times": ArrayType(TimestampType()),
    "planted": StringType(),
    "twin": StringType(),
}
_SCHEMA = StructType([StructField(name, kind) for name, kind in _TYPES.items()])


def default_items(n_sessions: int) -> int:
    """Size of the catalogue for a number of sessions: 3,000 for 20,000, 31,000 for a million."""
    # As in public data, where ten times the sessions hold four times the items.
    return max(60, round(3000.0 * math.pow(n_sessions / 20_000, 0.6)))


def demo_sessions(
    spark: SparkSession, n_sessions: int = 20_000, *, n_items: int | None = None, seed: int = 0
) -> DataFrame:
    """Generate the demo data set.

    Args:
        spark: the session.
        n_sessions: number of sessions, at least 2.
        n_items: items of the regular catalogue (ids 1 to n_items); cold items have the ids above.
            By default it grows with the sessions (`default_items`).
        seed: seeds everything.

    Returns:
        session_id STRING ('s0000000001' on, in the order of their start), items ARRAY<BIGINT> and
        times ARRAY<TIMESTAMP> of equal length (30 days, mean length near 5), planted STRING
        (organic, duplicate, near_duplicate, bot, noise or cold), twin STRING (null for the others);
        every column with a comment. The same rows whatever the number of partitions.

        Cost: nothing is computed yet; a block of `BLOCK` sessions takes some 20 milliseconds of
        numpy, no shuffle.

    Raises:
        ValueError: n_sessions below 2 or n_items below 10.
    """
    n_items = default_items(n_sessions) if n_items is None else n_items
    if n_sessions < 2:
        raise ValueError(f"n_sessions must be at least 2; got {n_sessions}")
    if n_items < 10:
        raise ValueError(f"n_items must be at least 10; got {n_items}")
    # A few tasks a core, so that none waits long for the last one.
    rows = _generated(spark, n_sessions, n_items, seed, 4 * spark.sparkContext.defaultParallelism)
    return rows.select(
        *[F.col(name).alias(name, metadata={"comment": text}) for name, text in _COMMENTS.items()]
    )


def _generated(spark: SparkSession, n_sessions: int, n_items: int, seed: int, partitions: int) -> DataFrame:
    """The rows of the demo data set, made by at most so many tasks."""
    n_blocks = -(-n_sessions // BLOCK)

    def generate(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        asked = (block for batch in batches for block in batch.column(0).to_pylist())
        return demo_batches(asked, n_sessions, n_items, seed)

    blocks = spark.range(0, n_blocks, 1, numPartitions=min(n_blocks, partitions))
    return blocks.mapInArrow(generate, _SCHEMA)


def demo_batches(blocks: Iterable[int], n_sessions: int, n_items: int, seed: int) -> Iterator[pa.RecordBatch]:
    """Some blocks of the demo data set, without Spark: the rows of `demo_sessions`.

    Args:
        blocks: numbers of the blocks, below n_sessions / BLOCK.
        n_sessions: number of sessions of the whole data set.
        n_items: items of the regular catalogue.
        seed: seeds everything.

    Returns:
        A batch a block. Cost: some 20 milliseconds each.
    """
    catalogue = _Catalogue(n_items, seed)
    for block in blocks:
        yield _block(catalogue, block, n_sessions, seed)


def write_demo(spark: SparkSession, target: str, n_sessions: int = 20_000, seed: int = 0) -> None:
    """Generate the demo data set and write it as a Delta table, in one commit.

    Args:
        spark: the session.
        target: a location, or a table name (`schema.table`); nothing may be there yet.
        n_sessions: number of sessions.
        seed: seeds everything.

    Raises:
        OutputError: there is a table at the target, or it cannot be written.
    """
    note = json.dumps({"demo": {"sessions": n_sessions, "seed": seed}})
    writer = (
        demo_sessions(spark, n_sessions, seed=seed)
        .write.format("delta")
        .mode("errorifexists")
        .option("userMetadata", note)
        # Older readers and delta-rs know no deletion vectors.
        .option("delta.enableDeletionVectors", "false")
    )
    try:
        if is_location(target):
            writer.save(target)
        else:
            writer.saveAsTable(target)
    except AnalysisException as problem:
        raise OutputError(
            f"The demo data set cannot be written to {target}: {first_line(problem)}. Give a location "
            "or a table name where nothing is yet, or read what is there by --input."
        ) from problem


class _Catalogue:
    """Items and how they follow each other; the same for every block of a seed.

    Items are numbered from 0 here; popularity has nothing to do with the number.
    """

    def __init__(self, n_items: int, seed: int) -> None:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
        self.n_items = n_items
        rank = rng.permutation(n_items)
        self._zipf: Floats = (rank + _ZIPF_SHIFT) ** -_ZIPF_EXPONENT
        self._phase: Floats = rng.random(n_items)
        late = rng.random(n_items) < _NEW_ITEMS
        self.born: Ints = np.where(late, rng.integers(1, _DAYS, n_items), 0)
        self.successors = self._draw_successors(rng, rank)
        self._days: tuple[int, int] | None = None
        self._cum: Floats = np.empty(0)

    def _draw_successors(self, rng: np.random.Generator, rank: Ints) -> Ints:
        """Successors of each item, shape (n_items, 5): of its cluster, popular ones more often."""
        n_clusters = max(1, self.n_items // _CLUSTER)
        cluster = rng.integers(0, n_clusters, self.n_items)
        order = np.lexsort((rank, cluster))
        size = np.bincount(cluster, minlength=n_clusters)
        first = np.cumsum(size) - size
        # The square of a uniform number puts half of the draws on a cluster's first quarter.
        draw = rng.random((self.n_items, len(_SUCCESSOR_CUM))) ** 2
        inside = (draw * size[cluster][:, None]).astype(np.int64)
        own = np.empty(self.n_items, np.int64)
        own[order] = np.arange(self.n_items)
        own -= first[cluster]
        # No item follows itself here (`_REPEAT` does that): its neighbour in the cluster does.
        inside = np.where(inside == own[:, None], inside + 1, inside) % size[cluster][:, None]
        result: Ints = order[first[cluster][:, None] + inside]
        return result

    def popular(self, u: Floats, day: Ints) -> Ints:
        """Items by their popularity on a day, from uniform numbers; u and day of one shape."""
        if len(u) == 0:
            return np.empty(0, np.int64)
        days = int(day.min()), int(day.max())
        # Days only grow from block to block: the last answer mostly serves the next one.
        if self._days is None or days[0] < self._days[0] or days[1] > self._days[1]:
            span = np.arange(days[0], days[1] + 1)
            wave = np.sin(2 * np.pi * (span[:, None] / _DRIFT_DAYS + self._phase[None, :]))
            weight = self._zipf * np.exp(_DRIFT * wave) * (self.born[None, :] <= span[:, None])
            cum = np.cumsum(weight, axis=1)
            # One sorted array for all days: day d takes the interval [d, d + 1).
            self._cum = (cum / cum[:, -1:] + (span - days[0])[:, None]).ravel()
            self._days = days
        offset = day - self._days[0]
        place = np.searchsorted(self._cum, u + offset, side="right") - offset * self.n_items
        result: Ints = np.clip(place, 0, self.n_items - 1)
        return result


def _block(catalogue: _Catalogue, block: int, n_sessions: int, seed: int) -> pa.RecordBatch:
    """The sessions of one block, in the order of their ids."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, block)))
    first = block * BLOCK
    size = min(BLOCK, n_sessions - first)
    kind = _kinds(rng, size)
    start = _starts(rng, first, size, n_sessions)
    day = np.minimum((start - _FIRST_MS) // _DAY_MS, _DAYS - 1)

    clicks, n = _walks(rng, catalogue, day)
    twin = _copy_twins(rng, kind, clicks, n)
    near = np.flatnonzero(kind == _NEAR)
    clicks, n[near] = _edited(rng, catalogue, clicks, n, near, day)
    noise = np.flatnonzero(kind == _NOISE)
    clicks[noise] = rng.integers(0, catalogue.n_items, (len(noise), clicks.shape[1]))
    cold = np.flatnonzero(kind == _COLD)
    _plant_cold(rng, clicks, n, cold, catalogue.n_items + _first_cold(block))
    bots = np.flatnonzero(kind == _BOT)
    clicks, n[bots] = _with_bots(rng, catalogue, clicks, bots)

    ends = np.cumsum(n)
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    items = clicks[np.arange(clicks.shape[1]) < n[:, None]] + 1
    times = _times(rng, start, n, ends, kind == _BOT) * 1000
    ids = _ids(np.arange(first, first + size) + 1)
    clock = pa.timestamp("us", tz="UTC")
    return pa.RecordBatch.from_arrays(
        [
            ids,
            pa.ListArray.from_arrays(offsets, pa.array(items)),
            pa.ListArray.from_arrays(offsets, pa.array(times).cast(clock)),
            pa.DictionaryArray.from_arrays(pa.array(kind), pa.array(_KINDS)).cast(pa.string()),
            _ids(np.maximum(twin, 0) + first + 1, missing=twin < 0),
        ],
        names=list(_TYPES),
    )


def _first_cold(block: int) -> int:
    """Cold items that the blocks before this one use; each block has cold items of its own."""
    return block * -(-_count("cold", BLOCK) // _COLD_SHARED)


def _count(kind: str, size: int) -> int:
    """Sessions of a planted kind in a block of some size; at least one where there is room."""
    return max(round(SHARES[kind] * size), 1 if size >= 4 * len(_KINDS) else 0)


def _kinds(rng: np.random.Generator, size: int) -> Ints:
    """Kind of each session, exact shares at random places; the first is organic, to be copied."""
    kind = np.full(size, _ORGANIC, np.int64)
    places = rng.permutation(size - 1) + 1
    counts = [_count(name, size) for name in SHARES]
    planted = np.repeat(np.arange(1, len(_KINDS)), counts)
    kind[places[: len(planted)]] = planted
    return kind


def _starts(rng: np.random.Generator, first: int, size: int, n_sessions: int) -> Ints:
    """Start of each session, ms since the epoch, growing with its id; more by day than by night."""
    hours = np.arange(_DAYS * 24 * 4) / 4
    rate = 1 + 0.75 * np.cos(2 * np.pi * (hours - 20) / 24)
    rate *= np.where(hours // 24 % 7 >= 5, 1.25, 1.0)  # weekends
    cum = np.concatenate([[0.0], np.cumsum(rate)])
    share = (np.arange(first, first + size) + rng.random(size)) / n_sessions
    quarter = np.interp(share * cum[-1], cum, np.arange(len(cum), dtype=np.float64))
    result: Ints = _FIRST_MS + (quarter * (_DAY_MS / 96)).astype(np.int64)
    return result


def _walks(rng: np.random.Generator, catalogue: _Catalogue, day: Ints) -> tuple[Ints, Ints]:
    """Organic walks: items, shape (size, longest), and lengths, shape (size,).

    One pass a position, over the sessions that are that long.
    """
    size = len(day)
    tail = np.exp(rng.normal(_LENGTH_MU, _LENGTH_SIGMA, size))
    n = np.minimum(2 + tail, _LENGTH_MAX).astype(np.int64)
    clicks = np.zeros((size, int(n.max())), np.int64)
    clicks[:, 0] = catalogue.popular(rng.random(size), day)
    for place in range(1, clicks.shape[1]):
        rows = np.flatnonzero(n > place)
        step, u = rng.random(len(rows)), rng.random(len(rows))
        now = clicks[rows, place - 1]
        choice = np.searchsorted(_SUCCESSOR_CUM[:-1], u, side="right")
        onward = catalogue.successors[now, choice]
        is_onward = (step >= _REPEAT + _BACK) & (step < _REPEAT + _BACK + _ONWARD)
        is_onward &= catalogue.born[onward] <= day[rows]
        fresh = (step >= _REPEAT + _BACK) & ~is_onward
        following = np.where(is_onward, onward, now)
        back = (step >= _REPEAT) & (step < _REPEAT + _BACK)
        following[back] = clicks[rows[back], max(place - 2, 0)]
        following[fresh] = catalogue.popular(rng.random(int(fresh.sum())), day[rows[fresh]])
        clicks[rows, place] = following
    return clicks, n


def _copy_twins(rng: np.random.Generator, kind: Ints, clicks: Ints, n: Ints) -> Ints:
    """Copy an earlier organic session into each copy, in place; its place in the block, or -1."""
    twin = np.full(len(kind), -1, np.int64)
    organic = np.flatnonzero(kind == _ORGANIC)
    copies = np.flatnonzero((kind == _DUPLICATE) | (kind == _NEAR))
    earlier = np.searchsorted(organic, copies)
    twin[copies] = organic[(rng.random(len(copies)) * earlier).astype(np.int64)]
    clicks[copies] = clicks[twin[copies]]
    n[copies] = n[twin[copies]]
    return twin


def _edited(
    rng: np.random.Generator,
    catalogue: _Catalogue,
    clicks: Ints,
    n: Ints,
    rows: Ints,
    day: Ints,
) -> tuple[Ints, Ints]:
    """One click of each row changed, dropped or inserted: the clicks and the rows' lengths."""
    length = n[rows]
    edit = rng.integers(0, 3, len(rows))  # 0 change, 1 drop, 2 insert
    edit[(edit == 1) & (length <= 2)] = 0  # no session shorter than two clicks
    place = (rng.random(len(rows)) * (length + (edit == 2))).astype(np.int64)[:, None]
    clicks = np.pad(clicks, ((0, 0), (0, 1)))
    column = np.arange(clicks.shape[1])[None, :]
    source = column + ((edit == 1)[:, None] & (column >= place))
    source -= (edit == 2)[:, None] & (column > place)
    result = np.take_along_axis(clicks[rows], np.minimum(source, clicks.shape[1] - 1), axis=1)
    new = catalogue.popular(rng.random(len(rows)), day[rows])
    changed = edit == 0
    old = result[np.arange(len(rows)), place[:, 0]]
    # A changed click is another item.
    new = np.where(changed & (new == old), (new + 1) % catalogue.n_items, new)
    put = np.flatnonzero(edit != 1)
    result[put, place[put, 0]] = new[put]
    clicks[rows] = result
    return clicks, length - (edit == 1) + (edit == 2)


def _plant_cold(rng: np.random.Generator, clicks: Ints, n: Ints, rows: Ints, first_item: int) -> None:
    """End each row on a cold item, in place; every other one of the longer rows on two of them."""
    if len(rows) == 0:
        return
    pool = -(-len(rows) // _COLD_SHARED)
    item = rng.permutation(len(rows)) // _COLD_SHARED
    clicks[rows, n[rows] - 1] = first_item + item
    two = (n[rows] >= 4) & (rng.random(len(rows)) < 0.5)
    clicks[rows[two], n[rows[two]] - 2] = first_item + (item[two] + 1) % pool


def _with_bots(
    rng: np.random.Generator, catalogue: _Catalogue, clicks: Ints, rows: Ints
) -> tuple[Ints, Ints]:
    """Rows replaced by bots, cycling over 2 to 5 items or crawling: clicks and their lengths."""
    if len(rows) == 0:
        return clicks, np.empty(0, np.int64)
    length: Ints = rng.integers(_BOT_LENGTH[0], _BOT_LENGTH[1] + 1, len(rows))
    column = np.arange(int(length.max()))[None, :]
    few = rng.integers(0, catalogue.n_items, (len(rows), 5))
    cycle = np.take_along_axis(few, column % rng.integers(2, 6, len(rows))[:, None], axis=1)
    crawl = (few[:, :1] + column) % catalogue.n_items
    wide = np.zeros((len(clicks), max(clicks.shape[1], column.shape[1])), np.int64)
    wide[:, : clicks.shape[1]] = clicks
    wide[rows, : column.shape[1]] = np.where((rng.random(len(rows)) < 0.5)[:, None], cycle, crawl)
    return wide, length


def _times(rng: np.random.Generator, start: Ints, n: Ints, ends: Ints, bot: npt.NDArray[np.bool_]) -> Ints:
    """Time of each click, ms since the epoch, session after session; growing within a session."""
    total = int(ends[-1])
    gap = np.exp(rng.normal(_GAP_MU, _GAP_SIGMA, total))
    gap = np.where(np.repeat(bot, n), rng.uniform(0, 1_500, total), gap)  # bots click every second
    step = 1_000 + np.minimum(gap, _GAP_MAX).astype(np.int64)
    first = ends - n
    step[first] = 0
    since = np.cumsum(step)
    result: Ints = since + np.repeat(start - since[first], n)
    return result


def _ids(number: Ints, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Session ids 's0000000001' of numbers; null where missing."""
    digits = pc.utf8_lpad(pa.array(number, mask=missing).cast(pa.string()), 10, "0")
    return pc.binary_join_element_wise("s", digits, "")
