"""The stock door: the API behind Django's own ASGI handler, with all of settings.MIDDLEWARE.

It is the measure of the other doors: the same request has the same answer behind each of them, and a
test holds them to it. So what the middleware does for pages is left off again here, and what Django
would answer as a page is a problem.
"""

import asyncio
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpRequest, HttpResponseNotAllowed

from fluxgate_site.shop_door import CLOSE, Message, Receive, send_whole, whole_body
from sales.problems import Problem

# What SecurityMiddleware, XFrameOptionsMiddleware, sessions and CSRF say to browsers about a page.
# `send_whole` writes the length and `X-Content-Type-Options` itself.
_OF_PAGES = (
    "Content-Length",
    "Cross-Origin-Opener-Policy",
    "Referrer-Policy",
    "Strict-Transport-Security",
    "Vary",
    "X-Content-Type-Options",
    "X-Frame-Options",
)


class _Request(ASGIRequest):
    """The API has no cookies to forge with, and nothing in its answers is made of the Host header."""

    _dont_enforce_csrf_checks = True  # CsrfViewMiddleware looks for it

    def get_host(self) -> str:
        return "localhost"


class StockDoor(ASGIHandler):
    """An ASGI application for `/api/`."""

    request_class = _Request

    def __init__(self) -> None:
        super().__init__()
        self._body_seconds = settings.FLUXGATE.body_seconds

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await whole_body(scope, receive)
        except TimeoutError:
            await send_whole(Problem("body-timeout", headers=CLOSE).response(), send)
        except Problem as problem:
            await send_whole(problem.response(), send)
        except ConnectionResetError:
            return
        else:
            await super().__call__(scope, _again(body), send)

    def create_request(self, scope: Any, body_file: Any) -> tuple[Any, Any]:
        try:
            return self.request_class(scope, body_file), None
        except UnicodeDecodeError:
            return None, Problem("malformed-request").response()

    async def run_get_response(self, request: HttpRequest) -> Any:
        response = await super().run_get_response(request)
        if isinstance(response, HttpResponseNotAllowed):
            return Problem("method-not-allowed", headers={"Allow": response["Allow"]}).response()
        return response

    async def send_response(self, response: Any, send: Any) -> None:
        for name in _OF_PAGES:
            del response[name]
        await send_whole(response, send)


def _again(body: bytes) -> Receive:
    """The body once more, and then nothing: Django would end an order whose client hangs up."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()

    return receive
