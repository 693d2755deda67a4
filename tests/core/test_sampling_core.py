"""The sampler's arithmetic and the lazy greedy, against the short references. No JVM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_lib.compiled import compiled
from prune_lib.patterns import session_edges
from prune_lib.popularity import gini, popularity_bands
from prune_lib.sampling.gains import FULL, GAIN_UNIT, Objective, contributions, sum_by_row
from prune_lib.sampling.greedy import lazy_greedy
from prune_lib.settings import SamplingSettings
from tests.core.plain_greedy import plain_lazy_greedy
from tests.reference import Graph, build_graph, greedy, objective

UNIT = 6
Sessions = list[list[int]]

sessions_of_few_items = st.lists(
    st.lists(st.integers(0, 11), min_size=1, max_size=7), min_size=2, max_size=40
)


def run_lazy(
    graph: Graph, cost: np.ndarray, budget: int, scale: np.ndarray | None = None
) -> tuple[list[int], Objective, bool]:
    """The exact sampler's greedy on a reference graph."""
    state = Objective.empty(graph.weight, np.zeros(graph.weight.size, dtype=bool), UNIT)
    choice = lazy_greedy(
        graph.indptr[1:],
        graph.pattern.astype(np.int32),
        np.rint(graph.message * UNIT).astype(np.int32),
        (np.ones(cost.size) if scale is None else scale) / cost,
        cost,
        np.arange(cost.size),
        np.arange(cost.size),
        state,
        budget,
    )
    return choice.rows.tolist(), state, choice.full


