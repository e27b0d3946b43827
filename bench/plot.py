"""The figures as a picture: plain SVG, readable on light and dark pages, made from one document alone."""

from collections.abc import Callable, Sequence
from html import escape
from math import log10
from typing import NamedTuple

from bench import results
from bench.figures import Figure
from bench.results import Document

_PANEL, _GAP, _HEIGHT, _TOP, _LEFT = 236, 28, 226, 92, 24
_COLOURS = {"ours": ("#0b7a75", "#3aa9a3", "#8fd0cb"), "reference": ("#8a5a2b", "#c89a6a")}
_INK, _FAINT, _PAPER = "#1c2430", "#6b7685", "#ffffff"


class Bar(NamedTuple):
    side: str
    value: Figure


def draw(found: Document) -> str:
    """One SVG: a panel for each kind of answer, for durable orders, and for growth where it was measured."""
    panels: list[tuple[str, Callable[[float], list[str]]]] = []
    for scenario in ("accepted", "sold out", "turned away"):
        if bars := _bars(found, "runs", "per_cpu_second", scenario):
            panels.append((f"{scenario}, requests per CPU-s", _bar_panel(bars)))
    if bars := _bars(found, "durable", "per_second"):
        panels.append(("durable, orders per s", _bar_panel(bars)))
    if bars := [Bar(b.side, b.value.over(1000)) for b in _bars(found, "half_load", "p99")]:
        panels.append(("accepted at half load, p99 in ms", _bar_panel(bars)))
    if sizes := (found["growth"] or {}).get("sizes"):
        panels.append(
            ("µs of the service per order", _line_panel([(s["orders"], s["service_us"]) for s in sizes]))
        )
        panels.append(
            ("bytes in Redis per order", _line_panel([(s["orders"], s["bytes_per_order"]) for s in sizes]))
        )
        panels.append(("p99 in ms, full load", _line_panel([(s["orders"], s["p99"] / 1000) for s in sizes])))
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    width = 2 * _LEFT + columns * _PANEL + (columns - 1) * _GAP
    height = _TOP + rows * _HEIGHT
    body = []
    for place, (title, panel) in enumerate(panels):
        x = _LEFT + place % columns * (_PANEL + _GAP)
        y = _TOP + place // columns * _HEIGHT
        body.append(f'<g transform="translate({x},{y})">')
        body.append(_text(0, 0, title, 12, weight=600))
        body += panel(_PANEL)
        body.append("</g>")
    return "\n".join([_head(width, height), *_caption(found), *body, "</svg>"]) + "\n"


def _bars(found: Document, part: str, name: str, scenario: str | None = None) -> list[Bar]:
    sides = results.sides(found, part, scenario)
    order = sorted(sides, key=lambda side: (side.startswith("reference"), sides.index(side)))
    values = [(side, results.of(found, part, side, name, scenario)) for side in order]
    return [Bar(side, value) for side, value in values if value]


def _bar_panel(bars: Sequence[Bar]) -> Callable[[float], list[str]]:
    def panel(width: float) -> list[str]:
        most = max(bar.value.high for bar in bars) or 1.0
        seen = {"ours": 0, "reference": 0}
        lines = []
        for place, (side, value) in enumerate(bars):
            y = 18 + place * 36
            kind = "reference" if side.startswith("reference") else "ours"
            colours = _COLOURS[kind]
            colour = colours[min(seen[kind], len(colours) - 1)]
            seen[kind] += 1
            length, low, high = (max(1.0, width * each / most) for each in value)
            lines.append(_text(0, y + 9, side, 11, colour=_FAINT))
            lines.append(_text(width, y + 9, f"{value.median:,.{_digits(value.median)}f}", 11, anchor="end"))
            lines.append(
                f'<rect x="0" y="{y + 13}" width="{length:.1f}" height="12" rx="2" fill="{colour}"/>'
            )
            if value.high > value.low:  # from the lowest run to the highest
                lines.append(
                    f'<path d="M{low:.1f} {y + 19}H{high:.1f}M{low:.1f} {y + 16}v6M{high:.1f} {y + 16}v6" '
                    f'stroke="{_INK}" fill="none"/>'
                )
        return lines

    return panel


def _line_panel(points: Sequence[tuple[int, float]]) -> Callable[[float], list[str]]:
    def panel(width: float) -> list[str]:
        floor, most = 180.0, 1.25 * max(value for _, value in points) or 1.0
        first, last = log10(points[0][0]), log10(points[-1][0])
        at = [
            (18 + (width - 46) * (log10(x) - first) / ((last - first) or 1), floor - 140 * value / most)
            for x, value in points
        ]
        lines = [f'<path d="M0 {floor}H{width}" stroke="{_FAINT}"/>']
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        lines.append(f'<path d="M{path}" stroke="{_COLOURS["ours"][0]}" stroke-width="2" fill="none"/>')
        for (x, y), (size, value) in zip(at, points, strict=True):
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_COLOURS["ours"][0]}"/>')
            lines.append(_text(x, y - 9, f"{value:,.{_digits(value)}f}", 11, anchor="middle"))
            lines.append(_text(x, floor + 15, f"{size:,}", 10, anchor="middle", colour=_FAINT))
        lines.append(_text(width / 2, floor + 30, "orders in the sale", 10, anchor="middle", colour=_FAINT))
        return lines

    return panel


def _head(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" role="img" '
        f'aria-label="What an answer costs, ours and the reference">'
        f'<rect width="{width}" height="{height}" rx="8" fill="{_PAPER}"/>'
    )


def _caption(found: Document) -> list[str]:
    of, knobs = found["machine"], found["knobs"]
    rounds = max((sum(run["side"] == side for run in found["runs"] if run["scenario"] == "accepted")
                  for side in results.sides(found, "runs", "accepted")), default=0)  # fmt: skip
    changed = " with changes" if found["changed"] else ""
    runs = (
        f"medians of {rounds} alternating runs of {knobs['seconds']:g} s, whiskers from lowest to highest; "
    )
    what = f"{found['at'][:10]}, commit {found['commit']}{changed}, {of['cores']} cores of {of['processor']}"
    how = (runs if rounds else "") + (
        f"{knobs['connections']} connections, {knobs['sales']} sales, one process on one core"
    )
    title = "What an answer costs: Flux-Gate and a Node service"
    return [
        _text(_LEFT, 28, title, 16, weight=600),
        _text(_LEFT, 46, what, 11, colour=_FAINT),
        _text(_LEFT, 61, how, 11, colour=_FAINT),
    ]


def _text(
    x: float, y: float, text: str, size: int, *, anchor: str = "start", colour: str = _INK, weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _digits(value: float) -> int:
    return 0 if value >= 100 else 1
