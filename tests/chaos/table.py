"""What is printed: a line per row, a line per broken twin."""

from tests.chaos.registry import ROWS, TWINS, Result, Row, Twin

HEAD = (
    f"{'row':<28} {'what was killed':<66} {'promised':>8} {'confirmed':>9} {'lost':>4} {'oversold':>8}  "
    f"{'seconds to recover':<18} verdict"
)
TWIN_HEAD = f"{'broken twin':<24} {'guard taken out':<58} {'of row':<28} what it broke"


def line(row: Row, result: Result) -> str:
    recovered = "-" if result.recovered is None else f"{result.recovered:.1f} {result.recovered_to}"
    first = (
        f"{row.name:<28} {row.killed:<66} {result.promised:>8} {result.confirmed:>9} {result.lost:>4} "
        f"{result.oversold:>8}  {recovered:<18} {'FAILED' if result.violations else 'held'}"
    )
    return "\n".join([first, *(f"    {each}" for each in (*result.violations, *result.notes))])


def twin_line(twin: Twin, result: Result, well: bool) -> str:
    found = next((each for each in result.violations if each.startswith(twin.breaks)), "")
    if not well:
        found = f"NOT CAUGHT {result.violations}"
    return f"{twin.name:<24} {twin.guard:<58} {twin.row:<28} {found.splitlines()[0]}"


def fails_as_it_should(twin: Twin, result: Result) -> bool:
    return any(each.startswith(twin.breaks) for each in result.violations)


def listing() -> list[str]:
    lines = [f"{row.name:<28} {row.killed:<66} {row.stack}" for row in ROWS.values()]
    return lines + [f"twin {twin.name:<23} {twin.guard:<66} {twin.row}" for twin in TWINS.values()]
