"""The site behind other protocols than its own: a second opinion, and broken twins.

`gunicorn -k tests.doors.other_workers.H11 …`
"""

import time
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fluxgate_site import protocol, worker
from fluxgate_site.hot_protocol import HotProtocol
from orders.echoes import Echoes


class H11(worker.Worker):
    """uvicorn's other protocol, in pure Python."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": H11Protocol}


class _Lenient(protocol.Protocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_chunked_length=True, lenient_optional_cr_before_lf=True
        )


class Lenient(worker.Worker):
    """A twin whose parser is kind to what could be smuggled."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": _Lenient}


class _Greedy(protocol.Protocol):
    def pause_writing(self) -> None:
        """Answers pile up in memory."""


class Greedy(worker.Worker):
    """A twin that goes on answering a client that does not read."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": _Greedy}


class _Parrots(Echoes):
    """Repeats what was said last about a sale, whoever asks."""

    def find(self, state: Any, url: bytes, fields: Any, body: bytes) -> bytes | None:
        echo = self._echoes.get(url)
        return echo.sent if echo is not None and time.monotonic() < echo.until else None


class _Parroting(HotProtocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if type(self.door.echoes) is Echoes:
            self.door.echoes = _Parrots()


class Parrot(worker.Worker):
    """A twin that repeats a refusal to everybody; with the hot door."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": _Parroting}
