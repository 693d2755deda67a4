"""The set-up's decisions, without a network, a JVM or an environment."""

import hashlib
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from environment import commands, jars, machine, main, packages, spark_conf, state
from environment.errors import MachineError, SetupError

GIB = 1024**3
ROOT = Path(__file__).resolve().parents[2]


# Java


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime Environment', 17),
        ('openjdk version "11.0.2" 2019-01-15', 11),
        ('java version "1.8.0_392"\nJava(TM) SE Runtime Environment', 8),
        ('openjdk version "21" 2023-09-19', 21),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "17.0.1"', 17),
        ("Unable to locate a Java Runtime.", None),
        ("", None),
    ],
)
def test_java_version_is_read(text: str, version: int | None) -> None:
    assert machine.parse_java_version(text) == version


@pytest.mark.parametrize("version", machine.JAVA_VERSIONS)
def test_suitable_java_needs_no_words(version: int) -> None:
    assert machine.explain_java("/usr/bin/java", version, "PATH", {}, []) == ""


@pytest.mark.parametrize(
    ("path", "version", "decided_by", "environ", "expected"),
    [
        (None, None, "PATH", {}, "there is no `java` on PATH, and JAVA_HOME is not set"),
        (None, None, "JAVA_HOME", {"JAVA_HOME": "/gone"}, "JAVA_HOME is /gone"),
        ("/usr/bin/java", None, "PATH", {}, "/usr/bin/java (from PATH) does not run"),
        ("/usr/bin/java", 8, "PATH", {}, "/usr/bin/java (from PATH) is Java 8"),
        ("/usr/bin/java", 21, "PATH", {}, "/usr/bin/java (from PATH) is Java 21"),
    ],
)
def test_unsuitable_java_is_named_with_what_to_do(
    path: str | None, version: int | None, decided_by: str, environ: dict[str, str], expected: str
) -> None:
    message = machine.explain_java(path, version, decided_by, environ, [])
    assert "Java 17 is needed" in message
    assert expected in message
    assert "openjdk-17-jre-headless" in message
    assert "\n" not in message


def test_java_that_is_installed_elsewhere_is_recommended() -> None:
    message = machine.explain_java("/usr/bin/java", 8, "PATH", {}, ["/usr/lib/jvm/java-17"])
    assert "export JAVA_HOME=/usr/lib/jvm/java-17" in message
    assert "apt-get" not in message


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    for folder in ("home/bin", "path"):
        java = tmp_path / folder / "java"
        java.parent.mkdir(parents=True)
        java.touch(mode=0o755)
    both = {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "path")}
    assert machine.java_command(both) == (str(tmp_path / "home/bin/java"), "JAVA_HOME")
    assert machine.java_command({"PATH": both["PATH"]}) == (str(tmp_path / "path/java"), "PATH")
    assert machine.java_command({"PATH": str(tmp_path)}) == (None, "PATH")
    assert machine.java_command({**both, "JAVA_HOME": "/gone"}) == (None, "JAVA_HOME")


# Python


def python(minor: int, makes_environments: bool = True) -> machine.Interpreter:
    return machine.Interpreter(f"/usr/bin/python3.{minor}", (3, minor, 1), makes_environments)


def test_first_supported_python_is_chosen() -> None:
    found = {"python3.12": python(12), "python3": python(13)}
    assert machine.choose_python(["python3.11", "python3", "python3.12"], found.get) == python(12)


def test_missing_or_wrong_python_is_named() -> None:
    with pytest.raises(MachineError, match="found none of python3.11"):
        machine.choose_python(["python3.11"], lambda name: None)
    with pytest.raises(MachineError, match=r"found 3\.13\.1 \(/usr/bin/python3\.13\)") as caught:
        machine.choose_python(["python3"], lambda name: python(13))
    assert caught.value.exit_code == 2


def test_python_without_venv_is_passed_over_or_explained() -> None:
    found = {"python3.11": python(11, makes_environments=False), "python3.10": python(10)}
    assert machine.choose_python(["python3.11", "python3.10"], found.get) == python(10)
    with pytest.raises(MachineError, match=r"apt-get install python3\.11-venv"):
        machine.choose_python(["python3.11"], found.get)


