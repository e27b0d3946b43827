"""The doors: which of the site's ASGI applications answers a request.

- `/livez`, `/readyz`, `/metrics`: for machines, before Django.
- `/api/`: the shop door, for the crowd.
- everything else, admin and pages: Django as everybody knows it.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.typing import HTTPScope

from fluxgate_site import health
from sales.request_id import asking

Door = Callable[[Any, Any, Any], Awaitable[None]]


class Doors:
    """Chooses the door by the path. `shop` and `house` are ASGI applications."""

    def __init__(self, shop: Door, house: Door) -> None:
        self._shop = shop
        self._house = house

    async def __call__(self, scope: HTTPScope, receive: Any, send: Any) -> None:
        asking.set(dict(scope["headers"]))  # each request is a task, with a context of its own
        path = scope["path"]
        if path.startswith("/api/"):
            await self._shop(scope, receive, send)
        elif path in health.PATHS:
            await health.answer(scope, send)
        else:
            await self._house(scope, receive, send)
