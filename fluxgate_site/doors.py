"""The doors: which of the site's ASGI applications answers a request.

- `/livez`, `/readyz`, `/metrics`: for machines, before Django.
- `/api/`: the shop door: Django's URLs and ninja, without middleware (an async request pays the
  default middleware with 15 thread hops, measured), behind limits on the body.
- everything else, admin and pages: Django as everybody knows it.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from asgiref.typing import HTTPScope
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.http.response import HttpResponseBase

from fluxgate_site import health
from sales.problems import Problem

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES = 4096
BODY_SECONDS = 10
_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class ShopDoor(ASGIHandler):
    """Django's ASGI handler with an empty middleware chain."""

    def load_middleware(self, is_async: bool = False) -> None:
        # What Django's own method does with an empty settings.MIDDLEWARE.
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        self._middleware_chain = convert_exception_to_response(self._get_response_async)  # type: ignore[attr-defined]

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        response = await super().get_response_async(request)
        if isinstance(response, HttpResponseNotAllowed):  # ninja's is a page
            response = Problem("method-not-allowed", headers={"Allow": response["Allow"]}).response()
        if isinstance(response, HttpResponse):
            response["Content-Length"] = str(len(response.content))
        response["X-Content-Type-Options"] = "nosniff"
        return response


class Doors:
    """Chooses the door by the path. `shop` and `house` are ASGI applications."""

    def __init__(self, shop: Any, house: Any) -> None:
        self._shop = shop
        self._house = house

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in health.PATHS:
            await health.answer(scope, send)
        elif path.startswith("/api/"):
            await self._through_shop_door(scope, receive, send)
        else:
            await self._house(scope, receive, send)

    async def _through_shop_door(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _WITH_BODY:
            await self._shop(scope, receive, send)
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _whole_body(scope, receive)
        except TimeoutError:
            await send_problem(send, Problem("body-timeout", headers={"Connection": "close"}))
        except Problem as problem:
            await send_problem(send, problem)
        except ConnectionResetError:
            return  # the client hung up half-way: nobody is there to be answered
        else:
            await self._shop(scope, _replaying(body, receive), send)


async def _whole_body(scope: HTTPScope, receive: Receive) -> bytes:
    """The request's body. Raises Problem when it is too large."""
    headers = dict(scope["headers"])
    if int(headers.get(b"content-length", b"0")) > BODY_BYTES:
        raise Problem("body-too-large", headers={"Connection": "close"})
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_BYTES:
            raise Problem("body-too-large", headers={"Connection": "close"})
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


def _replaying(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out the body that was read already, then listens for the disconnect."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


async def send_problem(send: Send, problem: Problem) -> None:
    response = problem.response()
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in response.items()]
    headers.append((b"content-length", str(len(response.content)).encode()))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})
