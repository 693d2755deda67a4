"""What the tests of `ingest` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from prune_lib.ingest.job import Ingested, run_ingest
from prune_lib.settings.ingest import IngestSettings


def ingest(spark: SparkSession, source: Path | str, output: Path, **more: Any) -> Ingested:
    """Run an ingest; of its workspace, which all tests share, only MLflow's store is used."""
    # Making that store takes as long as an ingest.
    values = {"workspace": str(output.parent.parent / "workspace"), **more}
    return run_ingest(IngestSettings(input=str(source), output=str(output), **values), spark)
