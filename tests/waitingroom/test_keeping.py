"""The keeper of the lines: when a line stands, what is published of its past, and who keeps whom waiting."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.utils import timezone
from prometheus_client import REGISTRY

from sales.gate import pool_keys
from sales.models import Sale
from waitingroom import line, metrics
from waitingroom.keeping import Keeper
from waitingroom.line import Line, line_keys
from waitingroom.models import Room
from waitingroom.schedule import number_at

NOW = timezone.now()
LATER = NOW + timedelta(minutes=30)  # and before it closes


@pytest.fixture
def queued(open_sale: Callable[..., Sale]) -> Callable[..., Room]:
    """Makes an open sale with a waiting room of these settings."""

    def make(**settings: Any) -> Room:
        return Room.objects.create(sale=open_sale(admission_required=True), **settings)

    return make


def look(keeper: Keeper, times: int = 1) -> None:
    for _ in range(times):
        keeper.look()


def published(gate: redis.Redis, room: Room) -> Line:
    image: Any = gate.hget(line_keys(room.sale_id).line, "image")
    return line.decode(image)


def now_ms(gate: redis.Redis) -> int:
    seconds, micros = gate.time()  # type: ignore[misc]
    return int(seconds) * 1000 + int(micros) // 1000


def last(room: Room) -> tuple[float, str]:
    pace = room.paces.last()
    assert pace is not None
    return pace.rate, pace.reason


def test_a_line_stands_while_orders_cannot_be_written_down(
    gate: redis.Redis, queued: Callable[..., Room]
) -> None:
    room, takes = queued(), True
    keeper = Keeper(gate, lambda: takes)
    look(keeper, 3)  # publishes, makes the draw, moves
    assert last(room) == (50, "as set by the operator")
    takes = False
    look(keeper)
    assert last(room) == (0, "orders cannot be written down")
    takes = True
    look(keeper)
    assert last(room) == (50, "as set by the operator")


def test_a_clock_that_was_ahead_does_not_delay_the_operator(
    gate: redis.Redis, queued: Callable[..., Room]
) -> None:
    room, keeper = queued(), Keeper(gate)
    look(keeper, 3)
    ahead = now_ms(gate) + 3_600_000
    room.paces.create(ordinal=1, from_time=ahead, from_number=180_000, rate=50, reason="an hour ahead")
    Room.objects.update(turn_rate=0)
    look(keeper)
    segments, now = published(gate, room).segments, now_ms(gate)
    assert segments[-1].rate == 0
    assert [each.from_time for each in segments] == sorted(each.from_time for each in segments)
    assert number_at(segments, now) == number_at(segments, now + 60_000) == 180_000


def test_a_missed_turn_is_over_however_often_the_pace_has_changed(
    gate: redis.Redis, queued: Callable[..., Room]
) -> None:
    room, keeper = queued(turn_seconds=10), Keeper(gate)
    look(keeper, 3)
    began = now_ms(gate) - 100_000
    room.paces.model.objects.bulk_create(
        [
            room.paces.model(
                room=room, ordinal=n, from_time=began + 500 * n, from_number=25 * (n // 2), rate=50 * (n % 2)
            )
            for n in range(1, 200)
        ]
    )
    look(keeper)
    told = published(gate, room)
    assert told.turn(0, 0).is_over(now_ms(gate))
    assert not told.turn(25 * 99, 0).is_over(now_ms(gate))


def test_a_line_that_goes_wrong_keeps_no_other_waiting(
    gate: redis.Redis, queued: Callable[..., Room]
) -> None:
    rooms = [queued() for _ in range(3)]
    broken = line_keys(rooms[1].sale_id).line
    gate.set(broken, "not a hash")
    look(Keeper(gate), 3)
    assert [gate.exists(line_keys(room.sale_id).line) for room in rooms] == [1, 1, 1]
    assert [room.paces.count() for room in rooms] == [1, 0, 1]


def test_who_asks_again_writes_nothing(gate: redis.Redis, queued: Callable[..., Room]) -> None:
    room = queued(turn_rate=0)
    look(Keeper(gate), 3)
    keys = line_keys(room.sale_id)
    for expected in (1, 0):
        before: Any = gate.info("persistence")["rdb_changes_since_last_save"]  # type: ignore[index]
        assert gate.eval(line.join_script(), 2, *keys, "tag", "", 0, "")[2] == 0  # type: ignore[index]
        after: Any = gate.info("persistence")["rdb_changes_since_last_save"]  # type: ignore[index]
        assert (after > before) == bool(expected)


def lines() -> dict[str, float | None]:
    states = ("moving", "standing", "stalled")
    return {state: REGISTRY.get_sample_value("fluxgate_lines", {"state": state}) for state in states}


def test_a_line_that_stands_while_people_wait_for_units_that_are_there_is_stalled(
    gate: redis.Redis, queued: Callable[..., Room]
) -> None:
    room, keeper = queued(turn_rate=0), Keeper(gate)
    look(keeper, 3)
    assert lines() == {"moving": 0, "standing": 1, "stalled": 0}, "nobody waits"
    gate.hset(line_keys(room.sale_id).line, "next", 7)
    look(keeper)
    assert lines() == {"moving": 0, "standing": 0, "stalled": 1}
    assert REGISTRY.get_sample_value("fluxgate_line_people") == 7
    for facts, back in (({"state": "paused"}, {"state": "open"}), ({"opens_at": LATER}, {"opens_at": NOW})):
        Sale.objects.filter(pk=room.sale_id).update(**facts)
        look(keeper)
        assert lines() == {"moving": 0, "standing": 1, "stalled": 0}, facts
        Sale.objects.filter(pk=room.sale_id).update(**back)
    units = pool_keys(room.sale_id).gate
    remaining = gate.hget(units, "remaining")
    gate.hset(units, "remaining", 0)
    look(keeper)
    assert lines()["stalled"] == 0, "no unit is left"
    gate.hset(units, "remaining", remaining)  # type: ignore[arg-type]
    Room.objects.update(passes=True)
    look(keeper)
    assert lines()["stalled"] == 0, "everybody passes"
    Room.objects.update(passes=False)
    look(keeper)
    assert lines()["stalled"] == 1
    Room.objects.update(turn_rate=5)
    look(keeper)
    assert lines() == {"moving": 1, "standing": 0, "stalled": 0}
    assert REGISTRY.get_sample_value("fluxgate_line_turns_per_second") == 5


def test_lines_are_summed_and_forgotten(gate: redis.Redis, queued: Callable[..., Room]) -> None:
    rooms, keeper = [queued(turn_rate=rate) for rate in (2, 3)], Keeper(gate)
    look(keeper, 3)
    for room in rooms:
        gate.hset(line_keys(room.sale_id).line, "next", 1_000_000)
    look(keeper)
    assert REGISTRY.get_sample_value("fluxgate_line_turns_per_second") == 5
    people = REGISTRY.get_sample_value("fluxgate_line_people")
    assert people is not None
    assert 1_999_000 < people <= 2_000_000
    metrics.forget()
    assert lines() == {"moving": None, "standing": None, "stalled": None}
    assert REGISTRY.get_sample_value("fluxgate_line_people") == 0
    assert REGISTRY.get_sample_value("fluxgate_line_turns_per_second") == 0
