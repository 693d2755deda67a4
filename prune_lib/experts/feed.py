"""The training feed: Parquet that Spark writes, read in torch batches by Petastorm.

This is the one module that knows Petastorm. Petastorm wants lists of equal length, so sessions are
padded to the length of their bucket and each bucket has files of its own:

    <path>/fold=K/part={train|gate|holdout|recent}/bucket=L/chunk=J/part-*.parquet      items list<int32>,
    L long

`train`: the sessions that the experts of fold K learn from (slice != 0). `gate`: four fifths of
slice 0, for the gate. `recent`: the newest of these once more, for early stopping. `holdout`: the
rest of slice 0, on which likelihoods are reported. A session's chunk and its place in it come from
hashes of its id, and the number of chunks from counts: the files hold the same rows in the same
order whatever the number of partitions. Sessions of length 1 have no target and are left out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from prune_lib.errors import EnvironmentProblem, PruneError

if TYPE_CHECKING:
    import torch
    from pyspark.sql import DataFrame, Row

__all__ = ["Feed", "Reader", "bucket_lengths", "with_bucket", "write_feed"]

Reader = Literal["auto", "petastorm", "pyarrow"]
IntArray = npt.NDArray[np.int32]

#: Sessions in a file, at most (on average): what one step of reading holds is this times the
#: bucket's length.
ROWS_PER_FILE = 8192
#: Files that are held and shuffled together; 16 files of 8,192 sessions of 50 items are 26 MB.
SHUFFLED_FILES = 16
#: Padded positions of a batch of so many rows, at most, as a multiple of the batch size: memory.
LARGEST_BATCH = 16


def bucket_lengths(max_length: int) -> list[int]:
    """Return the padded lengths: one more than 2, 4, 8, 16, ... inputs; the last is `max_length`.

    Examples:
        >>> bucket_lengths(50)
        [3, 5, 9, 17, 33, 50]
    """
    lengths = []
    inputs = 2
    while inputs + 1 < max_length:
        lengths.append(inputs + 1)
        inputs *= 2
    return [*lengths, max_length]


def with_bucket(sessions: DataFrame, max_length: int) -> DataFrame:
    """Drop sessions of length 1, keep the last `max_length` items, add `bucket` (padded length).

    Args:
        sessions: frame with `items` ARRAY<INT>; other columns pass through.
        max_length: longest session that is kept whole.
    """
    from pyspark.sql import functions as F

    lengths = bucket_lengths(max_length)
    size = F.size("items")
    bucket = F.lit(lengths[-1])
    for length in reversed(lengths[:-1]):
        bucket = F.when(size <= length, F.lit(length)).otherwise(bucket)
    last = F.when(size > max_length, F.slice("items", -max_length, max_length)).otherwise(F.col("items"))
    return sessions.where(size >= 2).withColumn("items", last).withColumn("bucket", bucket.cast("int"))


def write_feed(
    sessions: DataFrame,
    path: str | Path,
    *,
    n_items: int,
    max_length: int,
    recent: int = 0,
    rows_per_file: int = ROWS_PER_FILE,
) -> int:
    """Write the feed of both folds to an empty or absent folder.

    Cost: two jobs (counts, and one shuffle to write).

    Args:
        sessions: the `encoded` frame: `session_id`, `sid`, `items` ARRAY<INT>, `fold`, `slice`, and
            `age` where `recent` is asked for.
        path: folder that the driver and the executors share.
        n_items: number of items; its value pads.
        max_length: longer sessions are cut to their last items.
        recent: the part `recent` of a fold holds about so many positions, those of its newest sessions in
            `gate`; it is empty where sessions have no age.
        rows_per_file: sessions in a file on average.

    Returns:
        The number of sessions written, those that are there twice counted once.
    """
    from pyspark.sql import functions as F

    session = F.col("session_id").cast("string")
    held_out = F.pmod(F.xxhash64(F.lit("holdout"), session), F.lit(5)) == 0
    part = F.when(F.col("slice") != 0, "train").when(held_out, "holdout").otherwise("gate")
    rows = (
        with_bucket(
            sessions.select("session_id", "sid", "items", "fold", "slice", *(["age"] if recent else [])),
            max_length,
        )
        .withColumn("part", part)
        .withColumn("place", F.xxhash64(F.lit("feed"), session))
    )
    group = ["fold", "part", "bucket"]
    counting = (F.count(F.lit(1)).alias("count"), F.sum(F.size("items") - 1).alias("positions"))
    counts = rows.groupBy(*group).agg(*counting).collect()
    written = sum(int(row["count"]) for row in counts)
    if recent:
        again = _newest(rows, counts, recent)
        counts += again.groupBy(*group).agg(*counting).collect()
        rows = rows.unionByName(again)
    chunks = {
        f"{row['fold']}/{row['part']}/{row['bucket']}": -(-row["count"] // rows_per_file) for row in counts
    }
    if not chunks:
        raise PruneError("no session of two or more items to write to the training feed")
    n_chunks = F.create_map(*[F.lit(x) for pair in sorted(chunks.items()) for x in pair])
    key = F.concat_ws("/", *group)
    padding = F.array_repeat(F.lit(n_items), F.col("bucket") - F.size("items"))
    (
        rows.withColumn("chunk", F.pmod(F.shiftright("place", 8), n_chunks[key]).cast("int"))
        .withColumn("items", F.concat("items", padding).cast("array<int>"))
        # one task holds all of a chunk, hence one file for it
        .repartition(min(sum(chunks.values()), 200), *group, "chunk")
        .sortWithinPartitions(*group, "chunk", "place", "sid")
        .select("items", *group, "chunk")
        .write.mode("error")
        .partitionBy(*group, "chunk")
        .parquet(_uri(path))
    )
    return written


def _newest(rows: DataFrame, counts: list[Row], positions: int) -> DataFrame:
    """Return the newest sessions of `gate`, of each fold so many that they hold about so many positions."""
    from pyspark.sql import functions as F

    youngest = F.lit(False)
    for fold in sorted({row["fold"] for row in counts}):
        there = sum(row["positions"] for row in counts if (row["fold"], row["part"]) == (fold, "gate"))
        youngest |= (F.col("fold") == fold) & (F.col("age") <= positions / max(1, there))
    return rows.where((F.col("part") == "gate") & youngest).withColumn("part", F.lit("recent"))


def _uri(path: str | Path) -> str:
    # not Path.as_uri(): neither Hadoop nor Petastorm decodes the %3D that it makes of '='
    return f"file://{Path(path).resolve()}"


@dataclass(frozen=True)
class Feed:
    """One fold's part of the feed.

    Attributes:
        path: the folder that `write_feed` wrote.
        fold: 0 or 1.
        part: train, gate, holdout or recent.
        reader: petastorm, pyarrow, or auto (petastorm where it is installed).
    """

    path: Path
    fold: int
    part: str
    reader: Reader = "auto"

    def files(self) -> list[Path]:
        """Return the files in a fixed order: by bucket, then chunk."""
        found = []
        root = Path(self.path) / f"fold={self.fold}" / f"part={self.part}"
        for file in root.glob("bucket=*/chunk=*/*.parquet"):
            numbers = re.search(r"bucket=(\d+)/chunk=(\d+)", file.as_posix())
            assert numbers is not None  # noqa: S101 - the glob holds both
            found.append((int(numbers[1]), int(numbers[2]), file))
        return [file for _, _, file in sorted(found)]

    def sessions(self) -> int:
        """Return the number of sessions, from the files' footers."""
        import pyarrow.parquet as pq

        return sum(pq.ParquetFile(file).metadata.num_rows for file in self.files())

    def batch_count(self, batch_size: int, *, rows: int | None = None) -> int:
        """Return the number of batches of one pass, from the files' footers."""
        import pyarrow.parquet as pq

        files = self.files()
        count = 0
        for start in range(0, len(files), SHUFFLED_FILES):
            by_length: dict[int, int] = {}
            for file in files[start : start + SHUFFLED_FILES]:
                length = int(file.parent.parent.name.partition("=")[2])
                by_length[length] = by_length.get(length, 0) + pq.ParquetFile(file).metadata.num_rows
            count += sum(-(-n // _sessions_per_batch(L, batch_size, rows)) for L, n in by_length.items())
        return count

    def targets(self, n_items: int) -> int:
        """Return the number of positions with a next item: all positions but padding and each first."""
        import pyarrow.parquet as pq

        count = 0
        for file in self.files():
            items = pq.ParquetFile(file).read(columns=["items"])["items"].combine_chunks().values
            count += int((items.to_numpy(zero_copy_only=False) != n_items).sum())
        return count - self.sessions()

    def batches(
        self, batch_size: int, *, seed: int | None = None, rows: int | None = None
    ) -> Iterator[torch.Tensor]:
        """Yield int64 batches [B, L] of padded sessions, B = batch_size // (L - 1), at least 1.

        Args:
            batch_size: padded positions in a batch.
            seed: shuffles files, rows and batches (pass another one each epoch); None keeps the
                files' order. Memory is bounded by `SHUFFLED_FILES` files.
            rows: B instead, the same for all lengths; of long sessions fewer, `LARGEST_BATCH` times
                the padded positions at most.
        """
        import torch

        read = _reader(self.reader)
        files = self.files()
        random = None if seed is None else np.random.default_rng(seed)
        if random is not None:
            files = [files[i] for i in random.permutation(len(files))]
        for start in range(0, len(files), SHUFFLED_FILES):
            for batch in _mixed(read, files[start : start + SHUFFLED_FILES], batch_size, random, rows):
                yield torch.from_numpy(batch.astype(np.int64))


def _sessions_per_batch(length: int, batch_size: int, rows: int | None) -> int:
    """How many sessions of a padded length a batch holds.

    >>> _sessions_per_batch(9, 1024, None), _sessions_per_batch(50, 1024, 600)
    (128, 334)
    """
    most = batch_size if rows is None else min(LARGEST_BATCH * batch_size, rows * (length - 1))
    return max(1, most // (length - 1))


def _mixed(
    read: Callable[[Path], IntArray],
    files: list[Path],
    batch_size: int,
    random: np.random.Generator | None,
    wanted: int | None,
) -> Iterator[IntArray]:
    by_length: dict[int, list[IntArray]] = {}
    for file in files:
        rows = read(file)
        by_length.setdefault(rows.shape[1], []).append(rows)
    batches: list[IntArray] = []
    for length in sorted(by_length):
        rows = np.concatenate(by_length[length])
        if random is not None:
            rows = rows[random.permutation(len(rows))]
        size = _sessions_per_batch(length, batch_size, wanted)
        batches += [rows[i : i + size] for i in range(0, len(rows), size)]
    order = range(len(batches)) if random is None else random.permutation(len(batches))
    for i in order:
        yield batches[i]


def _reader(reader: Reader) -> Callable[[Path], IntArray]:
    if reader == "pyarrow":
        return _read_pyarrow
    try:
        import petastorm  # noqa: F401
    except ImportError as error:
        if reader == "auto":
            return _read_pyarrow
        raise EnvironmentProblem(
            "The training feed was asked to be read by Petastorm, which is not installed here. "
            "Install it (pip install petastorm), or let the feed be read by pyarrow."
        ) from error
    return _read_petastorm


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _read_petastorm(file: Path) -> IntArray:
    if {"#", "?"} & set(str(file.resolve())):  # Petastorm takes them for parts of a URL
        return _read_pyarrow(file)
    # Petastorm 0.13 warns of its own use of old pyarrow, logs that the files are not in its own
    # format (they are meant for any reader) and prints when its cache closes: none of it is news to
    # the user.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), _quiet("petastorm"):
        warnings.simplefilter("ignore")
        from petastorm import make_batch_reader

        # The dummy pool reads in this thread: row groups come in the file's order.
        options: dict[str, Any] = {
            "reader_pool_type": "dummy",
            "shuffle_row_groups": False,
            "num_epochs": 1,
        }
        with make_batch_reader(_uri(file), schema_fields=["items"], **options) as batches:
            return np.concatenate([np.asarray(batch.items, dtype=np.int32) for batch in batches])


def _read_pyarrow(file: Path) -> IntArray:
    import pyarrow.parquet as pq

    column = pq.ParquetFile(file).read(columns=["items"])["items"].combine_chunks()
    flat: IntArray = column.values.to_numpy(zero_copy_only=False).astype(np.int32)
    return flat.reshape(len(column), -1)
