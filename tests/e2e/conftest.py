"""The same Spark session as the Spark tests: the results are read back with it."""

from tests.spark.conftest import _clear_caches, shared_data, spark  # noqa: F401
