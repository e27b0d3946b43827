"""The shop door: Django's requests, URLs and ninja, without what a stock ASGI request pays besides.

Left out, because an order needs none of it (measured: 1.16 ms a request, 0.11 ms without): the
middleware with its thread hops, a thread for each request, the request signals, a task that waits
for the client to hang up, a spooled file for the body, and a thread hop to log each refusal.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from io import BytesIO
from typing import Any

from asgiref.typing import HTTPScope
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.base import BaseHandler
from django.core.handlers.exception import convert_exception_to_response
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed

from sales.problems import Problem
from sales.reply import written

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_BYTES = 4096
CLOSE = {"Connection": "close"}  # the rest of the body is not read


class ShopDoor(BaseHandler):
    """An ASGI application for `/api/`. Nothing here cancels a request whose client has gone."""

    def __init__(self) -> None:
        self._body_seconds = settings.FLUXGATE.body_seconds
        # What load_middleware() does with an empty settings.MIDDLEWARE.
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        self._respond: Callable[[HttpRequest], Any] = convert_exception_to_response(
            self._get_response_async  # type: ignore[attr-defined]
        )

    async def __call__(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await whole_body(scope, receive)
            response = await self._respond(ASGIRequest(scope, BytesIO(body)))
        except TimeoutError:
            response = Problem("body-timeout", headers=CLOSE).response()
        except UnicodeDecodeError:  # in the path, from ASGIRequest
            response = Problem("malformed-request").response()
        except Problem as problem:
            response = problem.response()
        except ConnectionResetError:
            return  # the client hung up before the body was whole: nobody is there to be answered
        if isinstance(response, HttpResponseNotAllowed):  # ninja's own is a page
            response = Problem("method-not-allowed", headers={"Allow": response["Allow"]}).response()
        await send_whole(response, send)


async def whole_body(scope: HTTPScope, receive: Receive) -> bytes:
    """The request's body. Raises Problem when it is too large, ConnectionResetError when it breaks off."""
    announced = None
    for name, value in scope["headers"]:
        if name == b"content-length" and (announced := int(value)) > BODY_BYTES:
            raise Problem("body-too-large", headers=CLOSE)
    chunks, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > BODY_BYTES:
            raise Problem("body-too-large", headers=CLOSE)
        chunks.append(chunk)
        more = message.get("more_body", False)
    if announced is not None and size != announced:  # behind `Upgrade`, the parser reads no body
        raise Problem("malformed-request", "The body is not as long as announced.", headers=CLOSE)
    return b"".join(chunks)


async def send_whole(response: HttpResponse, send: Send) -> None:
    content, given = written(response)
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()]
    headers.append((b"x-content-type-options", b"nosniff"))
    if response.status_code != 304:
        headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": content})
