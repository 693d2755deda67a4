"""A tiny training learns what was planted, repeats bit for bit, and the gate pays for itself."""

from __future__ import annotations

import os
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

torch = pytest.importorskip("torch")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from prune_lib.errors import EnvironmentProblem, PruneError  # noqa: E402
from prune_lib.experts import fitting, gating, training  # noqa: E402
from prune_lib.experts.checkpoint import expert_file  # noqa: E402
from prune_lib.experts.devices import pick_device, torch_state  # noqa: E402
from prune_lib.experts.dynamics import snapshots_from_bytes  # noqa: E402
from prune_lib.experts.feed import Feed  # noqa: E402
from prune_lib.experts.settings import EXPERTS, SPREADS, TrainSettings  # noqa: E402
from prune_lib.experts.training import _check_feed, _clear, _held  # noqa: E402
from prune_lib.experts.workers import TrainedFold, Work, results, rounds, run_job, run_rounds  # noqa: E402
from prune_lib.processes import Hold  # noqa: E402

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


def work_on(feed, folder, settings=SETTINGS, popularity=POPULARITY) -> Work:
    work = Work(feed, folder, settings, "pyarrow", progress=False)
    work.keep_popularity(popularity)
    return work


def train_first_fold(*args, **kwargs) -> TrainedFold:
    work = work_on(*args, **kwargs)
    run_job(work, rounds(1)[0][0], rank=0)
    return results(work.folder)[0]


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    return train_first_fold(folder, tmp_path_factory.mktemp("work"))


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


