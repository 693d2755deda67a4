"""Difficulty: the same bits whatever the partitions, and the formulas as written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pyspark")
import pandas as pd  # noqa: E402
from pyspark.sql import functions as F  # noqa: E402

from prune_lib.difficulty import percentile_rank, score_sessions  # noqa: E402
from prune_lib.errors import BundleError, EnvironmentProblem, InputError  # noqa: E402
from prune_lib.experts import scoring, training  # noqa: E402
from prune_lib.experts.bundle import Bundle  # noqa: E402
from prune_lib.experts.feed import Feed, write_feed  # noqa: E402
from prune_lib.experts.settings import EXPERTS, SPREADS, Score, TrainSettings  # noqa: E402
from prune_lib.experts.training import train_experts  # noqa: E402
from prune_lib.popularity import popularity_band  # noqa: E402
from prune_lib.sessions.encoding import encode  # noqa: E402
from tests.spark.experts import (  # noqa: E402
    MAX_LENGTH,
    SCHEMA,
    SETTINGS,
    collected,
    random_bundle,
    random_mixture,
    random_sessions,
)

COLUMNS = [
    "difficulty",
    "raw_difficulty",
    *(f"difficulty_{kind}" for kind in EXPERTS),
    *(f"gate_{kind}" for kind in EXPERTS),
    "disagreement",
]


@pytest.fixture(scope="module")
def encoded(spark):
    frame = spark.createDataFrame(random_sessions(400), SCHEMA)
    return encode(frame, seed=1)


def window_starts(n: int) -> list[int]:
    """Where the first window that holds each of n clicks starts."""
    ends = [MAX_LENGTH]
    while ends[-1] < n:
        ends.append(min(ends[-1] + MAX_LENGTH // 2, n))
    return [max(0, next(end for end in ends if end > c) - MAX_LENGTH) for c in range(n)]


@pytest.fixture(scope="module")
def bundle(encoded):
    return random_bundle(encoded)


def with_sessions(encoded, sessions):
    return SimpleNamespace(**{**vars(encoded), "sessions": sessions})


@pytest.fixture(scope="module")
def scores(encoded, bundle):
    return collected(score_sessions(encoded, bundle))


def test_partitions_change_no_bit(encoded, bundle, scores):
    for partitions in (1, 8):
        again = with_sessions(encoded, encoded.sessions.repartition(partitions))
        pd.testing.assert_frame_equal(scores, collected(score_sessions(again, bundle)), check_exact=True)


def test_scores_are_the_formulas_by_the_experts_of_the_other_fold(encoded, bundle, scores):
    sessions = encoded.sessions.select("sid", "items", "fold").toPandas().set_index("sid")
    mixtures = [bundle.mixture(0), bundle.mixture(1)]
    bands = popularity_band(encoded.item_sessions)
    raw: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {}
    for sid, items, fold in sessions.itertuples():
        items = np.asarray(items)
        if len(items) < 2:
            continue
        # each click by itself, behind what the first window that holds it shows of the clicks before
        found = [
            mixtures[1 - fold](torch.from_numpy(items[start : c + 1].astype(np.int64))[None])
            for c, start in enumerate(window_starts(len(items)))
            if c > 0
        ]
        log_p, log_g = (np.concatenate([x[k][-1:].double().numpy() for x in found]) for k in (1, 2))
        raw[sid] = (-np.log(np.exp(log_p + log_g).sum(1)), bands[items[1:]], log_p, log_g)
    losses = np.concatenate([x[0] for x in raw.values()])
    band = np.concatenate([x[1] for x in raw.values()])
    expected = np.array([losses[band == b].mean() if (band == b).any() else 0 for b in range(20)])
    assert max(len(x[0]) for x in raw.values()) >= 1.5 * MAX_LENGTH - 1, "three windows"
    for row in scores.itertuples():
        if row.sid not in raw:
            assert all(pd.isna(getattr(row, column)) for column in COLUMNS)
            continue
        loss, its_bands, log_p, log_g = raw[row.sid]
        wanted = {
            "raw_difficulty": loss.mean(),
            "difficulty": (loss - expected[its_bands]).mean(),
            "disagreement": log_p.std(axis=1).mean(),
        }
        for e, kind in enumerate(EXPERTS):
            wanted[f"difficulty_{kind}"] = -log_p[:, e].mean()
            wanted[f"gate_{kind}"] = np.exp(log_g[:, e]).mean()
        for column, value in wanted.items():
            assert getattr(row, column) == pytest.approx(value, abs=2e-4), (row.sid, column)


def test_every_session_has_one_row_of_the_contract(encoded, scores):
    assert scores["sid"].tolist() == list(range(encoded.n_sessions))
    assert sorted(scores.columns) == sorted(["sid", *COLUMNS])
    short = encoded.sessions.where("n = 1").count()
    assert scores["difficulty"].isna().sum() == short > 0


def test_folds_never_score_themselves(encoded, bundle, scores):
    """With the models of fold 0 replaced, only the sessions of fold 1 change."""
    files = dict(bundle.files)
    other = random_mixture(encoded.item_sessions, 77).to_bytes()
    files["experts-fold0.safetensors"], files["gate-fold0.safetensors"] = other
    changed = collected(score_sessions(encoded, Bundle(files)))
    fold = encoded.sessions.select("sid", "fold").orderBy("sid").toPandas()["fold"]
    known = scores["raw_difficulty"].notna()
    same = scores["raw_difficulty"] == changed["raw_difficulty"]
    assert same[known & (fold == 0)].all()
    assert not same[known & (fold == 1)].any()


def test_the_estimate_ranks_as_the_exact_normaliser(encoded, bundle, scores):
    scored = score_sessions(encoded, bundle, exact_limit=0, negatives=32)
    assert (scored.info.normaliser, scored.info.negatives) == ("estimated", 32)
    estimated = collected(scored)
    assert estimated["raw_difficulty"].corr(scores["raw_difficulty"], method="spearman") > 0.98


def test_unknown_items_are_no_targets_and_too_many_are_refused(spark, encoded, bundle):
    sessions = [("a", [1, 2, 3]), ("b", [1, 999]), ("c", [999, 1]), ("d", [2])]
    frame = spark.createDataFrame(sessions, SCHEMA)
    small = encode(frame, seed=1)
    with pytest.raises(BundleError, match="another vocabulary.*999"):
        score_sessions(small, bundle)
    found = collected(score_sessions(small, bundle, max_unknown=0.5))
    assert found["difficulty"].isna().tolist() == [False, True, False, True]


def test_sessions_of_length_one_only(spark, encoded, bundle):
    frame = spark.createDataFrame([("a", [1]), ("b", [2])], SCHEMA)
    ones = encode(frame, seed=1)
    assert collected(score_sessions(ones, bundle))["difficulty"].isna().all()
    with pytest.raises(InputError, match="length 1"):
        train_experts(ones, SETTINGS, "unused-folder", progress=False)


def test_percentile_rank_is_the_middle_of_ties_and_none_without_a_score(spark):
    values = [3.0, 1.0, 1.0, None, 2.0, -0.00001]
    frame = spark.createDataFrame(list(enumerate(values)), "sid BIGINT, difficulty DOUBLE")
    q = [row["q"] for row in percentile_rank(frame, "difficulty").orderBy("sid").collect()]
    assert q.pop(3) is None
    assert q == pytest.approx([0.9, 0.4, 0.4, 0.7, 0.1])


def test_bands_are_whole_powers_of_two():
    assert popularity_band(np.array([0, 1, 2, 3, 4, 7, 8, 2**20 - 1])).tolist() == [
        0, 0, 1, 1, 2, 2, 3, 19,
    ]  # fmt: skip


def feed_content(folder):
    parts = [Feed(folder, fold, part, "pyarrow") for fold in (0, 1) for part in ("train", "gate", "holdout")]
    return [batch.tolist() for part in parts for batch in part.batches(64)]


def test_the_feed_is_the_same_whatever_the_partitions(encoded, tmp_path):
    contents = []
    for partitions in (1, 5):
        folder = tmp_path / str(partitions)
        write_feed(
            encoded.sessions.repartition(partitions),
            folder,
            n_items=encoded.n_items,
            max_length=MAX_LENGTH,
            rows_per_file=30,
        )
        contents.append(feed_content(folder))
    assert contents[0] == contents[1]
    rows = [row for batch in contents[0] for row in batch]
    assert len(rows) == encoded.sessions.where("n >= 2").count()
    ends = {tuple(x for x in row if x != encoded.n_items) for row in rows}
    sessions = encoded.sessions.where("n >= 2").select(F.slice("items", -2, 2).alias("i")).collect()
    assert {row[-2:] for row in ends} == {tuple(row["i"]) for row in sessions}


def test_early_stopping_is_decided_by_the_newest_sessions_that_nothing_is_trained_on(spark, tmp_path):
    sessions = random_sessions(900).assign(ordering=range(900))
    made = encode(spark.createDataFrame(sessions, f"{SCHEMA}, ordering BIGINT"), seed=0)
    lengths = {"n_items": made.n_items, "max_length": MAX_LENGTH}
    written = write_feed(made.sessions, tmp_path / "feed", recent=60, **lengths)
    assert written == made.sessions.where("n > 1").count(), "those of `recent` are in `gate`, too"
    in_order = made.sessions.where("n > 1").orderBy(F.desc("sid"))
    for fold in (0, 1):
        parts = {
            part: [
                tuple(x for x in row if x != made.n_items)
                for batch in Feed(tmp_path / "feed", fold, part, "pyarrow").batches(64)
                for row in batch.tolist()
            ]
            for part in ("gate", "recent")
        }
        assert set(parts["recent"]) <= set(parts["gate"])
        gate = [
            tuple(row["items"][-MAX_LENGTH:])
            for row in in_order.where((F.col("fold") == fold) & (F.col("slice") == 0)).collect()
        ]
        gate = [items for items in gate if items in set(parts["gate"])]
        newest = gate[: len(parts["recent"])]
        assert sorted(newest) == sorted(parts["recent"]), "from the newest on"
        assert 30 <= sum(len(items) - 1 for items in newest) <= 120


@pytest.fixture(scope="module")
def trained(encoded, tmp_path_factory):
    """A folder, and the two bundles in it: the second training begins and ends while the first is at it."""
    folder, run, second = tmp_path_factory.mktemp("trained"), training.run_rounds, []

    def train(name):
        return train_experts(encoded, SETTINGS, folder / name, progress=False, source="test")

    with pytest.MonkeyPatch.context() as patched:

        def meanwhile(work, processes):
            patched.setattr(training, "run_rounds", run)
            second.append(train("again"))
            run(work, processes)

        patched.setattr(training, "run_rounds", meanwhile)
        return folder, train("experts"), *second


def test_train_and_score_end_to_end(encoded, trained):
    folder, first, second = trained
    assert first.hash == second.hash
    assert sorted(file.name for file in folder.iterdir()) == ["again", "experts"]
    scored = score_sessions(encoded, Bundle.load(folder / "experts"))
    assert scored.info.experts == first.version
    assert scored.info.scored_sessions == encoded.sessions.where("n >= 2").count()
    scored.unpersist()


def test_training_on_sparks_tasks_is_training_on_the_driver(encoded, trained, tmp_path):
    on_tasks = SETTINGS.model_copy(update={"distributor": "spark", "processes": 2})
    found = train_experts(encoded, on_tasks, tmp_path / "tasks", progress=False, source="test")
    assert found.hash == trained[1].hash
    too_many = SETTINGS.model_copy(update={"distributor": "spark", "processes": 6})
    with pytest.raises(EnvironmentProblem, match="room for 2 tasks"):
        train_experts(encoded, too_many, tmp_path / "experts", progress=False)


def test_a_worker_keeps_one_bundle(encoded):
    one = random_mixture(encoded.item_sessions, 0).to_bytes()
    scoring._MIXTURES.clear()
    first = scoring.cached_mixture(("x", 0, "cpu", 0, False), lambda: (*one, None))
    assert scoring.cached_mixture(("x", 0, "cpu", 0, False), lambda: (*one, None)) is first
    scoring.cached_mixture(("y", 0, "cpu", 0, False), lambda: (*one, None))
    assert list(scoring._MIXTURES) == [("y", 0, "cpu", 0, False)]


def test_a_sample_is_scored_as_the_last_click_of_its_prefix(encoded, bundle, scores):
    """The losses of a session's prefixes differ by the loss of one click; means are those of the samples."""
    samples = collected(score_sessions(encoded, bundle, by_sample=True)).sort_values(["sid", "length"])
    sessions = encoded.sessions.select("sid", "n").toPandas().set_index("sid")["n"]
    longest = samples.groupby("sid")["length"].max()
    assert (longest == sessions[longest.index]).all()
    counted = samples.groupby("sid")["length"].nunique()
    assert (counted == sessions[counted.index] - 1).all(), "those of long sessions, too, and each once"
    assert len(samples) == counted.sum() and sessions.max() > MAX_LENGTH
    means = samples.groupby("sid")[
        ["raw_difficulty", "difficulty", "difficulty_rnn", "gate_gnn", "disagreement"]
    ].mean()
    whole = scores.set_index("sid").loc[means.index, means.columns]
    np.testing.assert_allclose(means, whole, atol=2e-4)
    shorter = encoded.sessions.withColumn("items", F.slice("items", 1, F.size("items") - 1)).where("n > 2")
    before = collected(score_sessions(with_sessions(encoded, shorter), bundle)).set_index("sid")[
        "raw_difficulty"
    ]
    last = samples.groupby("sid").last()["raw_difficulty"]
    short = sessions[(sessions > 2) & (sessions <= MAX_LENGTH)].index
    both = (before[short] * (sessions[short] - 2) + last[short]) / (sessions[short] - 1)
    np.testing.assert_allclose(both, scores.set_index("sid").loc[short, "raw_difficulty"], atol=2e-4)


