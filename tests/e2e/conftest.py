"""The Spark session of the Spark tests, to read results back with; one run for all who look at one."""

import fcntl
import os

import pytest

from tests.e2e.jobs import Run, run_small
from tests.spark.conftest import _clear_caches, _own_environment, shared_data, spark  # noqa: F401


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run on a small demo data set, from nothing; nobody writes into its folder but test_prune_job.

    The workers of pytest-xdist share it: the first makes it, the others wait.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "user"
    folder.mkdir(exist_ok=True)
    with (folder.parent / "user.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return run_small(folder)
