"""The three experts are causal, ignore padding, and the gate starts uniform."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from prune_lib.experts.mixture import Mixture, SharedNegatives, standardised_log_popularity  # noqa: E402
from prune_lib.experts.models import Dropout, Expert, Gate, make_expert  # noqa: E402
from prune_lib.experts.settings import EXPERTS  # noqa: E402

N_ITEMS, DIM, LENGTH = 30, 16, 12


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def expert(kind: str) -> Expert:
    popularity = np.arange(N_ITEMS, 0, -1, dtype=np.int64)
    return make_expert(kind, popularity, dim=DIM, max_length=LENGTH, dropout=0.3).eval()


@pytest.mark.parametrize("kind", EXPERTS)
def test_a_later_item_never_changes_an_earlier_state(kind):
    model = expert(kind)
    items = torch.randint(0, N_ITEMS, (20, LENGTH - 1))
    items[:, 3] = items[:, 0]  # repeats, so that the graph has more than a path
    before = model.states(items)
    for position in range(1, LENGTH - 1):
        changed = items.clone()
        changed[:, position] = (changed[:, position] + 7) % N_ITEMS
        after = model.states(changed)
        assert torch.allclose(before[:, :position], after[:, :position], atol=1e-6)
        assert not torch.allclose(before[:, position], after[:, position], atol=1e-3)


@pytest.mark.parametrize("kind", EXPERTS)
def test_padding_changes_nothing(kind):
    model = expert(kind)
    items = torch.randint(0, N_ITEMS, (20, 5))
    padded = torch.nn.functional.pad(items, (0, 4), value=N_ITEMS)
    assert torch.allclose(model.states(items), model.states(padded)[:, :5], atol=1e-6)


def test_the_graph_expert_sees_neighbours_and_repeats():
    """State of the last item differs when its earlier occurrence had another successor."""
    model = expert("gnn")
    one = torch.tensor([[1, 2, 3, 1]])
    other = torch.tensor([[1, 4, 3, 1]])
    assert not torch.allclose(model.states(one)[0, 3], model.states(other)[0, 3], atol=1e-4)


@pytest.mark.parametrize("kind", EXPERTS)
def test_unknown_items_are_not_one_item_clicked_again(kind):
    """Two that the model does not know share a row of its table; they stand as any two different items do."""
    model = expert(kind)
    with torch.no_grad():
        model.weight[[5, 6]] = 0.0
    known = torch.tensor([[5, 1, 6, 2]])
    unknown = torch.tensor([[N_ITEMS, 1, N_ITEMS, 2]])
    assert torch.equal(model.states(known), model.states(unknown))


def mixture() -> Mixture:
    popularity = np.arange(N_ITEMS, 0, -1, dtype=np.int64)
    return Mixture([expert(kind) for kind in EXPERTS], Gate(), standardised_log_popularity(popularity)).eval()


def test_log_probabilities_are_those_of_the_whole_softmax():
    model = mixture()
    items = torch.randint(0, N_ITEMS, (6, 5))
    items[0, 3:] = N_ITEMS
    with torch.no_grad():
        expected = [
            torch.log_softmax(one.states(items[:, :-1]) @ one.output_table().T + one.bias[:N_ITEMS], -1)
            for one in model.experts
        ]
    valid, log_p, _ = model(items)
    assert valid.tolist()[0] == [True, True, False, False]
    targets = items[:, 1:, None].clamp(max=N_ITEMS - 1)
    for e, of_expert in enumerate(expected):
        assert torch.allclose(log_p[:, e], of_expert.gather(2, targets)[..., 0][valid], atol=1e-5)


def test_an_untrained_gate_is_the_uniform_mixture():
    _, _, log_g = mixture()(torch.randint(0, N_ITEMS, (6, 5)))
    assert torch.allclose(log_g, torch.full_like(log_g, -math.log(3)))


def test_a_mixture_survives_its_bytes():
    model = mixture()
    items = torch.randint(0, N_ITEMS, (6, 5))
    again = Mixture.from_bytes(*model.to_bytes())
    for one, two in zip(model(items), again(items), strict=True):
        assert torch.equal(one, two)


def test_unknown_inputs_are_a_zero_embedding_and_unknown_targets_are_left_out():
    model = mixture()
    items = torch.tensor([[1, N_ITEMS, 2, 3]])
    valid, log_p, _ = model(items)
    assert valid.tolist() == [[False, True, True]]
    assert torch.isfinite(log_p).all()
    assert all(not one.weight[N_ITEMS].any() for one in model.experts)


def test_shared_negatives_stand_for_every_item_once():
    shared = SharedNegatives.of(100, 30)
    assert shared.items[:15].tolist() == list(range(15)) and shared.weight[:15].eq(1).all()
    assert len(set(shared.items.tolist())) == 30 and shared.weight.sum() == 100
    assert torch.equal(shared.items, SharedNegatives.of(100, 30).items)


def test_the_estimate_is_exact_where_the_negatives_are_all_items():
    model, items = mixture(), torch.randint(0, N_ITEMS, (6, 5))
    _, exact, _ = model(items)
    model.prepare(negatives=N_ITEMS)
    _, estimated, _ = model(items)
    assert torch.allclose(exact, estimated, atol=1e-5)
    model.prepare(negatives=20)  # sampled, but the target always enters as it is
    _, estimated, _ = model(items)
    assert (estimated < 0).all() and not torch.allclose(exact, estimated, atol=1e-3)


def test_dropout_keeps_the_mean_in_training_and_everything_else_afterwards():
    drop, x = Dropout(0.3), torch.full((400, 500), 2.0)
    dropped = drop.train()(x)
    assert abs((dropped == 0).float().mean().item() - 0.3) < 0.01
    assert torch.allclose(dropped[dropped != 0], torch.tensor(2.0 / 0.7))
    assert torch.equal(drop.eval()(x), x)


def test_a_mixture_is_read_without_torchs_compiler():
    # Every Python worker of Spark's reads one, and the compiler takes it a second to import.
    code = (
        "import sys, torch; from prune_lib.experts.models import Expert\n"
        "with torch.device('meta'):\n"
        f"    [Expert(kind, 9, 8, 4, 0.0) for kind in {EXPERTS!r}]\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_input_that_never_varied_does_not_take_the_gate_over():
    """All that it was trained on had two clicks: the position was 0 throughout, and later is not."""
    gate = Gate()
    inputs = torch.randn(200, 6, generator=torch.manual_seed(3))
    inputs[:, 2] = 0.0
    gate.standardise(inputs)
    torch.nn.init.normal_(gate.last.weight)
    later = inputs.clone()
    later[:, 2] = math.log(9)
    assert torch.equal(gate(later), gate(inputs))
