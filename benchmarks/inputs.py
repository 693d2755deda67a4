"""The benchmarks' inputs: generated sessions of any size, or a shared data set, as one Parquet file each.

Columns: session_id STRING, items ARRAY<BIGINT>, ordering BIGINT (old to new). A file that is there is taken.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prune_lib.sessions.demo import BLOCK, default_items, demo_batches

__all__ = ["diginetica", "generated"]

# The hub is item 0: the generator's items begin at 1.
_HUB = 0


def generated(folder: Path, n_sessions: int, *, hub: float = 0.0, joined: int = 1) -> Path:
    """Generated sessions.

    Args:
        folder: where the file lies.
        n_sessions: number of sessions generated.
        hub: share of the sessions that get one more item, in the place of one of their clicks.
        joined: so many sessions in a row become one: as many clicks in fewer, longer sessions.
    """
    place = folder / f"sessions-{n_sessions}-{hub:g}-{joined}.parquet"
    if place.exists():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    blocks = range(-(-n_sessions // BLOCK))
    writer, begun = None, place.with_suffix(".part")
    for block in demo_batches(blocks, n_sessions, default_items(n_sessions), seed=0):
        table = _joined(_with_hub(block, hub, seed=len(block)), joined)
        writer = writer or pq.ParquetWriter(begun, table.schema)
        # A row group is what a task reads.
        writer.write_table(table)
    assert writer is not None
    writer.close()
    begun.replace(place)
    return place


def diginetica(folder: Path, data: Path) -> Path:
    """The training sessions of diginetica, in the benchmarks' columns.

    Raises:
        FileNotFoundError: the data set is not there.
    """
    place = folder / "diginetica.parquet"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        table = pq.read_table(data / "diginetica" / "sessions_train.parquet")
        # Its ids say the order: d000001 on.
        number = pc.cast(pc.utf8_slice_codeunits(table.column("session_id"), 1), pa.int64())
        pq.write_table(table.append_column("ordering", number), place, row_group_size=BLOCK)
    return place


def _with_hub(block: pa.RecordBatch, share: float, seed: int) -> pa.Table:
    """A block of the generator in the benchmarks' columns."""
    column, times = block.column("items"), block.column("times")
    offsets = column.offsets.to_numpy()
    items = column.flatten().to_numpy().copy()
    lengths = np.diff(offsets)
    first = times.flatten().cast(pa.int64()).to_numpy()[offsets[:-1] - offsets[0]]
    if share > 0:
        rng = np.random.default_rng(seed)
        hit = rng.random(lengths.size) < share
        place = (rng.random(lengths.size) * lengths).astype(np.int64) + offsets[:-1]
        items[place[hit]] = _HUB
    return pa.table(
        {
            "session_id": block.column("session_id"),
            "items": pa.ListArray.from_arrays(pa.array(offsets - offsets[0], pa.int32()), pa.array(items)),
            "ordering": pa.array(first),
        }
    )


def _joined(table: pa.Table, joined: int) -> pa.Table:
    """So many rows in a row as one, with the first one's id and order."""
    if joined == 1:
        return table
    column = table.column("items").combine_chunks()
    offsets = column.offsets.to_numpy()
    cuts = np.r_[offsets[:-1:joined], offsets[-1]].astype(np.int32)
    heads = table.take(pa.array(np.arange(0, table.num_rows, joined)))
    return pa.table(
        {
            "session_id": heads.column("session_id"),
            "items": pa.ListArray.from_arrays(pa.array(cuts), column.flatten()),
            "ordering": heads.column("ordering"),
        }
    )
