"""The hot door: requests to `/api/` answered inside the HTTP protocol, without ASGI in between.

Behind it are Django's URLs and ninja's operations, as behind the other doors: tests/doors holds all
three to the same answers. It takes the requests it is sure of; for every other one it has no route,
and uvicorn and the shop door answer it.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from django.http import HttpResponseNotAllowed
from django.urls import Resolver404, resolve
from ninja.operation import PathView
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from fluxgate_site.failing import failure
from fluxgate_site.hot_request import HotRequest
from orders.echoes import Echoes
from orders.quick import QuickOperation
from sales.problems import Problem
from sales.reply import written


class Route(NamedTuple):
    """`quick`: what answers is a QuickOperation, not ninja's view around it."""

    view: Callable[..., Awaitable[Any]]
    quick: bool
    arguments: dict[str, Any]
    method: str
    path: str


class HotDoor:
    """Finds routes, starts them, and writes their answers. One per process."""

    def __init__(self) -> None:
        self.echoes = Echoes()
        self._common: tuple[Any, bytes] = (None, b"")

    @staticmethod
    @lru_cache(maxsize=1024)
    def route(method: bytes, url: bytes) -> Route | None:
        """The operation behind this request line, or None for what is not answered here."""
        if method not in (b"GET", b"POST") or not url.startswith(b"/api/"):
            return None
        if b"%" in url or b"?" in url or b"#" in url or not url.isascii():
            return None
        path = url.decode()
        try:
            match = resolve(path)
        except Resolver404:
            return None
        if not asyncio.iscoroutinefunction(match.func) or match.args:
            return None
        quick = _quick(match.func, method.decode())
        return Route(quick or match.func, quick is not None, match.kwargs, method.decode(), path)

    @staticmethod
    def start(route: Route, scope: Any, fields: dict[bytes, bytes], body: bytes) -> Any:
        """The coroutine that answers the request: its result is for `write`."""
        return route.view(HotRequest(scope, fields, body), **route.arguments)

    @staticmethod
    def failed(error: BaseException) -> Any:
        """The answer to a request that broke in a way its operation did not expect."""
        return failure(error)

    def write(self, response: Any, common: list[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
        """The response on the wire. `common` are the headers that every answer of the server has."""
        if self._common[0] is not common:  # uvicorn makes a new list each second, for the date
            self._common = common, b"".join([b"%b: %b\r\n" % header for header in common])
        if isinstance(response, HttpResponseNotAllowed):  # ninja's own is a page
            response = Problem("method-not-allowed", headers={"Allow": response["Allow"]}).response()
        body, headers = written(response)
        head = "".join([f"{name.lower()}: {value}\r\n" for name, value in headers.items()]).encode("latin-1")
        if response.status_code == 304:
            length = b""
        else:
            length = b"content-length: %d\r\n" % len(body)
        return b"%b%b%bx-content-type-options: nosniff\r\n%b%b\r\n%b" % (
            STATUS_LINE[response.status_code],
            self._common[1],
            head,
            length,
            b"" if keep_alive else b"connection: close\r\n",
            body,
        )


def _quick(view: Any, method: str) -> Any:
    """The QuickOperation that ninja's view would choose for this method, if it is one."""
    found = inspect.getclosurevars(view).nonlocals.get("self")
    wanted: Any = SimpleNamespace(method=method)
    operation = found._find_operation(wanted) if isinstance(found, PathView) else None
    return operation.run if isinstance(operation, QuickOperation) else None
