"""What pytest leaves out when it runs the examples of docstrings."""

# Their examples prune: tests/spark/test_pruned.py runs them, on the Spark session of all tests.
collect_ignore = ["prune_lib/api.py", "prune_lib/pruned.py"]
