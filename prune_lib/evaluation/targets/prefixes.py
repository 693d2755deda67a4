"""Sessions and their prefixes as sparse matrices: what the training-free target models share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

__all__ = ["Sessions", "dense", "held_once", "last_items", "latest_places"]

Sessions = list[npt.NDArray[np.int32]]


def held_once(sessions: Sessions, n_items: int) -> sparse.csr_matrix:
    """Which items a session holds: 1 or absent, shape (S, n_items); an item clicked twice is held once."""
    rows = np.repeat(np.arange(len(sessions)), [len(s) for s in sessions])
    columns = np.concatenate(sessions) if sessions else np.empty(0, dtype=np.int32)
    ones = np.ones(rows.size, dtype=np.int32)
    held = sparse.csr_matrix((ones, (rows, columns)), (len(sessions), n_items))
    held.data[:] = 1
    return held


def last_items(sessions: Sessions, first: int = 1) -> npt.NDArray[np.int32]:
    """The last item of every proper prefix of `first` items or more, by session, then position; (C,)."""
    return np.concatenate([s[first - 1 : -1] for s in sessions])


def latest_places(sessions: Sessions, n_items: int, shortest: int = 1) -> sparse.csr_matrix:
    """Where in the prefix an item stands last, the first place being 1; shape (C, n_items).

    Rows are the proper prefixes of `shortest` items or more. Divided by the prefix's length, that is V-SkNN's
    linear decay. Cost: the sum of the prefixes' lengths.

    >>> latest_places([np.array([2, 0, 2, 1], dtype=np.int32)], 3).toarray()
    array([[0, 0, 1],
           [2, 0, 1],
           [2, 0, 3]], dtype=int32)
    """
    items = np.concatenate(sessions).astype(np.int64)
    sizes = np.array([len(s) for s in sessions])
    session = np.repeat(np.arange(sizes.size), sizes)
    first = np.cumsum(sizes) - sizes
    place = np.arange(items.size) - first[session] + 1
    # The place where the same session holds the same item next: up to there, this one is its latest.
    order = np.lexsort((place, items, session))
    again = np.full(items.size, np.iinfo(np.int64).max)
    same = (np.diff(items[order]) == 0) & (np.diff(session[order]) == 0)
    again[order[:-1][same]] = place[order[1:][same]]

    # By case: every place but a session's last ends a prefix.
    ends = (place >= shortest) & (place < sizes[session])
    length, begin = place[ends], first[session[ends]]
    case = np.repeat(np.arange(length.size), length)
    entry = np.arange(case.size) - np.repeat(np.cumsum(length) - length, length) + begin[case]
    latest = again[entry] > length[case]
    case, entry = case[latest], entry[latest]
    found = (place[entry].astype(np.int32), (case, items[entry]))
    return sparse.csr_matrix(found, (length.size, n_items))


def dense(scores: sparse.csr_matrix) -> npt.NDArray[np.float32]:
    """All scores, with -inf where there is no entry: no evidence is no recommendation; same shape."""
    out = np.full(scores.shape, -np.inf, dtype=np.float32)
    row = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    out[row, scores.indices] = scores.data
    return out
