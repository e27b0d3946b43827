"""The command: seeds of each mode, then the planted bugs, and a history for whatever was violated.

`--seed S --mode M` replays one seed and prints its history; `--bug NAME` replays it with that bug.
Exit code 1 when a seed violates something, or when a planted bug is not caught.
"""

import argparse
import gc
import multiprocessing
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from tests.simulation.bugs import BUGS
from tests.simulation.faults import MODES
from tests.simulation.simulate import Run

CHUNK = 10  # seeds that a worker process takes at a time
WINDOW = 8
BUG_SEEDS = 1500  # after so many seeds a planted bug counts as not caught


class Seed(NamedTuple):
    """What is kept of one run."""

    mode: str
    seed: int
    violations: list[str]
    events: int
    words: Counter[str]


def run(mode: str, seed: int, bug: str = "") -> Seed:
    one = Run(mode, seed, BUGS[bug].planted if bug else None).go()
    words = Counter(call.answer.word for wish in one.clients.wishes for call in wish.calls)
    found = Seed(mode, seed, one.violations, one.world.scheduler.events, words)
    return found


def _chunk(work: tuple[str, int, int, str]) -> list[Seed]:
    mode, first, following, bug = work
    gc.disable()  # collected between the runs, not in the middle of them
    found = []
    for seed in range(first, following):
        found.append(run(mode, seed, bug))
        if bug and found[-1].violations:
            break
    gc.collect()
    return found


def many(pool: Any, mode: str, seeds: int, bug: str = "") -> Iterator[Seed]:
    """So many seeds in order, no more than WINDOW chunks ahead: who has seen enough stops the rest."""
    work = iter([(mode, first, min(first + CHUNK, seeds), bug) for first in range(0, seeds, CHUNK)])
    under_way = deque(pool.apply_async(_chunk, (item,)) for item in islice(work, WINDOW))
    while under_way:
        found = under_way.popleft().get()
        under_way += [pool.apply_async(_chunk, (item,)) for item in islice(work, 1)]
        yield from found


def sweep(pool: Any, modes: Iterable[str], seeds: int) -> int:
    """Runs so many seeds of each mode. Returns how many violate something."""
    print(f"{'mode':<12} {'seeds':>7} {'violations':>10} {'events':>12} {'seconds':>8}   answers")
    wrong: list[Seed] = []
    for mode in modes:
        begun, events, words, bad = time.monotonic(), 0, Counter[str](), 0
        for found in many(pool, mode, seeds):
            events += found.events
            words += found.words
            if found.violations:
                bad += 1
                wrong.append(found)
        told = " ".join(f"{word}:{count}" for word, count in words.most_common(12))
        print(
            f"{mode:<12} {seeds:>7} {bad:>10} {events:>12} {time.monotonic() - begun:>8.0f}   {told}",
            flush=True,
        )
    for found in wrong[:20]:
        print(f"VIOLATED {found.mode} --seed {found.seed}: {found.violations[0]}")
    if wrong:
        show(wrong[0].mode, wrong[0].seed)
    return len(wrong)


def plant(pool: Any, names: Iterable[str]) -> int:
    """Plants each bug and looks for a seed that shows it. Returns how many were not caught."""
    print(f"{'planted bug':<34} {'mode':<12} {'seeds':>6}   caught by")
    missed = 0
    for name in names:
        bug = BUGS[name]
        tried = 0
        for mode in bug.modes:
            caught = None
            for found in many(pool, mode, BUG_SEEDS, name):
                tried += 1
                if found.violations:
                    caught = found
                    break
            if caught:
                print(
                    f"{name:<34} {mode:<12} {tried:>6}   {caught.violations[0]}  (--seed {caught.seed})",
                    flush=True,
                )
                break
        else:
            missed += 1
            print(f"{name:<34} {'-':<12} {tried:>6}   NOT CAUGHT", flush=True)
    print(f"planted bugs: {len(list(names)) - missed} of {len(list(names))} caught")
    return missed


def show(mode: str, seed: int, bug: str = "") -> list[str]:
    """Runs one seed again and prints its history and what it violates."""
    again = Run(mode, seed, BUGS[bug].planted if bug else None, verbose=True).go()
    print(f"\n--mode {mode} --seed {seed}" + (f" --bug {bug}" if bug else ""))
    print("\n".join(again.world.history))
    print(f"history {again.world.digest()[:16]}, {again.world.scheduler.events} events")
    for text in again.violations:
        print(f"VIOLATED {text}")
    return again.violations


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="per mode")
    parser.add_argument("--mode", choices=list(MODES), help="only this one")
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--bug", choices=list(BUGS), help="with this bug planted")
    parser.add_argument("--bugs", action="store_true", help="only the table of planted bugs")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    if options.seed is not None:
        modes = [options.mode] if options.mode else list(MODES)
        found = [show(mode, options.seed, options.bug or "") for mode in modes]
        return int(any(found))
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        wrong = 0
        if not (options.bugs or options.bug):
            wrong = sweep(pool, [options.mode] if options.mode else list(MODES), options.seeds)
        if options.bug:
            wrong += plant(pool, [options.bug])
        elif not options.mode:
            wrong += plant(pool, list(BUGS))
    return int(wrong > 0)
