"""System checks: what is wrong with the settings, numbered, each with a hint.

Errors stop every command and every web process; see `manage.py check --deploy`.
"""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from fluxgate_site.environment import INSECURE_SECRET
from sales import redis_urls


@register()
def secrets_are_ours(**_: Any) -> list[CheckMessage]:
    fluxgate = settings.FLUXGATE
    if not fluxgate.production:
        return []
    found: list[CheckMessage] = []
    if fluxgate.secret_key == INSECURE_SECRET or len(fluxgate.secret_key) < 50:
        found.append(
            Error(
                "The secret key is the default one or too short.",
                hint="Set FLUXGATE_SECRET_KEY to at least 50 random characters.",
                id="fluxgate.E001",
            )
        )
    weak = [
        kid
        for kid, key in fluxgate.token_keys.items()
        if key == INSECURE_SECRET or (fluxgate.token_algorithm.startswith("HS") and len(key) < 32)
    ]
    if weak:
        found.append(
            Error(
                f"The keys of buyers' tokens are default or weak: {', '.join(weak)}.",
                hint='Set FLUXGATE_TOKEN_KEYS to the keys of your shop, as JSON: {"kid": "key"}; '
                "32 characters or more for HS256.",
                id="fluxgate.E002",
            )
        )
    return found


@register()
def gate_is_alone(**_: Any) -> list[CheckMessage]:
    """django-redis clears its cache by FLUSHDB, and a cache's eviction would drop claims."""
    fluxgate = settings.FLUXGATE
    # Behind Sentinels the gate's address is theirs to say; that the cache is none of them is all to see here.
    if redis_urls.addresses(fluxgate.gate_url).isdisjoint(redis_urls.addresses(fluxgate.cache_url)):
        return []
    return [
        Error(
            "The gate and the cache share one Redis.",
            hint="Point FLUXGATE_CACHE_URL at an instance of its own; another database number is not enough.",
            id="fluxgate.E003",
        )
    ]


@register()
def promise_fits(**_: Any) -> list[CheckMessage]:
    fluxgate = settings.FLUXGATE
    if fluxgate.sweep_after_seconds > fluxgate.promise_seconds:
        return []
    return [
        Error(
            "The sweeper would append claims whose first acknowledgement is still awaited.",
            hint="Set FLUXGATE_SWEEP_AFTER_SECONDS above FLUXGATE_PROMISE_SECONDS.",
            id="fluxgate.E004",
        )
    ]


@register()
def nothing_crashes_on_purpose(**_: Any) -> list[CheckMessage]:
    if not (settings.FLUXGATE.production and settings.FLUXGATE.crash_at):
        return []
    return [
        Error(
            "A crash point is set: processes will kill themselves there.",
            hint="Unset FLUXGATE_CRASH_AT; it is for the kill tests.",
            id="fluxgate.E005",
        )
    ]


@register()
def the_admin_asks_for_more_than_a_password(**_: Any) -> list[CheckMessage]:
    fluxgate = settings.FLUXGATE
    if not fluxgate.production or fluxgate.second_factor == "required":
        return []
    return [
        Warning(
            "Whoever knows an operator's password is in the admin.",
            hint="Set FLUXGATE_SECOND_FACTOR=required: signing in takes a code from a phone as well.",
            id="fluxgate.W001",
        )
    ]
