"""The crowd seen from the demo: its processes started, told when to go, listened to."""

import contextlib
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

import msgspec

from management.demo.messages import Opening, Orders, Outcome, Said, line
from management.demo.processes import CHECKOUT

READY_SECONDS = 60.0


class CrowdBroken(Exception):
    """A crowd process ended before its work was done. One line, then what it printed."""


class Herd:
    """Crowd processes from start to last answer. Use it in a `with`: nobody is left behind."""

    def __init__(self, orders: Sequence[Orders]) -> None:
        self._members = [_Member(order) for order in orders]

    def __enter__(self) -> "Herd":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.end()

    def wait_until_ready(self) -> None:
        """Returns when every process has its tasks and its connections. Raises CrowdBroken."""
        for member in self._members:
            member.wait_until_ready()

    def go(self, opens_at: float) -> None:
        """Tells the Unix time of the opening."""
        for member in self._members:
            member.send(line(Opening(opens_at)))

    def said(self) -> Said:
        """What all of them have counted so far, together. Raises CrowdBroken."""
        every = [member.said() for member in self._members]
        answers: Counter[str] = Counter()
        for said in every:
            answers.update(said.answers)
        outcomes: list[Outcome] | None = None
        if all(said.outcomes is not None for said in every):
            outcomes = [outcome for said in every for outcome in said.outcomes or []]
        waiting = sum(said.waiting for said in every)
        return Said(dict(answers), waiting, max(said.late for said in every), outcomes)


class _Member:
    """One crowd process; a thread reads what it says."""

    def __init__(self, orders: Orders) -> None:
        self._last = Said({}, len(orders.clicks))
        self._ready = threading.Event()
        self._ended = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "management.demo.crowd"],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._listen, args=(line(orders),), daemon=True)
        self._thread.start()

    def send(self, text: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: `said` tells
            self._process.stdin.write(text)
            self._process.stdin.flush()

    def wait_until_ready(self) -> None:
        if not self._ready.wait(READY_SECONDS) or self._ended:
            raise self._broken()

    def said(self) -> Said:
        if self._ended and self._last.outcomes is None:
            raise self._broken()
        return self._last

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # something was still to be flushed
                    pipe.close()

    def _listen(self, orders: bytes) -> None:
        self.send(orders)  # here, because it may be more than a pipe holds
        assert self._process.stdout is not None
        decode = msgspec.json.Decoder(Said).decode
        for text in self._process.stdout:
            self._last = decode(text)
            self._ready.set()
        self._ended = True
        self._ready.set()

    def _broken(self) -> CrowdBroken:
        self._process.kill()
        assert self._process.stderr is not None
        words = self._process.stderr.read().decode(errors="replace").strip().splitlines()[-12:]
        return CrowdBroken(
            "the crowd's process ended before its time\n" + "\n".join(f"    {word}" for word in words)
        )
