"""Which runs make up a bench, and in which order: sides alternate, so that a slow minute hits all of them."""

from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from bench import (
    durable,
    growth,
    half_load,
    line,
    line_report,
    line_simulation,
    line_summary,
    measuring,
    memory,
    original,
    other_doors,
    results,
)
from bench.errors import Unfit
from bench.ground import Ground
from bench.measuring import ASKED, SCENARIOS, Knobs, Scenario
from bench.profiling import Profiler
from bench.results import Document
from bench.sides import DOORS, FORMS, Ours, Reference, Side

Say = Callable[[str], None]

# Orders that the writers find in the log, ours and the worker's: each has some seconds of work.
_DURABLE = {False: (100_000, 15_000), True: (12_000, 1_200)}
_DURABLE_SALES = 12


def run(ground: Ground, options: Namespace, knobs: Knobs, found: Document, say: Say) -> None:
    """Fills `found`. Raises Unfit and Unbalanced."""
    bench = _Bench(ground, options, knobs, found, say)
    for part in options.parts:
        if part.replace("-", " ") in SCENARIOS:
            bench.answers(part.replace("-", " "))
        else:
            getattr(bench, part.replace("-", "_"))()


class _Bench:
    def __init__(self, ground: Ground, options: Namespace, knobs: Knobs, found: Document, say: Say) -> None:
        self._ground, self._options, self._knobs = ground, options, knobs
        self._found, self._say = found, say

    def answers(self, name: str) -> None:
        scenario = SCENARIOS[name]
        for number in range(self._options.rounds):
            # The other doors once, for comparison: they are no target.
            others = DOORS if self._options.everything and not self._options.quick and not number else ()
            for side in self._sides(others, FORMS if name == "accepted" else self._forms):
                self._answer(scenario, side)

    def sold_out_asked(self) -> None:
        """Ours alone: the reference's runs of `sold out` are just that."""
        for _ in range(min(2, self._options.rounds)):
            for door in self._options.doors:
                self._answer(ASKED, Ours(door, (*self._options.settings, *ASKED.settings)))

    def _answer(self, scenario: Scenario, side: Side) -> None:
        run = measuring.measure(self._ground, side, scenario, self._knobs, self._beside(side))
        self._keep("runs", run)
        self._say(
            f"{scenario.name}, {side.name}: {run.per_cpu_second:,.0f} per CPU-s, "
            f"{run.per_second:,.0f} per s, "
            f"{run.busy:.0%} of its core ({run.loop_cpu / run.cpu:.0%} in its loop), "
            f"p99 {run.p99 / 1000:.1f} ms"
            + (f"; {run.stolen:.0%} of a core stolen" if run.stolen > 0.02 else "")
        )

    def half_load(self) -> None:
        for _ in range(min(2, self._options.rounds)):
            for side in self._sides(forms=self._forms):
                full = results.of(self._found, "runs", side.name, "per_second", "accepted")
                if full is None:
                    raise Unfit("half-load needs accepted before it, to know what the whole load is")
                run = half_load.measure(self._ground, side, full.median / 2, self._knobs)
                self._keep("half_load", run)
                self._say(f"half load, {side.name}: {run.rate:,} per s, p99 {run.p99 / 1000:.1f} ms")

    def original(self) -> None:
        for side in self._sides(forms=self._forms):
            run = original.measure(self._ground, side, self._options.quick)
            self._keep("original", run)
            self._say(f"original's load, {side.name}: {run.answered:,} answered, {run.sold} sold")

    def durable(self) -> None:
        ours, theirs = _DURABLE[self._options.quick]
        for _ in range(min(2, self._options.rounds)):
            runs = [durable.ours(self._ground, ours, _DURABLE_SALES)]
            if not self._options.ours_only:
                runs.append(durable.reference(self._ground, theirs, _DURABLE_SALES))
            for run in runs:
                self._keep("durable", run)
                self._say(f"durable, {run.side}: {run.per_second:,.0f} per s")

    def memory(self) -> None:
        quick = self._options.quick
        wanted, seconds = (100_000, 1.0) if quick else (1_000_000, 60.0)
        run = memory.measure(self._ground, Ours("hot", self._options.settings), self._knobs, wanted, seconds)
        self._found["memory"] = asdict(run)
        self._say(f"memory, {run.refused:,} refused: {run.grown:+,} bytes in Redis")

    def other_doors(self) -> None:
        for run in other_doors.measure(self._ground, Ours("hot", self._options.settings), self._knobs):
            self._keep("other_doors", run)
            self._say(f"under load, {run.door}: p99 {run.p99 / 1000:.1f} ms of {run.asked}")

    def growth(self) -> None:
        side = Ours(self._options.doors[0], self._options.settings)
        sizes, counts = growth.SIZES[self._options.quick], growth.SALES
        found: dict[str, Any] = {"sizes": [], "side_by_side": []}
        for size in sizes:
            row = growth.of_size(self._ground, side, self._knobs, size)
            found["sizes"].append(asdict(row))
            self._say(f"{size:,} orders: {row.service_us:.1f} µs an order, p99 {row.p99 / 1000:.1f} ms")
        for count in counts:
            beside = growth.side_by_side(self._ground, side, self._knobs, count)
            found["side_by_side"].append(asdict(beside))
            self._say(f"{count} sales: {beside.per_cpu_second:,.0f} per CPU-s")
        self._found["growth"] = found

    def line(self) -> None:
        quick = self._options.quick
        side = Ours(self._options.doors[0], self._options.settings)
        found = line.measure(self._ground, side, self._knobs, self._options.rounds, quick=quick)
        self._say(line_report.headline(found))
        looks, tickets = line.costs(found["looks"], "people"), line.costs(found["tickets"], "what")
        day = line_simulation.simulate(line_simulation.Plan(every=200 if quick else 10))
        found["simulation"] = line_summary.summary(
            day, found["document"]["wire"], looks[max(looks)], tickets[line.AGAIN]
        )
        self._found["line"] = found

    def _sides(self, doors: Iterable[str] = (), forms: Iterable[str] = FORMS) -> list[Side]:
        chosen = dict.fromkeys((*self._options.doors, *doors))
        sides: list[Side] = [Ours(door, self._options.settings) for door in chosen]
        if not self._options.ours_only:
            sides += [Reference(form) for form in forms]
        return sides

    @property
    def _forms(self) -> tuple[str, ...]:
        """Where time is short only the stronger form of the reference."""
        return FORMS[-1:] if self._options.quick else FORMS

    def _beside(self, side: Side) -> Callable[[int, float], None]:
        if self._options.profile is None or side.form != "ours":
            return lambda pid, seconds: None
        return Profiler(self._options.profile, self._ground.cores.load)

    def _keep(self, part: str, run: Any) -> None:
        self._found[part].append(asdict(run))
