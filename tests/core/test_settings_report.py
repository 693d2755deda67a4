"""Settings of `report`: flags, places, the file of all settings, mistakes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from prune_lib.errors import OutputError, SettingsError
from prune_lib.locations import companion, local_path
from prune_lib.settings.document import default_yaml
from prune_lib.settings.report import ReportSettings, report_place
from prune_lib.settings.sources import load

ROOT = Path(__file__).resolve().parents[2]


def settings(*flags: str) -> ReportSettings:
    return load(ReportSettings, list(flags), {})


def test_the_page_lies_beside_a_table_on_this_machine_or_in_the_workspace() -> None:
    assert settings().resolved_path == Path("workspace/pruned_report.html")
    assert settings("--output", "file:///data/kept").resolved_path == Path("/data/kept_report.html")
    stored = settings("--output", "s3://bucket/kept", "--workspace", "/w")
    assert stored.resolved_path == Path("/w/kept_report.html")
    named = settings("--output", "main.shop.kept", "--workspace", "main.shop")
    assert named.resolved_path == Path("main.shop.kept_report.html")
    assert settings("--path", "file:/a/b.html").resolved_path == Path("/a/b.html")
    assert settings("--path", "my.page.html").resolved_path == Path("my.page.html")


def test_the_page_of_the_folder_itself_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").mkdir()
    monkeypatch.chdir(tmp_path / "kept")
    for here in (".", "./", "../kept/.", f"{tmp_path}/kept/.", f"file:{tmp_path}/kept/./"):
        assert report_place(here, "./w") == tmp_path / "kept_report.html"
        assert local_path(companion(here, "decisions")) == tmp_path / "kept_decisions"
    assert settings("--output", "sub/..").resolved_path == tmp_path / "kept_report.html"
    assert settings("--output", "/", "--workspace", "/w").resolved_path == Path("/w/_report.html")


def test_the_file_of_all_settings_is_the_defaults() -> None:
    path = ROOT / "conf" / "report.yaml"
    # Where this fails: python -m prune_lib.settings.document report > conf/report.yaml
    assert path.read_text() == default_yaml(ReportSettings)
    s = settings("--config", str(path))
    assert s.model_copy(update={"config": None}) == ReportSettings()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--output", "a.b.c.d"], "has 4 parts"),
        (["--path", "s3://bucket/report.html"], "not a file on this machine"),
        (["--path", "~/report.html"], "a ~ that the shell did not replace"),
        (["--map-points", "50001"], "50,000"),
        (["--session", ""], "--session"),
    ],
)
def test_mistakes(flags: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings(*flags)
    assert said in str(error.value)


def test_a_folder_in_the_pages_place_is_refused(tmp_path: Path) -> None:
    from prune_lib.report.place import check_place

    with pytest.raises(OutputError, match="is a folder"):
        check_place(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        check_place(tmp_path / "file" / "report.html")
    check_place(tmp_path / "new" / "report.html")


def test_a_folder_that_may_not_be_entered_is_the_users_to_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prune_lib.report.place import check_place

    def refused(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(OutputError, match="cannot be written to .*: Permission denied"):
        check_place(tmp_path / "closed" / "report.html")


def test_a_full_disk_leaves_no_part_of_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prune_lib.report.place import write_page

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_page(tmp_path / "report.html", "<p>kept</p>")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_page(tmp_path / "report.html", "<p>kept</p>")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "<p>kept</p>"


def test_a_wrong_call_is_told_as_one() -> None:
    pytest.importorskip("altair")
    from prune_lib.report.job import write_report

    for path, said in (("s3://bucket/r.html", "not a file on this machine"), ("../r.html", "leads out of")):
        with pytest.raises(SettingsError, match=f"`path` .*{said}"):
            write_report(None, "kept", path=path)  # type: ignore[arg-type]


def test_a_run_of_another_version_has_a_report_without_a_map(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("altair")
    from prune_lib.report.job import _bundle
    from prune_lib.stages import Stages

    run = {"experts_version": "abc", "input": "shop.clicks"}
    stages = Stages()
    facts = SimpleNamespace(run=run, settings={"ratio": 0.1, "sampling": {"gone": 1}})
    assert _bundle(facts, "/nowhere", stages) is None  # type: ignore[arg-type]
    assert stages.warnings == [
        "no map, and no gate by popularity: the run's settings are of another version of this project "
        "(sampling.gone)"
    ]
