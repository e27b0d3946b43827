"""SIGTERM: what a web process has begun it ends, answer by answer, and what it has not begun it refuses."""

import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest
import redis

from tests.doors.conftest import DOORS
from tests.doors.dialogue import Broken, Dialogue
from tests.doors.kernel import unread
from tests.doors.stages import stage_of
from tests.doors.test_conformance import is_order_of, plain
from tests.running_site import Site, Web, eventually
from tests.site.hostile import GOOD, Stage

GRACE = 25  # seconds: graceful_timeout of fluxgate_site/gunicorn.conf.py


@pytest.fixture(params=DOORS)
def mortal(request: pytest.FixtureRequest, site: Site) -> Web:
    """A web process that the test may end."""
    web = site.another_web(FLUXGATE_DOOR=request.param)
    web.wait("/readyz")
    return web


@contextmanager
def waiting_gate(gate: redis.Redis) -> Iterator[None]:
    """The gate decides nothing in here; what reads it is answered."""
    gate.execute_command("CLIENT", "PAUSE", 15_000, "WRITE")
    try:
        yield
    finally:
        gate.execute_command("CLIENT", "UNPAUSE")


def refuses(web: Web) -> bool:
    """Whether nobody listens any more."""
    try:
        socket.create_connection(("127.0.0.1", web.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def ends_well(web: Web) -> bool:
    try:
        return web.process.wait(timeout=GRACE) == 0
    except subprocess.TimeoutExpired:
        return False


def test_what_has_begun_is_answered(site: Site, mortal: Web, gate: redis.Redis) -> None:
    """Orders that wait for the gate, pipelines of them, and bodies that are on their way at SIGTERM."""
    single = [[stage_of("open", "")] for _ in range(40)]
    pipelines = [[stage_of("open", "") for _ in range(5)] for _ in range(10)]
    halves = [stage_of("open", "") for _ in range(10)]
    with ExitStack() as stack, waiting_gate(gate):

        def connected() -> Dialogue:
            return stack.enter_context(Dialogue(mortal.port))

        idle = [connected() for _ in range(10)]
        begun = [(connected(), stages) for stages in single + pipelines]
        for dialogue, stages in begun:
            dialogue.say(b"".join(map(plain, stages)))
        late = [(connected(), stage) for stage in halves]
        for dialogue, stage in late:
            dialogue.say(plain(stage)[: -len(GOOD) // 2])
        eventually(lambda: not unread(mortal.port))
        assert mortal.get("/livez").status_code == 200  # it has begun with all it has read

        mortal.process.send_signal(signal.SIGTERM)
        assert all(dialogue.ended() for dialogue in idle)
        eventually(lambda: refuses(mortal))
        for dialogue, stage in late:
            dialogue.say(plain(stage)[-len(GOOD) // 2 :])
        gate.execute_command("CLIENT", "UNPAUSE")
        for dialogue, stages in begun + [(dialogue, [stage]) for dialogue, stage in late]:
            for stage in stages:
                answer = dialogue.hear()
                assert is_order_of(answer, stage)
            assert answer is not None
            assert answer.header("connection") == "close"
            assert dialogue.ended()
    assert ends_well(mortal)
    assert site.buy("doors-open", stage_of("open", "").customer).status_code == 202


class Buyer(threading.Thread):
    """Orders on one connection until it ends, one after the other."""

    def __init__(self, web: Web, answered: "count[int]") -> None:
        super().__init__()
        self._web, self._answered = web, answered
        self.placed = 0
        self.unanswered: Stage | None = None
        self.cut = False

    def run(self) -> None:
        try:
            with Dialogue(self._web.port) as dialogue:
                while True:
                    self.unanswered = stage_of("open", "")
                    dialogue.say(plain(self.unanswered))
                    answer = dialogue.hear()
                    if answer is None:
                        return
                    assert is_order_of(answer, self.unanswered)
                    self.unanswered = None
                    self.placed = next(self._answered)
                    if answer.header("connection") == "close":
                        return
        except Broken:
            self.cut = True


def test_who_is_busy_ordering_loses_no_order(site: Site, mortal: Web) -> None:
    """Between two orders a connection is idle for a moment: the end comes with an answer, never without."""
    answered: count[int] = count(1)
    buyers = [Buyer(mortal, answered) for _ in range(8)]
    for buyer in buyers:
        buyer.start()
    eventually(lambda: max(buyer.placed for buyer in buyers) > 200)
    mortal.process.send_signal(signal.SIGTERM)
    for buyer in buyers:
        buyer.join(GRACE)
    assert not any(buyer.is_alive() or buyer.cut for buyer in buyers)
    assert ends_well(mortal)
    assert refuses(mortal)
    assert [buyer.unanswered for buyer in buyers] == [None] * len(buyers)