def test_el2n_margin_and_entropy_are_those_of_the_mixtures_distribution(encoded, bundle):
    """Against the whole distribution, written down."""
    session = encoded.sessions.where(f"n BETWEEN 3 AND {MAX_LENGTH} AND fold = 0").orderBy("sid").first()
    items = session["items"]
    mixture = bundle.mixture(1)
    mixture.prepare()
    row = torch.tensor(items)[None]
    valid, log_p, log_g, found = mixture.with_spread(row)
    inputs = row[:, :-1]
    p = 0.0
    for e, expert in enumerate(mixture.experts):
        scores = expert.states(inputs)[0] @ expert.output_table().T + expert.bias[: mixture.n_items]
        p = p + log_g[:, e].exp()[:, None] * torch.softmax(scores.double(), dim=1)
    target = torch.nn.functional.one_hot(row[0, 1:], mixture.n_items).double()
    others = p.masked_fill(target.bool(), 0.0)
    own = (p * target).sum(dim=1)
    expected = torch.stack(
        [(p - target).norm(dim=1), others.amax(dim=1).log() - own.log(), -(p * p.log()).sum(dim=1)], dim=1
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        own.log(), torch.logsumexp(log_p + log_g, dim=1).double(), atol=1e-5, rtol=1e-4
    )
    for k, score in enumerate(SPREADS):
        one = with_sessions(encoded, encoded.sessions.where(F.col("sid") == session["sid"]))
        mean = collected(score_sessions(one, bundle, score=score))["difficulty"].item()
        assert mean == pytest.approx(float(expected[:, k].mean()), abs=2e-4)


def test_noise_is_hard_and_repeated_patterns_are_easy_by_every_score(spark, tmp_path):
    """Planted: twenty walks that forty sessions each take, and sessions of items at random."""
    random = np.random.default_rng(3)
    walks = [random.permutation(120)[:6].tolist() for _ in range(20)]
    sessions = [walks[k % 20] for k in range(800)] + random.integers(0, 120, (200, 6)).tolist()
    frame = pd.DataFrame({"session_id": [f"s{k:04d}" for k in range(1000)], "items": sessions})
    made = encode(spark.createDataFrame(frame, SCHEMA), seed=0)
    settings = TrainSettings(dim=16, epochs=6, batch_size=64, max_length=8, snapshots=True)
    trained = train_experts(made, settings, tmp_path / "experts", progress=False)
    for score in get_args(Score):
        scored = score_sessions(made, trained, score=score)
        ranked = percentile_rank(scored.scores, "difficulty", digits=6).join(
            made.sessions.select("sid", "session_id"), "sid"
        )
        q = ranked.toPandas().set_index("session_id")["q"].sort_index()
        scored.unpersist()
        assert q.between(0, 1).all()
        assert q.iloc[800:].mean() > q.iloc[:800].mean() + 0.2, score
