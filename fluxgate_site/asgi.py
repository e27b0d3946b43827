"""The web process: its clients live from lifespan startup to shutdown, inside the loop, after the fork.

librdkafka does not survive a fork, and redis-py's connections belong to one loop; so nothing is
made at import. Endpoints find the clients in `request.scope["state"]`.
"""

import asyncio
import gc
import os
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fluxgate_site.settings")

import django

django.setup(set_prefix=False)

import structlog  # noqa: E402  # all that follows needs the settings
from django.conf import settings  # noqa: E402
from django.core.checks import ERROR, run_checks  # noqa: E402
from django.core.handlers.asgi import ASGIHandler  # noqa: E402

from fluxgate_site.doors import Doors  # noqa: E402
from fluxgate_site.hot_door import HotDoor  # noqa: E402
from fluxgate_site.shop_door import ShopDoor  # noqa: E402
from fluxgate_site.stock_door import StockDoor  # noqa: E402
from orders.log import Acknowledgements, KafkaLog  # noqa: E402
from orders.status import Standings  # noqa: E402
from sales.api import Snapshots  # noqa: E402
from sales.database import Database  # noqa: E402
from sales.identity import Identity  # noqa: E402
from sales.turnstile import Turnstile  # noqa: E402
from waitingroom.brand import Brands  # noqa: E402
from waitingroom.draws import Draws  # noqa: E402
from waitingroom.lines import Lines  # noqa: E402

logger = structlog.get_logger(__name__)


def _refuse_wrong_settings() -> None:
    """The commands run the system checks by themselves; a web process must do so too."""
    errors = [check for check in run_checks() if check.is_serious(ERROR)]
    if errors:
        raise RuntimeError("; ".join(f"{error.id}: {error.msg} ({error.hint})" for error in errors))


class Application:
    """The ASGI application: lifespan and HTTP. Django itself knows no lifespan."""

    def __init__(self) -> None:
        shop = StockDoor() if settings.FLUXGATE.door == "stock" else ShopDoor()
        self._doors = Doors(shop=shop, house=ASGIHandler())
        self.hot = HotDoor()  # for the HTTP protocol, when FLUXGATE_DOOR=hot

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope["state"], receive, send)
        elif scope["type"] == "http":
            await self._doors(scope, receive, send)
        else:
            raise ValueError(f"no {scope['type']} here")

    async def _live(self, state: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        try:
            _refuse_wrong_settings()
            turnstile, log = Turnstile(), await asyncio.to_thread(KafkaLog)
            await turnstile.connect()
            lines = Lines()
            database = Database()
        except Exception as error:
            logger.exception("the web process cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        state.update(
            turnstile=turnstile,
            log=Acknowledgements(log),
            standings=Standings(turnstile, database),
            identity=Identity(),
            snapshots=Snapshots(turnstile, database),
            lines=lines,
            draws=Draws(database),
            brands=Brands(database),
        )
        # What is loaded now stays: collecting it again and again cost a fifth of the process's time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        # No order runs any more. First the log they were appended to, then the gate that hears of it.
        await asyncio.to_thread(log.close)
        await asyncio.sleep(0)  # the last reports reach the loop
        await turnstile.close()
        await lines.close()
        database.close()
        await send({"type": "lifespan.shutdown.complete"})


application = Application()
