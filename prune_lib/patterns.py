"""The patterns of sessions, in arrays: what a session teaches, by name and amount.

A pattern's name is an integer, its *code*: a target item v has code v, a transition (i, j) has code
n_items + i * n_items + j. So no dictionary is needed to name what a session holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from prune_lib.batches import lists_of
from prune_lib.compiled import compiled

__all__ = ["Shape", "message_unit", "session_edges"]

Ints = npt.NDArray[np.int64]


def message_unit(max_distance: int) -> int:
    """The least unit in which every 1/distance is an integer.

    >>> message_unit(3)
    6
    """
    return lcm(*range(1, max_distance + 1))


def session_edges(
    items: npt.NDArray[np.int32],
    lengths: Ints,
    n_items: int,
    max_distance: int,
    *,
    last_only: bool = False,
) -> tuple[Ints, npt.NDArray[np.int32], Ints]:
    """Patterns of a block of sessions, each once a session, with the session's message.

    Args:
        items: item indices of all sessions, one after the other, shape (clicks,).
        lengths: clicks by session, shape (R,).
        n_items: number of items.
        max_distance: clicks, at most, between the two items of a transition.
        last_only: only patterns that end at a session's last click: what a sample of one target teaches.

    Returns:
        code by edge, ascending within a session, shape (E,); message by edge in units of 1/`message_unit`,
        shape (E,); edges by session, shape (R,).

    Cost: a sort of each session's max_distance + 1 edges a click; a microsecond a click.

    >>> session_edges(np.array([1, 2, 1], np.int32), np.array([3]), n_items=3, max_distance=2)
    (array([ 1,  2,  7,  8, 10]), array([2, 2, 1, 2, 2], dtype=int32), array([5]))
    """
    code, message, edges = _edges(
        np.ascontiguousarray(items, np.int32),
        np.cumsum(lengths, dtype=np.int64),
        n_items,
        max_distance,
        message_unit(max_distance),
        last_only,
    )
    return code, message, edges


@dataclass(frozen=True)
class Shape:
    """What the patterns of an input depend on, beside its sessions.

    Attributes:
        n_items: number of items.
        max_distance: clicks, at most, between the two items of a transition.
        last_only: only patterns that end at a session's last click.
    """

    n_items: int
    max_distance: int
    last_only: bool = False

    def edges(self, batch: pa.RecordBatch) -> tuple[Ints, npt.NDArray[np.int32], Ints]:
        """`session_edges` of the sessions of a batch: items ARRAY<INT>."""
        items, lengths = lists_of(batch.column("items"))
        return session_edges(items, lengths, self.n_items, self.max_distance, last_only=self.last_only)


# Largest message, which is an INT: so much evidence teaches all that there is to teach thousands of times
# over, and what one more click adds still fits on top.
_MOST = 2**30
# Up to so many edges an insertion sort is the fastest; most sessions have fewer.
_SHORT = 64


@compiled
def _edges(
    items: Any, ends: Any, n_items: int, max_distance: int, unit: int, last_only: bool
) -> tuple[Any, Any, Any]:
    code = np.empty(items.size * (max_distance + 1), np.int64)
    message = np.empty(code.size, np.int32)
    lengths = np.empty(ends.size, np.int64)
    size = 0
    for row in range(ends.size):
        start, end, first = ends[row - 1] if row else 0, ends[row], size
        for target in range(max(start, end - 1) if last_only else start, end):
            item = np.int64(items[target])
            if target > start:
                code[size], message[size] = item, unit
                size += 1
            for distance in range(1, min(max_distance, target - start) + 1):
                code[size] = n_items + np.int64(items[target - distance]) * n_items + item
                message[size] = unit // distance
                size += 1
        if size - first > _SHORT:
            order = np.argsort(code[first:size], kind="mergesort")
            code[first:size] = code[first:size][order]
            message[first:size] = message[first:size][order]
        else:
            for edge in range(first + 1, size):
                held, amount, place = code[edge], message[edge], edge
                while place > first and code[place - 1] > held:
                    code[place], message[place] = code[place - 1], message[place - 1]
                    place -= 1
                code[place], message[place] = held, amount
        last = first - 1
        for edge in range(first, size):
            if last < first or code[last] != code[edge]:
                last += 1
                code[last], message[last] = code[edge], message[edge]
            elif code[edge] >= n_items:  # a target item teaches once, however often it comes back
                message[last] = min(message[last] + message[edge], _MOST)
        size = last + 1
        lengths[row] = size - first
    return code[:size].copy(), message[:size].copy(), lengths
