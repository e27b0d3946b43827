"""The site behind other protocols than its own: a second opinion, and broken twins.

`gunicorn -k tests.doors.other_workers.H11 …`
"""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from fluxgate_site import worker


class H11(worker.Worker):
    """uvicorn's other protocol, in pure Python."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": H11Protocol}


class _Lenient(worker.Protocol):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_chunked_length=True, lenient_optional_cr_before_lf=True
        )


class Lenient(worker.Worker):
    """A twin whose parser is kind to what could be smuggled."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": _Lenient}


class _Greedy(worker.Protocol):
    def pause_writing(self) -> None:
        """Answers pile up in memory."""


class Greedy(worker.Worker):
    """A twin that goes on answering a client that does not read."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": _Greedy}
