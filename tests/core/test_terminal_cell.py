"""A notebook's line of progress: what it shows, and that it changes nothing for the user's own logging."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from prune_lib.experts.progress import PROGRESS, Progress
from prune_lib.stages import Stages
from prune_lib.terminal.cell import line_in_notebook

LOG = logging.getLogger("prune_lib")


class Display:
    """What IPython's `display` gives, with what it showed."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def update(self, data: dict[str, str], raw: bool) -> None:
        assert raw
        self.shown.append(data)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Display]:
    """A process that looks like a notebook's kernel, and its cell's display."""
    shown = Display()
    shell = SimpleNamespace(kernel=object())
    core = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", core)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=lambda *args, **more: shown))
    before = (LOG.level, LOG.propagate, list(LOG.handlers))
    LOG.setLevel(logging.NOTSET)
    LOG.propagate, LOG.handlers = True, []
    yield shown
    assert (LOG.level, LOG.propagate, LOG.handlers) == (logging.NOTSET, True, [])
    LOG.level, LOG.propagate, LOG.handlers = before


def test_the_stage_under_way_is_shown_and_nothing_stays(notebook: Display) -> None:
    stages = Stages()
    with pytest.raises(KeyboardInterrupt), line_in_notebook():
        with stages.stage("read"):
            pass
        with stages.stage("<training>"):
            assert "&lt;training&gt;" in notebook.shown[-1]["text/html"]
            record: dict[str, Any] = {"progress": Progress(0, "rnn", 25, 100)}
            logging.getLogger("prune_lib.experts").log(PROGRESS, "", extra=record)
            assert "<training>" in notebook.shown[-1]["text/plain"]
            assert "rnn 25 % of 100 sessions" in notebook.shown[-1]["text/plain"]
            raise KeyboardInterrupt
    assert notebook.shown[-1] == {"text/plain": "", "text/html": ""}


def test_the_users_own_logging_gets_what_it_got_before(notebook: Display) -> None:
    lines: list[str] = []
    own = logging.Handler()  # of no level, as `logging.basicConfig()` makes it
    own.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    root = logging.getLogger()
    root.addHandler(own)
    try:
        with line_in_notebook():
            with Stages().stage("read"):
                pass
            logging.getLogger("prune_lib.pipeline").warning("look")
    finally:
        root.removeHandler(own)
    assert lines == ["look"] and len(notebook.shown) == 3


def test_who_sees_our_lines_already_gets_no_line(notebook: Display, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), line_in_notebook(), Stages().stage("read"):
        pass
    assert len(caplog.records) == 2 and not notebook.shown


def test_outside_a_notebook_nothing_is_shown(notebook: Display, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython")
    with line_in_notebook(), Stages().stage("read"):
        assert not LOG.handlers
    assert not notebook.shown
