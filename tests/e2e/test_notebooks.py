"""The notebooks, run from the first cell to the last on fewer sessions; what they say is checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import nbformat
import pytest

import notebooks
from prune_lib.settings import SamplingSettings
from tests.e2e.jobs import environment

NAMES = [path.stem for path in notebooks.all_notebooks()]
SMALL: dict[str, Any] = {"SESSIONS": 1_000}
PARAMETERS: dict[str, dict[str, Any]] = {
    name: SMALL | {"03_choosing_a_ratio": {"RATIOS": [0.2]}, "04_training": {"STEPS": 40}}.get(name, {})
    for name in NAMES
}
# These take minutes each: what they call has tests of its own.
LONG = ("02_sql", "03_choosing_a_ratio", "04_training", "05_databricks")
# Run after the last cell, with the notebook's own names.
CHECKS = {
    "01_quickstart": """
        assert pruned.run["sessions_before"] == SESSIONS and pruned.ratio == 0.1
        assert by_kind.loc["bot", "kept"] == 0 and both.sum() == 0
        assert 0 < half.count() < pruned.sessions.count()
        import pathlib
        assert "</html>" in pathlib.Path(WORKSPACE, "report.html").read_text()
    """,
    "02_sql": """
        assert counts["sessions_before"].is_monotonic_decreasing and error.median() < 0.5
        changed = ask('''
            SELECT count_if(now.kept AND NOT was.kept) AS came, count_if(was.kept AND NOT now.kept) AS went
            FROM shop.clicks_pruned_decisions VERSION AS OF 0 AS was
            JOIN shop.clicks_pruned_decisions AS now ON now.session_id = was.session_id
        ''').iloc[0]
        assert changed["came"] == 0 and changed["went"] > 0
        assert len(decisions) == SESSIONS
    """,
    "03_choosing_a_ratio": """
        ratios = pd.Series(answers).dropna()
        assert len(ratios) >= 3 and ratios.between(0, 0.5).all()
        assert answers["half of the objective"] < answers["three quarters of the objective"]
        assert set(recall["target"]) == {"session-knn", "markov"}
        assert set(recall["method"]) == {"graph", "random", "all"} and set(recall["ratio"]) == {0.2, 1.0}
        assert kept.count() == pruned.at(0.1).count() > 0
        assert curve["ratio"].iloc[-1] <= 0.5 and curve["rank"].iloc[-1] == pruned.run["sessions_after"]
    """,
    "04_training": """
        assert result.loc["all", "sessions"] == pruned.run["sessions_before"] == train.count()
        assert result.loc["chosen", "sessions"] == pruned.run["sessions_after"]
        assert result["Recall@20"].between(0, 1).all() and result.loc["all", "Recall@20"] > 20 / len(number)
        newest = train.agg(F.max(started)).first()[0]
        assert newest < cut <= test.agg(F.min(started)).first()[0], "the test is later"
    """,
    "05_databricks": """
        assert again.run["run_id"] == pruned.run["run_id"]
        assert again.output == "spark_catalog.prune.clicks_pruned"
        assert pruned.run["input"] == clicks and spark.table(kept).count() == pruned.run["sessions_after"]
    """,
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], nbformat.NotebookNode]:
    """A notebook by its name, run in one kernel with those that are as long; a cell that fails fails here."""
    done: dict[str, nbformat.NotebookNode] = {}

    def of(name: str) -> nbformat.NotebookNode:
        if name not in done:
            together = [other for other in NAMES if (other in LONG) == (name in LONG)]
            done.update(zip(together, run(together, tmp_path_factory), strict=True))
        return done[name]

    return of


def run(names: Sequence[str], folders: pytest.TempPathFactory) -> list[nbformat.NotebookNode]:
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("PYSPARK_SUBMIT_ARGS", "SPARK_HOME", "SPARK_CONF_DIR", "PYTHONPATH"):
            patch.delenv(variable, raising=False)
        # Interpreted, Spark cannot list the tables of its catalog, as some of the long ones do.
        compiled = any(name in LONG for name in names)
        patch.setenv("SPARK_SUBMIT_OPTS", environment(compiled=compiled)["SPARK_SUBMIT_OPTS"])
        checks = {name: "\n".join(map(str.strip, CHECKS[name].splitlines())) for name in names}
        paths = [path for path in notebooks.all_notebooks() if path.stem in names]
        return notebooks.execute(paths, folders.mktemp("notebooks"), PARAMETERS, checks)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak) if name in LONG else name for name in NAMES]
)
def test_a_notebook_runs_and_shows_what_is_stored_of_it(
    ran: Callable[[str], nbformat.NotebookNode], name: str
) -> None:
    stored = nbformat.read(notebooks.FOLDER / f"{name}.ipynb", as_version=4)
    for own, shown in zip(stored.cells, ran(name).cells, strict=True):
        assert own.source == shown.source and own.id == shown.id
        if own.cell_type == "code":
            assert kinds(own) == kinds(shown), (
                f"scripts/notebooks.py {name[:2]} stores outputs again: {own.source}"
            )
    assert any(kinds(cell) for cell in stored.cells if cell.cell_type == "code")


def test_what_is_stored_is_of_the_present_defaults() -> None:
    book = nbformat.read(notebooks.FOLDER / "01_quickstart.ipynb", as_version=4)
    shown = "".join(str(cell.outputs) for cell in book.cells if cell.cell_type == "code")
    kappas = set(re.findall(r"exp\(−([\d.]+) × ", shown))
    assert kappas == {f"{SamplingSettings().kappa:g}"}, "scripts/notebooks.py stores outputs again"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_is_of_no_machine(name: str) -> None:
    text = (notebooks.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert '"stderr"' not in text, "of those stored none has a warning"
    for part in ("/home/", "/usr/", str(notebooks.ROOT), "site-packages", "Traceback", "Warning:"):
        assert part not in text


def kinds(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell shows: text, or a result of which kinds; warnings, which hang on the data, are left out."""
    return [
        " ".join(sorted(output.data)) if "data" in output else output.get("name", output.output_type)
        for output in cell.outputs
        if output.get("name") != "stderr"
    ]
