"""The patterns of sessions, in numpy: what a session teaches, by name and amount.

A pattern's name is an integer, its *code*: a target item v has code v, a transition (i, j) has code
n_items + i * n_items + j. So no dictionary is needed to name what a session holds.
"""

from __future__ import annotations

from math import lcm

import numpy as np
import numpy.typing as npt

__all__ = ["message_unit", "session_edges"]

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

    Cost: a sort of max_distance + 1 edges a click.

    >>> session_edges(np.array([1, 2, 1], np.int32), np.array([3]), n_items=3, max_distance=2)
    (array([ 1,  2,  7,  8, 10]), array([2, 2, 1, 2, 2], dtype=int32), array([5]))
    """
    unit = message_unit(max_distance)
    row = np.repeat(np.arange(lengths.size), lengths)
    ends = np.cumsum(lengths)
    place = np.arange(items.size) - np.repeat(ends - lengths, lengths)
    target = place == np.repeat(lengths, lengths) - 1 if last_only else np.ones(items.size, dtype=bool)
    wide = items.astype(np.int64)
    is_target = target & (place >= 1)
    rows, codes = [row[is_target]], [wide[is_target]]
    amounts = [np.full(rows[0].size, unit, dtype=np.int64)]
    for d in range(1, max_distance + 1):
        second = np.flatnonzero(target & (place >= d))
        rows.append(row[second])
        codes.append(n_items + wide[second - d] * n_items + wide[second])
        amounts.append(np.full(second.size, unit // d, dtype=np.int64))
    rows_of, code, amount = (np.concatenate(parts) for parts in (rows, codes, amounts))
    order = np.lexsort((code, rows_of))
    rows_of, code, amount = rows_of[order], code[order], amount[order]
    first = np.flatnonzero(np.r_[True, (rows_of[1:] != rows_of[:-1]) | (code[1:] != code[:-1])][: code.size])
    message = np.add.reduceat(amount, first) if first.size else amount
    code = code[first]
    # A target item teaches once, however often the session comes back to it.
    message = np.where(code < n_items, unit, message).astype(np.int32)
    return code, message, np.bincount(rows_of[first], minlength=lengths.size).astype(np.int64)
