"""The line as panels of a picture: what it costs as it grows, and what a million people ask."""

from collections.abc import Callable, Mapping, Sequence
from math import log10
from statistics import median
from typing import Any

from bench import line
from bench.svg import COLOURS, FAINT, text

Panel = Callable[[float], list[str]]
_FLOOR, _HIGH = 180.0, 140.0
_CURVES = (("without", "no cache"), ("tickets", "tickets"), ("with", "1 s cache"))


def costs(
    found: dict[str, Any], draw: Callable[[Sequence[tuple[int, float]]], Panel]
) -> list[tuple[str, Panel]]:
    """By the size of the line; `draw` makes a panel of points."""
    looks, people = line.costs(found["looks"], "people"), [each["people"] for each in found["sizes"]]
    late = {
        each: median(run["p99"] for run in found["looks"] if run["people"] == each) / 1000 for each in people
    }
    return [
        ("µs of the service per look", draw([(each, looks[each]) for each in people])),
        (
            "bytes in Redis per person",
            draw([(each["people"], each["bytes_per_person"]) for each in found["sizes"]]),
        ),
        ("p99 of a look in ms, full load", draw([(each, late[each]) for each in people])),
    ]


def course(found: dict[str, Any]) -> list[tuple[str, Panel]]:
    """Of the simulated day."""
    of, wire, eta = found["course"], found["wire"], found["eta"]
    asked = {name: of[name] for name, _ in _CURVES}
    sent = {name: [wire * each for each in of[name]] for name in ("without", "with")}
    errors = [
        ("median", eta["median"]),
        ("90th percentile", eta["p90"]),
        ("90th percentile where the pace stayed", eta["own_p90"]),
    ]
    return [
        ("requests per s at the origin", _over_time(of, asked)),
        ("bytes per s from the origin", _over_time(of, sent)),
        ("error of the ETA half-way, in s", _bars(errors)),
    ]


def _over_time(of: dict[str, Any], curves: Mapping[str, Sequence[float]]) -> Panel:
    """Curves by their names on a logarithmic scale; from 1 up, nothing below."""

    def panel(width: float) -> list[str]:
        top = max(1, *(len(str(int(max(values)))) for values in curves.values()))
        begins, step, count = of["begins"] / 60, of["seconds"] / 60, len(next(iter(curves.values())))
        ends, left = begins + step * count, 30.0
        scale = (width - left) / (ends - begins)
        lines = []
        for power in range(0, top + 1, 2):
            y = _FLOOR - _HIGH * power / top
            lines.append(f'<path d="M{left} {y:.1f}H{width}" stroke="{FAINT}" stroke-opacity="0.3"/>')
            lines.append(text(left - 4, y + 3, _short(10**power), 10, anchor="end", colour=FAINT))
        names = [(name, words) for name, words in _CURVES if name in curves]
        for place, (name, words) in enumerate(names):
            colour = (COLOURS["reference"][0], COLOURS["ours"][2], COLOURS["ours"][0])[
                [each for each, _ in _CURVES].index(name)
            ]
            points = [
                f"{left + scale * step * at:.1f} {_FLOOR - _HIGH * log10(max(1, value)) / top:.1f}"
                for at, value in enumerate(curves[name])
            ]
            lines.append(f'<path d="M{"L".join(points)}" stroke="{colour}" stroke-width="1.5" fill="none"/>')
            lines.append(text(left + 68 * place, 22, words, 10, colour=colour, weight=600))
        for minutes in range(0, int(ends) + 1, 20):
            x = left + scale * (minutes - begins)
            lines.append(text(x, _FLOOR + 15, str(minutes), 10, anchor="middle", colour=FAINT))
        lines.append(
            text(width / 2, _FLOOR + 30, "minutes since the opening", 10, anchor="middle", colour=FAINT)
        )
        return lines

    return panel


def _bars(rows: Sequence[tuple[str, float]]) -> Panel:
    def panel(width: float) -> list[str]:
        most = max(value for _, value in rows) or 1.0
        lines = []
        for place, (name, value) in enumerate(rows):
            y, length = 18 + place * 36, max(1.0, width * value / most)
            lines.append(text(0, y + 9, name, 11, colour=FAINT))
            lines.append(text(width, y + 9, f"{value:,.{0 if value >= 100 else 1}f}", 11, anchor="end"))
            colour = COLOURS["ours"][0]
            lines.append(
                f'<rect x="0" y="{y + 13}" width="{length:.1f}" height="12" rx="2" fill="{colour}"/>'
            )
        return lines

    return panel


def _short(number: int) -> str:
    for divisor, unit in ((10**9, "G"), (10**6, "M"), (1000, "k")):
        if number >= divisor:
            return f"{number // divisor}{unit}"
    return str(number)
