"""The merchant's face on the pages: name, logo, colours and the words of the store front, from the admin.

Pages are static and take it from one small document. It may be ten seconds old, and outlives PostgreSQL:
a page without its brand is better than no page.
"""

import asyncio
import time
from typing import TypedDict

from django.core.cache import cache
from django.db import DatabaseError, InterfaceError

from sales.database import Database, DatabaseAway
from sales.deadline import look_at
from waitingroom.models import Brand

FRESH_SECONDS = 10
_FRESH, _LAST, _ASKING = "brand:fresh", "brand:last", "brand:asking"
_LAST_SECONDS = 24 * 3600


class BrandFacts(TypedDict):
    """`accent` and `accent_dark` are colours as #rrggbb; `logo_url` is None without a logo of its own."""

    name: str
    headline: str
    lede: str
    accent: str
    accent_dark: str
    logo_url: str | None


class Logo(TypedDict):
    content: bytes
    media_type: str


def current() -> BrandFacts:
    """The brand as it stands, or as it was last known, or our own."""
    facts: BrandFacts | None = cache.get(_FRESH)
    if facts is not None:
        return facts
    last: BrandFacts | None = cache.get(_LAST)
    if last is not None and not cache.add(_ASKING, True, FRESH_SECONDS):
        return last  # somebody asks already; a database that hangs must not hang everybody
    try:
        facts = _read()
    except (DatabaseError, InterfaceError):
        facts = last or _described(Brand())
    else:
        cache.set(_LAST, facts, _LAST_SECONDS)
    cache.set(_FRESH, facts, FRESH_SECONDS)
    cache.delete(_ASKING)
    return facts


def forget() -> None:
    """What was read is old: somebody has just changed it."""
    cache.delete(_FRESH)


def _read() -> BrandFacts:
    return _described(Brand.objects.defer("logo").first() or Brand())


def _described(brand: Brand) -> BrandFacts:
    return BrandFacts(
        name=brand.name,
        headline=brand.headline,
        lede=brand.lede,
        accent=brand.accent,
        accent_dark=brand.accent_dark,
        logo_url=f"/api/v1/brand/logo?v={brand.logo_version}" if brand.logo_type else None,
    )


class Brands:
    """One process's view of the brand, for the crowd's door."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[float, BrandFacts] | None = None
        self._reading: asyncio.Future[BrandFacts] | None = None
        self._logo: tuple[float, Logo | None] | None = None
        self._reading_logo: asyncio.Future[Logo | None] | None = None

    async def facts(self) -> BrandFacts:
        """FRESH_SECONDS old at most, while PostgreSQL answers."""
        if self._known and time.monotonic() - self._known[0] < FRESH_SECONDS:
            return self._known[1]
        if self._reading is None:
            self._reading = asyncio.ensure_future(self._read())
        return await asyncio.shield(self._reading)

    async def _read(self) -> BrandFacts:
        try:
            facts = await self._database.ask(_read)
        except DatabaseAway:
            facts = self._known[1] if self._known else _described(Brand())
        finally:
            self._reading = None
        self._known = (time.monotonic(), facts)
        return facts

    async def logo(self) -> Logo | None:
        """The merchant's own, None without one; FRESH_SECONDS old at most. Raises DatabaseAway."""
        if self._logo and time.monotonic() - self._logo[0] < FRESH_SECONDS:
            return self._logo[1]
        if self._reading_logo is None:
            self._reading_logo = asyncio.ensure_future(self._read_logo())
            self._reading_logo.add_done_callback(look_at)
        return await asyncio.shield(self._reading_logo)

    async def _read_logo(self) -> Logo | None:
        try:
            found = await self._database.ask(lambda: Brand.objects.exclude(logo_type="").first())
        finally:
            self._reading_logo = None
        logo = Logo(content=bytes(found.logo), media_type=found.logo_type) if found else None
        self._logo = (time.monotonic(), logo)
        return logo
