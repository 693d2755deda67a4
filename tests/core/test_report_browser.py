"""The report in headless Chromium: it draws, it moves, it stays readable, it believes nothing it shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.core.reports import made_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine (Debian: apt-get install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox does not run as root in a container.
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "r.html"
    path.write_text(made_page(), encoding="utf-8")
    return path


class Opened:
    """The page, and what its console said."""

    def __init__(self, browser: Browser, file: Path, scheme: str, width: int) -> None:
        context = browser.new_context(
            color_scheme="dark" if scheme == "dark" else "light",
            viewport={"width": width, "height": 800},
            offline=True,
        )
        self.page: Page = context.new_page()
        self.said: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(file.as_uri())
        self.drawn()

    def drawn(self) -> None:
        self.page.wait_for_selector("html[data-drawn=yes]", timeout=60_000)

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))


@pytest.fixture(scope="module")
def wide(browser: Browser, file: Path) -> Opened:
    return Opened(browser, file, "light", 1200)


def test_every_chart_is_drawn_without_a_word_on_the_console(wide: Opened) -> None:
    assert wide.said == []
    marks = wide.page.eval_on_selector_all(
        "[data-chart]",
        """all => all.map(e => [
          e.dataset.chart, e.querySelectorAll('svg .role-mark path, svg .role-mark text').length,
        ])""",
    )
    assert len(marks) >= 13 and all(n > 1 for _, n in marks), marks
    # Of the map, which is a canvas, the pixels that are not empty.
    painted = wide.page.evaluate(
        """() => {
          const canvas = document.querySelector('#chart-sessions-map canvas');
          const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
          return data.filter((v, i) => i % 4 === 3 && v > 0).length;
        }"""
    )
    assert painted > 1_000


def test_nothing_is_fetched(wide: Opened) -> None:
    assert [url for url in wide.requested if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_slider_moves_the_numbers_and_the_line(wide: Opened) -> None:
    page = wide.page
    assert wide.text("#what-if-rank") == "120" and wide.text("#what-if-share") == "10.0 %"
    line = "#chart-coverage .chosen_budget_marks line"
    before = page.get_attribute(line, "transform")
    page.focus("#keep")
    page.keyboard.press("Home")
    assert wide.text("#what-if-rank") == "1" and wide.text("#what-if-sessions") == "1 (0.1 %)"
    assert wide.text("#what-if-cold") == "0 (0.0 %)" and wide.text("#what-if-objective") == "6.8 %"
    assert wide.text("#what-if-sql").endswith("WHERE prune_rank <= 1;")
    page.wait_for_function(
        "([line, was]) => document.querySelector(line).getAttribute('transform') !== was",
        arg=[line, before],
    )
    page.keyboard.press("End")
    assert wide.text("#what-if-rank") == "120"


def test_the_map_changes_its_colours_and_its_points(wide: Opened) -> None:
    page = wide.page
    shot = page.locator("#chart-sessions-map canvas").screenshot()
    page.select_option("#map-colour", "reason")
    page.wait_for_timeout(500)
    by_reason = page.locator("#chart-sessions-map canvas").screenshot()
    page.check("#map-kept")
    page.wait_for_timeout(500)
    only_kept = page.locator("#chart-sessions-map canvas").screenshot()
    assert len({shot, by_reason, only_kept}) == 3 and wide.said == []


def test_hostile_ids_are_shown_as_text_on_hover_too(wide: Opened) -> None:
    page = wide.page
    page.locator("#chart-neighbours .mark-symbol path").first.hover()
    tip = page.locator("#vg-tooltip-element")
    tip.wait_for(state="visible")
    assert "<script>" in str(tip.text_content()) and tip.locator("script").count() == 0
    assert page.title().startswith("</script>"), "no script of an id has run"


def test_definitions_show_by_pointer_and_by_keyboard(wide: Opened) -> None:
    page = wide.page
    first = page.locator("#kept .number .definition").first
    assert not first.is_visible()
    page.locator("#kept .number .term").first.hover()
    assert first.is_visible()
    page.mouse.move(0, 0)
    page.locator("#kept .number .term").first.focus()
    assert first.is_visible() and str(first.text_content()) == "Sessions kept"


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1200), ("light", 360), ("dark", 360)])
def test_it_fits_and_can_be_read(browser: Browser, file: Path, scheme: str, width: int) -> None:
    opened = Opened(browser, file, scheme, width)
    assert opened.said == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width, "nothing scrolls sideways"
    paper, ink = opened.page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
    )

    def light(colour: str) -> float:
        red, green, blue = (int(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3])
        return 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2

    low, high = sorted((light(paper), light(ink)))
    assert (high + 0.05) / (low + 0.05) > 7, "WCAG's enhanced contrast"
    assert (light(paper) < 0.1) == (scheme == "dark")


def test_it_prints_light_from_the_dark(browser: Browser, file: Path) -> None:
    opened = Opened(browser, file, "dark", 1200)
    opened.page.emulate_media(media="print", color_scheme="light")
    opened.drawn()
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not opened.page.is_visible("nav")
    assert len(opened.page.pdf()) > 50_000 and opened.said == []
