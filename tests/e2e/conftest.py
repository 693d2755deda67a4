"""The Spark session of the Spark tests, to read results back with; one run for all who look at one."""

import pytest

from tests.e2e.jobs import Run, run_small
from tests.spark.conftest import _clear_caches, shared_data, spark  # noqa: F401


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run on a small demo data set, from nothing."""
    return run_small(tmp_path_factory.mktemp("user"))