def test_python_is_probed(tmp_path: Path) -> None:
    found = machine.probe_python(sys.executable)
    assert found is not None and found.version == sys.version_info[:3]
    assert machine.probe_python("no-such-python") is None
    # A version manager's shim for a version that is not installed.
    shim = tmp_path / "python3.11"
    shim.write_text("#!/bin/sh\necho 'version not installed' >&2\nexit 127\n")
    shim.chmod(0o755)
    assert machine.probe_python(str(shim)) is None


# Disk and memory


def test_disk_counts_what_is_there_already() -> None:
    folder = Path("env")
    assert machine.explain_disk(folder, machine.DISK_GIB * GIB) == ""
    assert machine.explain_disk(folder, GIB, machine.DISK_GIB * GIB) == ""
    message = machine.explain_disk(folder, 3 * GIB)
    assert f"needs {machine.DISK_GIB} GB" in message and "3.0 GB are free" in message
    assert "VENV=" in message


@pytest.mark.parametrize(
    ("gib", "memory"), [(1, "2g"), (4, "2g"), (8, "3g"), (12, "5g"), (16, "7g"), (64, "8g")]
)
def test_driver_memory_follows_the_machine(gib: int, memory: str) -> None:
    assert spark_conf.driver_memory(gib * GIB) == memory


@pytest.mark.parametrize(
    ("limits", "memory"),
    [
        ([], 16 * GIB),
        (["max\n"], 16 * GIB),
        ([f"{4 * GIB}\n"], 4 * GIB),
        # The first version of control groups says "no limit" with a huge number.
        (["9223372036854771712\n"], 16 * GIB),
    ],
)
def test_a_container_s_limit_counts(limits: list[str], memory: int) -> None:
    assert spark_conf.memory_limit(16 * GIB, limits) == memory


# Jars


def jar(entries: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_only_the_three_folders_are_taken() -> None:
    wanted = {
        "org/graphframes/GraphFrame.class": b"1",
        "org/apache/spark/graphframes/graphx/Edge.class": b"2",
        "org/apache/spark/sql/graphframes/SparkShims.class": b"3",
    }
    others = {
        "zingg/Matcher.class": b"4",
        "org/graphframesx/Other.class": b"5",
        "org/apache/spark/sql/Dataset.class": b"6",
        "META-INF/LICENSE": b"7",
        "org/graphframes/": b"",
    }
    taken = jars.extract_folders(jar({**others, **wanted}), jars.ZINGG_FOLDERS)
    with zipfile.ZipFile(io.BytesIO(taken)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == wanted


def test_extracted_jar_has_one_sha256() -> None:
    entries = {"org/graphframes/A.class": b"a" * 1000, "org/graphframes/B.class": b"b"}
    backwards = dict(reversed(entries.items()))
    assert jars.extract_folders(jar(entries), jars.ZINGG_FOLDERS) == jars.extract_folders(
        jar(backwards), jars.ZINGG_FOLDERS
    )


def test_another_file_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "delta.jar"
    path.write_bytes(b"altered")
    jars.verify(path, hashlib.sha256(b"altered").hexdigest())
    with pytest.raises(SetupError, match="delta.jar is not the file that this project pins"):
        jars.verify(path, hashlib.sha256(b"original").hexdigest())


def fake_spark(tmp_path: Path) -> Path:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "antlr4-runtime-4.9.4.jar").write_bytes(b"Spark's own")
    return tmp_path


class FakeResolver:
    """Stands in for spark-submit and pip: puts files where they would."""

    def __init__(self, files: dict[str, bytes], succeeds: bool = True) -> None:
        self.files, self.succeeds = files, succeeds
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], cwd: str = "", **_: object) -> "subprocess.CompletedProcess[str]":
        self.commands.append(command)
        if cwd and self.succeeds:
            (Path(cwd) / "jars").mkdir()
            for name, content in self.files.items():
                (Path(cwd) / "jars" / name).write_bytes(content)
        return subprocess.CompletedProcess(command, 0 if self.succeeds else 1, "")