def test_training_repeats_bit_for_bit_and_leaves_torch_as_it_was(trained, folder, tmp_path):
    torch.manual_seed(123)  # the caller's generator plays no part
    state = torch.get_rng_state()
    again = train_first_fold(folder, tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    assert again.mixture.to_bytes() == trained.mixture.to_bytes()
    assert again.metrics == trained.metrics
    other = train_first_fold(folder, tmp_path / "other", SETTINGS.model_copy(update={"seed": 1}))
    assert other.mixture.to_bytes() != trained.mixture.to_bytes()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_side_by_side_come_to_the_same_weights(trained, folder, tmp_path, processes):
    """By fold, and by expert and fold with the gates afterwards."""
    work = work_on(folder, tmp_path)
    run_rounds(work, processes)
    first, second = results(tmp_path)
    assert first.mixture.to_bytes() == trained.mixture.to_bytes()
    assert first.metrics == trained.metrics
    assert second.mixture.to_bytes() != trained.mixture.to_bytes()


class Killed(Exception):
    """As if the process had ended."""


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_killed_training_goes_on_from_its_last_epoch(trained, folder, tmp_path, monkeypatch, epochs):
    """Bit for bit, also where the kill came between the checkpoints of two experts."""
    saved, whole = [], fitting.checkpoint.save

    def save(learner, file):
        if len(saved) == 3 * epochs + 1:
            raise Killed
        saved.append(file)
        whole(learner, file)

    monkeypatch.setattr(fitting.checkpoint, "save", save)
    with pytest.raises(Killed):
        train_first_fold(folder, tmp_path)
    monkeypatch.undo()
    passes = []
    one_pass = fitting._pass
    monkeypatch.setattr(
        fitting, "_pass", lambda active, *rest: passes.append(len(active)) or one_pass(active, *rest)
    )
    again = train_first_fold(folder, tmp_path)
    assert passes[0] == 2, "one of the three was an epoch ahead"
    assert len(passes) == trained.metrics["epochs"] - epochs
    assert again.mixture.to_bytes() == trained.mixture.to_bytes()
    assert again.metrics == trained.metrics


def test_experts_that_are_trained_are_not_trained_again_and_the_gate_leaves_them_alone(
    trained, folder, tmp_path, monkeypatch
):
    """A kill after the experts: only the gate is left."""
    monkeypatch.setattr("prune_lib.experts.workers.fit_gate", lambda *args: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        train_first_fold(folder, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(fitting, "_pass", lambda *args: pytest.fail("a pass over the feed"))
    before = {kind: expert_file(tmp_path, 0, kind).read_bytes() for kind in EXPERTS}
    again = train_first_fold(folder, tmp_path)
    assert again.mixture.to_bytes() == trained.mixture.to_bytes()
    assert before == {kind: expert_file(tmp_path, 0, kind).read_bytes() for kind in EXPERTS}
    for kind, expert in zip(EXPERTS, again.mixture.experts, strict=True):
        best, _ = fitting.checkpoint.read_best(expert_file(tmp_path, 0, kind))
        assert all(torch.equal(best[name], value) for name, value in expert.state_dict().items())
    train_first_fold(folder, tmp_path)  # and a third has nothing to do at all


def test_the_experts_of_every_epoch_are_kept_where_they_are_wanted(trained, folder, tmp_path):
    kept = train_first_fold(folder, tmp_path, SETTINGS.model_copy(update={"snapshots": True}))
    assert trained.snapshots is None and kept.snapshots is not None
    assert kept.mixture.to_bytes() == trained.mixture.to_bytes()
    by_epoch = snapshots_from_bytes(kept.snapshots, list(kept.mixture.experts))
    assert len(by_epoch) == kept.metrics["epochs"]
    best = [expert.state_dict()["weight"] for expert in kept.mixture.experts]
    for e, weight in enumerate(best):
        assert any(torch.equal(of_epoch[e].weight, weight) for of_epoch in by_epoch), (
            "the best is one of them"
        )


def test_an_empty_fold_stays_at_popularity(tmp_path):
    popularity = np.array([30, 20, 10], dtype=np.int64)
    empty = train_first_fold(tmp_path / "feed", tmp_path, popularity=popularity)
    _, log_p, log_g = empty.mixture(torch.tensor([[0, 1]]))
    assert torch.isfinite(log_p).all() and torch.allclose(log_g, torch.full((1, 3), -np.log(3)))


def test_a_gate_without_a_position_is_uniform_in_a_large_vocabulary_too(tmp_path, monkeypatch):
    """Few sessions: by chance none of them is in the gate's slice or held out."""
    monkeypatch.setattr(gating, "NEGATIVES", 2)
    empty = train_first_fold(tmp_path / "feed", tmp_path, popularity=np.array([30, 20, 10], dtype=np.int64))
    assert empty.metrics["held_out_positions"] == 0


def test_without_held_out_sessions_no_number_says_how_good_the_gate_is(folder, tmp_path):
    """The likelihood of what it was trained on would."""
    shutil.copytree(folder, tmp_path / "feed", ignore=shutil.ignore_patterns("part=holdout"))
    few = SETTINGS.model_copy(update={"epochs": 1})
    trained = train_first_fold(tmp_path / "feed", tmp_path, few)
    assert trained.metrics["held_out_positions"] == 0
    assert not [key for key in trained.metrics if "likelihood" in key or key == "fairness"]


def test_a_kill_while_a_result_is_written_leaves_none(trained, folder, tmp_path, monkeypatch):
    whole = Path.write_bytes

    def half(self, content):
        whole(self, content[: len(content) // 2])
        if self.name.startswith("metrics"):
            raise Killed
        return whole(self, content)

    monkeypatch.setattr(Path, "write_bytes", half)
    monkeypatch.setattr(Path, "write_text", lambda self, text: half(self, text.encode()))
    with pytest.raises(Killed):
        train_first_fold(folder, tmp_path)
    monkeypatch.undo()
    assert results(tmp_path) == []
    again = train_first_fold(folder, tmp_path)
    assert again.mixture.to_bytes() == trained.mixture.to_bytes() and again.metrics == trained.metrics


def test_a_failure_without_words_on_sparks_tasks_is_named(folder, tmp_path, monkeypatch):
    class Distributor:
        def __init__(self, **_):
            pass

        def run(self, *_):
            raise TimeoutError

    of_spark = SimpleNamespace(TorchDistributor=Distributor)
    monkeypatch.setitem(sys.modules, "pyspark.ml.torch.distributor", of_spark)
    work = work_on(folder, tmp_path, SETTINGS.model_copy(update={"distributor": "spark"}))
    with pytest.raises(PruneError, match=r"Spark's tasks failed: TimeoutError \(more stands"):
        run_rounds(work, 2)


def test_a_training_goes_on_only_in_the_precision_that_it_began_in(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "fingerprint", lambda *_: "an input")
    encoded, seen = SimpleNamespace(sessions=defaultdict(str), n_items=3), {}
    for gpu in (False, True):
        device = torch.device("cuda" if gpu else "cpu")
        monkeypatch.setattr(training, "pick_device", lambda _, device=device: device)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
        for precision in ("auto", "float32", "mixed"):
            settings = SETTINGS.model_copy(update={"precision": precision})
            seen[gpu, precision] = training._checkpoints(encoded, settings, tmp_path)
    assert seen[False, "auto"] == seen[False, "float32"] == seen[True, "float32"]
    assert seen[True, "auto"] == seen[True, "mixed"] == seen[False, "mixed"] != seen[True, "float32"]


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


def test_of_two_trainings_at_once_neither_takes_the_others_checkpoints(tmp_path):
    checkpoints, apart = tmp_path / ".training-x", tmp_path / ".feed-y" / "training"
    with _held(checkpoints, apart) as first:
        assert first == checkpoints
        with _held(checkpoints, apart) as second:
            assert second == apart
        assert checkpoints.is_dir(), "the second was done first"
    assert not checkpoints.exists(), "what is done is removed"
    with pytest.raises(Killed), _held(checkpoints, apart) as failed:
        (failed / "expert").touch()
        raise Killed
    with _held(checkpoints, apart) as again:
        assert again == checkpoints and (again / "expert").is_file(), "it goes on"


def test_what_is_left_of_trainings_is_removed_and_what_is_held_stays(tmp_path):
    old = [tmp_path / name for name in (".training-old", ".feed-old", ".training-held", ".feed-held")]
    young = [tmp_path / name for name in (".training-killed", ".feed-elsewhere")]
    for folder in (*old, *young, tmp_path / ".feed-killed"):
        folder.mkdir()
    for name in (".training-killed", ".feed-killed"):
        Hold(tmp_path / name).release()
    holds = [Hold(folder) for folder in old[2:]]
    for folder in old:
        os.utime(folder, (0, 0))
    _clear(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([*old[2:], *young])
    for hold in holds:
        hold.release()


def test_mixed_precision_learns_the_same_but_for_roundings(trained, folder, tmp_path):
    """On the CPU here; a GPU takes the same way."""
    settings = SETTINGS.model_copy(update={"precision": "mixed"})
    mixed = train_first_fold(folder, tmp_path, settings)
    assert mixed.mixture.to_bytes() != trained.mixture.to_bytes()
    for kind in (*EXPERTS, "gate"):
        name = f"log_likelihood_{kind}"
        assert mixed.metrics[name] == pytest.approx(trained.metrics[name], abs=0.1)
    assert all(value.dtype == torch.float32 for value in mixed.mixture.experts.state_dict().values())
    assert not any(expert.mixed for expert in mixed.mixture.experts), "scores are not mixed"


def test_a_large_vocabulary_trains_its_gate_with_an_estimated_normaliser(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(gating, "EXACT_LIMIT", 10.0)
    monkeypatch.setattr(gating, "NEGATIVES", 20)
    settings = SETTINGS.model_copy(update={"epochs": 1})
    estimated = train_first_fold(folder, tmp_path, settings)
    assert estimated.metrics["normaliser"] == "estimated"
    for name in ("raw", "adjusted", *SPREADS):
        assert 0.5 < estimated.metrics[f"estimated_normaliser_spearman_{name}"] < 1
    monkeypatch.setattr(gating, "NEGATIVES", CYCLE + NOISE - 1)  # all items but one in a stratum
    near = train_first_fold(folder, tmp_path / "near", settings)
    assert near.metrics["estimated_normaliser_spearman_raw"] > 0.99
    assert estimated.mixture._normalisers is None


def test_float32_is_float32_while_experts_train() -> None:
    """Torch rounds the products of a GPU's GRU to 10 bits where nobody says otherwise."""
    before = torch.backends.cudnn.allow_tf32
    with torch_state(0, 1):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
