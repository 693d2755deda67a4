"""Settings: precedence, and every mistake with its value, its origin and its fix."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from prune_lib.errors import SettingsError
from prune_lib.locations import (
    companion,
    is_location,
    is_within,
    name_parts,
    name_problem,
    normalised,
    schema_of,
    table_in_workspace,
)
from prune_lib.settings import PruneSettings, SamplingSettings, load_settings, settings_hash
from prune_lib.settings.document import default_yaml
from prune_lib.settings.options import options_of
from prune_lib.settings.sources import asks_for_json, of_call

ROOT = Path(__file__).resolve().parents[2]


def mistake(argv: list[str], environ: dict[str, str] | None = None) -> str:
    """The message of a command that is wrong."""
    with pytest.raises(SettingsError) as caught:
        load_settings(argv, environ or {})
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path):
    """Writes a YAML file and returns its path."""

    def write(text: str) -> str:
        path = tmp_path / "conf.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--ratio", "0"], ["--ratio must be in (0, 1]; got 0."]),
        (["--ratio", "1.5"], ["--ratio must be in (0, 1]; got 1.5.", "0.1 keeps a tenth"]),
        (["--ratio", "-0.1"], ["--ratio must be in (0, 1]; got -0.1."]),
        (["--ratio", "nan"], ["--ratio must be", "got nan."]),
        (["--ratio", "abc"], ["--ratio must be a number in (0, 1]; got 'abc'."]),
        (["--ratio", "10"], ["got 10.", "For 10% of the data write 0.1."]),
        (["--ratio", "10%"], ["got '10%'.", "For 10% of the data write 0.1."]),
        (["--ratio"], ["--ratio needs a value"]),
        ([], ["--ratio is missing", "PRUNE_RATIO", "--ratio with a value such as 0.1"]),
        (["--ratoi", "0.1"], ["--ratoi is not a flag. Did you mean --ratio?"]),
        (["--ratoi=0.1"], ["--ratoi is not a flag. Did you mean --ratio?"]),
        (["--ratio", "0.1", "--kappa", "1"], ["Did you mean --sampling-kappa?"]),
        (["--ratio", "0.1", "--colour"], ["--colour is not a flag. --help lists"]),
        (["--ratio", "0.1", "more"], ["'more' does not belong to a flag"]),
        (["--ratio", "0.1", "--method", "grpah"], ["'grpah'. Did you mean graph?"]),
        (["--ratio", "0.1", "--seed", "1.5"], ["--seed must be a whole number", "got '1.5'"]),
        (["--ratio", "0.1", "--input", ""], ["--input must be text that is not empty; got ''"]),
        (["--ratio", "0.1", "--sampling-half-life", "0"], ["--sampling-half-life must be above 0; got 0."]),
        (["--ratio", "0.1", "--propagation-alpha", "-1"], ["must be in [0, 1]; got -1."]),
        (
            ["--ratio", "0.1", "--version", "3", "--timestamp", "2026-11-01"],
            ["--version (3) and --timestamp (2026-11-01) exclude each other"],
        ),
        (
            ["--ratio", "0.1", "--method", "random", "--floor-by", "shop:5"],
            ["--floor-by asks for a floor, and --method is 'random'"],
        ),
        (["--ratio", "0.1", "--method", "ccs", "--floor", "1"], ["--floor asks for a floor"]),
        (["--ratio", "0.1", "--verbose", "--quiet"], ["--verbose and --quiet exclude each other"]),
        (["--ratio", "0.1", "--timestamp", "yesterday"], ["--timestamp must be a time such as"]),
        (["--ratio", "0.1", "--since", "last week"], ["--since must be a moment", "90d", "'last week'"]),
        (["--ratio", "0.1", "--since", "0d"], ["--since must be a moment", "'0d'"]),
        (["--ratio", "0.1", "--output", "a.b.c.d"], ["--output 'a.b.c.d' has 4 parts"]),
        (["--ratio", "0.1", "--workspace", "a.b.c"], ["--workspace 'a.b.c' has 3 parts"]),
        (["--ratio", "0.1", "--output=~/kept"], ["--output '~/kept' begins with a ~", "in full"]),
        (["--ratio", "0.1", "--config", "no.yaml"], ["--config names the file no.yaml", "exist"]),
    ],
)
def test_a_wrong_flag(argv: list[str], parts: list[str]) -> None:
    text = mistake(argv)
    for part in parts:
        assert part in text
    # One mistake makes one message: a misspelt --ratio is not also missing.
    assert "mistakes" not in text


def test_a_wrong_variable_of_the_environment() -> None:
    assert mistake([], {"PRUNE_RATIO": "2.5"}).startswith(
        "the environment variable PRUNE_RATIO must be in (0, 1]; got 2.5."
    )
    assert "PRUNE_RATOI names no setting. Did you mean PRUNE_RATIO?" in mistake([], {"PRUNE_RATOI": "0.1"})
    assert "PRUNE_SAMPLING__KAPPA must be a number" in mistake(
        ["--ratio", "0.1"], {"PRUNE_SAMPLING__KAPPA": "x"}
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ratio: 1.5\n", ["the key `ratio` in", "conf.yaml (line 1) must be in (0, 1]; got 1.5."]),
        ("ratio: true\n", ["must be a number in (0, 1]; got 'true'."]),
        ("ratio: [0.1]\n", ["must be one value", "got a list"]),
        ("ratio: 0.1\ncolour: red\n", ["the key `colour` in", "(line 2) is not a setting."]),
        (
            "ratio: 0.1\nsampling:\n  kapa: 1\n",
            ["`sampling.kapa`", "(line 3) is not a setting. Did you mean sampling.kappa?"],
        ),
        ("ratio: 0.1\nkappa: 1\n", ["`kappa`", "Did you mean sampling.kappa?"]),
        ("ratio: 0.1\nsampling: 3\n", ["`sampling`", "is a group", "kappa"]),
        ("ratio: 0.1\nsampling:\n  task_edges: 0\n", ["`sampling.task_edges`", "must be 1 or more; got 0."]),
        ("ratio: 0.1\nfloor_by: [a]\n", ["`floor_by`", "'a' is not text such as category:5"]),
        ("ratio: 0.1\nfloor_by: a:0\n", ["'a:0' is not text such as category:5"]),
        ("ratio: 0.1\nratio: 0.2\n", ["(line 2) is there twice, first in line 1"]),
        (
            "ratio: 0.1\nsampling.kappa: 1\nsampling:\n  kappa: 2\n",
            ["`sampling.kappa` in", "(line 4) is there twice, first in line 2"],
        ),
        ("ratio: 0.1\nconfig: other.yaml\n", ["cannot be set in the file itself"]),
        ("ratio: 0.1\ntraining:\n  epochs: 0\n", ["`training.epochs`", "got 0"]),
        ("ratio: [0.1\n", ["is not YAML"]),
        ("- ratio\n", ["holds no keys"]),
    ],
)
def test_a_wrong_file(file, text: str, parts: list[str]) -> None:
    message = mistake(["--config", file(text), *([] if "ratio" in text else ["--ratio", "0.1"])])
    for part in parts:
        assert part in message


def test_all_mistakes_are_reported_together(file) -> None:
    path = file("sampling:\n  kapa: 1\nseed: x\n")
    text = mistake(
        ["--ratio", "1.5", "--methd", "graph", "--version", "1", "--timestamp", "2026-11-01"],
        {"PRUNE_CONFIG": path, "PRUNE_BUDGET": "clicks"},
    )
    assert text.startswith("6 mistakes in the settings:\n(1) ")
    for part in ("--ratio must", "--methd is not", "PRUNE_BUDGET", "`sampling.kapa`", "`seed`"):
        assert part in text
    assert "exclude each other" in text


def test_json_is_a_setting_of_every_source(file) -> None:
    assert load_settings(["--ratio", "0.1", "--json"], {}).as_json
    assert load_settings(["--ratio", "0.1"], {"PRUNE_JSON": "1"}).as_json
    path = file("ratio: 0.1\njson: true\nverbose: false\nquiet: true\n")
    settings = load_settings(["--config", path], {})
    assert settings.as_json and settings.quiet
    assert not load_settings(["--config", path, "--no-json"], {}).as_json


def test_json_is_known_also_where_the_settings_are_wrong(file) -> None:
    asks = partial(asks_for_json, PruneSettings)
    path = file("json: yes\nratoi: 0.1\nkept: {a: [1]}\n")
    assert asks(["--config", path], {}) and asks([f"--config={path}"], {})
    assert asks([], {"PRUNE_CONFIG": path})
    assert not asks(["--config", path, "--no-json"], {})
    assert not asks(["--config", path], {"PRUNE_JSON": "false"})
    for text in ("json: [", "- json", "json: false", ""):
        assert not asks(["--config", file(text)], {})
    assert not asks(["--config"], {}) and not asks(["--config", "/nowhere"], {}) and not asks([], {})


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({}, "`ratio` is missing: share of the data to keep, in (0, 1]. Give it, such as ratio=0.1."),
        ({"ratio": 10}, "`ratio` must be in (0, 1]; got 10. For 10% of the data write 0.1."),
        ({"ratio": True}, "`ratio` must be a number in (0, 1]; got 'true'."),
        ({"ratio": [0.1]}, "`ratio` must be one value, a number in (0, 1]; got [0.1]."),
        ({"ratio": 0.1, "methd": "graph"}, "`methd` is not a setting. Did you mean method?"),
        ({"ratio": 0.1, "kappa": 1}, "Did you mean sampling.kappa? Write sampling={'kappa': ...}."),
        ({"ratio": 0.1, "sampling": 3}, "`sampling` is a group: give a dictionary with some of demand, "),
        ({"ratio": 0.1, "sampling": {"kappa": "x"}}, "`sampling.kappa` must be a number"),
        ({"ratio": 0.1, "floor_by": ["a"]}, "`floor_by`: 'a' is not text such as category:5."),
        ({"ratio": 0.1, "floor": 1, "method": "ccs"}, "`floor` asks for a floor, and `method` is 'ccs'"),
        ({"ratio": 0.1, "verbose": True}, "`verbose` is not for a call: a call prints nothing, and how much"),
        ({"ratio": 0.1, "quiet": True}, "`quiet` is not for a call"),
        ({"ratio": 0.1, "log_json": True}, "`log_json` is not for a call"),
        ({"ratio": 0.1, "json": True}, "`json` is not for a call"),
        ({"ratio": 0.1, "config": "mine.yaml"}, "`config` is not for a call: give the file's keys as arg"),
        ({"ratio": 0.1, "checkpoints": "~/ck"}, "`checkpoints` '~/ck' begins with a ~"),
        ({"ratio": 0.1, "experts": "~/ex"}, "`experts` '~/ex' begins with a ~"),
        ({"ratio": 0.1, "output": "a\0b"}, "`output` holds a character NUL"),
        ({"ratio": 0.1, "since": "0001-01-01T00:00:00+01:00"}, "`since` must be a moment"),
        ({"ratio": 0.1, "timestamp": "0001-01-01T00:00:00+01:00"}, "`timestamp` must be a time"),
    ],
)
def test_a_wrong_keyword_of_a_call(keywords: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        of_call(PruneSettings, keywords)
    assert said in str(caught.value) and "--" not in str(caught.value) and "mistakes" not in str(caught.value)


def test_keywords_are_settings_and_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_SEED", "7")
    given = {"ratio": 0.1, "sampling": SamplingSettings(kappa=1), "floor_by": ("a:2", "b:3"), "output": None}
    settings = of_call(PruneSettings, {**given, "training": {"epochs": 1}, "json": None})
    assert (settings.seed, settings.sampling.kappa, settings.floor_by) == (0, 1.0, ("a:2", "b:3"))
    assert settings.training.epochs == 1 and settings.output is None


def test_flags_win_over_environment_over_file_over_defaults(file) -> None:
    path = file("ratio: 0.1\nseed: 1\nfloor: 1\nsampling:\n  kappa: 1\n  half_life: 0.9\n")
    environ = {"PRUNE_SEED": "2", "PRUNE_FLOOR": "2", "PRUNE_SAMPLING__HALF_LIFE": "0.8"}
    s = load_settings(["--config", path, "--floor", "3"], environ)
    assert (s.ratio, s.seed, s.floor) == (0.1, 2, 3)
    assert (s.sampling.kappa, s.sampling.half_life, s.sampling.item_exponent) == (1.0, 0.8, 0.25)


def test_every_source_can_set_every_option(file) -> None:
    """The three sources are generated from one model: nothing is settable in one only."""
    for option in options_of(PruneSettings):
        if option.key in ("config", "ratio"):
            continue
        given, base = "true" if option.is_switch else "\0", ["--ratio", "0.5"]
        kind, default = str(option.info.annotation), option.info.default
        if not option.is_switch:
            given = (
                str(default)
                if default is not None
                else ("2" if "int" in kind or "float" in kind else "2026-01-01")
            )
        if option.key == "floor_by":
            given = "category:5,band:2"
        flag = [option.flag] if option.is_switch else [option.flag, given]
        by_flag = load_settings([*base, *flag], {})
        by_env = load_settings(base, {option.env: given})
        nested: object = given
        for name in reversed(option.path):
            nested = {name: nested}
        by_file = load_settings([*base, "--config", file(yaml.safe_dump(nested))], {})
        assert by_flag == by_env == by_file.model_copy(update={"config": None}), option.key


def test_ways_to_write_the_same(file) -> None:
    dotted = load_settings(["--ratio=.5", "--sampling.kappa", "2"], {})
    kebab = load_settings(["--ratio", "5e-1", "--config", file("sampling: {kappa: 2}")], {})
    assert dotted.sampling == kebab.sampling
    assert load_settings(["--ratio", "1"], {}).ratio == 1.0
    assert load_settings(["--ratio", "1", "--config", file("dry-run: yes")], {}).dry_run
    assert not load_settings(["--ratio", "1", "--no-dry-run"], {"PRUNE_DRY_RUN": "1"}).dry_run
    # Text stays as it is written, whatever YAML takes it for.
    s = load_settings(["--ratio", "1", "--config", file("timestamp: 2026-11-01\nseed: 0")], {})
    assert s.timestamp == "2026-11-01"
    # An empty variable is not set.
    assert load_settings(["--ratio", "1"], {"PRUNE_METHOD": ""}).method == "graph"


def test_a_key_of_a_group_may_be_written_with_a_point(file) -> None:
    """As the help and all messages write it."""
    dotted = load_settings(["--config", file("ratio: 0.1\nsampling.kappa: 1\n")], {})
    assert dotted.sampling.kappa == 1


def test_a_flag_that_stands_for_others_works_beside_a_file_of_all_settings(file) -> None:
    path = file(default_yaml().replace("ratio:", "ratio: 0.1  #"))
    assert load_settings(["--config", path, "--device", "cpu"], {}).training.device == "cpu"


def test_the_default_file_is_the_defaults() -> None:
    path = ROOT / "conf" / "default.yaml"
    # Where this fails: python -m prune_lib.settings.document > conf/default.yaml
    assert path.read_text() == default_yaml()
    s = load_settings(["--config", str(path), "--ratio", "0.1"], {})
    assert s.model_copy(update={"config": None}) == PruneSettings(ratio=0.1)

    def keys(node: object, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        if not isinstance(node, dict):
            return {path}
        return {leaf for name, inner in node.items() for leaf in keys(inner, (*path, name))}

    options = {o.path for o in options_of(PruneSettings)} - {("config",)}
    assert keys(yaml.safe_load(path.read_text())) == options


def test_help_names_every_flag_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load_settings(["--help-all"], {})
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in options_of(PruneSettings):
        assert option.flag in text
    with pytest.raises(SystemExit):
        load_settings(["--help"], {})
    short = capsys.readouterr().out
    assert "--ratio R" in short and "--sampling-kappa" not in short
    assert "floor of 1 costs a GRU4Rec 5.1 points" in " ".join(short.split())
    assert max(map(len, short.splitlines())) <= 100


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("./data/t", "data/t/"),
        ("{tmp}/t", "file://{tmp}/t"),
        ("{tmp}/t", "file:{tmp}/x/../t/"),
        ("{tmp}/t", "{tmp}/link"),
        ("s3://b/t", "s3a://b/t/"),
        ("shop.t", "Shop.`T`"),
        ("shop.t", "spark_catalog.shop.t"),
        ("{tmp}/p_decisions", "{tmp}/p"),
        ("shop.p_runs", "shop.p"),
        ("shop.p_summary", "shop.p"),
        ("spark_catalog.shop.P_item_coverage", "shop.p"),
        ("{tmp}/t", "{tmp}/t/pruned"),
        ("{tmp}/t/part", "{tmp}/t"),
    ],
)
def test_an_output_that_is_the_input(tmp_path: Path, source: str, target: str) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "t")
    source, target = (text.format(tmp=tmp_path) for text in (source, target))
    text = mistake(["--ratio", "0.1", "--input", source, "--output", target])
    assert text.startswith(f"--output '{target}' ") and "input" in text
    with pytest.raises(ValidationError):
        PruneSettings(ratio=0.1, input=source, output=target)


def test_only_a_catalog_has_views_that_an_input_could_be() -> None:
    said = "--output 'shop.p' would put its view shop.p_summary in the place of the input. Name another table"
    assert said in mistake(["--ratio", "0.1", "--input", "shop.p_summary", "--output", "shop.p"])
    assert PruneSettings(ratio=0.1, input="/data/p_summary", output="/data/p").output == "/data/p"


def test_the_workspace_gives_input_and_output() -> None:
    s = PruneSettings(ratio=0.1)
    assert (s.resolved_input, s.resolved_output) == ("./workspace/sessions", "./workspace/pruned")
    s = PruneSettings(ratio=0.1, workspace="main.shop", output="/x/kept")
    assert (s.resolved_input, s.resolved_output) == ("main.shop.sessions", "/x/kept")
    assert companion("main.shop.`my table`", "items") == "main.shop.`my table_items`"
    text = mistake(["--ratio", "0.1", "--input", "./workspace/pruned"])
    assert "the default of output './workspace/pruned' is the input itself" in text


def test_the_hash_follows_what_decides_the_result() -> None:
    base = PruneSettings(ratio=0.1)
    same = PruneSettings(ratio=0.1, workspace="/w", dry_run=True, device="cpu", config="c.yaml")
    assert settings_hash(base) == settings_hash(same)
    loud = [PruneSettings.model_validate({"ratio": 0.1, key: True}) for key in ("quiet", "verbose", "json")]
    engines = [PruneSettings(ratio=0.1, propagation={"engine": e}) for e in ("auto", "graphframes", "arrays")]
    where = {"device": "cpu", "threads": 3, "processes": 2, "distributor": "spark"}
    elsewhere = PruneSettings.model_validate({"ratio": 0.1, "training": where})
    assert {settings_hash(s) for s in (*loud, *engines, elsewhere)} == {settings_hash(base)}
    # Of a version before these settings: runs that were written then are known again.
    before = PruneSettings.model_validate({"ratio": 0.1, "sampling": {"demand": "recency", "kappa": 0.5}})
    assert settings_hash(before) == "6e66219255348f6672d7f404193256ad640db016e33bee80d69cddfd4f816656"
    others = (
        PruneSettings(ratio=0.2),
        PruneSettings(ratio=0.1, seed=1),
        PruneSettings(ratio=0.1, since="90d"),
        PruneSettings.model_validate({"ratio": 0.1, "sampling": {"kappa": 1}}),
        PruneSettings.model_validate({"ratio": 0.1, "sampling": {"min_support": 3}}),
        PruneSettings.model_validate({"ratio": 0.1, "sampling": {"forecast_exponent": 0.5}}),
        PruneSettings.model_validate({"ratio": 0.1, "training": {"epochs": 1}}),
    )
    assert len({settings_hash(s) for s in (base, before, *others)}) == 2 + len(others)


def test_training_runs_where_scoring_does_unless_told_otherwise() -> None:
    assert load_settings(["--ratio", "1", "--device", "cpu"], {}).training.device == "cpu"
    argv = ["--ratio", "1", "--device", "cpu", "--training-device", "cuda"]
    assert load_settings(argv, {}).training.device == "cuda"
    assert PruneSettings(ratio=1).training.device == "auto"


def test_the_model_is_strict_and_frozen() -> None:
    with pytest.raises(ValidationError):
        PruneSettings(ratio=0.1, colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        PruneSettings(ratio=0.1).ratio = 0.2  # type: ignore[misc]


_PART = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)


@given(st.lists(_PART, min_size=2, max_size=3), st.sampled_from(["decisions", "items", "runs"]))
def test_names_and_locations(parts: list[str], kind: str) -> None:
    name, place = ".".join(parts), "/" + "/".join(parts)
    if parts[-1] not in ("parquet", "delta"):
        assert not is_location(name)
        assert normalised(name.upper()) == normalised(name)
    assert is_location(place) and is_location("./" + name) and is_location("s3:/" + place)
    assert companion(place + "/", kind) == f"{place}_{kind}"
    assert not is_within(companion(place, kind), place)
    assert table_in_workspace(place + "/", "t") == f"{place}/t"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("main.shop.clicks", ["main", "shop", "clicks"]),
        ("shop.2024_01", ["shop", "2024_01"]),
        ("shop.`2024`", ["shop", "`2024`"]),
        ("shop.`größe`", ["shop", "`größe`"]),
        ("shop.`my.``table`", ["shop", "`my.``table`"]),
    ],
)
def test_names_that_spark_reads_are_split_at_their_dots(name: str, parts: list[str]) -> None:
    assert name_problem(name) is None and not is_location(name)
    assert name_parts(name) == parts and schema_of(name) == ".".join(parts[:-1])


@pytest.mark.parametrize(
    "name", ["shop.größe", "shop.2024", "shop.1e5", "2024.clicks", "shop.5L", "shop.a b"]
)
def test_names_that_spark_does_not_read_are_refused(name: str) -> None:
    assert "backquotes" in (name_problem(name) or "")
    for flag in ("--output", "--input"):
        text = mistake(["--ratio", "0.1", flag, name])
        assert text.startswith(f"{flag} '{name}'") and f"./{name}" in text
