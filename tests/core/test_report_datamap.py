"""The map of the report: where sessions lie, and in which groups."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from prune_lib.experts.settings import EXPERTS, TrainSettings
from prune_lib.report.datamap import clusters_of, lay_out, session_states

KINDS = 5


@pytest.fixture(scope="module")
def kinds() -> np.ndarray:
    return np.random.default_rng(1).integers(0, KINDS, 300)


@pytest.fixture(scope="module")
def states(kinds: np.ndarray) -> np.ndarray:
    """Five groups apart from each other; twins, and sessions without a known item."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(KINDS, 24))[kinds] + 0.3 * rng.normal(size=(300, 24))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[:5] = 0.0
    rows[10:20] = rows[20]
    kinds[10:20] = kinds[20]
    return rows.astype(np.float32)


def test_who_is_near_in_the_map_is_of_one_kind_and_it_is_the_same_again(
    states: np.ndarray, kinds: np.ndarray
) -> None:
    sessions = [[f"item{kind}"] for kind in kinds]
    one, two = lay_out(states, sessions), lay_out(states, sessions)
    assert one is not None and two is not None
    assert (one.x == two.x).all() and (one.y == two.y).all() and (one.cluster == two.cluster).all()
    assert one.x.min() == one.y.min() == 0.0 and one.x.max() == one.y.max() == 1.0
    place = np.c_[one.x, one.y]
    apart = ((place[:, None] - place[None]) ** 2).sum(axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (kinds[apart.argmin(axis=1)] == kinds)[5:].mean() > 0.97


def test_the_map_is_the_same_whatever_the_threads(states: np.ndarray, kinds: np.ndarray) -> None:
    """Twins are equally far from all others: threads must not decide which of them are neighbours."""
    sessions = [[f"item{kind}"] for kind in kinds]
    maps = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            maps.append(lay_out(states, sessions))
    assert all(made is not None and (made.x == maps[0].x).all() for made in maps)


def test_experts_of_another_version_place_sessions_too() -> None:
    """Their bundle may hold settings that this version does not know."""
    torch = pytest.importorskip("torch")
    from prune_lib.experts.bundle import Bundle
    from prune_lib.experts.mixture import Mixture, standardised_log_popularity
    from prune_lib.experts.models import Gate, make_expert

    torch.manual_seed(0)
    popularity = np.array([3, 2, 1], dtype=np.int64)
    experts = [make_expert(kind, popularity, dim=8, max_length=5, dropout=0.0) for kind in EXPERTS]
    mixture = Mixture(experts, Gate(), standardised_log_popularity(popularity)).eval()
    made = Bundle.build(
        mixtures=[mixture, mixture],
        settings=TrainSettings(dim=8, max_length=5),
        vocabulary=pd.DataFrame({"item": ["a", "b", "c"], "idx": range(3), "sessions": popularity}),
        metrics={},
        described={},
    )
    config = made.config | {"settings": made.config["settings"] | {"of_tomorrow": 1}}
    other = Bundle({**made.files, "config.json": json.dumps(config).encode()})
    gates = np.full((2, 3), np.nan)
    states = session_states(other, [["a", "b"], ["?"]], gates)
    assert states.shape == (2, 24) and np.linalg.norm(states, axis=1) == pytest.approx([1, 0], abs=1e-5)


def test_groups_go_by_size_and_are_named_by_what_sets_them_apart() -> None:
    states = np.repeat(np.eye(3, dtype=np.float32), [20, 40, 10], axis=0)
    own = ["a"] * 20 + ["b"] * 40 + ["c"] * 10
    cluster, names = clusters_of(states, [["everywhere", item, item] for item in own])
    largest = cluster[own.index("b")]
    assert largest == 0 and (np.bincount(cluster) > 0).sum() == 3
    assert names[0].split(", ")[0] == "b"


def test_too_few_sessions_or_sessions_all_alike_make_no_picture(states: np.ndarray) -> None:
    assert lay_out(states[:9], [["a"]] * 9) is None
    assert lay_out(np.zeros((40, 6), dtype=np.float32), [["a"]] * 40) is None
