"""A loss does not hang on what it is computed beside: not on the batch, the block, or the order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from prune_lib.experts.feed import bucket_lengths  # noqa: E402
from prune_lib.experts.mixture import Mixture, standardised_log_popularity  # noqa: E402
from prune_lib.experts.models import Gate, make_expert  # noqa: E402
from prune_lib.experts.scoring import MEANS, score_block  # noqa: E402
from prune_lib.experts.settings import EXPERTS, SPREADS  # noqa: E402

N_ITEMS, DIM, MAX_LENGTH = 3_000, 64, 50
BANDS = np.zeros(N_ITEMS + 1, np.int32)


@pytest.fixture(scope="module")
def mixture():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    popularity = np.arange(N_ITEMS, 0, -1, dtype=np.int64)
    experts = [make_expert(kind, popularity, dim=DIM, max_length=MAX_LENGTH, dropout=0.0) for kind in EXPERTS]
    gate = Gate()
    torch.nn.init.normal_(gate.last.weight)
    yield Mixture(experts, gate, standardised_log_popularity(popularity)).eval()
    torch.set_num_threads(before)


def sessions(length: int, shorter: int, n: int) -> pd.DataFrame:
    random = np.random.default_rng(length)
    items = [random.integers(0, N_ITEMS, random.integers(shorter + 1, length + 1)) for _ in range(n)]
    return pd.DataFrame({"sid": np.arange(n), "items": items, "cut": 0, "seen": 1, "bucket": length})


def scored(block: pd.DataFrame, mixture: Mixture, extra: str | None = None) -> pd.DataFrame:
    index = np.arange(N_ITEMS, dtype=np.int32)
    return score_block(block, mixture, index, BANDS, 2048, False, extra).set_index("sid")


@pytest.mark.parametrize("bucket", range(len(bucket_lengths(MAX_LENGTH))))
def test_a_loss_is_the_same_bit_for_bit_whatever_it_is_computed_beside(mixture, bucket):
    lengths = [1, *bucket_lengths(MAX_LENGTH)]
    block = sessions(lengths[bucket + 1], lengths[bucket], 2 * 2048 // lengths[bucket + 1] + 3)
    together = scored(block, mixture)
    random = np.random.default_rng(0)
    for n in (1, 2, 3, 7, len(block) // 2):
        few = block.iloc[random.permutation(len(block))[:n]]
        alone = scored(few, mixture)
        for sid, row in alone.iterrows():
            assert row["losses"].tolist() == together.loc[sid, "losses"].tolist()
            assert row[list(MEANS)].tolist() == together.loc[sid, list(MEANS)].tolist()


@pytest.mark.parametrize("extra", SPREADS)
def test_the_other_scores_neither(mixture, extra):
    block = sessions(9, 5, 300)
    together, alone = scored(block, mixture, extra), scored(block.iloc[7:8], mixture, extra)
    assert alone["extra"].tolist() == together["extra"].iloc[7:8].tolist()


@pytest.mark.parametrize(("asked", "rows"), [(2048, 256), (16_384, 2048), (10**9, 2048)])
def test_a_batch_is_no_larger_than_a_block(mixture, monkeypatch, asked, rows):
    """More would be rows of padding, and as much memory as was asked for."""
    sizes = []

    def seen(self, items):
        sizes.append(len(items))
        raise KeyboardInterrupt

    monkeypatch.setattr(Mixture, "forward", seen)
    monkeypatch.setattr(np, "pad", lambda items, *_, **__: items.repeat(10, axis=0))
    block = sessions(9, 5, 300)
    with pytest.raises(KeyboardInterrupt):
        score_block(block, mixture, np.arange(N_ITEMS, dtype=np.int32), BANDS, asked, False, None)
    assert sizes == [rows]


def test_what_is_carried_is_that_of_the_session(mixture):
    block = sessions(5, 3, 10).assign(content=np.arange(10) * 7).sample(frac=1, random_state=0)
    index = np.arange(N_ITEMS, dtype=np.int32)
    out = score_block(block, mixture, index, BANDS, 64, False, None, ["content"])
    assert out["content"].tolist() == (out["sid"] * 7).tolist()


def test_a_batch_that_does_not_fit_a_gpu_is_halved_and_that_is_said(mixture, monkeypatch, caplog):
    block = sessions(9, 5, 300)
    whole, sizes = scored(block, mixture), []
    forward = Mixture.forward

    def small(self, items):
        sizes.append(len(items))
        if len(items) > 100:
            raise torch.OutOfMemoryError
        return forward(self, items)

    monkeypatch.setattr(Mixture, "forward", small)
    halved = scored(block, mixture)
    assert sizes[:3] == [256, 128, 64] and set(sizes[2:]) == {64}
    assert "on with 64 sessions at a time" in caplog.text
    assert halved["losses"].map(list).tolist() == whole["losses"].map(list).tolist()
    monkeypatch.setattr(Mixture, "forward", lambda self, items: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(torch.OutOfMemoryError):
        scored(block, mixture)
