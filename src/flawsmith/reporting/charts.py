"""The report's diagrams as SVG text: no library, no script, sharp on every screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

INK, GRID, LINE, SOFT, GREY = "#3d4752", "#e3e8ee", "#0b6e8a", "#a9cbd8", "#c3cad2"
VERDICT = {"helps": "#17703a", "harms": "#b3261e", "no effect": "#8a95a1"}
_FONT = 'font-family="system-ui,Segoe UI,Roboto,Helvetica,Arial,sans-serif" font-size="11"'
_MOST_POINTS = 500


class Interval(NamedTuple):
    """A difference with its interval."""

    name: str
    value: float
    low: float
    high: float
    verdict: str
    """"helps", "harms" or anything else; it decides the colour."""


class CurvePoint(NamedTuple):
    """A figure at one number of samples per shot."""

    samples_per_shot: float
    values: tuple[float, ...]
    """A value per seed."""


def loss_curve(losses: Sequence[float], title: str, *, width: int = 720, height: int = 240) -> str:
    """Return an SVG of a training loss: each step as a thin line, the running mean as a bold one.

    Args:
        losses: A value per step; values that are not finite leave a gap and are counted in the text.
        title: What was trained; the drawing's accessible name.
        width: In px.
        height: In px.
    """
    clean = [(step, value) for step, value in enumerate(losses, start=1) if math.isfinite(value)]
    if len(clean) < 2:
        text = _text(8, 20, f"{title}: too few steps for a curve", "start")
        return f"{_open(width, 32, f'Training loss of {title}')}{text}</svg>"
    smooth = running_mean([value for _, value in clean], max(5, len(clean) // 25))
    left, right, top, bottom = 52, 12, 12, 34
    # A few early spikes must not flatten the rest: the axis ends at the 99th percentile, or at the running mean's top.
    ranked = sorted(value for _, value in clean)
    high = max(ranked[int(0.99 * (len(ranked) - 1))], max(smooth)) or 1.0
    ticks = nice_ticks(0.0, high, 6)
    last = len(losses)

    def x(step: float) -> float:
        return left + (width - left - right) * (step - 1) / max(1, last - 1)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - min(value, high) / high)

    parts = [_open(width, height, f"Training loss of {title}")]
    for tick in ticks:
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:g}", "end"))
    for tick in nice_ticks(0.0, float(last), 6):
        if 1 <= tick <= last:
            parts.append(_text(x(tick), height - bottom + 16, f"{tick:g}", "middle"))
    parts.append(_text((left + width - right) / 2, height - 4, "training step", "middle"))
    raw = [(x(step), y(value)) for step, value in clean]
    bold = [(x(step), y(value)) for (step, _), value in zip(clean, smooth, strict=True)]
    parts.append(_line(_thinned(raw), SOFT, 1))
    parts.append(_line(_thinned(bold), LINE, 2.2))
    if len(clean) < len(losses):
        parts.append(_text(width - right, top + 10, f"{len(losses) - len(clean)} steps not finite", "end"))
    return "".join([*parts, "</svg>"])


def share_histogram(
    generated: Sequence[float], given_up: Sequence[float], least: float, *, width: int = 300, height: int = 120
) -> str:
    """Return an SVG: how much of the asked mask was visibly painted, in ten bins; samples that were given up in grey.

    Args:
        generated: Painted shares, 0 to 1, of the samples that were generated.
        given_up: The same of the samples that were given up.
        least: generate.min_painted, drawn as a line.
        width: In px.
        height: In px.
    """
    left, right, top, bottom = 8, 8, 16, 30
    upper, lower = _tenths(given_up), _tenths(generated)
    most = max(bad + good for bad, good in zip(upper, lower, strict=True)) or 1
    step = (width - left - right) / 10
    tall = height - top - bottom
    parts = [_open(width, height, "Painted share of the asked mask")]
    for number, (bad, good) in enumerate(zip(upper, lower, strict=True)):
        start, foot = left + number * step, top + tall
        blue, grey = tall * good / most, tall * bad / most
        parts.append(_bar(start + 1, foot - blue, step - 2, blue, LINE))
        parts.append(_bar(start + 1, foot - blue - grey, step - 2, grey, GREY))
        if good + bad:
            parts.append(_text(start + step / 2, foot - blue - grey - 3, str(good + bad), "middle"))
    line = left + least * 10 * step
    parts.append(f'<line x1="{left}" x2="{width - right}" y1="{top + tall}" y2="{top + tall}" stroke="{INK}"/>')
    parts.append(
        f'<line x1="{line:.1f}" x2="{line:.1f}" y1="{top}" y2="{top + tall}" stroke="#b3261e" stroke-dasharray="3 3"/>'
    )
    for share in (0.0, 0.5, 1.0):
        anchor = {0.0: "start", 1.0: "end"}.get(share, "middle")
        parts.append(_text(left + share * 10 * step, top + tall + 13, f"{share:.0%}", anchor))
    parts.append(_text(width / 2, height - 4, "of the asked mask visibly painted", "middle"))
    return "".join([*parts, "</svg>"])


def interval_chart(rows: Sequence[Interval], title: str, *, unit: str, width: int = 560) -> str:
    """Return an SVG of differences with their intervals, one line each, and a line at zero.

    Args:
        rows: From top to bottom.
        title: The drawing's accessible name.
        unit: Written below the axis.
        width: In px; more where a name is long.
    """
    right, top, step = 16, 8, 22
    left = max(150, 12 + math.ceil(max(_width(row.name) for row in rows)))
    width += left - 150
    height = top + step * len(rows) + 34
    ends = [0.0, *(end for row in rows for end in (row.low, row.high))]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.05 or 1.0
    low, high = low - room, high + room

    def x(value: float) -> float:
        return left + (width - left - right) * (value - low) / (high - low)

    foot = top + step * len(rows)
    parts = [_open(width, height, title)]
    for tick in nice_ticks(low, high, 6):
        parts.append(f'<line x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top}" y2="{foot}" stroke="{GRID}"/>')
        parts.append(_text(x(tick), foot + 14, f"{tick:+g}" if tick else "0", "middle"))
    parts.append(f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{top}" y2="{foot}" stroke="{INK}"/>')
    for number, row in enumerate(rows):
        y, colour = top + step * (number + 0.5), VERDICT.get(row.verdict, GREY)
        parts.append(_text(left - 8, y + 4, row.name, "end"))
        parts.append(_line([(x(row.low), y), (x(row.high), y)], colour, 3))
        parts.append(f'<circle cx="{x(row.value):.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>')
    parts.append(_text((left + width - right) / 2, height - 4, unit, "middle"))
    return "".join([*parts, "</svg>"])


def gain_curve(points: Sequence[CurvePoint], title: str, *, unit: str, width: int = 420) -> str:
    """Return an SVG: a figure against the number of samples per shot, a dot per seed and a line through the means.

    Args:
        points: In rising order.
        title: The drawing's accessible name.
        unit: What the values are.
        width: In px.
    """
    left, right, top, bottom, height = 52, 16, 12, 40, 220
    values = [value for point in points for value in point.values]
    low, high = min(values), max(values)
    room = (high - low) * 0.1 or 1.0
    low, high = low - room, high + room

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - low) / (high - low))

    def x(number: int) -> float:
        return left + (width - left - right) * (number + 0.5) / len(points)

    parts = [_open(width, height, title)]
    for tick in nice_ticks(low, high, 5):
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, y(tick) + 4, f"{tick:g}", "end"))
    means = [(x(number), y(sum(point.values) / len(point.values))) for number, point in enumerate(points)]
    parts.append(_line(means, LINE, 2.2))
    for point, (across, mean) in zip(points, means, strict=True):
        parts.append(_text(across, height - bottom + 16, f"{point.samples_per_shot:g}", "middle"))
        parts += [f'<circle cx="{across:.1f}" cy="{y(value):.1f}" r="3.5" fill="{SOFT}"/>' for value in point.values]
        parts.append(f'<circle cx="{across:.1f}" cy="{mean:.1f}" r="4.5" fill="{LINE}"/>')
    parts.append(_text((left + width - right) / 2, height - 6, f"samples per shot (vertical: {unit})", "middle"))
    return "".join([*parts, "</svg>"])


def running_mean(values: Sequence[float], span: int) -> list[float]:
    """Return the mean of the last `span` values at each index (of fewer at the start).

    >>> running_mean([4.0, 2.0, 0.0], 2)
    [4.0, 3.0, 1.0]
    """
    total, means = 0.0, []
    for index, value in enumerate(values):
        total += value - (values[index - span] if index >= span else 0.0)
        means.append(total / min(index + 1, span))
    return means


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers from low to at most high, about so many.

    >>> nice_ticks(0.0, 600.0, 6)
    [0.0, 100.0, 200.0, 300.0, 400.0, 500.0, 600.0]
    """
    raw = (high - low) / max(1, about)
    if raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _tenths(shares: Sequence[float]) -> list[int]:
    """Return how many of these shares, 0 to 1, lie in each tenth."""
    counts = [0] * 10
    for share in shares:
        counts[min(9, max(0, int(share * 10)))] += 1
    return counts


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Keep the lowest and the highest point of each stretch, so that a long curve stays small and keeps its noise."""
    stretch = math.ceil(len(points) * 2 / _MOST_POINTS)
    if stretch <= 2:
        return points
    kept = []
    for start in range(0, len(points), stretch):
        part = points[start : start + stretch]
        kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return kept


def _width(text: str) -> float:
    """Return how wide a text is at most, in px: letters of the Latin alphabet and digits are narrow, others square."""
    return sum(7.0 if letter < "\u0250" else 11.5 for letter in text)


def _open(width: int, height: int, name: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(name)}">'
    )


def _line(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    coordinates = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    style = f'fill="none" stroke="{colour}" stroke-width="{width}" stroke-linejoin="round"'
    return f'<polyline points="{coordinates}" {style}/>'


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>' if height else ""
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}" {_FONT}>{escape(text)}</text>'
