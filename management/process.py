"""What the long-running commands have in common: how they are asked to end, and their metrics."""

import os
import signal
import threading
from types import FrameType

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from prometheus_client import start_http_server


def stop_on_signal() -> threading.Event:
    """Set by the first SIGTERM or SIGINT, which finishes the step under way; the second one kills."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    return stop


def add_metrics_port(parser: CommandParser) -> None:
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="serve /metrics there")


def serve_metrics(port: int | None) -> None:
    """Serves /metrics on this port, if there is one. Raises CommandError."""
    if port is None:
        return
    if not 1 <= port <= 65535:
        raise CommandError("--metrics-port is between 1 and 65535")
    try:
        # Its own default is every interface of the machine.
        start_http_server(port, addr=settings.FLUXGATE.metrics_host)
    except OSError as error:
        raise CommandError(f"metrics port {port}: {error.strerror}") from None
