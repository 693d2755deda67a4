"""Two tables written as one: whatever fails, whoever else writes, both are of one run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib import commits
from prune_lib.commits import Seen, Written, runs_by_version, versions_seen, write_together
from prune_lib.errors import AnotherWriter, OutputError

pytestmark = pytest.mark.spark


class Injected(Exception):
    pass


def rows(spark: SparkSession, run: str) -> DataFrame:
    return spark.range(1).select(F.lit(run).alias("run"))


class Place:
    """A pair of tables: `log`, which is added to, and `last`, which is replaced."""

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark = spark
        self.log, self.last = (str(folder / name) for name in ("log", "last"))

    def seen(self) -> Seen:
        return versions_seen(self.spark, [self.log, self.last])

    def write(self, run: str, seen: Seen | None = None, frame: DataFrame | None = None) -> None:
        """As a run does that began when it saw these versions, or begins now."""
        frame = rows(self.spark, run) if frame is None else frame
        tables = [
            Written(self.log, frame, "log", append=True, whole=True),
            Written(self.last, rows(self.spark, run), "last"),
        ]
        note = json.dumps({"run_id": run})
        write_together(self.spark, tables, note, self.seen() if seen is None else seen, self.last)

    def runs(self) -> tuple[list[str], list[str]]:
        """The runs whose rows are in the log, and in the last table."""
        log, last = (
            sorted(row["run"] for row in self.spark.read.format("delta").load(place).collect())
            for place in (self.log, self.last)
        )
        return log, last


@pytest.fixture
def place(spark: SparkSession, tmp_path: Path) -> Place:
    return Place(spark, tmp_path)


def around(
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    before: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
) -> None:
    """Do something right before or after the next commit to a table."""
    commit = commits._commit

    def patched(spark: SparkSession, table: Written, former: Any, note: str) -> None:
        if table.target != target:
            commit(spark, table, former, note)
            return
        monkeypatch.setattr(commits, "_commit", commit)
        if before:
            before()
        commit(spark, table, former, note)
        if after:
            after()

    monkeypatch.setattr(commits, "_commit", patched)


def fail() -> None:
    raise Injected


def test_who_comes_second_says_so_and_writes_nothing(place: Place) -> None:
    place.write("r1")
    seen = place.seen()
    place.write("fast", seen)
    with pytest.raises(AnotherWriter, match="the run fast, wrote to .*log while this run was at") as told:
        place.write("slow", seen)
    assert told.value.exit_code == 1, "whoever starts it may start it again"
    assert place.runs() == (["fast", "r1"], ["fast"])


@pytest.mark.parametrize("first", [True, False])
def test_who_is_overtaken_between_its_look_and_its_commit_takes_that_back(
    place: Place, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    if not first:
        place.write("r1")
    around(monkeypatch, place.log, before=lambda: place.write("fast"))
    with pytest.raises(OutputError, match="the run fast, wrote to"):
        place.write("slow")
    assert place.runs() == (["fast"] if first else ["fast", "r1"], ["fast"])


@pytest.mark.parametrize("slowly", [True, False])
def test_who_was_first_is_not_stopped_by_who_came_second_and_left(
    place: Place, monkeypatch: pytest.MonkeyPatch, slowly: bool
) -> None:
    """It replaces a table after the first's commit and takes that back: at once, or while the first looks."""
    place.write("r1")
    note = json.dumps({"run_id": "second"})
    with ThreadPoolExecutor(1) as side:

        def comes_and_leaves() -> None:
            table = rows(place.spark, "second").writeTo(f"delta.`{place.log}`").using("delta")
            table.option("userMetadata", note).createOrReplace()
            version = place.seen()[place.log]
            assert version

            def leaves() -> None:
                time.sleep(4.0 * slowly)
                commits._restore(place.spark, place.log, version - 1, note)

            left = side.submit(leaves)
            if not slowly:
                left.result()

        # Of the last table, so that only the last look meets it.
        around(monkeypatch, place.last, after=comes_and_leaves)
        place.write("first")
    assert place.runs() == (["first", "r1"], ["first"])


def test_a_conflict_that_delta_finds_is_told_as_one(place: Place, tmp_path: Path) -> None:
    """Both transactions are open at once: the slower one's rows are computed while the faster commits."""
    begun, go = str(tmp_path / "begun"), str(tmp_path / "go")

    @F.udf("string")
    def waits(run: str) -> str:
        Path(begun).touch()
        for _ in range(600):
            if Path(go).exists():
                break
            time.sleep(0.1)
        return run

    seen = place.seen()
    slow = rows(place.spark, "slow").select(waits("run").alias("run"))
    with ThreadPoolExecutor(1) as side:
        failed = side.submit(place.write, "slow", seen, slow)
        while not Path(begun).exists():
            time.sleep(0.1)
        place.write("fast", seen)
        Path(go).touch()
        with pytest.raises(OutputError, match="the run fast, wrote to") as told:
            failed.result()
    assert isinstance(told.value.__cause__, commits._CONFLICTS)
    assert place.runs() == (["fast"], ["fast"])


def test_who_only_tidies_up_is_not_in_the_way(place: Place) -> None:
    place.write("r1")
    place.write("r2")
    seen = place.seen()
    place.spark.sql(f"OPTIMIZE delta.`{place.log}`")
    with commits.configured(place.spark, {"spark.sql.sources.parallelPartitionDiscovery.parallelism": "2"}):
        place.spark.sql(f"VACUUM delta.`{place.last}`")
    assert place.seen() != seen
    place.write("r3", seen)
    assert place.runs() == (["r1", "r2", "r3"], ["r3"])


