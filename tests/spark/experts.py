"""Sessions, and untrained experts that score them, for the tests of difficulty."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from prune_lib.experts.bundle import Bundle
from prune_lib.experts.mixture import Mixture, standardised_log_popularity
from prune_lib.experts.models import Gate, make_expert
from prune_lib.experts.settings import EXPERTS, TrainSettings

MAX_LENGTH = 8
SETTINGS = TrainSettings(dim=8, max_length=MAX_LENGTH, epochs=1, negatives=16, device="cpu", gate_epochs=2)
SCHEMA = "session_id STRING, items ARRAY<BIGINT>"


def random_sessions(n: int) -> pd.DataFrame:
    """Sessions of 1 to 14 clicks on 40 items, of Zipf's popularity."""
    random = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 41)
    items = [
        random.choice(40, size=length, p=popularity / popularity.sum()).tolist()
        for length in random.integers(1, 15, n)
    ]
    return pd.DataFrame({"session_id": [f"s{i:04d}" for i in range(n)], "items": items})


def random_mixture(popularity, seed: int) -> Mixture:
    """A mixture by chance, its gate too."""
    torch.manual_seed(seed)
    experts = [make_expert(kind, popularity, dim=8, max_length=MAX_LENGTH, dropout=0.0) for kind in EXPERTS]
    gate = Gate()
    torch.nn.init.normal_(gate.last.weight)
    return Mixture(experts, gate, standardised_log_popularity(popularity)).eval()


def random_bundle(encoded, seeds: tuple[int, int] = (0, 1)) -> Bundle:
    """A bundle of the input's vocabulary with such mixtures."""
    return Bundle.build(
        mixtures=[random_mixture(encoded.item_sessions, seed) for seed in seeds],
        settings=SETTINGS,
        vocabulary=encoded.items.select("item", "idx", "sessions").toPandas(),
        metrics={},
        described={},
    )


def collected(scored) -> pd.DataFrame:
    """The scores by sid."""
    frame = scored.scores.orderBy("sid").toPandas()
    scored.unpersist()
    return frame
