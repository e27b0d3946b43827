"""The figures as a picture: plain SVG, readable on light and dark pages, made from one document alone."""

from collections.abc import Callable, Sequence
from math import log10
from typing import NamedTuple

from bench import line_plot, results
from bench.figures import Figure
from bench.line import LOOKING
from bench.line_summary import PIECE_SECONDS
from bench.results import Document
from bench.svg import COLOURS, FAINT, INK, PAPER, digits, text

_PANEL, _GAP, _HEIGHT, _TOP, _LEFT = 236, 28, 226, 92, 24


class Bar(NamedTuple):
    side: str
    value: Figure


def draw(found: Document) -> str:
    """One SVG: a panel for each kind of answer, durable orders, growth and the line where measured."""
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
    if line := found.get("line"):
        panels += line_plot.costs(line, lambda points: _line_panel(points, "people in line"))
        panels += line_plot.course(line["simulation"])
    columns = min(3, max(1, len(panels)))
    rows = -(-len(panels) // columns)
    width = 2 * _LEFT + columns * _PANEL + (columns - 1) * _GAP
    height = _TOP + rows * _HEIGHT
    body = []
    for place, (title, panel) in enumerate(panels):
        x = _LEFT + place % columns * (_PANEL + _GAP)
        y = _TOP + place // columns * _HEIGHT
        body.append(f'<g transform="translate({x},{y})">')
        body.append(text(0, 0, title, 12, weight=600))
        body += panel(_PANEL)
        body.append("</g>")
    return "\n".join([_head(width, height, _title(found)), *_caption(found), *body, "</svg>"]) + "\n"


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
            colours = COLOURS[kind]
            colour = colours[min(seen[kind], len(colours) - 1)]
            seen[kind] += 1
            length, low, high = (max(1.0, width * each / most) for each in value)
            lines.append(text(0, y + 9, side, 11, colour=FAINT))
            lines.append(text(width, y + 9, f"{value.median:,.{digits(value.median)}f}", 11, anchor="end"))
            lines.append(
                f'<rect x="0" y="{y + 13}" width="{length:.1f}" height="12" rx="2" fill="{colour}"/>'
            )
            if value.high > value.low:  # from the lowest run to the highest
                lines.append(
                    f'<path d="M{low:.1f} {y + 19}H{high:.1f}M{low:.1f} {y + 16}v6M{high:.1f} {y + 16}v6" '
                    f'stroke="{INK}" fill="none"/>'
                )
        return lines

    return panel


def _line_panel(
    points: Sequence[tuple[int, float]], below: str = "orders in the sale"
) -> Callable[[float], list[str]]:
    def panel(width: float) -> list[str]:
        floor, most = 180.0, 1.25 * max(value for _, value in points) or 1.0
        first, last = log10(points[0][0]), log10(points[-1][0])
        at = [
            (18 + (width - 46) * (log10(x) - first) / ((last - first) or 1), floor - 140 * value / most)
            for x, value in points
        ]
        lines = [f'<path d="M0 {floor}H{width}" stroke="{FAINT}"/>']
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        lines.append(f'<path d="M{path}" stroke="{COLOURS["ours"][0]}" stroke-width="2" fill="none"/>')
        for (x, y), (size, value) in zip(at, points, strict=True):
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS["ours"][0]}"/>')
            lines.append(text(x, y - 9, f"{value:,.{digits(value)}f}", 11, anchor="middle"))
            lines.append(text(x, floor + 15, f"{size:,}", 10, anchor="middle", colour=FAINT))
        lines.append(text(width / 2, floor + 30, below, 10, anchor="middle", colour=FAINT))
        return lines

    return panel


def _title(found: Document) -> tuple[str, str]:
    """For those who see it, and for those who do not."""
    if found.get("line") and not found["runs"]:
        title = "What a person in line costs, and what a million of them ask"
        return title, title
    return (
        "What an answer costs: Flux-Gate and a Node service",
        "What an answer costs, ours and the reference",
    )


def _head(width: float, height: float, title: tuple[str, str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" role="img" '
        f'aria-label="{title[1]}">'
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>'
    )


def _crowd(found: Document) -> str:
    knobs, line = found["knobs"], found.get("line")
    if line and not found["runs"]:
        people = line["simulation"]["plan"]["people"]
        return (
            f"above: {LOOKING} connections, {len(line['sizes'])} sales, one process on one core; "
            f"below: {people:,} people, simulated, the worst second of every {PIECE_SECONDS}"
        )
    return f"{knobs['connections']} connections, {knobs['sales']} sales, one process on one core"


def _caption(found: Document) -> list[str]:
    of, knobs = found["machine"], found["knobs"]
    rounds = max((sum(run["side"] == side for run in found["runs"] if run["scenario"] == "accepted")
                  for side in results.sides(found, "runs", "accepted")), default=0)  # fmt: skip
    changed = " with changes" if found["changed"] else ""
    runs = (
        f"medians of {rounds} alternating runs of {knobs['seconds']:g} s, whiskers from lowest to highest; "
    )
    what = f"{found['at'][:10]}, commit {found['commit']}{changed}, {of['cores']} cores of {of['processor']}"
    how = (runs if rounds else "") + _crowd(found)
    return [
        text(_LEFT, 28, _title(found)[0], 16, weight=600),
        text(_LEFT, 46, what, 11, colour=FAINT),
        text(_LEFT, 61, how, 11, colour=FAINT),
    ]
