"""What the surroundings do to a run: it ends with a paragraph, and its tables are as they were."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable

from tests.e2e.jobs import RATIO, Run, submit

pytestmark = pytest.mark.soak

TABLES = ("pruned", "pruned_decisions", "pruned_items", "pruned_runs")


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """A file system of so many megabytes in memory."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path, leave: int) -> Path:
    """Take all space of a disk but so many bytes."""
    filler = place / "filler"
    with filler.open("wb") as file:
        file.write(b"\0" * max(0, shutil.disk_usage(place).free - leave))
    return filler


def contents(place: Path) -> dict[str, pd.DataFrame]:
    keys = {"pruned": "prune_rank", "pruned_decisions": "session_id", "pruned_items": "item"}
    tables = {name: DeltaTable(str(place / name)).to_pandas() for name in TABLES}
    return {
        name: table.sort_values(keys.get(name, "run_id"), ignore_index=True) for name, table in tables.items()
    }


def assert_same(one: dict[str, pd.DataFrame], two: dict[str, pd.DataFrame]) -> None:
    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], two[name], check_exact=True)


def flags(run: Run, output: Path, ratio: float = RATIO / 2) -> list[str]:
    (experts,) = (run.workspace / "experts").iterdir()
    given = {"--ratio": str(ratio), "--input": str(run.workspace / "sessions"), "--experts": str(experts)}
    return [part for pair in {**given, "--output": str(output)}.items() for part in pair]


@pytest.mark.parametrize("leave", [4_096, 40_000, 120_000])
def test_a_full_disk_of_the_tables(run: Run, tmp_path: Path, leave: int) -> None:
    """Full at the first file, after some, or between two tables: then there is nothing to go back with."""
    with small_disk(tmp_path / "disk", 8) as disk:
        for name in TABLES:
            shutil.copytree(run.workspace / name, disk / name)
        former = contents(disk)
        filler = fill(disk, leave)
        done = submit(*flags(run, disk / "pruned"), cwd=tmp_path)
        text = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 1 and "The disk is full" in text, text
        # What was committed before may have stayed, for want of room to go back; the pruned rows may not.
        pd.testing.assert_frame_equal(contents(disk)["pruned"], former["pruned"], check_exact=True)
        filler.unlink()
        done = submit(*flags(run, disk / "pruned"), cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        after = contents(disk)
        (run_id,) = set(after["pruned"]["prune_run_id"])
        assert set(after["pruned_decisions"]["run_id"]) == set(after["pruned_items"]["run_id"]) == {run_id}
        assert set(after["pruned_runs"]["run_id"]) == {run_id, *former["pruned_runs"]["run_id"]}


def test_a_full_disk_of_sparks_own(run: Run, tmp_path: Path) -> None:
    for name in TABLES:
        shutil.copytree(run.workspace / name, tmp_path / name)
    former = contents(tmp_path)
    with small_disk(tmp_path / "scratch", 4) as scratch:
        fill(scratch, 300_000)
        done = submit(*flags(run, tmp_path / "pruned"), cwd=tmp_path, conf={"spark.local.dir": str(scratch)})
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "The disk is full" in text and "SPARK_LOCAL_DIRS" in text, text
    assert_same(contents(tmp_path), former)


def test_a_worker_that_runs_out_of_memory(run: Run, tmp_path: Path) -> None:
    for name in TABLES:
        shutil.copytree(run.workspace / name, tmp_path / name)
    former = contents(tmp_path)
    # Less than torch's libraries ask for.
    conf = {"spark.executor.pyspark.memory": "700m"}
    done = submit(*flags(run, tmp_path / "pruned"), "--no-reuse-scores", cwd=tmp_path, conf=conf)
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1, text
    assert "memory" in text and "spark.executor.pyspark.memory" in text, text
    assert_same(contents(tmp_path), former)


def test_mlflow_that_does_not_answer(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on and says so; a model of its registry is refused with a paragraph."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    done = submit(*flags(run, tmp_path / "pruned"), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "MLflow does not track this run" in done.stdout
    assert len(contents(tmp_path)["pruned"])
    given = flags(run, tmp_path / "other")
    given[given.index("--experts") + 1] = "models:/experts@champion"
    done = submit(*given, cwd=tmp_path)
    text = " ".join(done.stderr.split())
    assert done.returncode == 2 and "cannot be fetched from MLflow's registry" in text, text
    assert not (tmp_path / "other").exists()
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:9"
