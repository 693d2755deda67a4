"""Delta's and GraphFrames' jars, put once into the environment's own Spark.

A jar in `pyspark/jars` is on every class path from the start, so that a plain `spark-submit`
needs neither `--packages` nor the network. Spark's own resolver fetches the jars, from wherever
the machine's settings say that Maven Central is; no address is written down here.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from environment.errors import SetupError

DELTA = "io.delta:delta-spark_2.12:3.3.3"
DELTA_JARS = {
    "delta-spark_2.12-3.3.3.jar": ("4912bf902a1c453aba3bd838ff212dedd357155212f9bb37a6b47d97f2827ebc"),
    "delta-storage-3.3.3.jar": "45ad193053fd30cebe6d9ab1889873cde39b223a0f210e00ebee8b6642476901",
}
# Delta parses SQL with ANTLR, which Spark brings; it is fetched only where Spark does not.
ANTLR = "org.antlr:antlr4-runtime"
ANTLR_JARS = {
    "antlr4-runtime-4.9.3.jar": "131a6594969bc4f321d652ea2a33bc0e378ca312685ef87791b2c60b29d01ea5",
}

# The minor version of the classes in the fallback below, so that both sources behave alike.
GRAPHFRAMES = "io.graphframes:graphframes-spark3_2.12:0.10.1"
GRAPHFRAMES_JAR = "graphframes-spark3_2.12-0.10.1.jar"
GRAPHFRAMES_CLASS = "org/graphframes/lib/AggregateMessages.class"

# Some mirrors of Maven Central do not carry the group `io.graphframes`. This wheel's jar contains
# GraphFrames' own Apache-2.0 classes for Scala 2.12; the rest of it is AGPL and stays where it is.
ZINGG = "zingg==0.7.0"
ZINGG_SHA256 = "b4dc8de4a954262f181b4209e07925e5212cdd12dd7614f2e0e5b7c3e1638e07"
ZINGG_ENTRY = "zingg/jars/zingg-0.7.0.jar"
ZINGG_FOLDERS = (
    "org/graphframes/",
    "org/apache/spark/graphframes/",
    "org/apache/spark/sql/graphframes/",
)
ZINGG_JAR = "graphframes-from-zingg-0.7.0.jar"
ZINGG_JAR_SHA256 = "f9f76e25e6edca12807110bb9503894a1f3b2a3156e7b01bd6e6b40a1371384f"

# Jars that Spark does not ship and only this module places: an older version of one must go,
# or two versions of a class would be on the class path.
_PLACED_HERE = ("delta-spark_*.jar", "delta-storage-*.jar", "graphframes-*.jar")

# A resolver answers within seconds; a network that swallows packets is given up after this.
_RESOLVER_TIMEOUT_S = 300

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(path: Path, expected: str) -> None:
    """Refuses a file that is not the pinned one.

    Raises:
        SetupError: The file's SHA-256 is another than `expected`.
    """
    actual = sha256(path)
    if actual != expected:
        raise SetupError(
            f"{path.name} is not the file that this project pins: its SHA-256 is {actual}, "
            f"expected {expected}. It was not installed. A proxy or mirror may have altered it: "
            "run `make setup` again from another network, or report it."
        )


def has_jar(folder: Path, name: str, expected: str) -> bool:
    """Whether `folder` already holds the pinned jar."""
    path = folder / name
    return path.is_file() and sha256(path) == expected


def resolved_name(file_name: str, coordinate: str) -> str | None:
    """A jar's own name, without the group that Spark's resolver puts before it.

    >>> resolved_name("io.delta_delta-storage-3.3.3.jar", "io.delta:delta-spark_2.12:3.3.3")
    'delta-storage-3.3.3.jar'

    Returns:
        None for a jar of another group than the coordinate's.
    """
    group = coordinate.split(":")[0] + "_"
    return file_name[len(group) :] if file_name.startswith(group) else None


def proxy_options(environ: dict[str, str]) -> str:
    """Java's options for the proxy that the environment names.

    pip reads HTTPS_PROXY, Java does not: behind a proxy the resolver would fail where pip works.

    >>> proxy_options({"HTTPS_PROXY": "http://proxy.example:3128"})
    '-Dhttps.proxyHost=proxy.example -Dhttps.proxyPort=3128'
    >>> proxy_options({})
    ''
    """
    url = environ.get("HTTPS_PROXY") or environ.get("https_proxy") or ""
    proxy = urlsplit(url if "//" in url else f"//{url}")
    if not proxy.hostname:
        return ""
    try:
        port = proxy.port or 443
    except ValueError:
        raise SetupError(f"HTTPS_PROXY names no port that is a number: {proxy.hostname}. Mend it.") from None
    return f"-Dhttps.proxyHost={proxy.hostname} -Dhttps.proxyPort={port}"


def extract_folders(archive: bytes, folders: tuple[str, ...]) -> bytes:
    """A jar of only those entries of a jar that lie under `folders`.

    Entries are sorted, stored and dated alike, so that the result has one SHA-256 everywhere
    (compressed bytes would differ between versions of zlib).
    """
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(out, "w") as target:
        for name in sorted(source.namelist()):
            if name.startswith(folders) and not name.endswith("/"):
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.create_system = 3
                target.writestr(entry, source.read(name))
    return out.getvalue()


def resolve(coordinate: str, spark_home: Path, ivy: Path, run: Run, exclude: str = "") -> list[Path]:
    """Fetches a package and what it needs with Spark's own resolver.

    Args:
        coordinate: `group:artifact:version`.
        spark_home: The environment's Spark.
        ivy: An empty folder for the resolver's cache, so that no other cache decides the result.
        run: Runs a command and logs its output.
        exclude: `group:artifact` of a dependency to leave out.

    Returns:
        The jars of the coordinate's own group; empty where the resolver did not find them.
    """
    command = [str(spark_home / "bin" / "spark-submit"), "--packages", coordinate]
    command += ["--exclude-packages", exclude] if exclude else []
    command += ["--conf", f"spark.jars.ivy={ivy}"]
    # spark-submit resolves before it runs anything; a class that only prints Hadoop's version is
    # the cheapest thing to run (no session, no Python).
    command += ["--class", "org.apache.hadoop.util.VersionInfo", "spark-internal"]
    environ = dict(os.environ, SPARK_HOME=str(spark_home))
    # A user's own Spark settings could bring other repositories and other packages.
    for name in ("SPARK_CONF_DIR", "PYSPARK_SUBMIT_ARGS"):
        environ.pop(name, None)
    environ["SPARK_SUBMIT_OPTS"] = " ".join(
        filter(None, [environ.get("SPARK_SUBMIT_OPTS", ""), proxy_options(environ)])
    )
    try:
        done = run(command, env=environ, cwd=str(ivy), timeout=_RESOLVER_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return []
    return sorted((ivy / "jars").glob("*.jar")) if done.returncode == 0 else []


def place(source: Path, folder: Path, name: str) -> None:
    """Copies a jar into place in one step: a reader sees all of it or nothing."""
    partial = folder / f".{name}.partial"
    shutil.copyfile(source, partial)
    os.replace(partial, folder / name)


def remove_other_versions(folder: Path, keep: set[str]) -> None:
    """Removes jars that an earlier set-up placed and this one does not want."""
    for pattern in _PLACED_HERE:
        for path in folder.glob(pattern):
            if path.name not in keep:
                path.unlink()


def fetch_delta(spark_home: Path, run: Run) -> set[str]:
    """Puts Delta's jars into Spark's `jars` folder.

    Returns:
        The names of the jars.

    Raises:
        SetupError: The resolver did not find them, or found other ones than those pinned.
    """
    folder = spark_home / "jars"
    spark_has_antlr = any(
        path.name not in ANTLR_JARS or has_jar(folder, path.name, ANTLR_JARS[path.name])
        for path in folder.glob("antlr4-runtime-*.jar")
    )
    wanted = DELTA_JARS if spark_has_antlr else {**DELTA_JARS, **ANTLR_JARS}
    if all(has_jar(folder, name, pin) for name, pin in wanted.items()):
        return set(wanted)
    with tempfile.TemporaryDirectory() as scratch:
        found = resolve(DELTA, spark_home, Path(scratch), run, ANTLR if spark_has_antlr else "")
        by_name = {path.name.split("_", 1)[1]: path for path in found}
        if not set(wanted) <= set(by_name):
            raise SetupError(
                f"Delta's jars ({DELTA}) could not be fetched from Maven Central. Check the "
                "network (behind a proxy set HTTPS_PROXY, for a mirror see Spark's "
                "`spark.jars.ivySettings`) and run `make setup` again; it goes on from here."
            )
        for name, pin in wanted.items():
            verify(by_name[name], pin)
            place(by_name[name], folder, name)
    return set(wanted)


def fetch_graphframes(spark_home: Path, python: Path, run: Run, say: Callable[[str], None]) -> set[str]:
    """Puts GraphFrames' classes into Spark's `jars` folder, from Maven Central or the fallback.

    Returns:
        The names of the jars.

    Raises:
        SetupError: Neither source has them.
    """
    folder = spark_home / "jars"
    if (folder / GRAPHFRAMES_JAR).is_file():
        return {path.name for path in folder.glob("graphframes-*.jar")} - {ZINGG_JAR}
    if has_jar(folder, ZINGG_JAR, ZINGG_JAR_SHA256):
        return {ZINGG_JAR}
    with tempfile.TemporaryDirectory() as scratch:
        # GraphFrames' own jars only (it has a second one, for GraphX); Spark brings the others.
        names = {
            name: path
            for path in resolve(GRAPHFRAMES, spark_home, Path(scratch), run)
            if (name := resolved_name(path.name, GRAPHFRAMES))
        }
        if GRAPHFRAMES_JAR in names:
            # No SHA-256 could be had for these; the resolver checks the repository's checksums.
            if GRAPHFRAMES_CLASS not in zipfile.ZipFile(names[GRAPHFRAMES_JAR]).namelist():
                raise SetupError(f"{GRAPHFRAMES_JAR} holds no {GRAPHFRAMES_CLASS}: not installed.")
            for name, path in names.items():
                place(path, folder, name)
            return set(names)
    fetch_graphframes_from_zingg(folder, python, run)
    say(
        f"GraphFrames: this machine's Maven repository has no {GRAPHFRAMES}; its Apache-2.0 "
        f"classes were taken out of the PyPI wheel {ZINGG} instead ({ZINGG_JAR})"
    )
    return {ZINGG_JAR}


def fetch_graphframes_from_zingg(folder: Path, python: Path, run: Run) -> None:
    """Builds GraphFrames' jar from the classes inside a wheel, which is not installed.

    Raises:
        SetupError: The wheel cannot be had, or does not hold the pinned classes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        pinned = Path(scratch) / "requirement.txt"
        pinned.write_text(f"{ZINGG} --hash=sha256:{ZINGG_SHA256}\n", encoding="utf-8")
        command = [str(python), "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        command += ["--require-hashes", "--requirement", str(pinned), "--dest", scratch]
        done = run(command)
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            raise SetupError(
                f"GraphFrames' jar could not be fetched: neither {GRAPHFRAMES} from Maven Central "
                f"nor the wheel {ZINGG} from the Python package index. Check the network (behind a "
                "proxy set HTTPS_PROXY) and run `make setup` again; it goes on from here."
            )
        verify(wheels[0], ZINGG_SHA256)
        with zipfile.ZipFile(wheels[0]) as wheel:
            classes = extract_folders(wheel.read(ZINGG_ENTRY), ZINGG_FOLDERS)
        jar = Path(scratch) / ZINGG_JAR
        jar.write_bytes(classes)
        verify(jar, ZINGG_JAR_SHA256)
        place(jar, folder, ZINGG_JAR)


def fetch_jars(spark_home: Path, python: Path, run: Run, say: Callable[[str], None]) -> None:
    """Makes Spark's `jars` folder hold exactly the pinned Delta and GraphFrames jars."""
    keep = fetch_delta(spark_home, run) | fetch_graphframes(spark_home, python, run, say)
    remove_other_versions(spark_home / "jars", keep)
