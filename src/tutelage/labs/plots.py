"""The style of the labs' figures, and the pieces they share: the colours are the report's."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "GRID",
    "INK",
    "MUTED",
    "band",
    "heading",
    "panels",
    "png",
    "running_mean",
]

INK = "#1b1e23"
MUTED = "#5d6470"
GRID = "#e2e2dd"
COLOURS = (
    "#3566b8",
    "#c8501e",
    "#0f7d6c",
    "#8a4a9e",
    "#9a7400",
    "#b23a6a",
    "#4d7a1f",
    "#6b7280",
)

_DOTS_PER_INCH = 130

_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
}


def panels(
    rows: int, columns: int, *, width: float, height: float, grid: bool = True
) -> "tuple[Figure, list[Axes]]":
    """A figure of equal panels, in reading order; width and height in inches, of the whole.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "labs") from error
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for each in axes:
            each.set_axisbelow(True)
            if grid:
                each.grid(visible=True, axis="y")
    return figure, axes


def heading(axes: "Axes", text: str, *, legend: str | None = None) -> None:
    """What the panel shows, above it at the left; and the legend at a place, without a frame."""
    axes.set_title(text, loc="left", weight="bold", fontsize=11)
    if legend:
        axes.legend(loc=legend, frameon=False)  # type: ignore[call-overload]


def png(figure: "Figure") -> bytes:
    """The figure as the content of a PNG file."""
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context(_STYLE):
        figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return buffer.getvalue()


def band(
    axes: "Axes", x: Sequence[float] | NDArray, curves: NDArray, *, colour: str, label: str
) -> None:
    """The mean of several curves (rows) with its 95 % interval."""
    mean = curves.mean(0)
    half = 1.96 * curves.std(0, ddof=1) / np.sqrt(len(curves)) if len(curves) > 1 else 0 * mean
    axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, mean, color=colour, label=label)


def running_mean(values: NDArray, window: int) -> NDArray:
    """Mean of each value with up to `window - 1` before it, along the last axis."""
    values = np.asarray(values, float)
    sums = np.cumsum(values, -1)
    sums[..., window:] = sums[..., window:] - np.cumsum(values, -1)[..., :-window]
    return sums / np.minimum(np.arange(1, values.shape[-1] + 1), window)
