"""Where settled frames lie during a run: what is in that folder besides is nobody's but its owner's."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pyspark.sql import SparkSession

from prune_lib.checkpoints import checkpoints
from prune_lib.settle import settle

LONG_AGO = time.time() - 30 * 86_400


def aged(place: Path) -> Path:
    """A folder with a file, both of last month."""
    place.mkdir(parents=True)
    (place / "part-0").write_text("clicks")
    for one in (place / "part-0", place):
        os.utime(one, (LONG_AGO, LONG_AGO))
    return place


def test_nothing_but_what_killed_runs_left_is_swept(spark: SparkSession, tmp_path: Path) -> None:
    data, log = aged(tmp_path / "clicks"), aged(tmp_path / "prune-log")
    killed, at_work = (tmp_path / f"prune-{letter * 32}" for letter in "ab")
    aged(killed / "rdds")
    aged(at_work / "rdds")
    (at_work / "rdds" / "rdd-9").mkdir()  # so that the folder around it is of now
    for one in (killed, at_work):
        os.utime(one, (LONG_AGO, LONG_AGO))
    with checkpoints(spark, str(tmp_path)):
        assert {p.name for p in tmp_path.iterdir()} > {data.name, log.name, at_work.name}
        assert not killed.exists()
    assert {p for p in tmp_path.iterdir() if p.suffix != ".crc"} == {data, log, at_work}
    assert (data / "part-0").read_text() == "clicks"


def test_frames_lie_in_the_folder_and_are_gone_with_it(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "checkpoints"
    with checkpoints(spark, str(folder)):
        assert settle(spark.range(10)).count() == 10
        assert [p for p in folder.rglob("part-*") if p.is_file()]
    assert not folder.exists()
    assert spark.sparkContext.getCheckpointDir() is None
    folder.mkdir()
    with checkpoints(spark, str(folder)):
        settle(spark.range(10))
    assert folder.exists() and not list(folder.iterdir()), "whose folder it is keeps it"
