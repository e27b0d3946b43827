"""The servers of a bench, and a fresh set of books for every run.

Tansu slows down with the batches it holds, PostgreSQL with its rows. So each run begins with an empty
gate, a new log and a new database, whichever side it measures.
"""

import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from bench import buyers
from bench.errors import Unfit
from bench.machine import Cores, cores, cpu_seconds
from management.embedded import ROOT, Stack, StackError, record

HOME = ROOT / "bench"
LOGS = ROOT / "bench-logs"  # of services and drains; those of the servers go with the servers
TEMPLATE = "fluxgate"  # migrated once; each run's database is a copy
KEY_ID = "bench"


class Ground:
    """Opened by `Ground()`, which starts the servers and sets Django up. Raises Unfit. Close it.

    With `hurry` the databases of earlier runs stay until the end: to drop one, PostgreSQL writes down all
    it has in memory.
    """

    def __init__(self, *, hurry: bool = False) -> None:
        self.cores: Cores = cores()
        self.logs = LOGS
        for folder in (HOME, LOGS):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = _alone()
        self.stack = Stack(root=HOME)
        self._secret, self._token_key = secrets.token_urlsafe(48), secrets.token_urlsafe(48)
        self._runs, self._hurry = 0, hurry
        self._crowds: dict[str, int] = {}
        # The servers inherit this. The service is put on its own core when it is started.
        os.sched_setaffinity(0, {self.cores.load})
        try:
            self.stack.down(wipe=True)  # what a bench that was killed has left
            self.environment = self._up()
            self._set_django_up()
        except StackError as error:
            self.close()
            raise Unfit(str(error)) from None
        except BaseException:
            self.close()
            raise

    def new_run(self) -> None:
        """Everything empty: another log, gate and database, and this process speaks to them."""
        self._runs += 1
        for server in ("kafka", "gate"):
            self.stack.kill(server)
        shutil.rmtree(HOME / "gate" / "appendonlydir", ignore_errors=True)
        fresh = self._up()
        name = f"run_{self._runs}"
        self._make_database(name)
        self.environment = fresh | {"FLUXGATE_DATABASE_URL": _named(fresh["FLUXGATE_DATABASE_URL"], name)}
        self._use(self.environment, name)

    def pid(self, server: str) -> int:
        return record.load(HOME).processes[server].pid

    def server_seconds(self) -> dict[str, float]:
        """CPU seconds of gate and broker so far."""
        return {name: cpu_seconds(self.pid(name)) for name in ("gate", "kafka")}

    def gate_client(self) -> redis.Redis:
        url = self.environment["FLUXGATE_GATE_URL"]
        return redis.Redis.from_url(url, decode_responses=True, socket_timeout=60)

    def crowd(self, form: str, *, tokens: bool, count: int) -> Path:
        """The file of so many buyers, whose tokens are good for as long as these servers run."""
        path = self.logs / f"buyers-{form}"
        if self._crowds.get(form) != count:
            buyers.write(path, tokens=tokens, count=count)
            self._crowds[form] = count
        return path

    def close(self) -> None:
        with suppress(StackError):  # it does not run
            self.stack.kill("postgres", signal.SIGQUIT)  # at once: nobody wants its data any more
        self.stack.down(wipe=True)
        self._lock.close()

    def _up(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLUXGATE_")}
        own = {
            "FLUXGATE_ENVIRONMENT": "production",
            "FLUXGATE_HTTPS": "false",
            "FLUXGATE_ALLOWED_HOSTS": "127.0.0.1",
            "FLUXGATE_SECRET_KEY": self._secret,
            "FLUXGATE_TOKEN_KEYS": f'{{"{KEY_ID}": "{self._token_key}"}}',
            "FLUXGATE_LOG_FORMAT": "json",
            "FLUXGATE_WEB_WORKERS": "1",
            "DJANGO_SETTINGS_MODULE": "fluxgate_site.settings",
            "PYTHONUNBUFFERED": "1",
        }
        return kept | dict(self.stack.up()) | own

    def _set_django_up(self) -> None:
        _take_over(self.environment)
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        connection.settings_dict["OPTIONS"].pop("pool")  # one thread asks, and changes its database each run
        call_command("migrate", verbosity=0)
        connection.close()

    def _use(self, environment: Mapping[str, str], database: str) -> None:
        from django.conf import settings
        from django.db import connection

        from sales import topic

        _take_over(environment)
        connection.close()
        connection.settings_dict["NAME"] = database
        settings.FLUXGATE = type(settings.FLUXGATE)()
        topic.ensure_topic()

    def _make_database(self, name: str) -> None:
        with self._admin() as connection:
            if not self._hurry:
                connection.execute(f"DROP DATABASE IF EXISTS run_{self._runs - 1} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")

    def _admin(self) -> psycopg.Connection[Any]:
        url = _named(self.environment["FLUXGATE_DATABASE_URL"], "postgres")
        return psycopg.connect(url, autocommit=True, connect_timeout=5)


def _take_over(environment: Mapping[str, str]) -> None:
    """This process, too, arms sales and reads the books by these settings."""
    os.environ.update(
        {name: value for name, value in environment.items() if name.startswith(("FLUXGATE_", "DJ"))},
        FLUXGATE_LOG_LEVEL="ERROR",
    )


def _named(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def _alone() -> Any:
    """A lock until the process ends: two benches on one machine would measure each other."""
    lock = Path(HOME / "bench.lock").open("w")  # noqa: SIM115 (held until the end)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unfit(f"another bench runs in {HOME}") from None
    return lock
