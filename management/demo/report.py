"""What came of a run, held against what was promised. Pure: figures in, verdict out."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from management.demo.messages import Outcome
from management.demo.plan import Click, demand
from orders.balance import Balance

# Of crowd.py. Every other kind is a refusal, or no answer at all.
ACCEPTED = ("accepted", "accepted, held", "replayed")
NO_ANSWER = ("timeout", "connection lost")


@dataclass(frozen=True)
class Latency:
    """Seconds from the intended start of a click to an answer."""

    count: int
    p50: float
    p95: float
    p99: float
    longest: float


@dataclass(frozen=True)
class Written:
    """The order book's rows of the sale. The two times are seconds from the opening."""

    confirmed: frozenset[str]  # order ids
    last_grant_after: float | None
    last_row_after: float | None


@dataclass(frozen=True)
class Kill:
    """A consumer ended by kill -9, `after` seconds from the opening, when `rows` had been written.

    `standstill` is the longest time without a new row after that, in seconds; None when none was
    missing any more.
    """

    consumer: str
    after: float
    rows: int
    standstill: float | None


@dataclass(frozen=True)
class Report:
    buyers: int
    clicks: int
    units: int
    demand: int
    seed: int
    first_answers: Latency  # of all clicks
    kinds: dict[str, Latency]  # of last answers: pauses that were asked for are in them
    accepted: Latency
    refused: Latency
    came_back: dict[str, int]  # answers after which a buyer asked again
    crowd_late: float  # seconds by which the crowd itself was late at worst
    orders_accepted: int  # distinct ids in 202 answers
    written: Written
    records: int  # appended to the log
    balance: Balance
    double_clicks: int
    double_clicks_apart: int  # pairs that did not get one order, or one refusal
    lost: int
    oversold: int
    kill: Kill | None
    wrong: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        return not self.wrong

    @property
    def verdict(self) -> str:
        return "balanced" if self.balanced else "NOT balanced"

    def as_json(self) -> dict[str, Any]:
        left_out = ("written", "balance", "wrong")
        whole = {name: value for name, value in asdict(self).items() if name not in left_out}
        return {"verdict": self.verdict, "wrong": self.wrong} | whole | {
            "sold": self.balance.book.sold,
            "durable": len(self.written.confirmed),
            "customers_above_limit": self.balance.book.customers_above_limit,
            "seconds_to_last_grant": self.written.last_grant_after,
            "seconds_to_last_row": self.written.last_row_after,
            "books": self.balance.as_json(),
        }  # fmt: skip


def judge(
    *,
    clicks: Sequence[Click],
    limit: int,
    seed: int,
    answers: dict[str, int],
    crowd_late: float,
    outcomes: Sequence[Outcome],
    written: Written,
    records: int,
    balance: Balance,
    kill: Kill | None,
    kill_wanted: bool,
) -> Report:
    """`answers` are all answers by kind, `outcomes` the last one of each click."""
    by_kind: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_kind.setdefault(outcome.kind, []).append(outcome)
    accepted = [outcome for outcome in outcomes if outcome.kind in ACCEPTED]
    promised = {outcome.order_id for outcome in accepted}
    came_back = Counter(answers)
    came_back.subtract({kind: len(found) for kind, found in by_kind.items()})
    pairs = _double_clicks(outcomes)
    report = Report(
        buyers=len({click.buyer for click in clicks}),
        clicks=len(clicks),
        units=balance.book.allotment,
        demand=demand(clicks, limit),
        seed=seed,
        first_answers=latency(outcome.first_seconds for outcome in outcomes),
        kinds={kind: _last(found) for kind, found in sorted(by_kind.items(), key=_accepted_first)},
        accepted=_last(accepted),
        refused=_last([outcome for outcome in outcomes if outcome.kind not in ACCEPTED + NO_ANSWER]),
        came_back=dict(+came_back),
        crowd_late=crowd_late,
        orders_accepted=len(promised),
        written=written,
        records=records,
        balance=balance,
        double_clicks=len(pairs),
        double_clicks_apart=sum(len(ends) > 1 for ends in pairs),
        lost=len(promised - written.confirmed),
        oversold=max(0, balance.book.sold - balance.book.allotment),
        kill=kill,
    )
    report.wrong.extend(_wrong(report))
    if kill_wanted and kill is None:
        report.wrong.append("no consumer was killed: none of the demo's own has written a row")
    return report


def latency(seconds: Iterable[float]) -> Latency:
    """Percentiles by nearest rank; zeros when there is none."""
    ranked = sorted(seconds)
    if not ranked:
        return Latency(0, 0.0, 0.0, 0.0, 0.0)
    p50, p95, p99 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.95, 0.99))
    return Latency(len(ranked), p50, p95, p99, ranked[-1])


def _last(outcomes: Iterable[Outcome]) -> Latency:
    return latency(outcome.seconds for outcome in outcomes)


def _accepted_first(item: tuple[str, list[Outcome]]) -> tuple[int, int]:
    kind, found = item
    return ACCEPTED.index(kind) if kind in ACCEPTED else len(ACCEPTED), -len(found)


def _double_clicks(outcomes: Iterable[Outcome]) -> list[set[str]]:
    """Per key that was sent twice: the order ids it was answered with, "" for a refusal."""
    by_key: dict[tuple[int, str], list[Outcome]] = {}
    for outcome in outcomes:
        by_key.setdefault((outcome.click.buyer, outcome.click.key), []).append(outcome)
    return [
        {outcome.order_id for outcome in pair if outcome.kind not in NO_ANSWER}
        for pair in by_key.values()
        if len(pair) > 1
    ]


def _wrong(report: Report) -> list[str]:
    """Everything that keeps the run from being balanced, a line each."""
    found = [*report.balance.differences]
    found += [f"still under way: {line}" for line in report.balance.under_way]
    sold, wanted = report.balance.book.sold, min(report.units, report.demand)
    if sold != wanted:
        found.append(f"{sold:,} units sold, {wanted:,} were wanted")
    if report.oversold:
        found.append(f"{report.oversold:,} units oversold")
    if report.lost:
        found.append(f"{report.lost:,} accepted orders have no confirmed row in PostgreSQL")
    if report.double_clicks_apart:
        found.append(f"{report.double_clicks_apart:,} double clicks did not get one answer")
    if report.balance.log.unread is None:
        found.append("the broker did not tell whether the log has been read to its end")
    if report.balance.log.parked:
        found.append(f"{report.balance.log.parked:,} records of the partition are parked")
    return found
