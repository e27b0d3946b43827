"""Virtual time, and processes that can be frozen and killed at any point.

Everything runs on one queue of events, so a run is one sequence. A killed process gets no event
any more. A frozen one (SIGSTOP) finds them when it goes on: first what its sockets have received,
then the timers that have expired meanwhile, as a real event loop does.
"""

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

EPOCH = 1_800_000_000.0  # the wall clock at virtual second 0, in Unix seconds


class Event:
    """Something that happens at a moment, unless it is cancelled."""

    __slots__ = ("arguments", "at", "callback", "cancelled")

    def __init__(self, at: float, callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        self.at, self.callback, self.arguments = at, callback, arguments
        self.cancelled = False


class Scheduler:
    """The queue of events. `now` is virtual seconds since the world began."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self.current: Process | None = None
        self._ready: deque[Event] = deque()
        self._later: list[tuple[float, int, Event]] = []
        self._number = 0

    def at(self, when: float, callback: Callable[..., None], *arguments: Any) -> Event:
        event = Event(when, callback, arguments)
        if when <= self.now:
            self._ready.append(event)
        else:
            self._number += 1
            heapq.heappush(self._later, (when, self._number, event))
        return event

    def after(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> Event:
        return self.at(self.now + seconds, callback, *arguments)

    def run(self, until: float, finished: Callable[[], bool] = lambda: False, every: float = 0.5) -> bool:
        """Runs to a moment, or until `finished` says so; it is asked every so many virtual seconds."""
        ask_at = self.now
        while True:
            if self._ready:
                event = self._ready.popleft()
            elif self._later and self._later[0][0] <= until:
                if self._later[0][0] >= ask_at:
                    self.now = max(self.now, ask_at)
                    if finished():
                        return True
                    ask_at = self.now + every
                    continue
                self.now, _, event = heapq.heappop(self._later)
            else:
                self.now = until
                return finished()
            if not event.cancelled:
                self.events += 1
                event.callback(*event.arguments)


class Process:
    """What is killed and frozen together. `strikes` says what happens at its n-th use of a wire."""

    def __init__(self, scheduler: Scheduler, name: str) -> None:
        self.scheduler, self.name = scheduler, name
        self.alive, self.frozen, self.threads = True, False, False
        self.operations = 0
        self.strike: Callable[[Process, str], str] = lambda process, wire: ""
        self.on_death: list[Callable[[], None]] = []
        self._received: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._expired: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def enter(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Something reaches the process from outside: it runs now, or after the freeze, or never."""
        self._enter(self._received, callback, arguments)

    def expire(self, callback: Callable[..., None], *arguments: Any) -> None:
        """One of its timers has expired."""
        self._enter(self._expired, callback, arguments)

    def _enter(self, queue: deque[Any], callback: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self.alive:
            return
        if self.frozen:
            queue.append((callback, arguments))
            return
        before, self.scheduler.current = self.scheduler.current, self
        try:
            callback(*arguments)
        finally:
            self.scheduler.current = before

    def freeze(self, seconds: float, *, threads: bool = False) -> None:
        """Stands still (SIGSTOP); with `threads` only its Python does, and what librdkafka does goes on."""
        if self.alive and not self.frozen:
            self.frozen, self.threads = True, threads
            self.scheduler.after(seconds, self._thaw)

    def _thaw(self) -> None:
        self.frozen = False
        for queue in (self._received, self._expired):
            while queue and not self.frozen:
                callback, arguments = queue.popleft()
                self._enter(queue, callback, arguments)

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            for callback in self.on_death:
                callback()

    def using(self, wire: str) -> str:
        """Called at each use of a wire: kills or freezes where the plan says so. "after": at its reply."""
        self.operations += 1
        return self.strike(self, wire)
