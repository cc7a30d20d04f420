"""Plots as inline SVG: lines over updates, points with intervals, bars by name. No script, nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["COLOURS", "Band", "Points", "Series", "band_plot", "band_svg", "bars", "line_plot"]

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 12, 30
LEGEND = 58
"""Height of title and legend in a drawing of its own."""
MOST = 1e12
"""Values beyond it are left out: an axis could not tell the others apart."""
COLOURS = ("#2f6fb0", "#c2571a", "#3d8a4f", "#8a4fa3", "#a08a1e", "#4a9aa8", "#b0436b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line over x."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Points with an interval each."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A line over x within a band."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Frame:
    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def line_plot(
    title: str,
    lines: Sequence[Series],
    points: Sequence[Points] = (),
    *,
    y_range: tuple[float, float] | None = None,
    x_name: str = "update",
) -> str:
    """A figure; one that has no value says so. Values that are not finite, or beyond MOST, are left out."""
    lines = [_finite(line) for line in lines]
    xs = [x for line in lines for x in line.x] + [x for one in points for x in one.x]
    ys = [y for line in lines for y in line.y] + [y for one in points for y in (*one.y, *one.low, *one.high)]
    if not xs:
        return _figure(title, '<p class="none">nothing to show yet</p>', [])
    frame = _frame(xs, ys, y_range)
    body = [_axes(frame, x_name)]
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        body += [
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="5" fill="transparent">'
            f"<title>{escape(line.name)}, {x_name} {x:g}: {y:.4g}</title></circle>"
            for x, y in zip(line.x, line.y, strict=True)
        ]
    for index, one in enumerate(points, start=len(lines)):
        body += _marks(one, frame, COLOURS[index % len(COLOURS)])
    svg = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(body)}</svg>'
    return _figure(title, svg, [line.name for line in lines] + [one.name for one in points])


def band_plot(
    title: str, bands: Sequence[Band], *, y_range: tuple[float, float] | None = None, x_name: str = "update"
) -> str:
    """A figure of lines with their bands, in the order of `bands`, whose colours they have."""
    return _figure(title, band_svg(title, bands, y_range=y_range, x_name=x_name), [band.name for band in bands])


def band_svg(
    title: str,
    bands: Sequence[Band],
    *,
    y_range: tuple[float, float] | None = None,
    x_name: str = "update",
    alone: bool = False,
) -> str:
    """The drawing alone.

    Args:
        alone: a file of its own, with title and legend inside.
    """
    bands = [_held(band) for band in bands]
    xs = [x for band in bands for x in band.x]
    ys = [y for band in bands for y in (*band.low, *band.high)]
    body = []
    if xs:
        frame = _frame(xs, ys, y_range)
        body = [_axes(frame, x_name), *(_band(band, frame, _colour(place)) for place, band in enumerate(bands))]
    else:
        body = [f'<text x="{LEFT}" y="{HEIGHT // 2}">nothing to show yet</text>']
    label = f'role="img" aria-label="{escape(title)}"'
    if not alone:
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" {label}>{"".join(body)}</svg>'
    head = f'<text x="{LEFT}" y="-{LEGEND - 14}" font-weight="bold">{escape(title)}</text>'
    names = [
        f'<text x="{LEFT + place % 4 * 100}" y="-{LEGEND - 30 - place // 4 * 13}" style="fill:{_colour(place)}">'
        f"{escape(band.name)}</text>"
        for place, band in enumerate(bands)
    ]
    style = "<style>text{font:10px sans-serif;fill:#777}.grid{stroke:#8886}</style>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -{LEGEND} {WIDTH} {HEIGHT + LEGEND}" {label}>'
        f"{style}{head}{''.join(names)}{''.join(body)}</svg>\n"
    )


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _band(band: Band, frame: _Frame, colour: str) -> str:
    """The area, the line, and a point to hover over at each x."""
    up = [f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(band.x, band.high, strict=True)]
    down = [f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(band.x, band.low, strict=True)]
    line = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in zip(band.x, band.y, strict=True))
    points = [
        f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="{2 if len(band.x) < 5 else 5}" '
        f'fill="{colour if len(band.x) < 5 else "transparent"}">'
        f"<title>{escape(band.name)}, {x:g}: {y:.4g} [{low:.4g}, {high:.4g}]</title></circle>"
        for x, y, low, high in zip(band.x, band.y, band.low, band.high, strict=True)
    ]
    return (
        f'<polygon points="{" ".join([*up, *reversed(down)])}" fill="{colour}" fill-opacity="0.13"/>'
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>{"".join(points)}'
    )


def _held(band: Band) -> Band:
    rows = [
        row for row in zip(band.x, band.y, band.low, band.high, strict=True) if all(abs(value) <= MOST for value in row)
    ]
    x, y, low, high = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Band(name=band.name, x=x, y=y, low=low, high=high)


def bars(title: str, values: Mapping[str, float]) -> str:
    """Horizontal bars by name, longest first."""
    if not values:
        return _figure(title, '<p class="none">nothing to show</p>', [])
    most = max(max(values.values()), 1e-12)
    rows = "".join(
        f'<tr><th>{escape(name)}</th><td><span class="bar" style="width:{max(0.0, value) / most * 12:.2f}em"></span> '
        f"{value:g}</td></tr>"
        for name, value in sorted(values.items(), key=lambda item: -item[1])
    )
    return _figure(title, f"<table>{rows}</table>", [])


def _finite(line: Series) -> Series:
    kept = [(x, y) for x, y in zip(line.x, line.y, strict=True) if abs(x) <= MOST and abs(y) <= MOST]
    return Series(name=line.name, x=[x for x, _ in kept], y=[y for _, y in kept])


def _frame(xs: Sequence[float], ys: Sequence[float], y_range: tuple[float, float] | None) -> _Frame:
    return _Frame(*_spread(min(xs), max(xs)), *(y_range or _spread(min(0.0, *ys), max(0.0, *ys))))


def _spread(low: float, high: float) -> tuple[float, float]:
    """A range that is wide enough to be divided."""
    return (low, high) if high - low > 1e-9 * max(1.0, abs(low), abs(high)) else (low, low + 1.0)


def _ticks(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers within the range, about `count` of them; `whole` ones where they count something."""
    raw = max((high - low) / count, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    steps = [power * factor for factor in (1, 2, 2.5, 5, 10)]
    step = next(step for step in steps if step >= raw * 0.999 and not (whole and step % 1))
    first = math.ceil(low / step - 1e-9)
    return [step * number for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _axes(frame: _Frame, x_name: str) -> str:
    parts = []
    for tick in _ticks(frame.y_low, frame.y_high):
        y = frame.y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{tick:.4g}</text>')
    for tick in _ticks(frame.x_low, frame.x_high, 8, whole=True):
        parts.append(f'<text x="{frame.x(tick):.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{tick:.4g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{escape(x_name)}</text>')
    return "".join(parts)


def _marks(points: Points, frame: _Frame, colour: str) -> list[str]:
    marks = []
    for x, y, low, high in zip(points.x, points.y, points.low, points.high, strict=True):
        at = frame.x(x)
        marks.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{frame.y(low):.1f}" y2="{frame.y(high):.1f}" stroke="{colour}" '
            f'stroke-width="2"/><circle cx="{at:.1f}" cy="{frame.y(y):.1f}" r="4" fill="{colour}">'
            f"<title>{escape(points.name)}, {x:g}: {y:.4g} [{low:.4g}, {high:.4g}]</title></circle>"
        )
    return marks


def _figure(title: str, body: str, names: Sequence[str]) -> str:
    legend = "".join(
        f'<span><i style="background:{COLOURS[index % len(COLOURS)]}"></i>{escape(name)}</span>'
        for index, name in enumerate(names)
        if len(names) > 1
    )
    return f'<figure><figcaption>{escape(title)}</figcaption>{body}<div class="legend">{legend}</div></figure>'