def test_altered_delta_is_refused_and_nothing_is_placed(tmp_path: Path) -> None:
    spark = fake_spark(tmp_path)
    resolver = FakeResolver({f"io.delta_{name}": b"altered" for name in jars.DELTA_JARS})
    with pytest.raises(SetupError, match="SHA-256"):
        jars.fetch_delta(spark, resolver)
    assert not list((spark / "jars").glob("delta-*"))


def test_delta_s_antlr_is_left_out_where_spark_has_one(tmp_path: Path) -> None:
    resolver = FakeResolver({}, succeeds=False)
    with pytest.raises(SetupError, match="could not be fetched"):
        jars.fetch_delta(fake_spark(tmp_path), resolver)
    assert jars.ANTLR in resolver.commands[0]


def test_graphframes_from_maven_central_brings_only_its_own_jars(tmp_path: Path) -> None:
    spark = fake_spark(tmp_path)
    resolver = FakeResolver(
        {
            f"io.graphframes_{jars.GRAPHFRAMES_JAR}": jar({jars.GRAPHFRAMES_CLASS: b""}),
            "io.graphframes_graphframes-graphx-spark3_2.12-0.10.1.jar": jar({}),
            "org.slf4j_slf4j-api-2.0.16.jar": jar({}),
        }
    )
    expected = {jars.GRAPHFRAMES_JAR, "graphframes-graphx-spark3_2.12-0.10.1.jar"}
    names = jars.fetch_graphframes(spark, Path("python"), resolver, lambda message: None)
    assert names == expected
    assert {path.name for path in (spark / "jars").glob("*.jar")} - expected == {"antlr4-runtime-4.9.4.jar"}
    # Once placed, they are found without asking the network again.
    again = jars.fetch_graphframes(spark, Path("python"), resolver, lambda message: None)
    assert again == expected and len(resolver.commands) == 1


def test_no_source_of_graphframes_names_both(tmp_path: Path) -> None:
    resolver = FakeResolver({}, succeeds=False)
    with pytest.raises(SetupError, match="neither .*Maven Central.* nor .*zingg"):
        jars.fetch_graphframes(fake_spark(tmp_path), Path("python"), resolver, lambda message: None)
    assert "--require-hashes" in resolver.commands[1]


def test_a_resolver_that_never_answers_is_given_up(tmp_path: Path) -> None:
    def never(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        raise subprocess.TimeoutExpired(command, 1)

    assert jars.resolve(jars.DELTA, tmp_path, tmp_path, never) == []


def test_older_versions_go_and_spark_s_own_jars_stay(tmp_path: Path) -> None:
    for name in ("delta-spark_2.12-3.2.0.jar", "delta-spark_2.12-3.3.3.jar", "spark-core.jar"):
        (tmp_path / name).touch()
    jars.remove_other_versions(tmp_path, {"delta-spark_2.12-3.3.3.jar"})
    assert sorted(os.listdir(tmp_path)) == ["delta-spark_2.12-3.3.3.jar", "spark-core.jar"]


def test_proxy_of_the_environment_reaches_java() -> None:
    environ = {"https_proxy": "http://user:secret@proxy.example:3128"}
    options = jars.proxy_options(environ)
    assert options == "-Dhttps.proxyHost=proxy.example -Dhttps.proxyPort=3128"


# Packages


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "The disk is full"),
        (
            "WARNING: Retrying after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: No matching distribution found for tqdm==4.70.1",
            "package index could not be reached",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "pins"),
        ("ERROR: No matching distribution found for torch==2.12.1", "no file of torch==2.12.1"),
        ("Traceback\n  something\nValueError: odd\n", "ValueError: odd"),
        ("", "it said nothing"),
    ],
)
def test_pip_s_failure_becomes_one_paragraph(output: str, expected: str) -> None:
    message = packages.explain_pip(output, Path("env/setup.log"))
    assert expected in message
    assert "env/setup.log" in message and "make setup" in message
    assert "\n" not in message


