"""`python -m bench`: see bench/README.md."""

import sys
from argparse import Namespace
from pathlib import Path

from rich.console import Console

from bench import options as command_line
from bench import plot, readme, report, results
from bench.errors import Unbalanced, Unfit
from bench.ground import Ground
from bench.measuring import Knobs
from bench.parts import run

WIDTH = 140  # of tables in a file or a pipe


def main() -> int:
    options = command_line.parse()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    if options.parts == ["plot"]:
        return _plot(options.source or results.newest(), console)
    if options.parts == ["table"]:
        readme.write()
        return 0
    try:
        found = _measure(options, console)
    except (Unfit, Unbalanced) as error:
        kind = "no figures" if isinstance(error, Unbalanced) else "the bench cannot run"
        console.print(f"{kind}: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    report.show(found if not options.ours_only else results.with_last_reference(found), console)
    if options.everything or options.keep:
        path = results.save(found)
        if not options.quick:
            results.picture(found).write_text(plot.draw(found))
            readme.write()
        console.print(f"kept in {path}; `python -m bench plot --from {path}` draws it", soft_wrap=True)
    return 0


def _measure(options: Namespace, console: Console) -> results.Document:
    knobs = Knobs(options.seconds, options.warmup, options.sales, options.connections, options.buyers)
    found = results.new(knobs, quick=options.quick, whole=options.whole)
    ground = Ground(hurry=options.quick)
    try:
        run(ground, options, knobs, found, lambda line: console.print(line, style="dim", soft_wrap=True))
    finally:
        ground.close()
    results.keep_reference(found)
    return found


def _plot(source: Path | None, console: Console) -> int:
    if source is None:
        console.print("there are no results to draw yet: `make bench` makes some", style="red")
        return 1
    found = results.load(source)
    results.picture(found).write_text(plot.draw(found))
    console.print(f"{results.picture(found)} shows {source}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
