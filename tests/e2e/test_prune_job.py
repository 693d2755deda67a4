"""The main job as a user runs it: `spark-submit jobs/prune.py`, and its tables read back twice over."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from prune_lib.cli import report_main
from prune_lib.schemas import DECISIONS, ITEMS, KEPT_REASONS, PRUNED, PRUNED_REASONS, RUNS
from tests.e2e.jobs import PLANTED, RATIO, SECRETS, SESSIONS, Run, submit


def test_the_run_says_what_it_did(run: Run) -> None:
    assert "Pruned" in run.output and "interactions" in run.output
    assert "SELECT reason" in run.output, "a query to look at the result"
    assert (run.workspace / "mlflow.db").is_file()


def test_a_spark_that_refuses_its_settings_is_the_users_to_mend(tmp_path: Path) -> None:
    done = submit("--ratio", "0.1", cwd=tmp_path, conf={"spark.driver.memory": "400m"})
    assert done.returncode == 2 and not done.stdout, done.stderr
    said = " ".join(done.stderr.split())
    assert "prune: error: Spark does not start: [INVALID_DRIVER_MEMORY]" in said
    assert "--driver-memory" in said and "\tat " not in done.stderr


def test_every_column_is_in_the_schema_and_spark_reads_what_delta_rs_reads(
    run: Run, spark: SparkSession
) -> None:
    expected = {
        "pruned": [*run.sessions.columns, *[c.name for c in PRUNED if not c.of_samples]],
        "pruned_decisions": [c.name for c in DECISIONS if not c.of_samples],
        "pruned_items": [c.name for c in ITEMS],
        "pruned_runs": [c.name for c in RUNS],
    }
    for name, columns in expected.items():
        frame = spark.read.format("delta").load(str(run.workspace / name))
        assert frame.columns == columns
        ours = {c.name for c in (*PRUNED, *DECISIONS, *ITEMS, *RUNS)}
        for field in frame.schema:
            assert field.metadata.get("comment") or field.name not in ours, field.name
        table = DeltaTable(str(run.workspace / name))
        assert [f.name for f in table.schema().fields] == columns
        assert frame.count() == len(table.to_pandas())


def test_kept_rows_are_the_inputs_untouched(run: Run) -> None:
    own = list(run.sessions.columns)
    theirs = run.sessions.set_index("session_id").loc[run.pruned["session_id"]].reset_index()
    pd.testing.assert_frame_equal(run.pruned[own], theirs[own])


def test_the_budget_holds_and_is_used(run: Run) -> None:
    clicks = int(run.sessions["items"].map(len).sum())
    kept = int(run.pruned["items"].map(len).sum())
    assert kept <= RATIO * clicks
    # The next session in line did not fit: no longer than the longest.
    assert kept > RATIO * clicks - run.sessions["items"].map(len).max()
    record = run.runs.iloc[0]
    assert (record["interactions_after"], record["sessions_after"]) == (kept, len(run.pruned))
    assert record["interactions_before"] == clicks


def test_ranks_are_dense_and_agree(run: Run) -> None:
    assert sorted(run.pruned["prune_rank"]) == list(range(1, len(run.pruned) + 1))
    kept = run.decisions[run.decisions["kept"]].set_index("session_id")
    pruned = run.pruned.set_index("session_id")
    assert (kept.loc[pruned.index, "rank"] == pruned["prune_rank"]).all()
    assert (kept.loc[pruned.index, "reason"] == pruned["prune_reason"]).all()


def test_no_duplicate_is_kept_beside_its_twin(run: Run) -> None:
    sequences = run.pruned["items"].map(tuple)
    assert sequences.is_unique
    decisions = run.decisions.set_index("session_id")
    kept = set(sequences)
    for session, items in zip(run.sessions["session_id"], run.sessions["items"], strict=True):
        row = decisions.loc[session]
        assert (row["reason"] == "DUPLICATE") == (not row["kept"] and tuple(items) in kept)


def test_no_bot_is_kept(run: Run) -> None:
    planted = run.decisions.merge(run.sessions[["session_id", "planted"]], on="session_id")
    bots = planted[planted["planted"] == "bot"]
    assert len(bots) == 2 and not bots["kept"].any()
    limits = run.runs["bot_limits"].item()
    assert 50 <= limits["clicks"] < bots["interactions"].min() and limits["repeats"] >= 8
    assert set(bots["reason"]) == {"BOT"} and set(planted.loc[planted["reason"] == "BOT", "planted"]) == {
        "bot"
    }


def test_every_session_has_a_decision_and_a_known_reason(run: Run) -> None:
    assert sorted(run.decisions["session_id"]) == sorted(run.sessions["session_id"])
    assert set(run.decisions.loc[run.decisions["kept"], "reason"]) <= set(KEPT_REASONS)
    assert set(run.decisions.loc[~run.decisions["kept"], "reason"]) <= set(PRUNED_REASONS)
    assert run.decisions["difficulty"].between(0, 1).all()
    gates = run.decisions[["gate_gnn", "gate_rnn", "gate_transformer"]].sum(axis=1)
    assert (gates - 1).abs().max() < 1e-3
    # The percentile rank is spread evenly: its mean is a half.
    assert run.decisions["difficulty"].mean() == pytest.approx(0.5, abs=0.01)


def test_covering_sessions_are_kept_and_share_what_they_say(run: Run) -> None:
    items = run.sessions.set_index("session_id")["items"].map(set)
    kept = set(run.pruned["session_id"])
    covered = run.decisions[run.decisions["covered_by"].notna()]
    assert len(covered) and not covered["kept"].any()
    for row in covered.itertuples():
        assert row.covered_by in kept
        assert set(row.shared_items) == items[row.session_id] & items[row.covered_by]
        assert len(row.shared_items) > 0


def test_parts_add_up_to_every_gain(run: Run) -> None:
    gain, parts = run.decisions["gain"], run.decisions["gain_parts"]
    assert (gain.isna() == parts.isna()).all() and (gain > 0).any()
    there = gain.notna()
    total = parts[there].map(lambda of: sum(part["gain"] for part in of))
    assert total.to_numpy() == pytest.approx(gain[there].to_numpy(), abs=1e-12)


def test_a_decision_is_explained_in_words(run: Run) -> None:
    pruned = run.decisions[~run.decisions["kept"] & run.decisions["covered_by"].notna()].iloc[0]
    item = run.items.sort_values("sessions_after").iloc[-1]["item"]
    done = submit(
        "--session", str(pruned["session_id"]), "--item", str(item), cwd=run.workspace.parent, job="explain"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Session {pruned['session_id']} was pruned." in done.stdout
    assert f"covered by    session {pruned['covered_by']}" in done.stdout
    assert f"Item {item} is" in done.stdout and "kept sessions rank" in done.stdout
    assert "jobs/explain.py --output ./workspace/pruned" in run.output


def test_the_report_lies_beside_the_tables_and_is_made_again(
    run: Run, spark: SparkSession, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Again in this process, whose session the job takes: that jobs are launched `explain` shows above."""
    page = run.workspace / "pruned_report.html"
    text = page.read_text(encoding="utf-8")
    assert str(page) in " ".join(run.output.split()) and 'id="map"' in text and 'id="why"' in text
    assert f"kept {len(run.pruned):,} of {SESSIONS:,} sessions" in text
    for name in SECRETS:  # a test below looks for them in this page, too
        monkeypatch.setenv(name, PLANTED)
    report_main(["--map-points", "0", "--json", "--workspace", str(run.workspace)])
    record = json.loads(capsys.readouterr().out)
    assert record["report"] == str(page) and record["map_points"] == 0
    assert 'id="map"' not in page.read_text(encoding="utf-8")