@pytest.mark.parametrize("failure", [Injected, KeyboardInterrupt])
def test_a_run_that_failed_meanwhile_is_not_in_the_way(
    place: Place, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    """Nor is one that was stopped by hand."""

    def stops() -> None:
        raise failure

    place.write("r1")
    seen = place.seen()
    around(monkeypatch, place.last, after=stops)
    with pytest.raises(failure):
        place.write("failed", seen)
    assert place.runs() == (["r1"], ["r1"])
    place.write("r2", seen)
    assert place.runs() == (["r1", "r2"], ["r2"])


@pytest.mark.parametrize("first", [True, False])
def test_a_failure_takes_nothing_away_that_another_added(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: bool
) -> None:
    if not first:
        place.write("r1")

    def add_by_hand() -> None:
        rows(place.spark, "hand").write.format("delta").mode("append").save(place.log)
        fail()

    around(monkeypatch, place.last, before=add_by_hand)
    with pytest.raises(Injected):
        place.write("r2")
    log = [row["run"] for row in place.spark.read.format("delta").load(place.log).collect()]
    assert sorted(log) == (["hand", "r2"] if first else ["hand", "r1", "r2"])
    assert "another writer committed version" in caplog.text
    assert Path(place.last).exists() is not first


def test_who_takes_a_run_that_is_at_work_for_one_that_was_cut_off_wins(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began when the other had written its first table; of both runs' rows one run's are left."""
    place.write("r1")
    around(monkeypatch, place.last, before=lambda: place.write("fast"))
    with pytest.raises(OutputError, match="while this run was at work"):
        place.write("slow")
    assert place.runs() == (["fast", "r1"], ["fast"])


def test_what_a_killed_run_added_counts_for_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.write("r1")
    with monkeypatch.context() as patched:
        # As after kill -9: nobody brings the tables back.
        patched.setattr(commits, "_undo", lambda *_: None)
        around(patched, place.last, before=fail)
        with pytest.raises(Injected):
            place.write("killed")
    assert place.runs() == (["killed", "r1"], ["r1"])
    assert "cut off" not in caplog.text
    around(monkeypatch, place.last, before=fail)
    with pytest.raises(Injected):
        place.write("failed")
    assert place.runs() == (["r1"], ["r1"])
    assert caplog.text.count("the run killed was cut off after it had written") == 1
    place.write("r2")
    assert caplog.text.count("cut off") == 1, "a run that failed and was taken back is not one"
    assert place.runs() == (["r1", "r2"], ["r2"])
    assert list(runs_by_version(place.spark, place.last).values()) == ["r2", "r1"]
    of_log = list(runs_by_version(place.spark, place.log).values())
    assert of_log[0] == "r2" and of_log[-3:] == ["r1", "killed", "r1"], "the failure put r1's rows back"


@pytest.mark.parametrize("committed", [False, True])
def test_a_failing_first_run_leaves_what_is_not_its_own(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """A folder without a table: what is in it, and what somebody puts there meanwhile, stays."""
    log = tmp_path / "log"
    (log / "_delta_log").mkdir(parents=True)  # of a run that was killed
    (log / "part-00000-left.parquet").write_text("half a file")
    (log / "thesis.tex").write_text("precious")
    last = tmp_path / "last"

    def someone_comes() -> None:
        last.mkdir(exist_ok=True)
        (last / "letter.txt").write_text("dear")
        fail()

    if committed:
        around(monkeypatch, place.last, after=someone_comes)
    else:
        around(monkeypatch, place.log, before=someone_comes)
    with pytest.raises(Injected):
        place.write("r1")
    left = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"log/part-00000-left.parquet", "log/thesis.tex", "last/letter.txt"}
    assert not list((log / "_delta_log").iterdir())
    place.write("r2")
    assert place.runs() == (["r2"], ["r2"])
    assert (log / "thesis.tex").read_text() == "precious"


def test_what_was_taken_back_does_not_count_whoever_took_it() -> None:
    def commit(version: int, run: str, operation: str = "WRITE", restored: int | None = None) -> Any:
        return commits._Commit(version, operation, json.dumps({"run_id": run}), restored)

    def since(version: int | None, *history: Any) -> tuple[list[int], list[int]]:
        former = commits._Former("t", version, None)
        return commits._since(history, former, json.dumps({"run_id": "a"}))

    replace = "CREATE OR REPLACE TABLE AS SELECT"
    a, b, back = commit(1, "a", replace), commit(2, "b", replace), commit(3, "b", "RESTORE", 1)
    assert since(0, a, b) == ([], [2]), "it is replaced"
    assert since(0, a, b, back) == ([1], []), "and is there again"
    assert since(None, a, b, back) == ([1], [])
    assert since(1, b, back) == ([], [])
    assert since(2, commit(3, "b", "RESTORE", 1)) == ([], [3]), "to before what was there"
    assert since(0, b, commit(3, "a", "RESTORE", 0)) == ([], [])


def test_after_a_restore_to_a_moment_nobody_can_be_said() -> None:
    written = [commits._Commit(k, "WRITE", json.dumps({"run_id": f"r{k}"}), None) for k in range(2)]
    to_version = commits._Commit(2, "RESTORE", None, 0)
    to_moment = commits._Commit(3, "RESTORE", None, None)
    tidied = commits._Commit(4, "OPTIMIZE", None, None)
    found = commits._runs([*written, to_version, to_moment, tidied])
    assert found == {2: "r0", 1: "r1", 0: "r0"}, "not the run before it"
