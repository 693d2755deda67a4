"""Neural targets: causal, blind to padding, able to learn what was planted, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

from prune_lib.evaluation.cases import Cases  # noqa: E402
from prune_lib.evaluation.ranking import rank_cases  # noqa: E402
from prune_lib.evaluation.targets.encoders import make_encoder  # noqa: E402
from prune_lib.evaluation.targets.neural import NeuralTarget, Recipe, fit_neural  # noqa: E402
from prune_lib.evaluation.targets.settings import NEURAL  # noqa: E402
from prune_lib.experts.feed import Feed  # noqa: E402
from prune_lib.experts.loss import NegativeSampler  # noqa: E402
from prune_lib.experts.models import Expert, make_expert  # noqa: E402

N_ITEMS, DIM, LENGTH = 30, 16, 12
CYCLE, FEED_LENGTH = 20, 5


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def model(name: str) -> Expert:
    encoder = make_encoder(name, dim=DIM, max_length=LENGTH, dropout=0.3, layers=2)
    popularity = np.arange(N_ITEMS, 0, -1, dtype=np.int64)
    made = make_expert(name, popularity, dim=DIM, max_length=LENGTH, dropout=0.3, encoder=encoder)
    with torch.no_grad():  # what starts at zero or one would hide a leak
        for parameter in made.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


@pytest.mark.parametrize("name", NEURAL)
def test_a_later_item_never_changes_an_earlier_state(name):
    made = model(name)
    items = torch.randint(0, N_ITEMS, (20, LENGTH - 1))
    items[:, 3] = items[:, 0]
    before = made.states(items)
    for position in range(1, LENGTH - 1):
        changed = items.clone()
        changed[:, position] = (changed[:, position] + 7) % N_ITEMS
        after = made.states(changed)
        assert torch.allclose(before[:, :position], after[:, :position], atol=1e-5)
        assert not torch.allclose(before[:, position], after[:, position], atol=1e-3)


@pytest.mark.parametrize("name", NEURAL)
def test_an_earlier_item_changes_the_last_state(name):
    """No target is a mere bigram of the last item."""
    made = model(name)
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[9, 2, 3, 4]])
    assert not torch.allclose(made.states(one)[0, 3], made.states(other)[0, 3], atol=1e-4)


@pytest.mark.parametrize("name", NEURAL)
def test_padding_changes_nothing(name):
    made = model(name)
    items = torch.randint(0, N_ITEMS, (20, 5))
    padded = torch.nn.functional.pad(items, (0, 4), value=N_ITEMS)
    assert torch.allclose(made.states(items), made.states(padded)[:, :5], atol=1e-5)


def test_a_name_that_is_no_neural_target_is_refused():
    with pytest.raises(ValueError, match="gru4rec.*got item-knn"):
        make_encoder("item-knn", dim=4, max_length=4, dropout=0.0, layers=1)


@pytest.mark.parametrize("name", ["gru4rec", "sasrec", "srgnn"])
def test_scores_of_a_prefix_are_those_of_its_last_items_alone(name):
    """Prefixes longer than the model takes are read through a window; shorter ones are whole."""
    target = NeuralTarget(model(name), np.ones(N_ITEMS, bool), LENGTH)
    rng = np.random.default_rng(1)
    sessions = [rng.integers(0, N_ITEMS, n).astype(np.int32) for n in (2, 5, LENGTH, LENGTH + 1, 2 * LENGTH)]
    scores = target.scores(sessions)
    at = 0
    for session in sessions:
        for end in range(1, len(session)):
            window = session[max(0, end - LENGTH) : end]
            alone = target.scores([np.append(window, np.int32(0))])[-1]
            np.testing.assert_allclose(scores[at], alone, atol=1e-4)
            at += 1
    assert at == len(scores)
    # A long session's cases are scored in parts: what is before the window is not even looked at.
    for first in (2, LENGTH, LENGTH + 3):
        part = target.scores(sessions[-1:], first)
        np.testing.assert_allclose(part, scores[-(2 * LENGTH - first) :], atol=1e-4)


def test_an_item_that_training_lacks_stands_in_a_prefix_as_unknown():
    """Its random embedding would be noise that nobody has who trains on the pruned table alone."""
    seen = np.ones(N_ITEMS, bool)
    seen[[3, 7]] = False
    target = NeuralTarget(model("gru4rec"), seen, LENGTH)
    one, other, known = (target.scores([np.array([1, i, 2, 4], np.int32)]) for i in (3, 7, 5))
    np.testing.assert_array_equal(one, other)
    assert not np.allclose(one[1:, 0], known[1:, 0])


def test_an_item_that_training_lacks_is_no_negative():
    popularity = np.array([4, 0, 9, 0])
    drawn, log_expected = NegativeSampler(popularity, 0.5, 0, unseen=False).draw(1000)
    assert set(drawn) == {0, 2}
    np.testing.assert_allclose(np.exp(log_expected[drawn == 0]), 1000 * 2 / 5, rtol=1e-5)
    assert set(NegativeSampler(popularity, 0.5, 0).draw(1000)[0]) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", NEURAL)
def test_every_position_of_the_longest_input_is_trained(feed, name):
    """A session of `max_length` items has one input less, and so have the windows that are scored."""
    fitted = fit_neural(feed, POPULARITY, recipe(name), steps=2, seed=0)
    assert fitted.model.max_length == FEED_LENGTH - 1
    long = [np.arange(12, dtype=np.int32)]
    assert fitted.model.scores(long).shape == (11, CYCLE)


def test_an_item_that_training_lacks_is_never_recommended():
    seen = np.ones(N_ITEMS, bool)
    seen[[3, 7]] = False
    scores = NeuralTarget(model("gru4rec"), seen, LENGTH).scores([np.array([1, 2, 3], np.int32)])
    assert np.isneginf(scores[:, [3, 7]]).all()
    assert np.isfinite(np.delete(scores, [3, 7], axis=1)).all()


@pytest.fixture(scope="module")
def feed(tmp_path_factory) -> Feed:
    """600 sessions around a cycle of 20 items."""
    root = tmp_path_factory.mktemp("feed")
    start = np.random.default_rng(0).integers(0, CYCLE, 600)
    items = ((start[:, None] + np.arange(FEED_LENGTH)) % CYCLE).astype(np.int32)
    place = root / f"fold=0/part=train/bucket={FEED_LENGTH}/chunk=0"
    place.mkdir(parents=True)
    pq.write_table(pa.table({"items": pa.array(list(items), pa.list_(pa.int32()))}), place / "part-0.parquet")
    return Feed(Path(root), 0, "train", "pyarrow")


POPULARITY = np.full(CYCLE, 150, dtype=np.int64)


def recipe(name: str) -> Recipe:
    return Recipe(
        target=name,
        dim=16,
        layers=1,
        dropout=0.1,
        negatives=16,
        negative_power=0.5,
        batch_size=128,
        max_length=FEED_LENGTH,
        learning_rate=5e-3,
        embedding_ratio=12.0,
    )


@pytest.mark.parametrize("name", NEURAL)
def test_every_target_learns_a_planted_cycle(feed, name):
    fitted = fit_neural(feed, POPULARITY, recipe(name), steps=150, seed=0)
    cases = Cases.from_sessions([[k, (k + 1) % CYCLE, (k + 2) % CYCLE] for k in range(CYCLE)])
    assert (rank_cases(fitted.model, cases).ranks == 1).mean() > 0.9
    assert fitted.steps == 150
    assert fitted.learned == pytest.approx(150 * 128, rel=0.1)


def test_training_repeats_bit_for_bit_and_seeds_differ(feed):
    cases = [np.arange(4, dtype=np.int32)]
    first, again, other = (
        fit_neural(feed, POPULARITY, recipe("gru4rec"), steps=20, seed=seed).model.scores(cases)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_the_last_position_alone_gives_one_target_a_row(feed):
    fitted = fit_neural(feed, POPULARITY, recipe("gru4rec"), steps=10, seed=0, rows=32, last_only=True)
    assert fitted.learned in (320, 312)  # the last batch of a pass has 24 rows


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_a_handful_of_steps_is_a_training(feed, steps):
    fitted = fit_neural(feed, POPULARITY, recipe("stamp"), steps=steps, seed=0)
    assert fitted.steps == steps and np.isfinite(fitted.loss)


def test_batches_are_counted_as_they_come(feed):
    for rows in (None, 7):
        assert feed.batch_count(128, rows=rows) == len(list(feed.batches(128, seed=0, rows=rows)))
    assert feed.targets(CYCLE) == 600 * (FEED_LENGTH - 1)


def test_passes_are_turned_into_steps(feed):
    fitted = fit_neural(feed, POPULARITY, recipe("stamp"), passes=2, seed=0)
    assert fitted.steps == 2 * feed.batch_count(128)
    with pytest.raises(ValueError, match="either"):
        fit_neural(feed, POPULARITY, recipe("stamp"), seed=0)