def test_weights_sum_to_the_number_of_sessions(run: Run) -> None:
    assert run.pruned["prune_weight"].sum() == pytest.approx(len(run.sessions))
    assert run.pruned["prune_weight"].min() >= 1


def test_items_count_what_is_there(run: Run) -> None:
    before = Counter(i for items in run.sessions["items"] for i in items)
    after = Counter(i for items in run.pruned["items"] for i in items)
    items = run.items.set_index("item")
    assert dict(items["interactions_before"]) == dict(before)
    assert {i: n for i, n in items["interactions_after"].items() if n} == dict(after)
    holders = Counter(i for items in run.sessions["items"] for i in set(items))
    kept = Counter(i for items in run.pruned["items"] for i in set(items))
    assert dict(items["share_kept"]) == {i: kept[i] / n for i, n in holders.items()}
    first = {}
    for row in run.pruned.sort_values("prune_rank").itertuples():
        for item in row.items:
            first.setdefault(item, row.session_id)
    assert dict(items["first_kept_session"].dropna()) == first
    assert set(items["band"]) <= {"cold", "mid", "popular"}


def test_planted_noise_ranks_harder_than_organic_sessions(run: Run) -> None:
    planted = run.sessions.set_index("session_id")["planted"]
    difficulty = run.decisions.set_index("session_id")["difficulty"]
    assert difficulty[planted == "noise"].mean() > difficulty[planted == "organic"].mean()


def test_no_secret_of_its_surroundings_is_in_what_a_run_wrote(run: Run) -> None:
    """Neither in a table, its log, the experts, MLflow's store nor the report."""
    files = [file for file in run.workspace.rglob("*") if file.is_file()]
    assert {".parquet", ".json", ".db", ".html", ".safetensors"} <= {file.suffix for file in files}
    for file in files:
        assert PLANTED.encode() not in file.read_bytes(), file
        if file.suffix == ".parquet":
            assert PLANTED not in pd.read_parquet(file, partitioning=None).to_csv(), file


@pytest.mark.soak
def test_files_are_no_wider_than_the_umask_says(tmp_path: Path) -> None:
    flags = ("--ratio", "0.2", "--demo-sessions", "300", "--method", "random")
    before = os.umask(0o027)
    try:
        done = submit(*flags, cwd=tmp_path)
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stdout + done.stderr
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "workspace").rglob("*")}
    assert len(modes) > 20 and not [path for path, mode in modes.items() if mode & 0o027]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--ratio", "1.5"], "1.5"),
        (["--ratio", "0.1", "--input", "nowhere/sessions"], "nowhere/sessions"),
    ],
)
def test_mistakes_end_with_2_and_a_paragraph(tmp_path: Path, flags: list[str], said: str) -> None:
    done = submit(*flags, cwd=tmp_path)
    text = done.stdout + done.stderr
    assert done.returncode == 2, text
    assert said in text and "Traceback" not in text and "\tat " not in text
