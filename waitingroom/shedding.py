"""Turning people away kindly: where to wait, and for how long.

The token bucket itself is in claim.lua, so that asking and deciding are one step.
"""

import math
import random

from django.http import HttpRequest

MOST_SECONDS = 10


def room_url(slug: str) -> str:
    return f"/static/waitingroom/room.html?sale={slug}"


def retry_after(wait_ms: float) -> int:
    """Whole seconds to wait, at least 1 and at most about MOST_SECONDS, with jitter.

    Without the jitter everybody who was turned away in one second comes back in one second.
    """
    base = min(MOST_SECONDS, max(1.0, wait_ms / 1000))
    return math.ceil(base + random.uniform(0, 2))  # noqa: S311  # spreads a crowd, guards no secret


def wants_json(request: HttpRequest) -> bool:
    """A client that names application/json is a program: it gets 429 instead of a page."""
    return "application/json" in request.headers.get("Accept", "").lower()
