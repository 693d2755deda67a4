"""Nearest neighbours: item-kNN and V-SkNN, which need no training and are hard to beat on sessions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from prune_lib.evaluation.targets.prefixes import Sessions, dense, held_once, last_items, latest_places

__all__ = ["ItemKnn", "SessionKnn"]

# Rows of the item-item matrix computed at once; all of them would not fit for a large vocabulary.
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ItemKnn:
    """Items like the last one: damped cosine of co-occurrence within sessions.

    similarity(i, j) = n_ij / sqrt((n_i + damping) (n_j + damping)), where n counts sessions, and a session
    holds an item once. An item is no neighbour of its own, as in the two papers' own code: a repeat of the
    last item itself is never found.

    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms", WWW 2001; as
    the baseline of Hidasi et al., "Session-based recommendations with recurrent neural networks", ICLR
    2016, with its damping of coincidental similarities and its 100 neighbours.

    Attributes:
        n_items: size of the vocabulary.
        similarity: each item's neighbours, shape (n_items, n_items).
    """

    n_items: int
    similarity: sparse.csr_matrix

    @classmethod
    def fit(cls, sessions: Sessions, n_items: int, neighbours: int = 100, damping: float = 20.0) -> ItemKnn:
        """Count co-occurrences and keep each item's `neighbours` most similar, ties to the smaller index.

        Cost: the sum of squared session lengths.
        """
        held = held_once(sessions, n_items)
        holders = held.T.tocsr()
        damped = np.diff(holders.indptr) + damping
        blocks = []
        for lo in range(0, n_items, _ROWS):
            block = (holders[lo : lo + _ROWS] @ held).tocoo()
            other = block.col != block.row + lo
            row, column = block.row[other], block.col[other]
            value = (block.data[other] / np.sqrt(damped[row + lo] * damped[column])).astype(np.float32)
            order = np.lexsort((column, -value, row))
            row, column, value = row[order], column[order], value[order]
            place = np.arange(row.size) - np.searchsorted(row, row)
            near = place < neighbours
            blocks.append(sparse.csr_matrix((value[near], (row[near], column[near])), block.shape))
        return cls(n_items, sparse.vstack(blocks, format="csr"))

    def scores(self, sessions: Sessions, first: int = 1) -> npt.NDArray[np.float32]:
        """Similarity to the last item of every proper prefix, shape (C, n_items); see `Target`."""
        return dense(self.similarity[last_items(sessions, first)])


@dataclass(frozen=True, eq=False)
class SessionKnn:
    """V-SkNN: what the training sessions nearest to the prefix hold.

    * Near is the dot product of the prefix, its items weighted by a linear decay from the last one back,
      with the binary vector of a training session; as in the paper, it is not divided by that session's
      length.
    * An item's score is the sum over the nearest sessions that hold it of nearness x the weight of the
      latest prefix item that the session shares. Items of the prefix can be recommended: repeats count.
    * All training sessions are candidates, where the paper takes the 1,000 most recent ones first: a
      pruned table must not look better because it has fewer sessions to draw that sample from. Ties at
      the last neighbour go to the later session, so give sessions in order of time.

    The decay of place p in a prefix of n is p / n. The factor 1 / n changes no order, so that both
    weights are the places themselves: integers, and ties are ties on every machine.

    Source: Ludewig and Jannach, "Evaluation of session-based recommendation algorithms", User Modeling
    and User-Adapted Interaction 28, 2018; the sessions as neighbours are Jannach and Ludewig's, "When
    recurrent neural networks meet the neighborhood for session-based recommendation", RecSys 2017.

    Attributes:
        n_items: size of the vocabulary.
        held: which items a training session holds, shape (S, n_items).
        holders: the same by item, shape (n_items, S).
        neighbours: how many sessions vote.
        item_weight: what an item's score is multiplied by, shape (n_items,); None: 1.
    """

    n_items: int
    held: sparse.csr_matrix
    holders: sparse.csr_matrix
    neighbours: int
    item_weight: npt.NDArray[np.float64] | None = None

    @classmethod
    def fit(cls, sessions: Sessions, n_items: int, neighbours: int = 100, idf: float = 0.0) -> SessionKnn:
        """Index the training sessions.

        Args:
            sessions: item indices, in order of time.
            n_items: size of the vocabulary.
            neighbours: how many sessions vote.
            idf: scores are multiplied by 1 + idf x log(S / sessions that hold the item); 0: they are not.
        """
        held = held_once(sessions, n_items)
        holders = held.T.tocsr()
        weight = None
        if idf:
            weight = 1 + idf * np.log(max(len(sessions), 1) / np.maximum(np.diff(holders.indptr), 1))
        return cls(n_items, held, holders, neighbours, weight)

    def scores(self, sessions: Sessions, first: int = 1) -> npt.NDArray[np.float32]:
        """Votes of every proper prefix's nearest sessions, shape (C, n_items); see `Target`.

        Cost: by case, the number of training sessions that hold an item of the prefix.
        """
        places = latest_places(sessions, self.n_items, first)
        near = self._nearest(places @ self.holders)
        case = np.repeat(np.arange(near.shape[0]), np.diff(near.indptr))
        # By pair of a prefix and a neighbour, the places of what they share, and the latest of them.
        shared = self.held[near.indices].multiply(places[case])
        near.data = near.data * shared.max(axis=1).toarray().ravel().astype(np.int64)
        votes = near @ self.held
        if self.item_weight is not None:
            votes = votes.multiply(self.item_weight).tocsr()
        return dense(votes)

    def _nearest(self, near: sparse.csr_matrix) -> sparse.csr_matrix:
        """Keep the largest entries of every row, ties to the later session."""
        # Nearness first, session second in one integer: no two are equal, and any partition is the same.
        key = near.data.astype(np.int64) * near.shape[1] + near.indices
        kept = [
            np.arange(a, b)
            if b - a <= self.neighbours
            else a + np.argpartition(key[a:b], b - a - self.neighbours)[-self.neighbours :]
            for a, b in zip(near.indptr[:-1], near.indptr[1:], strict=True)
        ]
        indptr = np.cumsum([0, *(k.size for k in kept)])
        chosen = np.concatenate(kept)
        return sparse.csr_matrix((near.data[chosen], near.indices[chosen], indptr), near.shape)
