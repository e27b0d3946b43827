"""`python -m bench`: see bench/README.md."""

import argparse
import sys

from bench.errors import Unbalanced, Unfit


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    parser.add_argument("scenarios", nargs="*", default=["accepted"])
    parser.add_argument("--doors", default="hot")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--warmup", type=float, default=2)
    parser.add_argument("--sales", type=int, default=4)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()

    from bench.figures import figure
    from bench.ground import Ground
    from bench.measuring import SCENARIOS, Knobs, measure
    from bench.sides import FORMS, Ours, Reference, Side

    knobs = Knobs(options.seconds, options.warmup, options.sales, options.connections)
    try:
        ground = Ground()
        try:
            for name in options.scenarios:
                scenario = SCENARIOS[name.replace("-", " ")]
                sides: list[Side] = [Ours(door, options.set) for door in options.doors.split(",")]
                if not options.ours_only:
                    sides += [Reference(form) for form in FORMS]
                runs = [
                    measure(ground, side, scenario, knobs) for _ in range(options.rounds) for side in sides
                ]
                for side in sides:
                    own = [run for run in runs if run.side == side.name]
                    for run in own:
                        print(run.as_json())
                    print(side.name, figure([run.per_cpu_second for run in own]))
        finally:
            ground.close()
    except (Unfit, Unbalanced) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
