"""Plots as inline SVG, drawn for a width of 300: small pages, sharp on a phone, and colours from the page's style.

A plot is made of series, each named and a list of (x, y); a point whose y is not known (None) is left out. Each svg has
data-plot, its name, by which a test finds it.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Points = Sequence[Sequence[float | None]]
_WIDTH, _HEIGHT = 300, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 24, 40
_COLOURS = 6
_LABEL_LETTERS, _LETTER_WIDTH = 20, 7.0  # of names beside bars


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: for the legend.
        points: (x, y).
        kind: "line", "dots" (a line with a circle at each point) or "bars" (x is a bar's left end; width `step`).
        step: of bars, in x.
    """

    name: str
    points: Points
    kind: str = "line"
    step: float = 0.0


@dataclass(frozen=True)
class Axes:
    """What stands below and beside a plot, and which values it shows: those of the points, unless given."""

    x_name: str
    y_name: str
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    diagonal: bool = False


def number(value: float | None, digits: int = 4) -> str:
    """A value as people read it: whole numbers with blanks between thousands, others, and 0.0, with so many digits."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == int(value) and abs(value) >= 1000:
        return f"{int(value):,}".replace(",", "\u202f")
    whole = value == int(value) and (value or isinstance(value, int))
    return f"{value:.0f}" if whole else f"{round(value, digits) + 0.0:.{digits}f}"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from low to high, at most so many."""
    raw = (high - low) / max(1, most - 1)
    base = 10.0 ** math.floor(math.log10(raw))
    step = next((factor * base for factor in (1, 2, 2.5, 5) if factor * base >= raw), 10 * base)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _known(series: Series) -> list[tuple[float, float]]:
    return [(x, y) for x, y in series.points if x is not None and y is not None and math.isfinite(x + y)]


def _range(values: Sequence[float], given: tuple[float, float] | None) -> tuple[float, float]:
    if given:
        return given
    low, high = min(values), max(values)
    if low == high:
        return low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    margin = 0.05 * (high - low)
    return (0.0 if 0 <= low < margin else low - margin), high + margin


def plot(name: str, title: str, series: Sequence[Series], axes: Axes) -> str:
    """A figure with a plot, its title and legend, as HTML; one that says so where nothing is known."""
    points = [_known(one) for one in series]
    flat = [point for some in points for point in some]
    if not flat:
        return f'<figure><figcaption>{html.escape(title)}</figcaption><p class="none">no values</p></figure>'
    bars = max((one.step for one in series), default=0.0)
    x_low, x_high = axes.x_range or (min(x for x, _ in flat), max(x for x, _ in flat) + bars)
    x_low, x_high = (x_low, x_high) if x_low < x_high else _range([x_low], None)
    y_low, y_high = _range([y for _, y in flat] + [0.0] * bool(bars), axes.y_range)
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place_x(x: float) -> float:
        return _LEFT + across * (x - x_low) / (x_high - x_low)

    def place_y(y: float) -> float:
        return _TOP + down * (1 - (y - y_low) / (y_high - y_low))

    parts = _grid(axes, ticks(x_low, x_high), ticks(y_low, y_high), place_x, place_y)
    if axes.diagonal:
        ends = place_x(x_low), place_y(y_low), place_x(x_high), place_y(y_high)
        parts.append('<line class="even" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*ends))
    for index, (one, known) in enumerate(zip(series, points)):
        parts += _drawn(one, known, index % _COLOURS, place_x, place_y)
    svg = "".join(parts)
    shown = html.escape(title, quote=True)
    return (
        f'<figure><figcaption>{shown}</figcaption>{_legend(series)}<svg data-plot="{name}" role="img" '
        f'aria-label="{shown}" viewBox="0 0 {_WIDTH} {_HEIGHT}">{svg}</svg></figure>'
    )


def _legend(series: Sequence[Series]) -> str:
    if len(series) < 2:
        return ""
    names = (f'<span class="c{i % _COLOURS}">{html.escape(one.name)}</span>' for i, one in enumerate(series))
    return f'<p class="legend">{"".join(names)}</p>'


def _grid(
    axes: Axes, x_ticks: Sequence[float], y_ticks: Sequence[float], place_x: Callable[[float], float],
    place_y: Callable[[float], float],
) -> list[str]:  # fmt: skip
    bottom, parts = _HEIGHT - _BOTTOM, []
    for y in y_ticks:
        at = place_y(y)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{_WIDTH - _RIGHT}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_short(y)}</text>')
    for x in x_ticks:
        parts.append(f'<text x="{place_x(x):.1f}" y="{bottom + 15}" text-anchor="middle">{_short(x)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" y1="{bottom}" x2="{_WIDTH - _RIGHT}" y2="{bottom}"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="name" x="{middle}" y="{_HEIGHT - 7}" text-anchor="middle">{axes.x_name}</text>')
    parts.append(f'<text class="name" x="2" y="9">{axes.y_name}</text>')
    return parts


