"""The command line of the bench."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from bench.measuring import SCENARIOS
from bench.sides import DOORS
from fluxgate_site.environment import Environment

PARTS = (
    *(name.replace(" ", "-") for name in SCENARIOS),
    "sold-out-asked",
    "half-load",
    "original",
    "durable",
    "memory",
    "other-doors",
)
SETTINGS = {f"FLUXGATE_{name.upper()}" for name in Environment.model_fields}
NOT_QUICK = ("sold-out-asked", "other-doors")
USAGE = """Without a name all parts run, which takes under 10 minutes (--quick: 90 s), and the figures are
kept in bench/results/ and shown in README.md. With names only those parts run, and nothing is kept unless
--keep says so. `growth` and `line` (what a person in the waiting room costs, and a simulation of a
million) run only when named. `table` writes the README's table again, `plot` draws the picture again."""


def parse(arguments: list[str] | None = None) -> Namespace:
    parser = ArgumentParser(prog="python -m bench", description=USAGE)
    add = parser.add_argument
    add(
        "parts", nargs="*", metavar="part", help=f"of {', '.join(PARTS)}; or growth or line; or plot or table"
    )
    add("--quick", action="store_true", help="one short round of everything")
    add("--doors", default=None, metavar="DOOR,...", help=f"of {', '.join(DOORS)} (default: hot)")
    add("--ours-only", action="store_true", help="without the reference; its last figures are shown")
    add("--rounds", type=int, help="alternating runs of each side (3; quick: 1)")
    add("--seconds", type=float, help="of load in each run (3; quick: 1)")
    add("--warmup", type=float, help="seconds of load before that (2; quick: 1)")
    add("--sales", type=int, default=4, help="side by side (default %(default)s)")
    add(
        "--buyers",
        type=int,
        default=4000,
        help="with a token each; with more of them than orders every token is new (default %(default)s)",
    )
    add("--connections", type=int, default=200, help="of the crowd (default %(default)s)")
    add(
        "--set",
        action="append",
        default=[],
        metavar="FLUXGATE_NAME=VALUE",
        dest="settings",
        help="one more setting of our web process; may be repeated",
    )
    add("--profile", type=Path, metavar="FILE.svg", help="py-spy's flame graph of our web process")
    add("--keep", action="store_true", help="write JSON and plot to bench/results/ also for single parts")
    add("--from", type=Path, metavar="FILE.json", dest="source", help="with plot: draw this again")
    options = parser.parse_args(arguments)
    if strange := set(options.parts) - {*PARTS, "growth", "line", "plot", "table"}:
        parser.error(f"there is no part {', '.join(sorted(strange))}")
    for setting in options.settings:
        name, given, _ = setting.partition("=")
        if name not in SETTINGS or not given:
            parser.error(f"no setting: {setting} (FLUXGATE_NAME=VALUE, of .env.example)")
    options.everything = not options.parts
    options.parts = options.parts or [
        part for part in PARTS if part not in (NOT_QUICK if options.quick else ())
    ]
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1 if options.quick else 3)
    options.warmup = options.warmup or (1 if options.quick else 2)
    doors = options.doors or "hot"
    options.doors = doors.split(",")
    if strange := set(options.doors) - set(DOORS):
        parser.error(f"there is no door {', '.join(sorted(strange))}")
    changed = options.quick or options.ours_only or options.settings or "hot" not in options.doors
    options.whole = options.everything and not changed
    return options
