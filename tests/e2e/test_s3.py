"""Input and output in an object store, through Hadoop's s3a, against a local server that speaks S3 (moto).

The server, s3a and Amazon's client are fetched for it: half a gigabyte that nobody else needs.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.e2e.jobs import RATIO, Run, submit

pytestmark = pytest.mark.soak

# Of the Hadoop that Spark 3.5 brings.
PACKAGE = "org.apache.hadoop:hadoop-aws:3.3.4"
SECRET = "planted-secret-4711"


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an S3 server with an empty bucket."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file() or not shutil.which("java"):
        pytest.skip("needs uv, which set-up installs, and Java")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    server = [str(uv), "tool", "run", "--from", "moto[server]==5.2.5", "moto_server"]
    with log.open("wb") as out:
        process = subprocess.Popen([*server, "-H", "127.0.0.1", "-p", str(port)], stdout=out, stderr=out)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if process.poll() is not None:
                pytest.skip(f"moto's server cannot be fetched or started: {log.read_text()[-500:]}")
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/bucket", method="PUT"), timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def test_tables_in_s3_are_those_in_a_folder(run: Run, tmp_path: Path, endpoint: str) -> None:
    options = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_S3_ALLOW_UNSAFE_RENAME": "true",
    }
    write_deltalake("s3://bucket/sessions", run.sessions, storage_options=options)
    (experts,) = (run.workspace / "experts").iterdir()
    conf = {
        "spark.jars.packages": PACKAGE,
        "spark.jars.ivy": str(tmp_path / "ivy"),
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.access.key": "key",
        "spark.hadoop.fs.s3a.secret.key": SECRET,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
        "spark.ui.enabled": "false",
    }
    place = "s3a://bucket/out/pruned"
    flags = ("--input", "s3a://bucket/sessions", "--output", place, "--experts", str(experts))
    # Twice: the second run replaces what the first has left.
    for ratio in (RATIO / 2, RATIO):
        done = submit("--ratio", str(ratio), *flags, cwd=tmp_path, conf=conf)
        assert done.returncode == 0, done.stdout + done.stderr
        assert SECRET not in done.stdout + done.stderr
    for name, key, wanted in (
        ("", "prune_rank", run.pruned),
        ("_decisions", "session_id", run.decisions),
        ("_items", "item", run.items),
    ):
        found = DeltaTable(f"s3://bucket/out/pruned{name}", storage_options=options).to_pandas()
        one, two = (
            frame.drop(columns=[c for c in frame if "run_id" in c]).sort_values(key, ignore_index=True)
            for frame in (wanted, found)
        )
        pd.testing.assert_frame_equal(one, two, check_exact=True)
    runs = DeltaTable("s3://bucket/out/pruned_runs", storage_options=options).to_pandas()
    assert len(runs) == 2 and not runs["settings"].str.contains(SECRET).any()
    told = subprocess.run(["grep", "-r", SECRET, str(tmp_path)], capture_output=True, text=True, check=False)
    assert told.stdout == ""


def test_what_is_not_there_or_may_not_be_read_is_said(tmp_path: Path, endpoint: str) -> None:
    conf = {
        "spark.jars.packages": PACKAGE,
        "spark.jars.ivy": str(tmp_path / "ivy"),
        "spark.hadoop.fs.s3a.endpoint": endpoint,
        "spark.hadoop.fs.s3a.access.key": "key",
        "spark.hadoop.fs.s3a.secret.key": SECRET,
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
    }
    for source in ("s3a://bucket/nothing", "s3a://no-such-bucket/sessions"):
        done = submit("--ratio", "0.1", "--input", source, cwd=tmp_path, conf=conf)
        text = done.stdout + done.stderr
        assert done.returncode == 2 and source in text and "Traceback" not in text, text
    done = submit("--ratio", "0.1", "--input", "s3a://bucket/sessions", cwd=tmp_path)
    assert done.returncode == 2 and "hadoop-aws" in done.stderr, done.stdout + done.stderr
