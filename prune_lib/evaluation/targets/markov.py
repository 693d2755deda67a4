"""A first-order Markov chain over items, smoothed by popularity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from prune_lib.evaluation.targets.prefixes import Sessions, last_items

__all__ = ["Markov"]


@dataclass(frozen=True, eq=False)
class Markov:
    """The probability of the next item, given the last one.

    p(j | i) = (n_ij + prior p_j) / (n_i + prior), where n_ij counts immediate successions and p_j is j's
    share of all interactions: Dirichlet smoothing, so that the items never seen after i, and all items
    after one never seen, still rank by popularity. Only what the training table lacks is at -inf.

    Source: the first-order chain is the usual yardstick of sequential recommendation (Rendle et al.,
    "Factorizing personalized Markov chains", WWW 2010); the smoothing is Zhai and Lafferty's, "A study of
    smoothing methods for language models", SIGIR 2001.

    Attributes:
        n_items: size of the vocabulary.
        successions: n_ij, shape (n_items, n_items).
        popularity: p_j, shape (n_items,).
        prior: weight of the popularity, in successions.
    """

    n_items: int
    successions: sparse.csr_matrix
    popularity: npt.NDArray[np.float64]
    prior: float

    @classmethod
    def fit(cls, sessions: Sessions, n_items: int, prior: float = 1.0) -> Markov:
        """Count successions and interactions. Cost: the number of interactions."""
        clicks = np.bincount(np.concatenate(sessions), minlength=n_items)
        before = np.concatenate([s[:-1] for s in sessions])
        after = np.concatenate([s[1:] for s in sessions])
        counts = sparse.csr_matrix((np.ones(before.size), (before, after)), (n_items, n_items))
        return cls(n_items, counts, clicks / clicks.sum(), prior)

    def scores(self, sessions: Sessions, first: int = 1) -> npt.NDArray[np.float32]:
        """p(j | last item) after every proper prefix, shape (C, n_items); see `Target`."""
        seen = self.successions[last_items(sessions, first)]
        scale = 1 / (np.asarray(seen.sum(axis=1)).ravel() + self.prior)
        known = self.popularity > 0
        fallback = np.where(known, self.prior * self.popularity, -np.inf).astype(np.float32)
        out = np.multiply.outer(scale.astype(np.float32), fallback)
        row = np.repeat(np.arange(scale.size), np.diff(seen.indptr))
        out[row, seen.indices] += (seen.data * scale[row]).astype(np.float32)
        return out
