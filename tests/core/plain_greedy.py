"""The exact sampler's loop in plain Python: what the compiled one must equal bit for bit."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

from prune_lib.sampling.gains import FULL, GAIN_UNIT, Ints, Objective, contributions, sum_by_row


def plain_lazy_greedy(
    ends: Ints,
    pattern: npt.NDArray[np.int32],
    message: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float64],
    price: Ints,
    tie: Ints,
    sid: Ints,
    objective: Objective,
    budget: int,
) -> tuple[list[int], list[tuple[float, int, int, int]], bool]:
    """As `prune_lib.sampling.greedy.lazy_greedy`; key, gain, gain_new, gain_cold of each pick."""
    starts = np.concatenate([[0], ends[:-1]])
    saturation = objective.saturation(min(int(message.max(initial=0)), FULL * objective.unit))
    survival = objective.survival()
    offer = objective.offer()
    gains = contributions(offer, saturation, pattern, message)
    keys = scale * (sum_by_row(gains, ends - starts) / GAIN_UNIT)
    rows = zip(keys.tolist(), tie.tolist(), sid.tolist(), strict=True)
    heap = [(-k, t, s, r) for r, (k, t, s) in enumerate(rows) if k > 0]
    heapq.heapify(heap)
    order: list[int] = []
    facts: list[tuple[float, int, int, int]] = []
    spent = 0
    while heap:
        _, t, s, r = heap[0]
        edges = slice(starts[r], ends[r])
        p = pattern[edges]
        now = contributions(offer, saturation, p, message[edges])
        gain = int(now.sum())
        key = float(scale[r] * (gain / GAIN_UNIT))
        entry = (-key, t, s, r)
        if key <= 0.0:
            heapq.heappop(heap)
            continue
        heapq.heapreplace(heap, entry)
        if heap[0] is not entry:
            continue
        if spent + price[r] > budget:
            return order, facts, True
        heapq.heappop(heap)
        spent += int(price[r])
        fresh = objective.evidence[p] == 0
        new = int(now[fresh].sum())
        cold = int(now[fresh & objective.cold[p]].sum())
        order.append(r)
        facts.append((key, gain, new, cold))
        objective.evidence[p] += message[edges]
        if objective.cap is None:
            kept = np.minimum(objective.evidence[p], FULL * objective.unit)
            offer[p] = objective.weight[p] * survival[kept] * GAIN_UNIT
        else:
            wanted = objective.evidence[p] < objective.cap[p]
            offer[p] = objective.weight[p] * np.where(wanted, 1.0, 0.0) * GAIN_UNIT
    return order, facts, False
