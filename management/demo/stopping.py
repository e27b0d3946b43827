"""Ctrl-C, SIGTERM and a closed terminal: one exception, once, so that everything is ended in its order."""

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody wants the demo to end."""


def listen() -> None:
    """From now on the first of SIGNALS raises Stopped, and the ones after it are ignored."""
    for number in SIGNALS:
        signal.signal(number, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def ignore() -> None:
    """While things are being ended. That takes a bounded time, and half of it is worse than all."""
    for number in SIGNALS:
        # Not SIG_IGN: Python complains of one that came a moment before, and children would inherit it.
        signal.signal(number, _nothing)


def hold_back() -> None:
    """Signals wait until the next `listen`, also across an exec."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _stop(number: int, frame: FrameType | None) -> None:
    ignore()
    raise Stopped
