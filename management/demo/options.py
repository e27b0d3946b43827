"""The knobs of the demo, with their bounds."""

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from management.embedded import ROOT
from management.embedded.ports import is_free

_MOST_REQUESTS = 200_000  # what one small machine can hold as tasks and connections
_MOST_SECONDS = 300  # that admission may take


@dataclass(frozen=True)
class Options:
    """One run. Percentages are of the buyers, `seconds` and `countdown` seconds, `rate` attempts a second."""

    buyers: int
    units: int
    double_clicks: float
    greedy: float
    limit: int
    seconds: float
    rate: int
    burst: int
    countdown: int
    workers: int
    consumers: int
    crowds: int
    connections: int
    kill_consumer: bool
    kafka: str | None
    port: int | None
    seed: int | None
    stay: bool
    json: Path | None
    root: Path

    def admitted_after(self, requests: float) -> float:
        """Seconds until so many requests have been admitted at the sale's rate."""
        return max(0.0, requests - self.burst) / self.rate


class Unusable(Exception):
    """Options or settings that the demo cannot run with. One line."""


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--buyers", type=_whole(1, 50_000), default=5000, help="who come (default %(default)s)")
    add("--units", type=_whole(1, 1_000_000), default=1000, help="what is sold (default %(default)s)")
    add("--double-clicks", type=_number(0, 100), default=20, metavar="PERCENT",
        help="of the buyers click twice, with the same key (default %(default)s)")  # fmt: skip
    add("--greedy", type=_number(0, 100), default=10, metavar="PERCENT",
        help="of the buyers try for more than the limit (default %(default)s)")  # fmt: skip
    add("--limit", type=_whole(1, 10), default=1, help="units a customer may have (default %(default)s)")
    add(
        "--seconds",
        type=_number(0.1, 60),
        default=1,
        help="in which all of them arrive (default %(default)s)",
    )
    add("--rate", type=_whole(1, 1_000_000), default=2000, metavar="ATTEMPTS",
        help="admitted per second; the rest is asked to come back (default %(default)s)")  # fmt: skip
    add("--burst", type=_whole(1, 1_000_000), default=4000, metavar="ATTEMPTS",
        help="admitted at once after a quiet moment (default %(default)s)")  # fmt: skip
    # Idle connections live for 30 s on the server, and the crowd opens its own before the countdown.
    add(
        "--countdown",
        type=_whole(0, 20),
        default=3,
        metavar="SECONDS",
        help="before the opening (default %(default)s)",
    )
    add("--workers", type=_whole(1, 16), default=2, help="web processes (default %(default)s)")
    add("--consumers", type=_whole(1, 12), default=2, help="of the log (default %(default)s)")
    add("--crowds", type=_whole(1, 8), default=1, help="client processes (default %(default)s)")
    add("--connections", type=_whole(1, 20_000), default=512,
        help="that the buyers share, kept alive (default %(default)s)")  # fmt: skip
    add("--kill-consumer", action="store_true",
        help="kill -9 the consumer at work at its first rows; another one is started")  # fmt: skip
    add("--kafka", choices=["tansu", "apache"],
        help="the broker (default: the one that runs already, else tansu)")  # fmt: skip
    add("--port", type=_whole(1, 65535), help="of the site (default: a free one)")
    add("--seed", type=_whole(0, 2**32), help="of the crowd: the same seed sends the same clicks")
    add(
        "--stay",
        action="store_true",
        help="leave everything running until Ctrl-C, with three more sales to buy in",
    )
    add("--json", type=Path, metavar="FILE", help="write the result there as well")
    add(
        "--root",
        type=Path,
        default=ROOT,
        metavar="FOLDER",
        help="of the servers' data, logs and stack.env (.fluxgate)",
    )


def read(values: dict[str, Any]) -> Options:
    """The options out of what the parser found. Raises Unusable."""
    options = Options(**{field.name: values[field.name] for field in fields(Options)})
    requests = options.buyers * (1 + (options.double_clicks + options.greedy * options.limit) / 100)
    if requests > _MOST_REQUESTS:
        raise Unusable(f"that is {requests:,.0f} requests; one machine takes {_MOST_REQUESTS:,} at most")
    if (seconds := options.admitted_after(requests)) > _MOST_SECONDS:
        what = f"it takes {seconds:,.0f} s to admit {requests:,.0f} requests"
        raise Unusable(f"at --rate {options.rate} {what}; {_MOST_SECONDS} at most")
    if options.port is not None and not is_free(options.port):
        raise Unusable(f"--port {options.port}: another program listens there")
    if options.json is not None:
        folder = options.json.absolute().parent
        if options.json.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise Unusable(f"--json {options.json}: no file can be written there")
    return options


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
            raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _number(least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            raise ArgumentTypeError(f"{text!r} is not a number from {least:g} to {most:g}")
        return number

    return parse
