"""Settings of an evaluation: lists from every source, what `quick` fills, texts of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from prune_lib.cli import evaluate_main, run_job
from prune_lib.errors import SettingsError
from prune_lib.evaluation.plan import candidates
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.evaluation.targets.settings import FitSettings
from prune_lib.settings import load_settings
from prune_lib.settings.document import default_yaml
from prune_lib.settings.options import options_of, written
from prune_lib.settings.sources import load

ROOT = Path(__file__).resolve().parents[2]


def settings(*argv: str, **environ: str) -> EvaluateSettings:
    return load(EvaluateSettings, argv, environ)


def mistake(*argv: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(*argv, **environ)
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
    "argv",
    [
        ["--ratios", "0.05,0.1"],
        ["--ratios=0.05, 1e-1"],
        ["--ratios", " 0.05 , .1 "],
        ["--ratios", "0.05,", "0.1"],  # what the shell makes of a space after the comma
        ["--ratios", "0.05,0.1,0.10,0.05"],
    ],
)
def test_a_list_on_the_command_line(argv: list[str]) -> None:
    assert settings(*argv).ratios == (0.05, 0.1)


def test_a_list_in_the_environment() -> None:
    s = settings(EVALUATE_TARGETS="markov, gru4rec", EVALUATE_FIT__CANDIDATES="1e-2")
    assert (s.targets, s.fit.candidates) == (("markov", "gru4rec"), (0.01,))


@pytest.mark.parametrize(
    "text",
    [
        "ratios: [0.05, 0.1]\n",
        "ratios: 0.05, 0.1\n",
        "ratios:\n  - 0.05\n  - '0.1'\n",
        "ratios: [0.05, 5e-2, 0.1]\n",
    ],
)
def test_a_list_in_the_file(file, text: str) -> None:
    assert settings("--config", file(text)).ratios == (0.05, 0.1)


def test_a_single_value_and_no_value(file) -> None:
    path = file("ratios: 0.1\nablations: [a, b]\ntargets:\n")
    assert settings("--config", path).ratios == (0.1,)
    assert settings("--config", path).targets == EvaluateSettings().targets
    assert settings("--config", path, "--ablations", "").ablations == ()
    assert settings("--config", file("ablations: []")).ablations == ()


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--ratios", "0.1,abc"], "--ratios: 'abc' is not a number in (0, 1]. It is the share"),
        (["--ratios", "0.1,2"], "--ratios: '2' is not in (0, 1]. For 2% of the data write 0.02."),
        (["--ratios", "10%"], "--ratios: '10%' is not a number in (0, 1]. For 10% of the data write 0.1."),
        (["--ratios", "0.1,,0.2"], "--ratios: a value is empty in '0.1,,0.2'. Write one comma"),
        (["--ratios", "0.1,"], "--ratios: a value is empty in '0.1,'."),
        (["--ratios", "0.1", "0.2"], "--ratios: '0.1 0.2' is not a number in (0, 1]. Write commas"),
        (["--ratios", ""], "--ratios must be values with commas between them, each a number in (0, 1]; got"),
        (["--ratios"], "--ratios needs a value: values with commas between them, each a number in (0, 1]."),
        (["--ablations", ","], "--ablations: a value is empty"),
        (["--fit-candidates", "0.1,-1"], "--fit-candidates: '-1' is not in (0, 1]. The default is 0.002,0."),
        (["--fit.candidates", "0"], "--fit-candidates: '0' is not in (0, 1]."),
    ],
)
def test_a_wrong_value_in_a_list(argv: list[str], text: str) -> None:
    found = mistake(*argv)
    assert found.startswith(text), found
    assert "mistakes" not in found


def test_a_name_that_is_not_in_the_list() -> None:
    names = "gru4rec, sasrec, srgnn, narm, stamp, hstu, item-knn, session-knn, markov"
    assert mistake("--targets", "markov,gru") == (
        f"--targets: 'gru' is none of {names}. Did you mean gru4rec?"
    )
    assert mistake(EVALUATE_TARGETS="xyz").startswith(
        f"the environment variable EVALUATE_TARGETS: 'xyz' is none of {names}. The default is gru4rec,sasrec,"
    )
    text = mistake("--targets", "GRU4Rec,sasrek")
    assert text.startswith("2 mistakes") and "mean gru4rec?" in text and "mean sasrec?" in text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("ratios: [0.1, x]\n", ["the key `ratios` in", "conf.yaml (line 1): 'x' is not a number in"]),
        ("seed: 0\nratios: [0.1, 7]\n", ["(line 2): '7' is not in (0, 1]."]),
        ("ratios: [0.1, ]\nmethods: [graph, null]\n", ["`methods`", "a value is empty in 'graph, '."]),
        ("ratios: {a: 1}\n", ["must be values with commas between them", "got a group."]),
        ("ratios: [[0.1]]\n", ["each a number in (0, 1]; got a list or a group among them."]),
        ("methods: []\n", ["must be values with commas between them, each one of graph, random,"]),
        ("seeds: [1, 2]\n", ["must be one value, a whole number 1 or more; got a list"]),
        ("ratio: 0.1\n", ["Did you mean ratios? conf/evaluate.yaml lists all keys."]),
        ("- ratios\n", ["such as `ratios: 0.1,0.3`"]),
    ],
)
def test_a_wrong_list_in_the_file(file, text: str, parts: list[str]) -> None:
    message = mistake("--config", file(text))
    for part in parts:
        assert part in message, message


def test_every_source_can_set_every_option(file) -> None:
    for option in options_of(EvaluateSettings):
        if option.key == "config":
            continue
        default = option.info.default
        given = "true" if option.is_switch else written(default, ", ") if default is not None else "1"
        given = given or "a, b"
        by_flag = settings(option.flag, *([] if option.is_switch else [given]))
        by_env = settings(**{option.env: given})
        nested: object = given.split(", ") if option.is_list else given
        for name in reversed(option.path):
            nested = {name: nested}
        by_file = settings("--config", file(yaml.safe_dump(nested)))
        assert by_flag == by_env == by_file.model_copy(update={"config": None}), option.key


def test_the_two_jobs_read_their_own_environment() -> None:
    assert settings(PRUNE_RATIO="0.1", PRUNE_SEED="x", PRUNE_NOTHING="1") == EvaluateSettings()
    assert load_settings(["--ratio", "0.1"], {"EVALUATE_SEED": "x", "EVALUATE_NOTHING": "1"}).seed == 0
    assert "EVALUATE_RATIO names no setting. Did you mean EVALUATE_RATIOS?" in mistake(EVALUATE_RATIO="0.1")
    assert settings(EVALUATE_SAMPLING__KAPPA="1").sampling.kappa == 1


def test_quick_fills_only_what_is_not_given(file) -> None:
    s = settings("--quick")
    assert (s.ratios, s.seeds, s.regimes, s.fit.steps) == ((0.1, 1.0), 1, ("steps",), 200)
    assert s.targets == ("gru4rec", "session-knn", "markov")
    assert s.methods == EvaluateSettings().methods
    path = file("quick: yes\nseeds: 2\nfit:\n  dim: 8\n")
    s = settings("--targets", "markov", "--config", path, EVALUATE_RATIOS="0.2")
    assert (s.targets, s.ratios, s.seeds) == (("markov",), (0.2,), 2)
    assert (s.fit.dim, s.fit.steps) == (8, 200)
    assert settings("--quick", "--fit-steps", "0").fit.steps == 0
    # A file that lists all settings gives none that is as it is anyway.
    listed = settings(
        "--quick", "--config", file(default_yaml(EvaluateSettings).replace("\nseeds: 3", "\nseeds: 2"))
    )
    assert (listed.ratios, listed.seeds, listed.fit.steps) == ((0.1, 1.0), 2, 200)
    assert settings("--no-quick", EVALUATE_QUICK="1") == EvaluateSettings()
    s = EvaluateSettings(quick=True, fit=FitSettings(dim=8))
    assert (s.fit.dim, s.fit.steps, s.seeds) == (8, 200, 1)
    # What was filled counts as given when the settings are read back.
    assert EvaluateSettings.model_validate_json(s.settings_json()) == s
    assert mistake("--quick", "--ratios", "2").startswith("--ratios: '2' is not in")
    assert mistake(EVALUATE_QUICK="perhaps").startswith("the environment variable EVALUATE_QUICK must be")


def test_what_is_always_compared() -> None:
    assert EvaluateSettings(ratios=(1.0, 0.3, 0.1)).shares == (0.1, 0.3)
    assert EvaluateSettings(ratios=(1.0,)).shares == ()
    assert EvaluateSettings(methods=("graph",)).compared == ("graph", "random")
    assert EvaluateSettings(methods=("random", "ccs")).compared == ("random", "ccs")


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("/x/diginetica/sessions_train.parquet", "diginetica"),
        ("/x/diginetica/sessions", "diginetica"),
        ("data/yoochoose.parquet", "yoochoose"),
        ("s3://bucket/shop/train/part-0.parquet", "shop"),
        ("main.shop.`my clicks`", "my clicks"),
        ("./sessions", "sessions"),
    ],
)
def test_the_data_set_is_named_after_the_input(table: str, name: str) -> None:
    assert EvaluateSettings(input=table).data_set == name
    assert EvaluateSettings(input=table, name="mine").data_set == "mine"


def test_where_things_lie() -> None:
    s = EvaluateSettings(workspace="/w")
    places = (s.resolved_input, s.resolved_output, s.resolved_document)
    assert places == ("/w/sessions", "/w/evaluation", "/w/evaluation_report")
    s = EvaluateSettings(workspace="main.shop")
    assert (s.resolved_output, s.resolved_document) == ("main.shop.evaluation", "evaluation_report")
    assert settings("--document", "file:/a/report").resolved_document == "/a/report"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--output", "/a/x"], "--output '/a/x' is the input itself. Name another table"),
        (["--output", "/a/t"], "--output '/a/t' is the test itself."),
        (["--output", "/a/x/y"], "--output '/a/x/y' lies in the folder of the input."),
        (["--output", "/a"], "--output '/a' lies around the input."),
        (["--test", "/a/./x"], "--test '/a/./x' is the input itself"),
        (["--test", "a.b.c.d"], "--test 'a.b.c.d' has 4 parts"),
        (["--document", "~/report"], "--document '~/report' begins with a ~"),
        (["--document", "s3://b/report"], "--document 's3://b/report' is no folder of this machine"),
        (["--document", "/a/x/report"], "--document '/a/x/report' lies in the folder of a table, /a/x."),
    ],
)
def test_tables_that_clash(argv: list[str], text: str) -> None:
    found = mistake("--input", "/a/x", *([] if "--test" in argv else ["--test", "/a/t"]), *argv)
    assert found.startswith(text), found
    with pytest.raises(ValidationError):
        EvaluateSettings.model_validate({"input": "/a/x", "test": "/a/t", argv[0][2:]: argv[1]})


def test_settings_of_the_pruning_runs() -> None:
    s = settings(
        *("--item-column", "product", "--sampling-kappa", "1", "--propagation-alpha", "0"),
        *("--training-epochs", "2", "--device", "cpu", "--batch-size", "64"),
    )
    p = s.prune_settings("graph", 7, 0.2, "/a/x", "/a/kept", "/w")
    assert (p.method, p.seed, p.training.seed, p.ratio) == ("graph", 7, 7, 0.2)
    # Not the input's own columns: an evaluation prunes a table of its own making.
    columns = (p.session_column, p.item_column, p.time_column, p.order_column)
    assert columns == ("session_id", "items", None, "place")
    assert s.prune_settings("graph", 7, 0.2, "/a/x", "/a/k", "/w", has_order=False).order_column is None
    assert (p.input, p.output, p.workspace) == ("/a/x", "/a/kept", "/w")
    assert (p.sampling, p.propagation) == (s.sampling, s.propagation)
    assert p.training == s.training.model_copy(update={"seed": 7})
    assert (p.device, p.training.device, p.batch_size) == ("cpu", "cpu", 64)


def test_a_seed_of_the_training_would_do_nothing_and_is_refused() -> None:
    text = mistake("--training-seed", "3")
    assert text.startswith("--training-seed 3: every seed") and "--seed," in text
    assert settings("--training-seed", "0").training.seed == 0


def test_the_last_of_several_seeds_is_one_that_pruning_takes() -> None:
    """Else an evaluation would end after its first seed."""
    last = 2**31 - 1
    text = mistake("--seed", str(last), "--seeds", "2")
    assert text.startswith(f"--seeds 2 from --seed {last}: the last of them would be 2,147,483,648, and")
    assert settings("--seed", str(last), "--seeds", "1").seed == last
    assert settings("--seed", str(last - 2)).seeds == 3
    assert EvaluateSettings(seed=last, quick=True).seeds == 1
    with pytest.raises(ValidationError, match="Begin with a smaller"):
        EvaluateSettings(seed=last, seeds=2)
    assert "mistakes" not in mistake("--seed", str(2**31)), "it is said once"


def test_the_model_is_strict_and_frozen() -> None:
    with pytest.raises(ValidationError):
        EvaluateSettings(colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        EvaluateSettings().seeds = 2  # type: ignore[misc]
    assert EvaluateSettings(ratios=(0.1, 0.1)).ratios == (0.1,)


def test_the_file_of_all_settings_is_the_defaults() -> None:
    path = ROOT / "conf" / "evaluate.yaml"
    # Where this fails: python -m prune_lib.settings.document evaluate > conf/evaluate.yaml
    assert path.read_text() == default_yaml(EvaluateSettings)
    s = settings("--config", str(path))
    assert s.model_copy(update={"config": None}) == EvaluateSettings()
    assert yaml.safe_load(path.read_text())["ratios"] == [0.05, 0.1, 0.2, 0.3, 0.5, 1.0]


def test_help_is_the_jobs_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings("--help")
    text = capsys.readouterr().out
    assert text.startswith("usage: spark-submit jobs/evaluate.py [flags], or: evaluate-pruning [flags]\n")
    for heading in EvaluateSettings.job.headings.values():
        assert f"\n{heading}:\n" in text
    assert "what to keep" not in text and "PRUNE_" not in text and "conf/default" not in text
    assert "(default: 0.05,0.1,0.2,0.3,0.5,1.0)" in " ".join(text.split())
    assert "{steps,epochs,tuned},..." in text and "EVALUATE_RATIOS" in text and "--fit-dim" not in text
    assert "demo and fit." in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(SystemExit):
        settings("--help-all")
    everything = capsys.readouterr().out
    for option in options_of(EvaluateSettings):
        assert option.flag in everything


def test_a_wrong_flag_ends_the_job_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    def job(settings: EvaluateSettings) -> object:
        raise AssertionError("the job began")

    assert run_job(EvaluateSettings, job, ["--target", "markov"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("evaluate: error: --target is not a flag. Did you mean --targets?")
    assert "Traceback" not in err
    with pytest.raises(SystemExit) as caught:
        evaluate_main(["--ratios", "7%"])
    assert caught.value.code == 2


def test_lengths_that_are_to_be_tried_are_tried_in_a_quick_evaluation_too() -> None:
    quick = settings("--quick")
    assert quick.fit.steps == 200 and [c.steps for c in candidates(quick)] == [200, 200]
    both = settings("--quick", "--fit-epochs-tried", "4,8")
    assert both.fit.steps == FitSettings().steps and {c.passes for c in candidates(both)} == {4, 8}
    built = EvaluateSettings(quick=True, fit=FitSettings(epochs_tried=(4.0,)))
    assert built.fit.steps == FitSettings().steps
    assert EvaluateSettings(quick=True, fit=FitSettings(dim=8)).fit.steps == 200


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--fit-steps", "50"], "--fit-steps 50 is given."),
        (["--quick"], "--fit-steps 200 is given by --quick."),
        (
            ["--fit-candidates", "0.01", "--fit-epochs-tried", "4"],
            "one learning rate and one length are tried.",
        ),
    ],
)
def test_lengths_that_are_not_tried_are_not_tuned(argv: list[str], why: str) -> None:
    """Rows of `tuned` would be those of `steps`; it is said before Spark starts."""
    pytest.importorskip("pyspark")
    from prune_lib.evaluation.job import run_evaluation

    with pytest.raises(SettingsError) as caught:
        run_evaluation(settings("--regimes", "steps,tuned", *argv))
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("--regimes tuned") and why in str(caught.value)


def test_a_dry_run_counts_the_ablations_and_names_them() -> None:
    pytest.importorskip("pyspark")
    from prune_lib.evaluation.job import _plan_in_words

    asked = ["--targets", "gru4rec,narm,markov", "--ratios", "0.1,0.3", "--regimes", "steps", "--seeds", "2"]
    plain = _plan_in_words(settings(*asked), None)
    # Two methods at two ratios and all the data, of two targets and two seeds.
    assert "at most 20 trainings" in plain and "ablations" not in plain
    more = _plan_in_words(settings(*asked, "--ablations", "unit,kappa=0"), None)
    # kappa=0 once more at two ratios; prefixes by ours and at random.
    assert "at most 44 trainings" in more and "ablations kappa=0, unit=prefix" in more
