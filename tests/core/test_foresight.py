"""What experts foresee and would learn, against sums written out and torch's own gradients."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from prune_lib.evaluation import foresight  # noqa: E402
from prune_lib.evaluation.foresight import Clicks, forecast, influence, neighbours  # noqa: E402
from prune_lib.experts.mixture import Mixture, standardised_log_popularity  # noqa: E402
from prune_lib.experts.models import Gate, make_expert  # noqa: E402
from prune_lib.experts.settings import EXPERTS  # noqa: E402

N_ITEMS, MAX_LENGTH = 12, 6


def mixture(seed: int) -> Mixture:
    torch.manual_seed(seed)
    popularity = np.arange(N_ITEMS, 0, -1, dtype=np.int64)
    experts = [make_expert(kind, popularity, dim=8, max_length=MAX_LENGTH, dropout=0.0) for kind in EXPERTS]
    gate = Gate()
    torch.nn.init.normal_(gate.last.weight)
    return Mixture(experts, gate, standardised_log_popularity(popularity)).eval()


@pytest.fixture(scope="module")
def mixtures() -> dict[int, Mixture]:
    return {0: mixture(1), 1: mixture(2)}


@pytest.fixture(scope="module")
def clicks() -> Clicks:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 9, 30)  # some longer than the experts read
    items = random.integers(0, N_ITEMS, lengths.sum()).astype(np.int32)
    return Clicks(items, lengths, random.integers(0, 2, 30).astype(np.int32))


def prefixes(clicks: Clicks, session: int) -> list[list[int]]:
    """Those after which the experts are asked: of a long session the clicks at its end."""
    start = clicks.starts[session]
    items = clicks.items[start : start + clicks.lengths[session]].tolist()
    read = items[-MAX_LENGTH:]
    return [read[: n + 1] for n in range(len(read))]


def after(mixture: Mixture, prefix: list[int]) -> tuple[np.ndarray, np.ndarray, list]:
    """The gate, the experts' shares of all items, and their states, by the way that scoring goes."""
    # A target behind the prefix, one item after the other; the experts do not look at it.
    rows = torch.tensor([[*prefix, item] for item in range(N_ITEMS)])
    if rows.shape[1] > MAX_LENGTH:  # the last state needs no target: ask for it alone
        inputs = rows[:1, :-1]
        states = [expert.states(inputs)[0, -1].detach() for expert in mixture.experts]
        logits = [
            h @ e.output_table().T + e.bias[:N_ITEMS] for h, e in zip(states, mixture.experts, strict=True)
        ]
        shares = np.stack([torch.softmax(x, 0).numpy() for x in logits])
        log_z = [torch.logsumexp(x, 0)[None] for x in logits]
        last = torch.zeros(1, len(prefix), dtype=torch.bool)
        last[0, -1] = True
        from prune_lib.experts.models import gate_features

        features = gate_features(inputs, mixture.log_popularity, last, log_z)
        return mixture.gate(features)[0].exp().detach().numpy(), shares, states
    valid, log_p, log_g = mixture(rows)
    place = len(prefix) - 1
    of_last = log_p.reshape(N_ITEMS, len(prefix), -1)[:, place]
    states = [expert.states(rows[:1, :-1])[0, place].detach() for expert in mixture.experts]
    return log_g.reshape(N_ITEMS, len(prefix), -1)[0, place].exp().numpy(), of_last.exp().T.numpy(), states


@pytest.mark.parametrize("block", [7, 256])
def test_a_forecast_is_the_sum_over_all_prefixes(clicks, mixtures, monkeypatch, block):
    monkeypatch.setattr(foresight, "_PREFIXES", block)
    monkeypatch.setattr(foresight, "_SESSIONS", 3 if block == 7 else 128)
    random = np.random.default_rng(1)
    weight = random.random(30)
    pairs = random.permutation(N_ITEMS * N_ITEMS)[:60]
    first, second = (x.astype(np.int32) for x in np.divmod(pairs, N_ITEMS))
    by_item, by_pair = forecast(
        clicks, mixtures, weight, first, second, max_distance=3, max_length=MAX_LENGTH
    )
    wanted_item, wanted_pair = np.zeros(N_ITEMS), np.zeros(60)
    for session in range(30):
        whole = clicks.items[clicks.starts[session] :][: clicks.lengths[session]].tolist()
        for prefix in prefixes(clicks, session):
            gate, shares, _ = after(mixtures[clicks.fold[session]], prefix)
            share = weight[session] * gate @ shares
            wanted_item += share
            # Of a long session the clicks before those that are read count as transitions' first items, too.
            end = len(whole) - len(prefixes(clicks, session)) + len(prefix)
            for item in whole[max(0, end - 3) : end]:
                wanted_pair += np.where(first == item, share[second], 0.0)
    np.testing.assert_allclose(by_item, wanted_item, rtol=1e-4)
    np.testing.assert_allclose(by_pair, wanted_pair, rtol=1e-4, atol=1e-9)


def test_influence_is_the_product_of_the_gradients(clicks, mixtures):
    newest = np.arange(30) >= 20
    found = influence(clicks, mixtures, newest, max_length=MAX_LENGTH)

    def gradients(session: int) -> list[tuple[np.ndarray, list]]:
        """The gate and the experts' gradients by target."""
        mixture, out = mixtures[clicks.fold[session]], []
        read = prefixes(clicks, session)
        for prefix, longer in zip(read[:-1], read[1:], strict=True):
            gate, _, states = after(mixture, prefix)
            by_expert = []
            for h, expert in zip(states, mixture.experts, strict=True):
                table = expert.output_table().clone().requires_grad_(True)
                loss = -torch.log_softmax(table @ h + expert.bias[:N_ITEMS], 0)[longer[-1]]
                loss.backward()
                by_expert.append(table.grad)
            out.append((gate, by_expert))
        return out

    of_all = [gradients(session) for session in range(30)]
    for fold in (0, 1):
        new = [g for s in range(30) if newest[s] and clicks.fold[s] == fold for _, g in of_all[s]]
        aims = [sum(g[e] for g in new) / len(new) for e in range(len(EXPERTS))]
        for session in (s for s in range(30) if clicks.fold[s] == fold):
            along = [
                sum(gate[e] * float((g[e] * aims[e]).sum()) for e in range(len(EXPERTS)))
                for gate, g in of_all[session]
            ]
            if along:
                assert found[session] == pytest.approx(np.mean(along), rel=1e-3, abs=1e-6)
            else:
                assert np.isnan(found[session]) and clicks.lengths[session] == 1


def test_neighbours_are_the_nearest_by_both_folds(mixtures):
    found = neighbours(mixtures, 3)
    gnn = [m.experts[EXPERTS.index("gnn")].output_table().numpy() for m in mixtures.values()]
    near = sum(table @ table.T for table in gnn)
    np.fill_diagonal(near, -9)
    np.testing.assert_array_equal(found, np.argsort(-near, axis=1)[:, :3])
