"""What of the environment of whoever runs the tests reaches the jobs that they start."""

from __future__ import annotations

import pytest

from tests.e2e.jobs import environment
from tests.environment import JOBS, own


def test_no_job_runs_by_the_settings_of_whoever_runs_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    for prefix in (*JOBS, "SPARK_", "PYSPARK_"):
        monkeypatch.setenv(f"{prefix}SEED", "7")
    monkeypatch.setenv("LANGUAGE", "de")
    given = environment()
    assert not [name for name in given if name.endswith("_SEED")] and given["LANGUAGE"] == "de"


def test_what_no_test_in_this_process_may_see() -> None:
    names = ["PATH", "PRUNE_RATIO", "EVALUATE_FIT__STEPS", "MLFLOW_TRACKING_URI", "MY_PRUNE_RATIO"]
    assert own(names) == names[1:4]