def _short(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{round(value, 10):g}"


def _drawn(
    one: Series, known: Sequence[tuple[float, float]], colour: int, place_x: Callable[[float], float],
    place_y: Callable[[float], float],
) -> list[str]:  # fmt: skip
    places = [(place_x(x), place_y(y)) for x, y in known]
    if not places:
        return []
    if one.kind == "bars":
        base, wide = place_y(0), place_x(one.step) - place_x(0)
        return [
            f'<rect class="c{colour}" x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{base - y:.1f}"/>'
            for x, y in places
            if base - y > 0.01
        ]
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
    marks = [f'<path class="c{colour}" d="{path}"/>']
    if one.kind == "dots" or len(places) == 1:
        marks += [f'<circle class="c{colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places]
    return marks


def shortened(text: str, most: int) -> str:
    """A text of at most so many characters: of a longer one, the begin and the end."""
    if len(text) <= most:
        return text
    behind = (most - 1) // 2
    return f"{text[: most - 1 - behind]}…{text[len(text) - behind :]}"


def ranked_bars(
    name: str, title: str, values: Sequence[tuple[str, float]], span: tuple[float, float], longest: int
) -> str:
    """A figure with a bar a name, from top to bottom as given; bars begin at 0, and negative ones go to its left.

    Args:
        name, title: of the figure.
        values: of the bars, with their names.
        span: the least and the greatest value, 0 among them, that the figure has place for.
        longest: characters of the longest name; figures that agree in this and in span are of one scale.
    """
    low, high = span
    if low == high:
        return f'<figure><figcaption>{html.escape(title)}</figcaption><p class="none">0</p></figure>'
    letters = min(longest, _LABEL_LETTERS)
    height, left, right = 16 * len(values) + 8, 10 + math.ceil(_LETTER_WIDTH * letters), 56
    wide = (_WIDTH - left - right) / (high - low)
    parts = []
    for row, (label, value) in enumerate(values):
        y, x = 4 + 16 * row, left + wide * (min(value, 0) - low)
        end = left + wide * (max(value, 0) - low)
        known = html.escape(shortened(label, letters))
        parts.append(f'<text x="{left - 6}" y="{y + 11}" text-anchor="end"><title>{html.escape(label)}</title>{known}'
                     f"</text>")  # fmt: skip
        parts.append(f'<rect class="c{0 if value >= 0 else 1}" x="{x:.1f}" y="{y + 2}" width="{end - x:.1f}" '
                     f'height="11"/>')  # fmt: skip
        parts.append(f'<text x="{end + 4:.1f}" y="{y + 11}">{number(value)}</text>')
    shown = html.escape(title, quote=True)
    return (
        f'<figure><figcaption>{shown}</figcaption><svg data-plot="{name}" role="img" aria-label="{shown}" '
        f'viewBox="0 0 {_WIDTH} {height}">{"".join(parts)}</svg></figure>'
    )
