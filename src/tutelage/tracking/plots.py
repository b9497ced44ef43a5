"""Small charts as inline SVG, drawn by matplotlib and coloured by the page's CSS.

Charts are drawn in marker colours, which are then replaced by CSS variables: one
chart serves light and dark. Text stays text, in the page's own font. Each chart is
one panel of about 300 units, so that a row of panels on a screen is a column of
readable panels on a phone.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tutelage.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "NUM_COLOURS",
    "Point",
    "Series",
    "curves",
    "frontier",
    "histogram",
    "reliability",
    "reward_against_length",
]

_INK, _MUTED, _GRID, _SURFACE = "#a1000a", "#a1000b", "#a1000c", "#a1000d"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid", _SURFACE: "--surface"}
NUM_COLOURS = 10
"""Series colours of the page, `--series-0` and so on; an eleventh series has the first again."""
_SERIES = [f"#a1001{index}" for index in range(NUM_COLOURS)]
_VARIABLES |= {marker: f"--series-{index}" for index, marker in enumerate(_SERIES)}

_SMOOTH_ABOVE = 60
"""Curves with more points are drawn faintly, with a running mean on top."""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve; `colour` is an index into the page's series colours."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A labelled place with intervals in both directions."""

    label: str
    x: tuple[float, float, float]
    """Mean, low and high; so is `y`."""
    y: tuple[float, float, float]
    colour: int


def curves(name: str, series: Sequence[Series], *, x_label: str = "step") -> Markup:
    """Values over steps, one line per series, with a band where intervals are given."""
    with _panel(name, width=4.1, height=2.5, text=10.5) as (figure, axes):
        for one in series:
            colour = _colour(one.colour)
            if one.low:
                axes.fill_between(one.x, one.low, one.high, color=colour, alpha=0.18, linewidth=0)
            few = len(one.x) <= _SMOOTH_ABOVE
            axes.plot(*_block_means(one.x, one.y), color=colour, alpha=1.0 if few else 0.3)
            if not few:
                axes.plot(*_block_means(one.x, _running_mean(one.y)), color=colour)
            if len(one.x) <= 12:
                axes.plot(one.x, one.y, color=colour, marker="o", linestyle="none")
        axes.locator_params(axis="x", nbins=7, integer=True)
        axes.set_xlabel(x_label)
        return _svg(name, figure)


def frontier(
    name: str,
    paths: Sequence[Series],
    points: Sequence[Point],
    *,
    x_label: str,
    y_label: str,
) -> Markup:
    """Reward against KL: each run's path, and the models it led to.

    The first point is where all paths start; its label goes below, out of their way.
    """
    with _panel(name) as (figure, axes):
        for path in paths:
            colour = _colour(path.colour)
            axes.plot(path.x, path.y, color=colour, alpha=0.35, linewidth=1)
            axes.plot(path.x, path.y, color=colour, marker="o", markersize=3, linestyle="none")
        for point in points:
            axes.errorbar(
                point.x[0],
                point.y[0],
                xerr=_arms(point.x),
                yerr=_arms(point.y),
                color=_colour(point.colour),
                marker="D",
                markersize=6,
                linewidth=1.4,
            )
            axes.annotate(
                point.label,
                (point.x[0], point.y[0]),
                xytext=(7, 7) if point is not points[0] else (7, -15),
                textcoords="offset points",
                color=_INK,
            )
        axes.margins(x=0.14, y=0.14)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return _svg(name, figure)


def histogram(
    name: str, groups: Sequence[tuple[str, Sequence[float], int]], *, x_label: str
) -> Markup:
    """Distributions over common bins, as shares of each group: (label, values, colour)."""
    everything = [value for _, values, _ in groups for value in values]
    with _panel(name) as (figure, axes):
        edges = _edges(min(everything), max(everything))
        for _, values, colour in groups:
            shares = [100 / len(values)] * len(values)
            style: dict[str, Any] = {"bins": edges, "weights": shares, "color": _colour(colour)}
            axes.hist(values, histtype="stepfilled", alpha=0.16, **style)
            axes.hist(values, histtype="step", linewidth=1.8, **style)
        axes.set_xlabel(x_label)
        axes.set_ylabel("% of samples")
        return _svg(name, figure)


