"""From sections to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt
import vl_convert
from markupsafe import Markup

from prune_lib.report.charts.parts import Spec
from prune_lib.report.charts.sessions import colourings, session_map
from prune_lib.report.parts import Section
from prune_lib.report.themes import THEMES

__all__ = ["MAP_LIMIT", "MapPoints", "render"]

#: Bytes of the map's points, at most: the page, of which Vega is 0.9 MB, stays below 5 MB.
MAP_LIMIT = 2_800_000
#: Of a point's texts: what a line of a tooltip holds.
_ID, _ITEM, _ITEMS = 40, 16, 8


@dataclass(frozen=True)
class MapPoints:
    """The points of the map; those at the end are left out where the page would be too large.

    Attributes:
        x: from 0 to 1, shape (N,).
        y: from 0 to 1, shape (N,).
        session: ids as text.
        clicks: items of each.
        difficulty: rank; NaN where there is none, shape (N,).
        cluster: shape (N,).
        reason: by point.
        rank: where it was kept; NaN where not, shape (N,).
        clusters: names of the clusters.
        unit: what the points are called.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    session: Sequence[str]
    clicks: Sequence[Sequence[Any]]
    difficulty: npt.NDArray[np.float64]
    cluster: npt.NDArray[np.int64]
    reason: Sequence[str]
    rank: npt.NDArray[np.float64]
    clusters: Sequence[str]
    unit: str

    def fitting(self, most: int) -> MapPoints:
        """As many of the first points as fit into so many bytes of the page."""
        points = self
        while len(points.x) and len(points._columns()) > most:
            points = points._first(int(len(points.x) * 0.8))
        return points

    def packed(self) -> dict[str, Any]:
        """The points, with what the page's script needs to draw them."""
        reasons = sorted(set(self.reason))
        return {
            "points": self._columns(),
            "reasons": reasons,
            "clusters": [f"{number + 1}: {name}" for number, name in enumerate(self.clusters)],
            "colourings": colourings(self.clusters, reasons),
            "spec": session_map(self.unit),
        }

    def _first(self, n: int) -> MapPoints:
        fields = ("x", "y", "session", "clicks", "difficulty", "cluster", "reason", "rank")
        return replace(self, **{name: getattr(self, name)[:n] for name in fields})

    def _columns(self) -> str:
        """The columns as JSON, compressed, in base 64."""
        reasons = sorted(set(self.reason))
        columns = {
            "x": np.rint(self.x * 1000).astype(int).tolist(),
            "y": np.rint(self.y * 1000).astype(int).tolist(),
            "session": [_cut(text, _ID) for text in self.session],
            "items": [_some(clicks) for clicks in self.clicks],
            "difficulty": [None if d != d else round(float(d), 3) for d in self.difficulty],
            "cluster": self.cluster.tolist(),
            "reason": [reasons.index(reason) for reason in self.reason],
            "rank": [None if r != r else int(r) for r in self.rank],
        }
        text = json.dumps(columns, separators=(",", ":"), ensure_ascii=False)
        # No time in the header: the same run gives the same page.
        return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _some(clicks: Sequence[Any]) -> str:
    shown = " → ".join(_cut(str(item), _ITEM) for item in clicks[:_ITEMS])
    return shown + (f" … {len(clicks) - _ITEMS} more" if len(clicks) > _ITEMS else "")


def render(
    title: str, subtitle: str, sections: Sequence[Section], points: MapPoints | None, version: str
) -> str:
    """The page.

    Args:
        title: its heading.
        subtitle: below it.
        sections: in order; one may have the kind `slider`, and one the kind `map` where there are points.
        points: of the map.
        version: of this library.
    """
    charts: dict[str, Spec] = {figure.id: figure.spec for s in sections for figure in s.figures}
    data = {
        "charts": charts,
        "themes": THEMES,
        "budgets": next((s.data for s in sections if s.kind == "slider"), None),
        "map": points.packed() if points is not None else None,
    }
    own = files(__package__)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(own.joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=[_keyed(section) for section in sections],
        version=version,
        css=Markup(own.joinpath("page.css").read_text(encoding="utf-8")),
        js=Markup(own.joinpath("page.js").read_text(encoding="utf-8")),
        vega=Markup(_vega()),
        data=Markup(_json(data)),
    )


def _keyed(section: Section) -> dict[str, Any]:
    """A section as the template reads it: whatever has a definition has a key, unique in the page."""
    keys = (f"{section.id}-{number}" for number in range(10**6))
    tables = [*section.tables, *(f.table for f in section.figures if f.table)]
    named = {id(table): _table(asdict(table), keys) for table in tables}
    return {
        **{name: getattr(section, name) for name in ("id", "short", "title", "lead", "kind", "code", "data")},
        "numbers": [{**asdict(n), "key": next(keys)} for n in section.numbers],
        "figures": [
            {**asdict(replace(f, spec={}, table=None)), "table": named[id(f.table)] if f.table else None}
            for f in section.figures
        ],
        "tables": [named[id(table)] for table in section.tables],
    }


def _table(table: dict[str, Any], keys: Iterator[str]) -> dict[str, Any]:
    return {**table, "columns": [{**column, "key": next(keys)} for column in table["columns"]]}


def _json(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it ends the element or begins a comment."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script."""
    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    # Inside a script element these two would end it, or begin what hides its end.
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")
