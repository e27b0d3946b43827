"""How the gate's Redis is reached: straight, or through the Sentinels that know which server is it.

    redis://[user:password@]host:port/<db>          also rediss:// and unix://
    redis+sentinel://[user:password@]host:port,host:port,host:port/<master name>[/<db>]
                     [?sentinel_user=…&sentinel_password=…]

User and password are the master's. After a failover the next connection is made to the new master;
a call that failed meanwhile is not repeated here, because nobody knows whether it took a unit.
"""

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
import redis.asyncio
from redis.connection import parse_url

from sales.sentinels import Address, AsyncPool, Watched, sync_pool

_SCHEME = "redis+sentinel://"
_FORM = f"{_SCHEME}[user:password@]host:port,host:port,host:port/<master name>[/<db>]"
_PORT = 26379


def watched(url: str) -> Watched | None:
    """What a URL says about Sentinels, None when it names the server itself.

    Raises ValueError with one sentence that does not repeat the URL, which holds passwords.
    """
    if not url.startswith(_SCHEME):
        try:
            parse_url(url)
        except ValueError as error:
            raise ValueError(f"{error}; with Sentinel: {_FORM}") from None
        return None
    try:
        return _watched(url)
    except ValueError as error:
        raise ValueError(f"{error}; expected {_FORM}") from None


def _watched(url: str) -> Watched:
    parts = urlsplit(url)
    sentinels = tuple(_address(host) for host in parts.netloc.rpartition("@")[2].split(","))
    if len(set(sentinels)) < len(sentinels):
        raise ValueError("a Sentinel is named twice")
    name, _, db = unquote(parts.path.removeprefix("/")).partition("/")
    if not name:
        raise ValueError("the name of the master is missing")
    if db and not db.isdecimal():
        raise ValueError("the database is not a number")
    master: dict[str, Any] = {"db": int(db or 0)}
    for option, value in (("username", parts.username), ("password", parts.password)):
        if value:
            master[option] = unquote(value)
    sentinel = {}
    for option, value in parse_qsl(parts.query, keep_blank_values=True):
        if option not in ("sentinel_user", "sentinel_password"):
            raise ValueError(f"unknown option {option!r}")
        sentinel["username" if option == "sentinel_user" else "password"] = value
    return Watched(sentinels, name, master, sentinel)


def _address(host: str) -> Address:
    parts = urlsplit(f"//{host}")
    if parts.port == 0:
        raise ValueError("a Sentinel on port 0")
    if not parts.hostname or parts.path:
        raise ValueError("a Sentinel without a host")
    return parts.hostname, parts.port or _PORT  # a port out of range is a ValueError by itself


def sync_client(url: str, **options: Any) -> redis.Redis:
    """A client of the server, or of whoever is the master. Connects on first use.

    `options` are redis-py's; with Sentinel `socket_connect_timeout` (seconds) must be among them.
    """
    found = watched(url)
    if found is None:
        return redis.Redis.from_url(url, **options)
    return redis.Redis.from_pool(sync_pool(found, **options))


def async_pool(url: str, max_connections: int, **options: Any) -> redis.asyncio.BlockingConnectionPool:
    """The same for `redis.asyncio.Redis.from_pool`: bounded, and callers wait for a connection."""
    options = {"max_connections": max_connections, "timeout": None} | options
    found = watched(url)
    if found is None:
        return redis.asyncio.BlockingConnectionPool.from_url(url, **options)
    return AsyncPool(found, **options)


def addresses(url: str) -> frozenset[Address | str]:
    """The servers a URL names: their addresses, or the path of a socket. Raises ValueError."""
    found = watched(url)
    if found:
        return frozenset((_plain(host), port) for host, port in found.sentinels)
    parts = parse_url(url)
    if "path" in parts:
        return frozenset([str(parts["path"])])
    return frozenset([(_plain(parts.get("host", "localhost")), int(parts.get("port", 6379)))])


def _plain(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host