def reliability(name: str, bins: Sequence[dict[str, float]], colour: int) -> Markup:
    """Observed share of wins against the predicted probability; the diagonal is perfect."""
    filled = [row for row in bins if row["count"]]
    total = sum(row["count"] for row in filled) or 1
    with _panel(name) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        x = [row["predicted"] for row in filled]
        y = [row["observed"] for row in filled]
        arms = [_wilson_arms(row["observed"], row["count"]) for row in filled]
        axes.errorbar(
            x,
            y,
            yerr=[[arm[0] for arm in arms], [arm[1] for arm in arms]] if arms else None,
            color=_colour(colour),
            linewidth=1.4,
        )
        areas = [20 + 180 * row["count"] / total for row in filled]
        axes.scatter(x, y, s=areas, color=_colour(colour), alpha=0.85, linewidth=0)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed share")
        return _svg(name, figure)


def reward_against_length(
    name: str, points: Sequence[Sequence[float]], colour: int, *, limit: int = 300
) -> Markup:
    """Score of each answer against its length, with the mean per eighth of the answers.

    Of many points an even subset of at most `limit` is drawn; the means use all.
    """
    ordered = sorted((float(length), float(score)) for length, score in points)
    stride = max(1, math.ceil(len(ordered) / limit))
    shown = ordered[::stride]
    with _panel(name) as (figure, axes):
        axes.plot(
            [length for length, _ in shown],
            [score for _, score in shown],
            color=_MUTED,
            alpha=0.4,
            marker="o",
            markersize=2.6,
            markeredgewidth=0,
            linestyle="none",
        )
        means = _octile_means(ordered)
        axes.plot(
            [length for length, _ in means],
            [score for _, score in means],
            color=_colour(colour),
            marker="o",
            linewidth=2,
        )
        axes.set_xlabel("length (tokens)")
        axes.set_ylabel("score")
        return _svg(name, figure)


def _octile_means(ordered: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = max(1, math.ceil(len(ordered) / 8))
    chunks = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    return [
        (sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk))
        for chunk in chunks
    ]


def _running_mean(y: Sequence[float]) -> list[float]:
    half = max(1, len(y) // 40)
    sums = list(accumulate(y, initial=0.0))
    ends = [(max(0, i - half), min(len(y), i + half + 1)) for i in range(len(y))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in ends]


def _block_means(
    x: Sequence[float], y: Sequence[float], most: int = 200
) -> tuple[list[float], list[float]]:
    """At most `most` points: more would be narrower than the line that joins them."""
    size = math.ceil(len(x) / most)
    starts = range(0, len(x), size)
    means = [
        [sum(block) / len(block) for block in (values[i : i + size] for i in starts)]
        for values in (x, y)
    ]
    return means[0], means[1]


def _wilson_arms(share: float, count: float, z: float = 1.96) -> tuple[float, float]:
    """Distances from a share to the ends of its Wilson interval."""
    spread = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / spread
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / spread
    return max(0.0, share - (centre - half)), max(0.0, centre + half - share)


def _edges(low: float, high: float, most: int = 32) -> list[float]:
    width = max(1, math.ceil((high - low + 1) / most))
    first = math.floor(low / width) * width
    return [first + width * index for index in range(int((high - first) // width) + 2)]


def _arms(value: tuple[float, float, float]) -> list[list[float]]:
    mean, low, high = value
    return [[max(0.0, mean - low)], [max(0.0, high - mean)]]


def _colour(index: int) -> str:
    return _SERIES[index % NUM_COLOURS]


@contextmanager
def _panel(
    name: str, *, width: float = 4.4, height: float = 3.0, text: float = 9.5
) -> Iterator[tuple["Figure", "Axes"]]:
    """An empty panel with the page's style; charts know nothing of global state."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    style: Any = _STYLE | {"svg.hashsalt": name, "font.size": text}
    with rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        yield figure, axes


def _svg(name: str, figure: "Figure") -> Markup:
    """The figure as an `<svg>` element without size, fixed colours, or ids of its own."""
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    # matplotlib's own rules would apply to the whole page.
    text = re.sub(r"<style.*?</style>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"font-family: [^;]*;", "", text)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, f"var({variable})")
    # matplotlib has escaped every label, and `name` is ours: the element is safe as it is.
    return Markup(re.sub(r"\n\s*", "\n", text))


_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    # A label is text, however many dollar signs a model's name has.
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.labelsize": "medium",
    "xtick.labelsize": "medium",
    "ytick.labelsize": "medium",
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.linewidth": 1,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.major.width": 1,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "path.simplify": True,
}
