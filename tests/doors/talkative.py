"""The site with lines in the log where it has none, and with an operation that breaks.

`gunicorn -k tests.doors.talkative.Talkative …`
"""

from typing import Any

import structlog

from fluxgate_site import worker

logger = structlog.get_logger(__name__)


_Protocol: Any = worker.Worker.CONFIG_KWARGS["http"]


class _Muttering(_Protocol):  # type: ignore[misc]
    def on_message_begin(self) -> None:
        super().on_message_begin()
        logger.info("between requests")  # in the context of the connection


class Talkative(worker.Worker):
    """An order says who it is from, before and after it waits; the status of an order breaks."""

    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "http": _Muttering}

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # Django is ready only now.
        from orders import api
        from orders.status import Standings

        place = api.place

        async def talking(turnstile: Any, log: Any, facts: Any, attempt: Any, **named: Any) -> Any:
            logger.info("before", customer=attempt.customer)
            placed = await place(turnstile, log, facts, attempt, **named)
            logger.info("after", customer=attempt.customer)
            return placed

        async def broken(self: Standings, order_id: object) -> None:
            raise RuntimeError("planted")

        api.place = talking
        Standings.find = broken  # type: ignore[assignment, method-assign]
