"""The wires: every use of one may be delayed, lost on the way there or on the way back, or be the
moment at which its process dies or freezes.

A server is up, down (connections are refused) or frozen: then requests pile up in its sockets, and
it does what they ask when it goes on, whether or not anybody still waits.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.simulation.loop import Process, Scheduler


@dataclass
class Weather:
    """How bad a wire is. Probabilities per use; seconds."""

    lost_request: float = 0.0
    lost_reply: float = 0.0
    reset: float = 0.0  # the connection breaks, before or after the server has done it
    slow: float = 0.0
    slowest: float = 0.0


class Server:
    """Something at the other end of wires."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.frozen = False
        self.weather = Weather()
        self.unreachable_from: set[str] = set()
        self._waiting: list[Callable[[], None]] = []

    def freeze(self) -> None:
        self.frozen = True

    def go_on(self) -> None:
        self.frozen = False
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            request()

    def receive(self, request: Callable[[], None]) -> None:
        if self.frozen:
            self._waiting.append(request)
        else:
            request()


class Network:
    def __init__(self, scheduler: Scheduler, rng: random.Random) -> None:
        self._scheduler, self._rng = scheduler, rng

    def delay(self, server: Server) -> float:
        weather = server.weather
        if weather.slow and self._rng.random() < weather.slow:
            return self._rng.uniform(0.0, weather.slowest)
        return 0.0002 + self._rng.random() * 0.001

    def request(
        self,
        process: Process,
        server: Server,
        operation: Callable[[Callable[[Any], None]], None],
        answer: Callable[[Any], None],
        refused: Callable[[str], Exception],
    ) -> None:
        """Lets the server do `operation`, which calls back with its result or exception.

        `answer` gets that, in the process, or nothing ever. `refused(text)` makes the exception of a
        broken connection.
        """
        fate = process.using(server.name)
        if not process.alive:
            return
        weather, rng, scheduler = server.weather, self._rng, self._scheduler
        if server.name and process.name in server.unreachable_from:
            return  # a cut cable: nobody ever answers
        if not server.up:
            scheduler.after(self.delay(server), process.enter, answer, refused("connection refused"))
            return
        luck = rng.random() if weather.lost_request or weather.lost_reply or weather.reset else 1.0
        if luck < weather.lost_request:
            return
        luck -= weather.lost_request
        lost_reply = 0 <= luck < weather.lost_reply
        luck -= weather.lost_reply
        broken = 0 <= luck < weather.reset
        if broken and rng.random() < 0.5:
            scheduler.after(self.delay(server), process.enter, answer, refused("connection reset"))
            return

        def reply(value: Any) -> None:
            if fate == "kill after":
                process.kill()
            answer(value)

        def arrive() -> None:
            if not server.up:
                scheduler.after(self.delay(server), process.enter, reply, refused("connection reset"))
                return
            server.receive(perform)

        def perform() -> None:
            operation(done)

        def done(value: Any) -> None:
            if broken:
                value = refused("connection reset")
            if not lost_reply:
                scheduler.after(self.delay(server), process.enter, reply, value)

        scheduler.after(self.delay(server), arrive)
