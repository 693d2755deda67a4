"""Arrow batches of sessions inside a task: lists as numpy arrays, and batches that are small enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["in_pieces", "lists_of"]

#: Numbers in the lists of a batch at once, but for a single longer list: what is made of them stays below a
#: gigabyte. Spark counts rows alone, and ten thousand sessions of a thousand clicks are ten million.
MOST = 2**20


def lists_of(column: pa.Array) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Flat values and lengths of an Arrow list column without nulls."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy(zero_copy_only=False)[offsets[0] : offsets[-1]]
    return values, np.diff(offsets)


def in_pieces(
    batches: Iterable[pa.RecordBatch], column: str = "items", most: int = MOST
) -> Iterator[pa.RecordBatch]:
    """The same rows in the same order, in batches whose lists hold so many values at most.

    Args:
        batches: any.
        column: a list column of them, without nulls.
        most: values in a batch; a longer list has one of its own.

    >>> batch = pa.RecordBatch.from_pydict({"items": [[1, 2], [3], [4, 5, 6, 7], [8]]})
    >>> [piece.column("items").to_pylist() for piece in in_pieces([batch], most=3)]
    [[[1, 2], [3]], [[4, 5, 6, 7]], [[8]]]
    """
    for batch in batches:
        ends = batch.column(column).offsets.to_numpy().astype(np.int64)
        if ends.size == 0 or ends[-1] - ends[0] <= most:
            yield batch
            continue
        start = 0
        while start < batch.num_rows:
            stop = int(np.searchsorted(ends, ends[start] + most, side="right")) - 1
            stop = max(stop, start + 1)
            yield batch.slice(start, stop - start)
            start = stop
