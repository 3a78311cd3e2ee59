"""Small panels of curves, as SVG."""

import dataclasses
import math

WIDTH, HEIGHT, PER_ROW = 380, 250, 2
LEFT, RIGHT, TOP, BOTTOM = 56, 22, 34, 58


@dataclasses.dataclass
class Line:
    name: str
    colour: str
    points: list  # (x, y), x ascending
    expected: list = dataclasses.field(default_factory=list)  # (x, y) that were not measured: dashed, from the last point on


@dataclasses.dataclass
class Panel:
    title: str  # with the unit of y
    x: str  # what x is, with its unit
    lines: list
    log: tuple = (False, False)  # x, y


def short(value):
    """1500000 -> 1.5M"""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def scale(values, log, begin, end):
    """(position of a value, the values to mark): from 0, or by decades."""
    if log:
        low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
        high = max(high, low + 1)
        return lambda v: begin + (math.log10(v) - low) / (high - low) * (end - begin), [10.0**d for d in range(low, high + 1)]
    high = max(values) or 1
    step = 10 ** math.floor(math.log10(high))
    step = next(step * part for part in (0.2, 0.5, 1, 2) if high / (step * part) <= 6)
    marks = [step * n for n in range(math.ceil(high / step) + 1)]
    return lambda v: begin + v / marks[-1] * (end - begin), marks


def draw_line(line, x, y):
    path = lambda points: " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    yield f'<polyline points="{path(line.points)}" fill="none" stroke="{line.colour}" stroke-width="2"/>'
    if len(line.points) <= 20:
        yield from (f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{line.colour}"/>' for a, b in line.points)
    if line.expected:
        dashed = path([*line.points[-1:], *line.expected])
        yield f'<polyline points="{dashed}" fill="none" stroke="{line.colour}" stroke-width="2" stroke-dasharray="4 4"/>'


def draw_panel(panel, left, top):
    points = [point for line in panel.lines for point in (*line.points, *line.expected)]
    x, x_marks = scale([a for a, _ in points], panel.log[0], left + LEFT, left + WIDTH - RIGHT)
    y, y_marks = scale([b for _, b in points], panel.log[1], top + HEIGHT - BOTTOM, top + TOP)
    yield f'<text x="{left + 12}" y="{top + 20}" font-weight="bold">{panel.title}</text>'
    for mark in y_marks:
        yield f'<line x1="{left + LEFT}" x2="{left + WIDTH - RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="#ddd"/>'
        yield f'<text x="{left + LEFT - 6}" y="{y(mark) + 4:.1f}" text-anchor="end">{short(mark)}</text>'
    for mark in x_marks:
        yield f'<text x="{x(mark):.1f}" y="{top + HEIGHT - BOTTOM + 16}" text-anchor="middle">{short(mark)}</text>'
    yield f'<text x="{left + WIDTH - RIGHT}" y="{top + HEIGHT - BOTTOM + 31}" text-anchor="end" fill="#666">{panel.x}</text>'
    at = left + LEFT
    for line in panel.lines:
        yield from draw_line(line, x, y)
        if line.name:
            yield f'<rect x="{at}" y="{top + HEIGHT - 20}" width="10" height="10" fill="{line.colour}"/>'
            yield f'<text x="{at + 14}" y="{top + HEIGHT - 11}">{line.name}</text>'
            at += 26 + 7 * len(line.name)


def svg(title, note, panels):
    rows = math.ceil(len(panels) / PER_ROW)
    width, head = WIDTH * min(PER_ROW, len(panels)), 56
    height = head + rows * HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="12" y="24" font-size="16">{title}</text>',
        f'<text x="12" y="44" fill="#666">{note}</text>',
    ]
    for n, panel in enumerate(panels):
        parts += draw_panel(panel, n % PER_ROW * WIDTH, head + n // PER_ROW * HEIGHT)
    return "\n".join([*parts, "</svg>", ""])
