"""Kept scores: the same as computed ones, for the sessions, experts and code that they are of."""

from __future__ import annotations

import logging

import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyspark")
from prune_lib import score_store  # noqa: E402
from prune_lib.difficulty import score_sessions  # noqa: E402
from prune_lib.sessions.encoding import encode  # noqa: E402
from tests.spark.experts import SCHEMA, collected, random_bundle, random_sessions  # noqa: E402


@pytest.fixture(scope="module")
def sessions():
    return random_sessions(150)


@pytest.fixture(scope="module")
def encoded(spark, sessions):
    return encode(spark.createDataFrame(sessions, SCHEMA), seed=1)


@pytest.fixture(scope="module")
def bundle(encoded):
    return random_bundle(encoded)


def kept(spark, workspace) -> pd.DataFrame:
    return spark.read.format("delta").load(f"{workspace}/scores").toPandas()


def test_a_second_run_scores_nothing_and_says_the_same(spark, encoded, bundle, tmp_path):
    anew = score_sessions(encoded, bundle)
    first = score_sessions(encoded, bundle, workspace=str(tmp_path))
    second = score_sessions(encoded, bundle, workspace=str(tmp_path))
    assert (first.info.reused_sessions, second.info.reused_sessions) == (0, anew.info.scored_sessions)
    assert second.persisted.isEmpty()
    scores = collected(anew)
    pd.testing.assert_frame_equal(collected(first), scores)
    pd.testing.assert_frame_equal(collected(second)[scores.columns], scores)
    assert sorted(kept(spark, tmp_path)["session_id"]) == sorted(
        row["session_id"] for row in encoded.sessions.where("n > 1").collect()
    )


def test_the_next_night_only_what_is_new_or_changed_is_scored(spark, sessions, encoded, bundle, tmp_path):
    """Items' order by popularity changes, sessions come, go and grow; what is kept of the others holds."""
    score_sessions(encoded, bundle, workspace=str(tmp_path)).unpersist()
    tonight = sessions.iloc[20:].copy()
    long = [i for i, items in zip(tonight.index, tonight["items"], strict=True) if len(items) > 1]
    tonight.at[long[0], "items"] = [*tonight.at[long[0], "items"], 7]
    tonight.at[long[1], "items"] = tonight.at[long[1], "items"][::-1]
    new = pd.DataFrame({"session_id": ["t1", "t2", "t3"], "items": [[39, 38, 39], [39, 39, 39, 38], [5]]})
    tonight = encode(spark.createDataFrame(pd.concat([tonight, new]), SCHEMA), seed=1)
    scored = score_sessions(tonight, bundle, workspace=str(tmp_path))
    assert {row["session_id"] for row in scored.persisted.collect()} == {
        "t1", "t2", sessions.at[long[0], "session_id"], sessions.at[long[1], "session_id"]
    }  # fmt: skip
    pd.testing.assert_frame_equal(collected(scored), collected(score_sessions(tonight, bundle)))
    table = kept(spark, tmp_path)
    assert {"t1", "t2"} < set(table["session_id"]) and not table.duplicated(["session_id", "content"]).any()
    again = score_sessions(tonight, bundle, workspace=str(tmp_path))
    assert again.persisted.isEmpty()
    again.unpersist()


def test_two_inputs_that_number_their_sessions_alike_keep_both_scores(spark, sessions, bundle, tmp_path):
    """Under the same experts, as of one shop's countries: each night neither drives the other's out."""
    other = sessions.assign(items=[[7, *items] for items in sessions["items"]])
    scored = []
    for table in (sessions, other, sessions, other):
        encoded = encode(spark.createDataFrame(table, SCHEMA), seed=1)
        scored.append(score_sessions(encoded, bundle, workspace=str(tmp_path)))
    assert [one.persisted.isEmpty() for one in scored] == [False, False, True, True]


def test_scores_of_others_are_not_taken(spark, encoded, bundle, tmp_path, monkeypatch):
    where = {"workspace": str(tmp_path)}
    score_sessions(encoded, bundle, **where).unpersist()
    other = score_sessions(encoded, random_bundle(encoded, (2, 3)), **where)
    by_entropy = score_sessions(encoded, bundle, score="entropy", **where)
    estimated = score_sessions(encoded, bundle, exact_limit=0, negatives=32, **where)
    monkeypatch.setattr(score_store, "code_hash", lambda: "other code")
    recoded = score_sessions(encoded, bundle, **where)
    assert [x.info.reused_sessions for x in (other, by_entropy, estimated, recoded)] == [0, 0, 0, 0]
    assert kept(spark, tmp_path)["basis"].nunique() == 5
    for scored in (other, by_entropy, estimated, recoded):
        scored.unpersist()


def test_what_a_gpu_scored_is_not_mixed_with_what_a_cpu_does(spark, encoded, bundle, tmp_path):
    """What auto stands for is what Spark gives its tasks."""
    where = {"workspace": str(tmp_path)}
    score_sessions(encoded, bundle, device="cpu", **where).unpersist()
    reused = []
    for amount in (None, "0", "1"):
        if amount is not None:
            spark.conf.set("spark.task.resource.gpu.amount", amount)
        try:
            scored = score_sessions(encoded, bundle, device="auto", **where)
        finally:
            spark.conf.unset("spark.task.resource.gpu.amount")
        reused.append(scored.info.reused_sessions)
        scored.unpersist()
    assert reused[0] == reused[1] > 0 and reused[2] == 0


def test_raw_and_adjusted_losses_share_what_is_kept(encoded, bundle, tmp_path):
    where = {"workspace": str(tmp_path)}
    score_sessions(encoded, bundle, **where).unpersist()
    raw = score_sessions(encoded, bundle, score="nll-raw", **where)
    assert raw.info.reused_sessions == raw.info.scored_sessions
    assert collected(raw)["difficulty"].equals(collected(score_sessions(encoded, bundle))["raw_difficulty"])


def test_a_session_that_two_runs_added_is_one(spark, encoded, bundle, tmp_path):
    score_sessions(encoded, bundle, workspace=str(tmp_path)).unpersist()
    table = str(tmp_path / "scores")
    spark.read.format("delta").load(table).write.format("delta").mode("append").save(table)
    again = score_sessions(encoded, bundle, workspace=str(tmp_path))
    assert again.info.reused_sessions == again.info.scored_sessions
    pd.testing.assert_frame_equal(collected(again), collected(score_sessions(encoded, bundle)))


@pytest.mark.parametrize("broken", ["columns", "files"])
def test_a_table_that_cannot_be_used_is_said_and_does_no_harm(
    spark, encoded, bundle, tmp_path, caplog, broken
):
    if broken == "columns":
        spark.range(3).write.format("delta").save(str(tmp_path / "scores"))
    else:
        score_sessions(encoded, bundle, workspace=str(tmp_path)).unpersist()
        for file in tmp_path.rglob("*.parquet"):
            file.unlink()
    with caplog.at_level(logging.WARNING, "prune_lib"):
        scored = score_sessions(encoded, bundle, workspace=str(tmp_path))
    assert "scores are not" in caplog.text
    assert scored.info.reused_sessions == 0
    pd.testing.assert_frame_equal(collected(scored), collected(score_sessions(encoded, bundle)))


def test_the_newest_experts_are_kept(spark, encoded, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(score_store, "_KEPT", 2)
    experts = [random_bundle(encoded, (k, k + 1)) for k in range(3)]
    for one in experts:
        score_sessions(encoded, one, workspace=str(tmp_path)).unpersist()
    assert set(kept(spark, tmp_path)["experts"]) == {experts[1].version, experts[2].version}
