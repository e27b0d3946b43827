"""`python -m tests.chaos`: runs the rows and the broken twins, a line each; ends with 0 when all is well."""

import argparse
import signal
import sys
import time

from tests.chaos import rows, table
from tests.chaos import twins as all_twins
from tests.chaos.lanes import Job, Lanes
from tests.chaos.registry import ROWS, TWINS

assert rows, all_twins


def main() -> int:
    # A shell that has started us in the background made us deaf to it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = _options()
    if options.list:
        print("\n".join(table.listing()))
        return 0
    jobs = (
        [Job(ROWS[name]) for name in _chosen(options.rows, list(ROWS), "row")]
        if not options.twins_only
        else []
    )
    if not options.no_twins and (options.twins or not options.rows):
        jobs += [
            Job(ROWS[TWINS[name].row], TWINS[name]) for name in _chosen(options.twins, list(TWINS), "twin")
        ]
    jobs = [job for job in jobs if not (options.no_apache and job.row.stack != "tansu")]
    began = time.monotonic()
    failed: list[str] = []
    print(table.HEAD, flush=True)
    twin_lines: list[str] = []
    for job, result in Lanes(options.lanes).run(jobs):
        if job.twin is None:
            print(table.line(job.row, result), flush=True)
            if result.violations:
                failed.append(job.row.name)
        else:
            well = table.fails_as_it_should(job.twin, result)
            twin_lines.append(table.twin_line(job.twin, result, well))
            if not well:
                failed.append(f"twin {job.twin.name}")
    if twin_lines:
        print("\n" + table.TWIN_HEAD)
        print("\n".join(sorted(twin_lines)))
    rows_run = sum(job.twin is None for job in jobs)
    print(
        f"\n{rows_run} rows, {len(jobs) - rows_run} broken twins, {time.monotonic() - began:.0f} s: ", end=""
    )
    print(f"FAILED: {', '.join(failed)}" if failed else "everything held, and every twin failed")
    return 1 if failed or not jobs else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--list", action="store_true", help="the rows and the twins, without running them")
    parser.add_argument("--rows", metavar="A,B", default="", help="only these rows")
    parser.add_argument("--twins", metavar="A,B", default="", help="only these twins, beside the rows")
    parser.add_argument("--twins-only", action="store_true", help="no rows")
    parser.add_argument("--no-twins", action="store_true", help="no twins")
    parser.add_argument("--no-apache", action="store_true", help="not the rows that need Java")
    parser.add_argument("--lanes", type=int, default=2, help="how many stacks side by side (default 2)")
    return parser.parse_args()


def _chosen(text: str, known: list[str], kind: str) -> list[str]:
    chosen = [name for name in text.split(",") if name]
    for name in chosen:
        if name not in known:
            raise SystemExit(f"there is no {kind} {name!r}: --list shows them")
    return chosen or known


if __name__ == "__main__":
    sys.exit(main())