def test_builders_come_out_of_the_lock_file_with_hashes() -> None:
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    entries = packages.lock_entries(lock, ("setuptools", "wheel"))
    lines = [line for line in entries.splitlines() if not line.startswith(" ")]
    assert [line.split("==")[0] for line in lines] == ["setuptools", "wheel"]
    assert entries.count("--hash=sha256:") >= 2


def test_lock_file_pins_hashes_and_names_no_address() -> None:
    lock = (ROOT / "requirements" / "lock.txt").read_text()
    entries = [line for line in lock.splitlines() if line and line[0] not in " #"]
    assert len(entries) > 100
    assert all("==" in entry and entry.endswith("\\") for entry in entries)
    assert "://" not in lock and "index-url" not in lock and "find-links" not in lock


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    packages.check_folder(tmp_path / "new")
    packages.check_folder(tmp_path)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(MachineError, match="nothing was changed"):
        packages.check_folder(tmp_path)
    (tmp_path / "pyvenv.cfg").touch()
    packages.check_folder(tmp_path)


# What is done


def test_a_step_is_done_until_something_it_depends_on_changes(tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("a==1")
    first = state.key(lock, "3.11")
    steps = state.State(tmp_path / "state.json")
    assert not steps.is_done("packages", first)
    steps.note("packages", first)
    assert state.State(tmp_path / "state.json").is_done("packages", state.key(lock, "3.11"))
    assert not steps.is_done("jars", first)
    lock.write_text("a==2")
    assert not steps.is_done("packages", state.key(lock, "3.11"))


def test_an_environment_that_is_made_afresh_has_nothing_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Python is gone, as after an upgrade of the system's; what was installed goes with it."""
    venv = tmp_path / "venv"
    (venv / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (venv / "pyvenv.cfg").touch()
    steps = state.State(venv / "setup-state.json")
    for name in ("python", "packages", "project", "jars", "conf", "check"):
        steps.note(name, str(venv) if name == "python" else "done")
    monkeypatch.setattr(state, "key", lambda *parts: "done")
    monkeypatch.setattr(main, "key", lambda *parts: "done")
    monkeypatch.setattr(main.machine, "check_java", lambda: 17)
    monkeypatch.setattr(main.machine, "check_disk", lambda venv: None)
    monkeypatch.setattr(main.machine, "choose_python", lambda names: machine.probe_python(sys.executable))
    monkeypatch.setattr(main.packages, "create_environment", lambda base, venv, run: None)
    done: list[str] = []
    for owner, name in (
        (main, "install_packages"),
        (main.packages, "install_project"),
        (main.jars, "fetch_jars"),
        (main.spark_conf, "write_conf"),
        (main, "try_out"),
    ):
        monkeypatch.setattr(owner, name, lambda *given, name=name: done.append(name))
    main.set_up(venv, "")
    assert done == ["install_packages", "install_project", "fetch_jars", "write_conf", "try_out"]


@pytest.mark.parametrize("text", ["", '{"packages": ', "[]"])
def test_an_unreadable_state_means_that_nothing_is_done(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert not state.State(tmp_path / "state.json").is_done("packages", "key")


def test_parts_of_a_key_do_not_run_together() -> None:
    assert state.key("a", "bc") != state.key("ab", "c")


# Running commands


def test_output_goes_to_the_log_and_not_to_the_user(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = commands.Runner(tmp_path / "setup.log", live=False)
    done = run([sys.executable, "-c", "print('much'); raise SystemExit(3)"])
    assert (done.returncode, done.stdout) == (3, "much\n")
    assert "much" in (tmp_path / "setup.log").read_text()
    assert capfd.readouterr().out == ""


def test_a_command_that_hangs_is_ended(tmp_path: Path) -> None:
    run = commands.Runner(tmp_path / "setup.log", live=False)
    with pytest.raises(subprocess.TimeoutExpired):
        run([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)


# Spark's settings


def test_settings_are_written_into_the_environment_s_own_spark(tmp_path: Path) -> None:
    spark_home = tmp_path / "lib" / "python3.11" / "site-packages" / "pyspark"
    spark_home.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    spark_conf.write_conf(tmp_path, spark_home)
    defaults = (spark_home / "conf" / "spark-defaults.conf").read_text()
    assert f"spark.pyspark.python                 {tmp_path}/bin/python\n" in defaults
    assert "io.delta.sql.DeltaSparkSessionExtension" in defaults
    assert "${" not in defaults
    assert "SPARK_LOCAL_IP" in (spark_home / "conf" / "spark-env.sh").read_text()
    launcher = (tmp_path / "bin" / "find-spark-home").read_text()
    assert "${here}/../lib/python3.11/site-packages/pyspark" in launcher
    for name in ("spark-submit", "spark-sql"):
        real = spark_home / "bin" / name
        real.parent.mkdir(exist_ok=True)
        real.write_text('#!/bin/sh\necho "$0 $SPARK_HOME $1"\n')
        real.chmod(0o755)
        # From a folder that CDPATH names, where `cd` prints where it went; with another Spark in SPARK_HOME.
        ran = subprocess.run(
            [f"bin/{name}", "one"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "CDPATH": ".", "SPARK_HOME": "/opt/other"},
            capture_output=True,
            text=True,
            check=True,
        )
        where = tmp_path / "bin" / ".." / "lib" / "python3.11" / "site-packages" / "pyspark"
        assert ran.stdout == f"{where}/bin/{name} {where} one\n"


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (["job.py", "--ratio", "0.1"], "127.0.0.1"),
        (["--master", "local[2]", "job.py"], "127.0.0.1"),
        (["--conf", "spark.master=local-cluster[2,1,1024]", "job.py"], "127.0.0.1"),
        (["--master", "yarn", "job.py"], ""),
        (["--conf", "spark.master=spark://head:7077", "pyspark-shell"], ""),
        # The job's own flags may hold addresses.
        (["job.py", "--input", "s3://bucket/clicks"], "127.0.0.1"),
    ],
)
def test_only_a_local_spark_stays_on_the_loopback_address(arguments: list[str], address: str) -> None:
    script = spark_conf.TEMPLATES / "spark-env.sh"
    shown = subprocess.run(
        ["bash", "-c", f'. "{script}"; printf %s "$SPARK_LOCAL_IP"', "spark-submit", *arguments],
        env={"PATH": os.environ["PATH"]},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert shown.stdout == address


@pytest.mark.parametrize(
    ("given", "locale"),
    [
        ({}, "C.UTF-8"),
        ({"LC_ALL": "C", "LANG": "en_US.UTF-8"}, "C.UTF-8"),
        ({"LANG": "de_DE.ISO-8859-1"}, "C.UTF-8"),
        ({"LC_CTYPE": "de_DE.utf8", "LANG": "C"}, ""),
        ({"LC_ALL": "en_US.UTF-8"}, "en_US.UTF-8"),
    ],
)
def test_java_names_files_in_a_locale_of_utf_8(given: dict[str, str], locale: str) -> None:
    shown = subprocess.run(
        ["bash", "-c", f'. "{spark_conf.TEMPLATES / "spark-env.sh"}"; printf %s "$LC_ALL"', "spark-submit"],
        env={"PATH": os.environ["PATH"], **given},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert shown.stdout == locale


def test_an_interrupted_step_is_not_done_whatever_came_before(tmp_path: Path) -> None:
    steps = state.State(tmp_path / "state.json")
    steps.note("packages", "lock A")
    steps.forget("packages")  # lock B begins, and is interrupted
    assert not state.State(tmp_path / "state.json").is_done("packages", "lock A")


def test_a_proxy_without_a_number_for_its_port_is_told() -> None:
    with pytest.raises(SetupError, match="HTTPS_PROXY"):
        jars.proxy_options({"HTTPS_PROXY": "http://proxy:port"})
