"""Bars as SVG, as far as the results need them: a group for each case, a colour for each system."""

from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#1b6ca8", "#d1495b", "#edae49", "#3c8d5a", "#7b5ea7", "#8c8c8c", "#d87c2e", "#4fb0ae", "#a05a2c")
BAR, GAP, HEIGHT, TOP, LEFT, KEY = 16, 28, 220, 34, 56, 190


def bars(title: str, groups: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """Draw grouped bars as an SVG document.

    Args:
        title: above it.
        groups: along the axis.
        series: for each system a value for each group; None leaves the place empty.
    """
    most = max((value for values in series.values() for value in values if value is not None), default=1.0)
    most = most or 1.0
    wide = len(series) * BAR + GAP
    width, height = LEFT + wide * len(groups) + KEY, TOP + HEIGHT + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="13" font-weight="bold">{escape(title)}</text>',
        *_axis(most, LEFT + wide * len(groups)),
    ]
    for number, group in enumerate(groups):
        left = LEFT + number * wide + GAP / 2
        middle = left + len(series) * BAR / 2
        parts.append(
            f'<text x="{middle:g}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{escape(group)}</text>'
        )
        for place, (name, values) in enumerate(series.items()):
            value = values[number]
            if value is not None:
                parts.append(
                    _bar(left + place * BAR, value / most, COLOURS[place % len(COLOURS)], name, value)
                )
    parts += _legend(list(series), LEFT + wide * len(groups) + 14)
    return "\n".join([*parts, "</svg>", ""])


def _axis(most: float, right: float) -> list[str]:
    parts: list[str] = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = TOP + HEIGHT * (1 - share)
        parts.append(f'<line x1="{LEFT}" y1="{y:g}" x2="{right:g}" y2="{y:g}" stroke="#dddddd"/>')
        label = f"{most * share:,.3g}"
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:g}" text-anchor="end">{label}</text>')
    return parts


def _bar(x: float, share: float, colour: str, name: str, value: float) -> str:
    tall = max(1.0, HEIGHT * share)
    told = f"<title>{escape(name)}: {value:,.4g}</title>"
    return (
        f'<rect x="{x:g}" y="{TOP + HEIGHT - tall:.1f}" width="{BAR - 2}" height="{tall:.1f}" '
        f'fill="{colour}">{told}</rect>'
    )


def _legend(names: Sequence[str], x: float) -> list[str]:
    parts: list[str] = []
    for number, name in enumerate(names):
        y = TOP + number * 17
        colour = COLOURS[number % len(COLOURS)]
        parts.append(f'<rect x="{x:g}" y="{y}" width="11" height="11" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16:g}" y="{y + 10}">{escape(name)}</text>')
    return parts
