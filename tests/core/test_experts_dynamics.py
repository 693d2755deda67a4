"""Scores over epochs: what they are by hand, and the experts of every epoch through their bytes."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from prune_lib.experts.dynamics import dynamics_of, snapshots_from_bytes, snapshots_to_bytes  # noqa: E402
from prune_lib.experts.mixture import Mixture, standardised_log_popularity  # noqa: E402
from prune_lib.experts.models import Gate, make_expert  # noqa: E402
from prune_lib.experts.settings import EXPERTS  # noqa: E402

POPULARITY = np.arange(30, 0, -1, dtype=np.int64)


def experts(seed: int) -> list:
    torch.manual_seed(seed)
    return [make_expert(kind, POPULARITY, dim=8, max_length=6, dropout=0.0).eval() for kind in EXPERTS]


def test_forgetting_is_what_was_lost_and_variability_that_of_the_second_half():
    log_p = torch.tensor(
        [[-5.0, -3.0, -4.0, -2.0, -2.5, -2.5], [-5.0, -4.0, -3.0, -2.0, -2.0, -2.0], [-1.0] * 6]
    )
    found = dynamics_of(log_p)
    assert found[:, 0].tolist() == pytest.approx([1.5, 0.0, 0.0])
    assert found[:, 1].tolist() == pytest.approx([np.std([-2.0, -2.5, -2.5]), 0.0, 0.0])
    assert dynamics_of(log_p[:, :1]).tolist() == [[0.0, 0.0]] * 3
    assert dynamics_of(log_p[:1, :2])[0].tolist() == pytest.approx([0.0, 1.0])


def test_an_expert_that_stopped_stands_as_it_stopped():
    """Losses over epochs are those of the epochs' own experts, uniformly mixed."""
    by_epoch = [experts(seed) for seed in range(3)]
    kept = [
        {kind: e.state_dict() for kind, e in zip(EXPERTS, of, strict=True) if not (k == 2 and kind == "rnn")}
        for k, of in enumerate(by_epoch)
    ]
    mixture = Mixture(experts(9), Gate(), standardised_log_popularity(POPULARITY)).eval()
    content = snapshots_to_bytes(kept)
    again = snapshots_from_bytes(content, list(mixture.experts))
    assert [len(of) for of in again] == [3, 3, 3] and again[2][1] is again[1][1]
    mixture.take_snapshots(content)
    items = torch.randint(0, 30, (5, 6))
    valid, log_p, log_g, found = mixture.with_dynamics(items)
    plain = mixture(items)
    assert all(torch.equal(a, b) for a, b in zip(plain, (valid, log_p, log_g), strict=True))
    by_epoch[2][1] = by_epoch[1][1]
    expected = []
    for of_epoch in by_epoch:
        one = Mixture(of_epoch, Gate(), standardised_log_popularity(POPULARITY)).eval()
        expected.append(one(items)[1].logsumexp(dim=1))
    torch.testing.assert_close(found, dynamics_of(torch.stack(expected, dim=1)), atol=1e-5, rtol=1e-4)


def test_experts_that_were_never_trained_forget_nothing():
    mixture = Mixture(experts(0), Gate(), standardised_log_popularity(POPULARITY)).eval()
    mixture.take_snapshots(snapshots_to_bytes([]))
    found = mixture.with_dynamics(torch.randint(0, 30, (2, 4)))[3]
    assert found.tolist() == [[0.0, 0.0]] * 6
