"""Every setting of the site, typed, with its default for development.

Read, strongest first, from the process environment, `.env`, and `.fluxgate/stack.env`
(written by `manage.py stack up`). A bad value ends the start with pydantic's list of what
is wrong. `.env.example` documents each variable; a test holds the two together.
"""

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from redis.connection import parse_url

from sales import redis_urls

BASE_DIR = Path(__file__).resolve().parent.parent

# Known to everybody who reads the source: `fluxgate.E001` refuses it in production.
INSECURE_SECRET = "insecure-development-secret-do-not-use-in-production"  # noqa: S105


def _items(value: str) -> str:
    return ",".join(item.strip() for item in value.split(",") if item.strip())


def _redis(value: str) -> str:
    parse_url(value)  # raises ValueError
    return value


def _gate(value: str) -> str:
    redis_urls.watched(value)  # raises ValueError
    return value


def _database(value: str) -> str:
    try:
        named = conninfo_to_dict(value)
    except ProgrammingError as error:
        raise ValueError(str(error).strip()) from None
    if not (value.startswith(("postgresql://", "postgres://")) and named.get("dbname")):
        raise ValueError("not of the form postgresql://user:password@host:port/name")
    return value


def _networks(value: str) -> str:
    for item in value.split(","):
        if item:
            ip_network(item)  # raises ValueError; also for `*`, by which anybody could say who they are
    return value


RedisUrl = Annotated[str, AfterValidator(_redis)]
GateUrl = Annotated[str, AfterValidator(_gate)]
DatabaseUrl = Annotated[str, AfterValidator(_database)]
CommaSeparated = Annotated[str, NoDecode, AfterValidator(_items)]
Proxies = Annotated[CommaSeparated, AfterValidator(_networks)]


class Environment(BaseSettings):
    """`FLUXGATE_<FIELD>` in the environment is `settings.FLUXGATE.<field>` in the code."""

    model_config = SettingsConfigDict(
        env_prefix="FLUXGATE_",
        env_file=(BASE_DIR / ".fluxgate" / "stack.env", BASE_DIR / ".env"),
        extra="ignore",
        frozen=True,
    )

    environment: Literal["development", "production"] = "development"
    secret_key: str = INSECURE_SECRET
    allowed_hosts: CommaSeparated = "localhost,127.0.0.1,[::1]"
    trusted_origins: CommaSeparated = ""
    https: bool = False
    second_factor: Literal["off", "required"] = "off"
    proxies: Proxies = "127.0.0.1,::1"
    time_zone: str = "UTC"

    bind: str = "127.0.0.1:8000"
    web_workers: PositiveInt = 2
    door: Literal["stock", "lean", "hot"] = "hot"
    body_seconds: PositiveFloat = 10.0
    metrics_host: str = "127.0.0.1"
    metrics_port: int = Field(default=9464, ge=0, le=65535)

    database_url: DatabaseUrl = "postgresql://fluxgate@127.0.0.1:5432/fluxgate"
    database_pool_max: PositiveInt = 8

    gate_url: GateUrl = "redis://127.0.0.1:6379/0"
    gate_timeout_ms: PositiveInt = 250
    repeat_ms: int = Field(default=50, ge=0, le=50)  # claim.lua counts on no process repeating for longer
    cache_url: RedisUrl = "redis://127.0.0.1:6380/0"

    kafka_brokers: CommaSeparated = "127.0.0.1:9092"
    kafka_topic: str = Field(default="orders", pattern=r"^[A-Za-z0-9._-]{1,249}$")
    kafka_partitions: int = Field(default=12, ge=1, le=10_000)
    kafka_replication: PositiveInt = 1
    kafka_group: str = Field(default="fulfillment", min_length=1)
    kafka_linger_ms: float = Field(default=1, ge=0)
    kafka_fetch_wait_ms: PositiveInt = 500
    kafka_session_ms: PositiveInt = 6000
    kafka_leave_group: bool = True

    promise_seconds: PositiveFloat = 2.0
    fulfillment_batch: int = Field(default=2000, ge=1, le=100_000)
    sweep_after_seconds: PositiveFloat = 5.0

    token_algorithm: Literal["HS256", "RS256", "ES256", "EdDSA"] = "HS256"  # noqa: S105
    token_keys: dict[str, str] = Field(default={"development": INSECURE_SECRET}, min_length=1)
    token_issuer: str = "https://shop.example"  # noqa: S105
    token_audience: str = "flux-gate"  # noqa: S105

    crash_at: str = Field(default="", pattern=r"^([a-z]+\.[a-z-]+(:[1-9][0-9]*)?)?$")

    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @property
    def production(self) -> bool:
        return self.environment == "production"
