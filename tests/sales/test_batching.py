"""Group commit: order, errors, cancellation, back-pressure, shutdown."""

import asyncio
from collections.abc import Sequence

import pytest

from sales.batching import GroupCommit, QueueFull


class Line:
    """A `send` that can be held back, and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.at_once = self.most_at_once = 0
        self.go = asyncio.Event()
        self.go.set()

    async def send(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.go.wait()
        self.at_once -= 1
        if -1 in items:
            raise ConnectionError("lost")
        return [item * 10 for item in items]


async def test_results_belong_to_their_items() -> None:
    line = Line()
    group = GroupCommit(line.send, most=7)
    assert await asyncio.gather(*(group.submit(i) for i in range(50))) == [i * 10 for i in range(50)]
    assert [item for call in line.calls for item in call] == list(range(50))
    assert max(map(len, line.calls)) == 7


async def test_an_idle_group_sends_at_once_and_a_busy_one_gathers() -> None:
    line = Line()
    line.go.clear()
    group = GroupCommit(line.send, most=100, in_flight=1)
    futures = [group.submit(0)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert line.calls == [[0]]
    futures += [group.submit(i) for i in range(1, 6)]
    line.go.set()
    await asyncio.gather(*futures)
    assert line.calls == [[0], [1, 2, 3, 4, 5]]


async def test_no_more_calls_than_allowed_are_in_flight() -> None:
    line = Line()
    line.go.clear()
    group = GroupCommit(line.send, most=1, in_flight=2)
    futures = [group.submit(i) for i in range(6)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert line.calls == [[0], [1]]
    line.go.set()
    await asyncio.gather(*futures)
    assert line.most_at_once == 2


async def test_an_error_reaches_the_waiters_of_its_call_only() -> None:
    line = Line()
    group = GroupCommit(line.send, most=2, in_flight=1)
    results = await asyncio.gather(*(group.submit(i) for i in (1, -1, 3, 4)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionError, ConnectionError, int, int]


async def test_a_cancelled_item_is_not_sent() -> None:
    line = Line()
    line.go.clear()
    group = GroupCommit(line.send, in_flight=1)
    first, second, third = group.submit(1), group.submit(2), group.submit(3)
    second.cancel()
    line.go.set()
    assert await asyncio.gather(first, third) == [10, 30]
    assert line.calls == [[1, 3]]


async def test_a_full_queue_refuses_and_sends_nothing_of_it() -> None:
    line = Line()
    line.go.clear()
    group = GroupCommit(line.send, in_flight=1, waiting=2)
    futures = [group.submit(1), group.submit(2)]
    with pytest.raises(QueueFull):
        group.submit(3)
    line.go.set()
    assert await asyncio.gather(*futures) == [10, 20]
    assert line.calls == [[1, 2]]


async def test_drain_waits_for_what_is_under_way() -> None:
    line = Line()
    line.go.clear()
    group = GroupCommit(line.send, most=1, in_flight=1)
    futures = [group.submit(i) for i in range(3)]
    draining = asyncio.ensure_future(group.drain())
    await asyncio.sleep(0.01)
    assert not draining.done()
    line.go.set()
    await draining
    assert all(future.done() for future in futures)


async def test_what_is_only_told_travels_with_the_rest_and_its_failure_is_nobodys() -> None:
    line = Line()
    group = GroupCommit(line.send)
    group.tell(1)
    waited = group.submit(2)
    group.tell(3)
    assert await waited == 20
    assert line.calls == [[1, 2, 3]]
    group.tell(-1)
    await group.drain()
    assert line.calls[1:] == [[-1]]


async def test_a_full_queue_refuses_what_is_only_told_as_well() -> None:
    line = Line()
    line.go.clear()
    group = GroupCommit(line.send, most=1, in_flight=1, waiting=1)
    group.tell(1)
    with pytest.raises(QueueFull):
        group.tell(2)
    line.go.set()
    await group.drain()
    assert line.calls == [[1]]


async def test_an_exception_among_the_results_is_for_its_waiter_alone() -> None:
    async def send(items: Sequence[int]) -> list[int | Exception]:
        return [LookupError(item) if item % 2 else item for item in items]

    group = GroupCommit(send)
    answers = await asyncio.gather(*(group.submit(i) for i in range(4)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["0", "1", "2", "3"]
    assert [isinstance(answer, LookupError) for answer in answers] == [False, True, False, True]