def random_sessions(seed: int, n: int = 300, items: int = 80) -> Sessions:
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, items + 1)
    weights /= weights.sum()
    return [list(map(int, rng.choice(items, rng.integers(1, 9), p=weights))) for _ in range(n)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_lazy_greedy_reaches_the_sequential_greedys_objective(seed: int, ratio: float) -> None:
    sessions = random_sessions(seed)
    graph = build_graph(sessions, age=np.linspace(1, 0, len(sessions)))
    cost = np.array([len(s) for s in sessions])
    budget = int(ratio * cost.sum())
    ours, state, _ = run_lazy(graph, cost, budget)
    theirs = greedy(graph, cost, budget)
    assert objective(graph, ours) >= 0.999 * objective(graph, theirs), f"seed {seed}"
    assert state.value() == pytest.approx(objective(graph, ours), rel=1e-9)
    assert cost[ours].sum() <= budget


@pytest.mark.parametrize("case", range(3))
def test_apricots_picks_are_greedys(case: int) -> None:
    """Against `FeatureBasedSelection`, all patterns of one weight and all sessions of one price.

    The golden file is apricot's own answer (benchmarks/against_apricot.py --golden). Many sessions tie, and
    either may take another of them; so apricot's picks are replayed: each gains by our arithmetic what
    apricot says, and no session would have gained more. Ours ends as high.
    """
    golden = json.loads((Path(__file__).parent / "golden_apricot.json").read_text())[case]
    items, lengths = np.array(golden["items"], np.int32), np.array(golden["lengths"])
    code, message, edges = session_edges(items, lengths, n_items=80, max_distance=3)
    pattern = code.astype(np.int32)
    patterns, rows = int(code.max()) + 1, lengths.size
    ends, k = np.cumsum(edges), len(golden["picks"])

    def empty() -> Objective:
        return Objective.empty(np.full(patterns, 1 / patterns), np.zeros(patterns, dtype=bool), UNIT)

    theirs = empty()
    for pick, gain in zip(golden["picks"], golden["gains"], strict=True):
        each = contributions(theirs.offer(), theirs.saturation(FULL * UNIT), pattern, message)
        gains = sum_by_row(each, edges) / GAIN_UNIT * patterns
        assert gains[pick] == pytest.approx(gain, rel=1e-9)
        assert gains[pick] == pytest.approx(gains.max(), rel=1e-9)
        own = slice(ends[pick] - edges[pick], ends[pick])
        theirs.add(pattern[own].astype(np.int64), message[own].astype(np.int64))
    ours, ones = empty(), np.ones(rows, dtype=np.int64)
    chosen = lazy_greedy(ends, pattern, message, np.ones(rows), ones, ones, np.arange(rows), ours, k)
    assert chosen.rows.size == k
    assert ours.value() == pytest.approx(theirs.value(), rel=0.01)


@pytest.mark.parametrize("cap", [None, 1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_the_compiled_loop_is_the_plain_one_bit_for_bit(seed: int, cap: int | None) -> None:
    """With evidence from before, cold items, ties among keys and prices of all sizes."""
    rng = np.random.default_rng(seed)
    sessions = random_sessions(seed, n=400, items=60)
    sessions += [sessions[int(k)] for k in rng.integers(0, 400, 40)]
    graph = build_graph(sessions, age=np.linspace(1, 0, len(sessions)))
    n, v = len(sessions), graph.weight.size
    evidence = np.where(rng.random(v) < 0.3, rng.integers(0, 50 * UNIT, v), 0)
    cold = rng.random(v) < 0.4
    found = []
    for run in (lazy_greedy, plain_lazy_greedy):
        caps = None if cap is None else np.full(v, cap, dtype=np.int64)
        state = Objective(graph.weight, cold, UNIT, caps, evidence.astype(np.int64).copy())
        result = run(
            graph.indptr[1:],
            graph.pattern.astype(np.int32),
            np.rint(graph.message * UNIT).astype(np.int32),
            np.exp(-np.round(rng_scale(seed, n), 2)),
            rng_price(seed, n),
            np.random.default_rng(seed + 9).integers(0, 50, n),
            np.random.default_rng(seed + 10).permutation(n),
            state,
            500,
        )
        found.append((result, state.evidence))
    (choice, after), ((order, facts, full), plain_after) = found
    assert choice.rows.tolist() == order and len(order) > 20 and choice.full == full
    assert choice.edges >= graph.pattern.size
    columns = (choice.key, choice.gain, choice.gain_new, choice.gain_cold)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == facts
    assert (after == plain_after).all()


@pytest.mark.parametrize("seed", range(4))
def test_greedy_ends_and_goes_on_anywhere_in_its_order(seed: int) -> None:
    """Cut at the place of some session, and begun anew with the keys as bounds: the same picks."""
    rng = np.random.default_rng(seed)
    sessions = random_sessions(seed, n=300, items=50)
    graph = build_graph(sessions, age=np.linspace(1, 0, len(sessions)))
    n = len(sessions)
    ends, lengths = graph.indptr[1:], np.diff(graph.indptr)
    message = np.rint(graph.message * UNIT).astype(np.int32)
    # Few ties and few scales, so that keys, and ties of keys, are equal often.
    scale, tie, price = rng.integers(1, 3, n) / 2.0, rng.integers(0, 3, n), np.ones(n, dtype=np.int64)

    def greedy_of(rows: np.ndarray, state: Objective, budget: int, **how):
        edges = np.concatenate([np.arange(ends[r] - lengths[r], ends[r]) for r in rows])
        return lazy_greedy(
            np.cumsum(lengths[rows]),
            graph.pattern.astype(np.int32)[edges],
            message[edges],
            scale[rows],
            price[rows],
            tie[rows],
            rows,
            state,
            budget,
            **how,
        )

    whole = Objective.empty(graph.weight, np.zeros(graph.weight.size, dtype=bool), UNIT)
    all_rows = rng.permutation(n)
    wanted = greedy_of(all_rows, whole, 150)
    order = all_rows[wanted.rows]
    for cut in (1, 40, 99):
        state = Objective.empty(graph.weight, np.zeros(graph.weight.size, dtype=bool), UNIT)
        place = (float(wanted.key[cut]), int(tie[order[cut]]), int(order[cut]))
        one = greedy_of(all_rows, state, 150, before=place)
        assert all_rows[one.rows].tolist() == order[:cut].tolist() and not one.full
        left = np.setdiff1d(np.arange(n), one.rows)
        bound = one.bound[left]
        two = greedy_of(all_rows[left], state, 150 - cut, key=bound)
        assert all_rows[left][two.rows].tolist() == order[cut:].tolist()
        assert (state.evidence == whole.evidence).all()


def test_where_nothing_can_be_kept_on_disk_the_loop_is_compiled_all_the_same(monkeypatch) -> None:
    def njit(function=None, *, cache=False):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return "compiled", function

    monkeypatch.setattr("prune_lib.compiled.numba.njit", njit)
    assert compiled(len) == ("compiled", len)


def rng_scale(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed + 7).random(n)


def rng_price(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed + 8).integers(1, 9, n)


@settings(max_examples=60, deadline=None)
@given(sessions_of_few_items, st.integers(0, 60), st.integers(0, 60))
def test_a_smaller_budget_is_a_prefix(sessions: Sessions, one: int, other: int) -> None:
    graph = build_graph(sessions)
    cost = np.array([len(s) for s in sessions])
    small, large = sorted((one, other))
    short, _, _ = run_lazy(graph, cost, small)
    long, _, _ = run_lazy(graph, cost, large)
    assert short == long[: len(short)]
    if len(short) < len(long):
        assert cost[long[: len(short) + 1]].sum() > small, "the next pick would still have fitted"


@settings(max_examples=60, deadline=None)
@given(sessions_of_few_items)
def test_gains_fall_as_sessions_are_kept(sessions: Sessions) -> None:
    """Submodularity, on which laziness rests: no gain grows when something else is kept."""
    graph = build_graph(sessions)
    state = Objective.empty(graph.weight, np.zeros(graph.weight.size, dtype=bool), UNIT)
    message = np.rint(graph.message * UNIT).astype(np.int32)
    lengths = np.diff(graph.indptr)

    def gains() -> np.ndarray:
        each = contributions(
            state.offer(), state.saturation(FULL * UNIT), graph.pattern.astype(np.int32), message
        )
        return sum_by_row(each, lengths)

    before = gains()
    patterns, _ = graph.row(0)
    state.add(patterns, message[: patterns.size])
    assert (gains() <= before).all()


def test_the_gain_is_the_objectives_increase() -> None:
    sessions = random_sessions(7, n=40)
    graph = build_graph(sessions)
    cost = np.array([len(s) for s in sessions])
    state = Objective.empty(graph.weight, np.zeros(graph.weight.size, dtype=bool), UNIT)
    choice = lazy_greedy(
        graph.indptr[1:],
        graph.pattern.astype(np.int32),
        np.rint(graph.message * UNIT).astype(np.int32),
        1 / cost,
        cost,
        np.arange(cost.size),
        np.arange(cost.size),
        state,
        60,
    )
    order = choice.rows.tolist()
    facts = zip(choice.key, choice.gain, choice.gain_new, choice.gain_cold, strict=True)
    for k, (key, gain, new, cold) in enumerate(facts):
        rise = objective(graph, order[: k + 1]) - objective(graph, order[:k])
        assert gain / GAIN_UNIT == pytest.approx(rise, abs=1e-12)
        assert key == pytest.approx(rise / cost[order[k]], abs=1e-12)
        assert 0 <= new <= gain and cold == 0


def test_easy_sessions_come_first_where_kappa_is_positive() -> None:
    """Two sessions with the same patterns, one of them hard: the factor exp(-kappa x) decides."""
    sessions = [[1, 2], [1, 2], [3, 4], [3, 4]]
    graph = build_graph(sessions)
    cost = np.array([2, 2, 2, 2])
    order, _, _ = run_lazy(graph, cost, 4, np.exp(-0.5 * np.array([0.9, 0.1, 0.1, 0.9])))
    assert sorted(order) == [1, 2]


def test_a_capped_objective_is_set_cover() -> None:
    weight = np.full(4, 2.0**-12)
    state = Objective.empty(weight, np.zeros(4, dtype=bool), 1, cap=np.ones(4, dtype=np.int64))
    # Rows {0,1,2}, {0}, {3}, {2,3}: by items per unit price the first, then one with item 3.
    choice = lazy_greedy(
        np.array([3, 4, 5, 7]),
        np.array([0, 1, 2, 0, 3, 2, 3], dtype=np.int32),
        np.ones(7, dtype=np.int32),
        np.ones(4),
        np.ones(4, dtype=np.int64),
        np.arange(4),
        np.arange(4),
        state,
        99,
    )
    assert choice.rows.tolist() == [0, 2] and not choice.full
    assert (state.evidence >= 1).all()


def test_sums_by_row_survive_a_wrapping_total() -> None:
    big = np.full(5, 2**62, dtype=np.int64)
    assert sum_by_row(big, np.ones(5, dtype=np.int64)).tolist() == big.tolist()


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200))
def test_bands_split_by_popularity(counts: list[int]) -> None:
    counts_array = np.array(counts)
    bands = popularity_bands(counts_array)
    cold = counts_array[bands.cold(counts_array)]
    popular = counts_array[counts_array >= bands.popular_min]
    assert cold.sum() <= 0.1 * counts_array.sum() + 1e-9 or set(cold) == {min(counts)}
    assert bool(cold.size) == bool(popular.size) == (len(set(counts)) > 1)
    assert not set(cold) & set(popular)
    assert popular.sum() <= 0.5 * counts_array.sum() + 1e-9 or set(popular) == {counts_array.max()}


def test_gini_by_its_definition() -> None:
    values = np.random.default_rng(0).integers(0, 50, 60)
    pairs = np.abs(values[:, None] - values[None, :]).sum()
    assert gini(values) == pytest.approx(pairs / (2 * values.size * values.sum()))


def test_the_largest_weight_of_the_items_does_not_overflow_a_gain() -> None:
    """All target items in one session, at once: it was a negative gain, and the best session came last."""
    largest = next(m.le for m in SamplingSettings.model_fields["lambda_items"].metadata if hasattr(m, "le"))
    objective = Objective.empty(np.full(4, largest / 4), np.zeros(4, dtype=bool), 6)
    saturation = objective.saturation(FULL * 6)
    patterns, messages = np.arange(4, dtype=np.int32), np.full(4, FULL * 6, dtype=np.int32)
    gains = contributions(objective.offer(), saturation, patterns, messages)
    assert (gains > 0).all() and gains.sum() / GAIN_UNIT == pytest.approx(largest, rel=1e-6)
