"""How pytest collects: what it leaves out, and which tests a process of `make test` runs together."""

from __future__ import annotations

import pytest

# Their examples prune: tests/spark/test_pruned.py runs them, on the Spark session of all tests.
collect_ignore = ["prune_lib/api.py", "prune_lib/pruned.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests together (--dist loadgroup), and all that look at one run of the job."""
    for item in items:
        at_the_run = item.path.parent.name == "e2e" and "run" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("run" if at_the_run else str(item.path)))
