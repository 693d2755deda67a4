"""The map: sessions in two dimensions, near each other where the mixture of experts expects alike.

A session's state is the experts' states after its last click, each of length 1, put side by side and weighed
by the root of the gate: the squared distance of two sessions is then the gate's mean of the experts'. Experts
of one fold are used for all sessions, since two trainings have no space in common (the picture scores
nobody). UMAP (McInnes et al., 2018) lays the states out; k-means (MiniBatch, Sculley 2010) groups them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from prune_lib.experts.settings import EXPERTS

if TYPE_CHECKING:
    from prune_lib.experts.bundle import Bundle
    from prune_lib.experts.models import Expert

__all__ = ["DataMap", "clusters_of", "lay_out", "session_states"]

Floats = npt.NDArray[np.float32]

_FOLD = 0
#: Rows that go through the experts together: the padded positions of 512 sessions of 50 clicks.
_BATCH = 512
#: Clusters: as many colours as an eye tells apart.
_CLUSTERS = 8
#: Fewer points have no neighbourhoods that a layout could keep.
_FEWEST = 10
#: Items by which a cluster is named.
_NAMED_BY = 3
_SEED = 0
#: How far twins are apart: next to nothing, where states are of length 1.
_TWINS = 1e-4


@dataclass(frozen=True)
class DataMap:
    """Points of the map.

    Attributes:
        x: from 0 to 1, shape (N,).
        y: from 0 to 1, shape (N,).
        cluster: 0 is the largest, shape (N,).
        names: of the clusters: the items that are most over-represented in each.
    """

    x: Floats
    y: Floats
    cluster: npt.NDArray[np.int64]
    names: list[str]


def session_states(
    bundle: Bundle, sessions: Sequence[Sequence[Any]], gates: npt.NDArray[np.float64]
) -> Floats:
    """States of sessions after their last click.

    Args:
        bundle: trained experts.
        sessions: clicks, items as in the input; unknown ones are left out, and the first of long sessions.
        gates: the experts' mean weights in each session, shape (N, 3); NaN counts as alike.

    Returns:
        Shape (N, 3 d), of length 1 each; zeros for a session without a known item. Cost: one pass of the
        experts' encoders, on the CPU; nothing is summed over the items.
    """
    import torch
    from torch.nn.functional import normalize

    vocabulary = bundle.vocabulary
    index: dict[str, int] = dict(zip(map(str, vocabulary["item"]), map(int, vocabulary["idx"]), strict=True))
    known = [[index[str(i)] for i in clicks if str(i) in index] for clicks in sessions]
    mixture = bundle.mixture(_FOLD)
    # Not its settings, of which another version may know more or fewer.
    most, dim = bundle.max_length, int(bundle.config["dim"])
    out = np.zeros((len(sessions), len(EXPERTS) * dim), dtype=np.float32)
    weight = np.sqrt(np.nan_to_num(gates, nan=1.0 / len(EXPERTS)))
    # Sessions of like length lie in one batch, which is then hardly padded.
    order = sorted((n for n in range(len(known)) if known[n]), key=lambda n: (len(known[n]), n))
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        lists = [known[n][-most:] for n in rows]
        padded = np.full((len(rows), len(lists[-1])), mixture.n_items, dtype=np.int64)
        for at, items in enumerate(lists):
            padded[at, : len(items)] = items
        at_end = (torch.arange(len(rows)), torch.tensor([len(items) - 1 for items in lists]))
        with torch.inference_mode():
            of_experts = [
                normalize(cast("Expert", expert).states(torch.from_numpy(padded))[at_end], dim=1).numpy()
                for expert in mixture.experts
            ]
        weighed = [h * weight[rows, e, None] for e, h in enumerate(of_experts)]
        out[rows] = np.concatenate(weighed, axis=1)
    return out


def _apart(states: Floats) -> npt.NDArray[np.float64]:
    """States, and a coordinate by chance that tells twins apart.

    Sessions of the same clicks are equally far from all others. Which of them are neighbours would go by how
    many threads look for them, and the picture with it.
    """
    chance = np.random.default_rng(_SEED).normal(scale=_TWINS, size=(len(states), 1))
    return np.hstack([states.astype(np.float64), chance])


def lay_out(states: Floats, sessions: Sequence[Sequence[Any]]) -> DataMap | None:
    """Lay sessions out and group them; None where they are too few for a picture, or all alike.

    Args:
        states: shape (N, d).
        sessions: their clicks, by which the clusters are named.

    Cost: distances of all pairs of the (at most 50,000) points, half a second for 5,000 and half a minute for
    50,000 on one core; then a few hundred passes over each one's neighbours, about 1 ms a session, in one
    thread, so that it is the same every time.
    """
    if len(states) < _FEWEST or (states == states[0]).all():
        return None
    with warnings.catch_warnings():
        # It says that a seed costs it its threads: that is why the seed is given.
        warnings.filterwarnings("ignore", message=".*n_jobs value.*")
        warnings.filterwarnings("ignore", message=".*Spectral initialisation failed.*")
        warnings.filterwarnings("ignore", message=".*precomputed_knn.*")
        from sklearn.neighbors import NearestNeighbors
        from umap import UMAP

        # Exact, and without UMAP's own search for neighbours: numba needs most of a minute to compile that
        # one, in every process anew.
        near = min(15, len(states) - 1)
        apart = _apart(states)
        distance, neighbour = NearestNeighbors(n_neighbors=near, algorithm="brute").fit(apart).kneighbors()
        own = np.arange(len(states))[:, None]
        layout = UMAP(
            n_neighbors=near,
            precomputed_knn=(
                np.hstack([own, neighbour[:, : near - 1]]),
                np.hstack([np.zeros_like(distance[:, :1]), distance[:, : near - 1]]).astype(np.float32),
            ),
            min_dist=0.05,
            metric="euclidean",
            init="pca",
            random_state=_SEED,
            n_jobs=1,
        ).fit_transform(states)
    cluster, names = clusters_of(states, sessions)
    x, y = (_unit(layout[:, axis]) for axis in (0, 1))
    return DataMap(x, y, cluster, names)


def _unit(values: npt.NDArray[Any]) -> Floats:
    """From 0 to 1; a lone session far away does not squeeze the others."""
    low, high = np.quantile(values, [0.001, 0.999])
    scaled: Floats = np.clip((values - low) / max(float(high - low), 1e-9), 0.0, 1.0).astype(np.float32)
    return scaled


def clusters_of(states: Floats, sessions: Sequence[Sequence[Any]]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Group states by k-means, and name each group by the items that set it apart.

    Args:
        states: shape (N, d).
        sessions: their clicks.

    Returns:
        The group of each session, 0 the largest, and the groups' names: the items with the largest
        (share of the group's sessions) x log(that share / the share of all sessions).
    """
    from sklearn.cluster import MiniBatchKMeans

    k = min(_CLUSTERS, max(1, len(states) // _FEWEST))
    found = MiniBatchKMeans(n_clusters=k, random_state=_SEED, n_init=3).fit_predict(states)
    sizes = np.bincount(found, minlength=k)
    order = np.argsort(-sizes, kind="stable")
    place = np.empty(k, dtype=np.int64)
    place[order] = np.arange(k)
    cluster = place[found]
    held = pd.DataFrame(
        {
            "cluster": np.repeat(cluster, [len(set(map(str, s))) for s in sessions]),
            "item": [item for s in sessions for item in sorted(set(map(str, s)))],
        }
    )
    overall = held["item"].value_counts() / len(sessions)
    names = []
    for group in range(k):
        share = held.loc[held["cluster"] == group, "item"].value_counts() / max(int(sizes[order[group]]), 1)
        apart = (share * np.log(share / overall.reindex(share.index))).sort_index()
        best = apart.sort_values(ascending=False, kind="stable").index[:_NAMED_BY]
        names.append(", ".join(best))
    return cluster, names
