"""A tiny training learns what was planted, repeats bit for bit, and the gate pays for itself."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from prune_lib.errors import EnvironmentProblem  # noqa: E402
from prune_lib.experts.feed import Feed  # noqa: E402
from prune_lib.experts.fold_worker import train_folds_in_processes  # noqa: E402
from prune_lib.experts.settings import TrainSettings  # noqa: E402
from prune_lib.experts.training import _check_feed, pick_device, train_fold  # noqa: E402

CYCLE, NOISE, LENGTH = 20, 20, 5
SETTINGS = TrainSettings(dim=16, epochs=6, batch_size=128, negatives=32, max_length=LENGTH, device="cpu")


def planted(random: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return n sessions around a cycle of 20 items, and n of random picks among 20 others."""
    start = random.integers(0, CYCLE, n)
    cycles = (start[:, None] + np.arange(LENGTH)) % CYCLE
    noise = CYCLE + random.integers(0, NOISE, (n, LENGTH))
    return cycles.astype(np.int32), noise.astype(np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("feed")
    random = np.random.default_rng(0)
    for fold in (0, 1):
        for part, n in (("train", 600), ("gate", 100), ("holdout", 50)):
            items = np.concatenate(planted(random, n))
            place = root / f"fold={fold}/part={part}/bucket={LENGTH}/chunk=0"
            place.mkdir(parents=True)
            table = pa.table({"items": pa.array(list(items), pa.list_(pa.int32()))})
            pq.write_table(table, place / "part-00000.parquet")
    return root


POPULARITY = np.full(CYCLE + NOISE, 200, dtype=np.int64)


@pytest.fixture(scope="module")
def trained(folder):
    return train_fold(folder, 0, POPULARITY, SETTINGS, reader="pyarrow", progress=False)


def losses(mixture, items):
    valid, log_p, log_g = mixture(torch.from_numpy(items.astype(np.int64)))
    mixed = -torch.logsumexp(log_p + log_g, 1)
    return mixed.reshape(valid.shape).mean(1).numpy(), -log_p


def test_planted_cycles_are_easier_than_noise_for_every_expert(trained):
    """Higher = harder."""
    cycles, noise = planted(np.random.default_rng(9), 100)
    easy, easy_by_expert = losses(trained.mixture, cycles)
    hard, hard_by_expert = losses(trained.mixture, noise)
    assert np.mean(easy[:, None] < hard[None, :]) > 0.99
    assert (easy_by_expert.mean(0) + 1 < hard_by_expert.mean(0)).all()


def test_the_gate_is_at_least_the_uniform_mixture_where_it_learned(trained, folder):
    inputs, log_p = trained.mixture.gate_inputs(Feed(folder, 0, "gate", "pyarrow").batches(512))
    gated = torch.logsumexp(trained.mixture.gate(inputs) + log_p, 1).mean()
    uniform = torch.logsumexp(log_p, 1).mean() - np.log(3)
    assert gated >= uniform - 1e-4


def test_metrics_are_of_the_holdout(trained):
    assert trained.metrics["held_out_positions"] == 100 * (LENGTH - 1)
    assert trained.metrics["sessions"] == 1200
    assert trained.metrics["log_likelihood_gate"] > -np.log(CYCLE + NOISE)


def test_training_repeats_bit_for_bit_also_in_processes(trained, folder, tmp_path):
    torch.manual_seed(123)  # the caller's generator plays no part, and is left as it was
    state = torch.get_rng_state()
    again = train_fold(folder, 0, POPULARITY, SETTINGS, reader="pyarrow", progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert again.mixture.to_bytes() == trained.mixture.to_bytes()
    assert again.metrics == trained.metrics
    side_by_side = train_folds_in_processes(
        folder, tmp_path, POPULARITY, SETTINGS, reader="pyarrow", progress=False
    )
    assert side_by_side[0].mixture.to_bytes() == trained.mixture.to_bytes()
    assert side_by_side[1].mixture.to_bytes() != trained.mixture.to_bytes()


def test_an_empty_fold_stays_at_popularity(tmp_path):
    popularity = np.array([30, 20, 10], dtype=np.int64)
    empty = train_fold(tmp_path, 0, popularity, SETTINGS, reader="pyarrow", progress=False)
    _, log_p, log_g = empty.mixture(torch.tensor([[0, 1]]))
    assert torch.isfinite(log_p).all() and torch.allclose(log_g, torch.full((1, 3), -np.log(3)))


def test_settings_refuse_what_they_do_not_know():
    with pytest.raises(ValidationError):
        TrainSettings(epoch=3)
    assert all(field.description for field in TrainSettings.model_fields.values())


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"
    with pytest.raises(EnvironmentProblem, match="cuda"):
        pick_device("cuda")


def test_a_feed_that_the_executors_wrote_elsewhere_is_told(folder, tmp_path):
    written = 2 * 2 * (600 + 100 + 50)
    _check_feed(folder, written, "pyarrow")
    for place, found in ((tmp_path / "nowhere", "0 of them"), (folder, "3,000 of them")):
        with pytest.raises(EnvironmentProblem, match=f"finds {found}.*do not share"):
            _check_feed(place, written + 1, "pyarrow")


def test_a_large_vocabulary_trains_its_gate_with_an_estimated_normaliser(folder, monkeypatch):
    from prune_lib.experts import training

    monkeypatch.setattr(training, "EXACT_LIMIT", 10.0)
    monkeypatch.setattr(training, "NEGATIVES", 20)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    estimated = train_fold(folder, 0, POPULARITY, settings, reader="pyarrow", progress=False)
    assert estimated.metrics["normaliser"] == "estimated"
    assert estimated.mixture._normalisers is None
