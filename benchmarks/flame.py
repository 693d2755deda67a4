"""A flame graph of the Python of the Spark job, and what it says in a table.

py-spy looks at every Python process some times a second, Spark's workers among them, and draws what it saw.
A process that waits is not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

#: Looks a second.
RATE = 100
#: What the seconds of a worker outside of our functions go to.
SPARKS = "PySpark's worker itself: Arrow batches in and out, imports"
# A worker, by its command, and a frame of ours: "name (prune_lib/sampling/task.py:30)".
_WORKER = re.compile(r"-m (pyspark\.daemon|prune_lib\.worker_daemon)")
_OURS = re.compile(r"^(?P<name>\S+) \((?P<file>prune_lib/(?!worker_daemon)[\w/]+\.py):\d+\)$")
_TITLE = re.compile(r"^(?P<frame>.*) \((?P<samples>[\d,]+) samples, [\d.]+%\)$")
_BOX = re.compile(r"<g><title>.*?</g>", re.DOTALL)
_WIDTH = re.compile(r'fg:w="(\d+)"')
_SVG = "{http://www.w3.org/2000/svg}"
_PLACE = "{http://github.com/jonhoo/inferno}"


@dataclass
class Frame:
    """A box of the graph: a function within its callers.

    Attributes:
        name: as py-spy writes it.
        start, end: samples, from and to.
        inner: boxes right above.
    """

    name: str
    start: int
    end: int
    inner: list[Frame] = field(default_factory=list)

    @property
    def own(self) -> int:
        """Samples in this function itself."""
        return self.end - self.start - sum(frame.end - frame.start for frame in self.inner)


def frames(svg: Path) -> Frame:
    """The root of a flame graph.

    Raises:
        ValueError: the file is no flame graph.
    """
    levels: dict[float, list[Frame]] = {}
    for group in ElementTree.parse(svg).getroot().iter(f"{_SVG}g"):
        title, box = group.find(f"{_SVG}title"), group.find(f"{_SVG}rect")
        said = None if title is None else _TITLE.match(title.text or "")
        if box is None or said is None:
            continue
        start = int(box.attrib[f"{_PLACE}x"])
        frame = Frame(said["frame"], start, start + int(box.attrib[f"{_PLACE}w"]))
        levels.setdefault(float(box.attrib["y"]), []).append(frame)
    # Roots on top, as py-spy draws them.
    rows = [sorted(levels[y], key=lambda frame: frame.start) for y in sorted(levels)]
    if not rows or len(rows[0]) != 1:
        raise ValueError(f"{svg} is no flame graph of py-spy's")
    for below, above in zip(rows, rows[1:], strict=False):
        place = 0
        for frame in above:
            while below[place].end <= frame.start:
                place += 1
            below[place].inner.append(frame)
    return rows[0][0]


def seconds_by_function(root: Frame, rate: int = RATE) -> dict[str, float]:
    """Seconds in Spark's Python workers by the function of ours that they were spent for, most first.

    What a library takes counts for the function of ours that called it, through whatever it was.
    """
    found: Counter[str] = Counter()
    waiting: list[tuple[Frame, bool, str]] = [(root, False, SPARKS)]
    while waiting:
        frame, worker, whose = waiting.pop()
        worker = worker or _WORKER.search(frame.name) is not None
        ours = _OURS.match(frame.name)
        if ours is not None:
            whose = f"`{ours['name']}` ({ours['file']})"
        if worker:
            found[whose] += frame.own
        waiting += [(one, worker, whose) for one in frame.inner]
    return {name: samples / rate for name, samples in found.most_common()}


def without_slivers(svg: str, share: float = 0.004) -> str:
    """A flame graph without the boxes that are too narrow to be read: half of its bytes."""
    widths = [int(width) for width in _WIDTH.findall(svg)]
    least = share * max(widths, default=0)

    def kept(box: re.Match[str]) -> str:
        width = _WIDTH.search(box[0])
        return box[0] if width is None or int(width[1]) >= least else ""

    return _BOX.sub(kept, svg)


def command(py_spy: Path, svg: Path, program: Sequence[str]) -> list[str]:
    """A call that draws a program's graph."""
    flags = ["--subprocesses", "--function", "--rate", str(RATE), "--output", str(svg)]
    return [str(py_spy), "record", *flags, "--", *program]
