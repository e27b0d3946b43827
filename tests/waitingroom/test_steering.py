"""The engine steers: slower when orders are late, faster when turns go unused, never out of bounds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sales.gate import Image
from waitingroom.models import Room
from waitingroom.steering import STEER_SECONDS, Look, steered


def room(**settings: Any) -> Room:
    return Room(**({"turn_rate": 50, "turn_seconds": 10, "least_rate": 5, "most_rate": 200} | settings))


def image(*, granted: int, queued: int = 0, remaining: int = 1_000_000) -> Image:
    return Image(1, "open", 2_000_000, remaining, 0, queued, granted - queued, 0)


def look(at: float, *, turns: int, waiting: int = 10_000, gate: float = 0.001, **counted: int) -> Look:
    return Look(at, image(**counted), turns, waiting, gate)


BEFORE = look(0, turns=0, granted=1000)


@pytest.mark.parametrize(
    ("now", "rate", "expected"),
    [
        # 250 units in 5 s, 500 of them not written down yet: 10 s late.
        (look(5, turns=250, granted=1250, queued=500), 50, (35.0, "orders are written down 10 s late")),
        (look(5, turns=250, granted=1250, gate=0.08), 50, (35.0, "the gate takes 80 ms")),
        (look(5, turns=250, granted=1050), 50, (62.5, "50 of 250 turns were used")),
        (look(5, turns=250, granted=1200), 50, None),
        (look(5, turns=100, granted=1090), 20, (25.0, "everything keeps up again")),
        # Back to what the operator wished, however few units are left.
        (look(5, turns=100, granted=1090, remaining=30), 20, (25.0, "everything keeps up again")),
        # Nobody waits, or all that is left may be bought by those who are in.
        (look(5, turns=250, granted=1050, waiting=0), 50, None),
        (look(5, turns=250, granted=1050, remaining=600), 50, None),
        # The bounds hold, also for what was set before they were.
        (look(5, turns=250, granted=1250, queued=500), 6, (5.0, "orders are written down 10 s late")),
        (look(5, turns=1000, granted=1050), 190, (200.0, "50 of 1000 turns were used")),
        (look(5, turns=250, granted=1200), 500, (200.0, "within the bounds set by the operator")),
        # Too few turns to say anything; nothing sold at all is a fault in front of the gate.
        (look(5, turns=9, granted=1001), 50, None),
        (look(5, turns=250, granted=1000), 50, None),
    ],
)
def test_the_rule(now: Look, rate: float, expected: tuple[float, str] | None) -> None:
    assert steered(room(), rate, BEFORE, now) == expected


@given(
    rate=st.floats(0.1, 10_000),
    turns=st.integers(0, 5_000),
    granted=st.integers(-500, 5_000),
    queued=st.integers(0, 500),
    waiting=st.integers(0, 10_000),
    remaining=st.integers(0, 10_000),
    gate=st.floats(0, 1),
)
def test_whatever_is_seen_the_bounds_hold(
    rate: float, turns: int, granted: int, queued: int, waiting: int, remaining: int, gate: float
) -> None:
    now = look(
        5,
        turns=turns,
        granted=1000 + granted,
        queued=queued,
        waiting=waiting,
        remaining=remaining,
        gate=gate,
    )
    new = steered(room(), rate, BEFORE, now)
    assert 5 <= (new[0] if new else rate) <= 200
    if new:
        assert new[1]


def test_late_orders_slow_the_line_until_it_stands_at_its_least() -> None:
    rate, at, granted = 200.0, 0.0, 1000
    before = look(at, turns=0, granted=granted)
    for _ in range(20):
        at, granted = at + STEER_SECONDS, granted + 100
        now = look(at, turns=1000, granted=granted, queued=1000)
        rate, _reason = steered(room(), rate, before, now) or (rate, "")
        before = now
    assert rate == 5
