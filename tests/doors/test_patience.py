"""Clients that are slow, silent or many: what a door waits for, and what that costs the others."""

import json
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack

import psutil  # type: ignore[import-untyped]
import pytest
import redis

from tests.doors.conftest import BODY_SECONDS, DOORS, web_behind
from tests.doors.dialogue import Dialogue
from tests.doors.questions import Asking, an_order, at, order_of
from tests.doors.stages import stage_of
from tests.doors.test_ending import waiting_gate
from tests.running_site import Site, Web, eventually
from tests.site.hostile import order
from tests.site.test_hostile import STALLS

IDLE = 10_000
SERVED = 200  # of them have been answered before
SPARE_FILES = 300  # for whatever else the two processes have open
MEGABYTE = 1 << 20


def test_a_body_that_stalls_is_408_at_each_door(doors: dict[str, Web]) -> None:
    """All at once, so that the seconds are waited for once; others are answered meanwhile."""
    waiting = {(door, stall): Dialogue(doors[door].port) for door in DOORS for stall in STALLS}
    for (_, stall), dialogue in waiting.items():
        dialogue.say(STALLS[stall](stage_of("open", "")))
    for web in doors.values():
        assert web.buy("doors-open", stage_of("open", "").customer).status_code == 202
    for dialogue in waiting.values():
        with dialogue:
            answer = dialogue.hear()
            assert answer is not None
            assert (answer.status, answer.header("connection")) == (408, "close")
            assert json.loads(answer.body)["type"] == "/problems#body-timeout"
            assert dialogue.ended()


def test_a_body_in_time_is_an_order(door: Web) -> None:
    """Between its pieces others are answered, as often as the time allows."""
    stage = stage_of("open", "")
    whole = order(stage, key="k-1", last=False)
    assert BODY_SECONDS > 1
    with Dialogue(door.port) as dialogue:
        for piece in (whole[:20], whole[20:-10], whole[-10:-1]):
            dialogue.say_apart(piece)
            assert door.get("/livez").status_code == 200
        dialogue.say(whole[-1:])
        answer = dialogue.hear()
        assert answer is not None
        assert answer.header("location") == f"/api/v1/orders/{order_of(stage)}"


def test_thousands_of_idle_connections(door: Web, record_property: Callable[[str, object], None]) -> None:
    """Some have never spoken, some have said half a head, some have been answered; orders go on."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE, files - SPARE_FILES)
    record_property("idle connections", count)
    assert count > SERVED, "this machine allows too few open files to prove anything"
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", door.port)))
            for _ in range(count - SERVED)
        ]
        for connection in silent[::10]:
            connection.sendall(b"POST /api/v1/sales/doors-open/orders HTTP/1.1\r\nHost: 127")
        kept = [stack.enter_context(Dialogue(door.port)) for _ in range(SERVED)]
        for turn in range(2):  # before and behind them, each of them orders among the silent ones
            for dialogue in kept:
                dialogue.say(an_order(key=f"k-{turn}")(stage_of("open", "")))
            for dialogue in kept:
                answer = dialogue.hear()
                assert answer is not None
                assert answer.status == 202


def memory(web: Web) -> int:
    """Bytes of the worker's resident memory, once it has nothing more to do."""
    [worker] = psutil.Process(web.process.pid).children()
    before = -1.0

    def quiet() -> bool:
        nonlocal before
        spent, before = before, sum(worker.cpu_times()[:2])
        return spent == before

    eventually(quiet)
    return int(worker.memory_info().rss)


@pytest.mark.parametrize("name", DOORS)
def test_who_is_idle_is_closed_and_nobody_else(site: Site, gate: redis.Redis, name: str) -> None:
    """Neither who asks now and then, nor who waits for an answer longer than one may be idle."""
    web = site.another_web(FLUXGATE_DOOR=name, GUNICORN_CMD_ARGS="-k tests.doors.hasty_worker.Hasty")
    web.wait("/readyz")
    idle, asking, waiting = (Dialogue(web.port) for _ in range(3))
    with idle, asking, waiting:
        for dialogue in (idle, asking, waiting):
            dialogue.say(at("/api/v1/sales")(stage_of("open", "")))
            assert dialogue.hear() is not None
        with waiting_gate(gate):
            waiting.say(an_order()(stage_of("open", "")))
            while not idle.says_something(within=0.1):
                asking.say(at("/api/v1/sales")(stage_of("open", "")))
                assert asking.hear() is not None
        assert idle.ended()
        answer = waiting.hear()
        assert answer is not None
        assert answer.status == 202
        asking.say(an_order()(stage_of("open", "")))
        assert asking.hear() is not None


# What is asked without end, and how often.
LARGE = (at("/api/v1/sales"), 8_000)
SMALL = (an_order(drop=("Authorization",)), 60_000)


def grown(web: Web, flood: tuple[Asking, int]) -> int:
    """Bytes that a worker's memory has grown by when a client asks without end and reads nothing."""
    ask, count = flood
    one = ask(stage_of("open", ""))
    before = memory(web)
    with Dialogue(web.port, receive_bytes=4096) as dialogue:
        dialogue.say_what_fits(one * count, patience=0.5)
        after = memory(web)
        for _ in range(20):  # it is answered as soon as it reads
            answer = dialogue.hear()
            assert answer is not None
            assert answer.status in (200, 401)
    return after - before


def test_who_does_not_read_is_not_answered_without_end(door: Web) -> None:
    assert grown(door, LARGE) < 24 * MEGABYTE


@pytest.mark.parametrize("door", ["lean", "hot"], indirect=True)  # stock takes a minute for so many
def test_who_does_not_read_is_not_read_without_end(door: Web) -> None:
    """Requests that wait behind another are in memory: reading stops until they are answered."""
    assert grown(door, SMALL) < 24 * MEGABYTE


def test_twin_that_answers_without_end_grows(site: Site) -> None:
    assert grown(web_behind(site, "Greedy"), LARGE) > 56 * MEGABYTE
