"""The gunicorn worker: uvicorn with uvloop and httptools, lifespan on, a bounded graceful shutdown."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker

from fluxgate_site.environment import Environment


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, without two of its habits."""

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # The request keeps its own list. What comes now are the trailers of a chunked body: they pass by
        # whatever a proxy checks in the head, and RFC 9110, 6.5.1 forbids taking them for headers.
        self.headers = []

    def _unsupported_upgrade_warning(self) -> None:
        # The parser reads nothing behind a request with `Upgrade`: on a connection that is kept alive,
        # the next request would wait for ever.
        self.cycle.keep_alive = False


def _protocol() -> type[Protocol]:
    if Environment().door != "hot":
        return Protocol
    from fluxgate_site.hot_protocol import HotProtocol  # it is made of this one

    return HotProtocol


class Worker(UvicornWorker):
    CONFIG_KWARGS: dict[str, Any] = {
        "loop": "uvloop",
        "http": _protocol(),
        "lifespan": "on",
        "ws": "none",
        "server_header": False,
        "timeout_keep_alive": 30,
        # Below gunicorn's graceful_timeout: orders in flight end, idle connections do not hold us.
        "timeout_graceful_shutdown": 20,
    }
