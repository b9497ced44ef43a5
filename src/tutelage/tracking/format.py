"""Numbers as people read them: units, intervals, durations."""

import math
import re
import statistics
from collections.abc import Iterable

from tutelage.errors import ConfigError

__all__ = ["decimals_for", "duration", "interval", "number", "one_line", "parse_duration"]

_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s?)?")
_UNITS = (86_400, 3600, 60, 1)


def decimals_for(intervals: Iterable[tuple[float, float]], unit: str = "") -> int:
    """Decimals that show one digit of a typical half-width, so that none is noise."""
    scale = 100 if unit == "%" else 1
    halves = [scale * (high - low) / 2 for low, high in intervals]
    halves = [half for half in halves if half > 0 and math.isfinite(half)]
    if not halves:
        return 0 if unit == "%" else 2
    # The half-width of an interval of floats can miss its power of ten by a rounding error.
    exponent = math.floor(math.log10(statistics.median(halves)) + 1e-6)
    return min(max(-exponent, 0), 4)


def number(value: float | None, unit: str = "", decimals: int | None = None) -> str:
    """The value with its unit; unit `%` shows a fraction as per cent.

    Without `decimals`, four significant digits are kept, and all before the point.
    """
    if value is None or not math.isfinite(value):
        return "n/a"
    shown = 100 * value if unit == "%" else value
    if decimals is None:
        text = f"{shown:,.0f}" if abs(shown) >= 1000 else f"{shown:.4g}"
    else:
        text = f"{shown:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return f"{text} {unit}" if unit else text


def interval(low: float, high: float, unit: str = "", decimals: int = 2) -> str:
    """`[low, high]`, without the unit that stands beside the mean."""
    scale = 100 if unit == "%" else 1
    ends = (number(scale * end, decimals=decimals) for end in (low, high))
    return f"[{', '.join(ends)}]"


def duration(seconds: float) -> str:
    """`4.2 s`, `42 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def parse_duration(text: str) -> float:
    """Seconds of `2h`, `90m`, `1h30m`, `45s`, or of a plain number of seconds.

    Raises:
        ConfigError: it is no duration, or not a positive one.
    """
    found = _DURATION.fullmatch(text.strip())
    parts = found.groups() if found else ()
    total = sum(float(part) * unit for part, unit in zip(parts, _UNITS, strict=False) if part)
    if total <= 0:
        raise ConfigError(f"{text!r} is no duration: write 2h, 90m, 1h30m, 45s or seconds")
    return total


def one_line(text: str) -> str:
    """The text without line breaks and control characters, which could steer a terminal."""
    return "".join(char if char.isprintable() else " " for char in text).strip()
