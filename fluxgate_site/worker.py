"""The gunicorn worker: uvicorn with uvloop and httptools, lifespan on, a bounded graceful shutdown."""

from typing import Any

from uvicorn_worker import UvicornWorker

from fluxgate_site.environment import Environment
from fluxgate_site.hot_protocol import HotProtocol
from fluxgate_site.protocol import Protocol


class Worker(UvicornWorker):
    CONFIG_KWARGS: dict[str, Any] = {
        "loop": "uvloop",
        "http": HotProtocol if Environment().door == "hot" else Protocol,
        "lifespan": "on",
        "ws": "none",
        "server_header": False,
        "timeout_keep_alive": 30,
        # Below gunicorn's graceful_timeout: orders in flight end, idle connections do not hold us.
        "timeout_graceful_shutdown": 20,
    }
