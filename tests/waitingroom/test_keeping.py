"""The keeper of the lines: when a line stands, what is published of its past, and who keeps whom waiting."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from sales.models import Sale
from waitingroom import line
from waitingroom.keeping import Keeper
from waitingroom.line import Line, line_keys
from waitingroom.models import Room
from waitingroom.schedule import number_at


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
