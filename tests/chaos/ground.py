"""The servers of one lane, and what a row may do to them.

The site reaches gate, log and database through wires, which keep their ports whatever becomes of the
servers behind them. Each row has a database, a topic and an empty gate of its own.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis

from management.embedded import JARS, Stack, StackError, record
from management.embedded.ports import free_port
from tests.chaos.wire import Loop, Wire

TEMPLATE = "fluxgate"  # migrated once; each row's database is a copy
# Rows last seconds, so a claim that stays held is swept soon; it must be above the promise of 2 s.
QUICKER = {"FLUXGATE_SWEEP_AFTER_SECONDS": "3"}


class Ground:
    """Opened by `Ground(...)`, which starts the servers and sets Django up; closed by `close()`."""

    def __init__(self, kafka: str = "tansu", brokers: int = 1, settings: Mapping[str, str] | None = None):
        self.kafka, self.brokers = kafka, brokers
        self.root = Path(tempfile.mkdtemp(prefix="fluxgate-chaos-"))
        self.root.chmod(0o755)
        self.stack = Stack(root=self.root, jars=JARS)
        self.loop = Loop()
        taken: set[int] = set()
        self._ports = {}
        for name in ("gate", "kafka", "postgres", "front"):
            self._ports[name] = free_port(taken)
            taken.add(self._ports[name])
        try:
            direct = self._up()
            self.gate = self._wire("gate", direct["FLUXGATE_GATE_URL"])
            self.postgres = self._wire("postgres", direct["FLUXGATE_DATABASE_URL"])
            self.log = Wire(self.loop, self._ports["kafka"], self._port_of_log(direct))
            self.front = Wire(self.loop, self._ports["front"], 9)  # until there is a site
            self._database_url = direct["FLUXGATE_DATABASE_URL"]
            self._gate_url = direct["FLUXGATE_GATE_URL"]
            self.environment = self._environment(direct) | dict(settings or {})
            self._rows = 0
            self._set_django_up()
        except BaseException:
            self.close()
            raise

    def new_row(self) -> dict[str, str]:
        """Everything healed and empty: the environment of a site with a database and a topic of its own."""
        self._rows += 1
        self.up()
        for wire in (self.gate, self.log, self.postgres):
            wire.heal()
        name = f"row_{self._rows}"
        with self._admin() as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        with self.gate_client() as client:
            client.flushall()
            client.script_flush()
            client.config_set("maxmemory", 0)
        own = {
            "FLUXGATE_DATABASE_URL": _on(self._database_url, self._ports["postgres"], name),
            "FLUXGATE_KAFKA_TOPIC": f"orders-{name}",
            "FLUXGATE_KAFKA_GROUP": f"fulfillment-{name}",
        }
        self._use(self.environment | own, name)
        return self.environment | own

    def use_gate(self, url: str) -> None:
        """This process, too, speaks to another gate, for the rest of the row."""
        from django.conf import settings

        settings.FLUXGATE = settings.FLUXGATE.model_copy(update={"gate_url": url})

    def up(self) -> None:
        """Starts what is dead, on its old port and with its data."""
        from django.db import connection

        self._up()
        connection.close()  # it may lead to a PostgreSQL that is dead by now

    def kill(self, server: str) -> None:
        """kill -9. `up` brings it back."""
        self.stack.kill(server)

    def stop(self, server: str) -> None:
        """SIGSTOP. `thaw` lets it go on."""
        self.stack.kill(server, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to every server: a row that failed may have left one stopped."""
        for row in self.stack.status():
            with contextlib.suppress(StackError):
                self.stack.kill(row.server, signal.SIGCONT)

    def pid(self, server: str) -> int:
        return record.load(self.root).processes[server].pid

    def gate_client(self) -> redis.Redis:
        """A client of the gate past the wire."""
        return redis.Redis.from_url(self._gate_url, decode_responses=True, socket_timeout=5)

    def aof(self) -> Path:
        """The file that the gate appends to."""
        return max((self.root / "gate" / "appendonlydir").glob("*.incr.aof"), key=lambda file: file.name)

    def empty_gate(self) -> None:
        """Deletes what a dead gate kept on disk."""
        shutil.rmtree(self.root / "gate" / "appendonlydir")

    def database_folder(self) -> Path:
        place = self.root / "postgres"
        return (place.readlink() if place.is_symlink() else place) / "data"

    def close(self) -> None:
        self.stack.down(wipe=True)
        self.loop.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _up(self) -> dict[str, str]:
        advertised = self._ports["kafka"] if self.kafka == "tansu" else None
        return self.stack.up(self.kafka, self.brokers, advertised=advertised)

    def _port_of_log(self, direct: Mapping[str, str]) -> int:
        return int(direct["FLUXGATE_KAFKA_BROKERS"].split(",")[0].rpartition(":")[2])

    def _wire(self, name: str, url: str) -> Wire:
        port = urlsplit(url).port
        assert port is not None
        return Wire(self.loop, self._ports[name], port)

    def _environment(self, direct: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLUXGATE_")}
        own = {
            "FLUXGATE_ENVIRONMENT": "development",
            "FLUXGATE_HTTPS": "false",
            "FLUXGATE_ALLOWED_HOSTS": "localhost,127.0.0.1",
            "FLUXGATE_GATE_URL": _on(direct["FLUXGATE_GATE_URL"], self._ports["gate"]),
            "FLUXGATE_DATABASE_URL": _on(direct["FLUXGATE_DATABASE_URL"], self._ports["postgres"]),
            "DJANGO_SETTINGS_MODULE": "fluxgate_site.settings",
            "PYTHONUNBUFFERED": "1",
        }
        if self.kafka == "tansu":
            own["FLUXGATE_KAFKA_BROKERS"] = f"127.0.0.1:{self._ports['kafka']}"
        return kept | dict(direct) | QUICKER | own

    def _set_django_up(self) -> None:
        os.environ.update(self.environment)
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connection

        # This process asks from one thread, whose connection a killed database takes along.
        connection.settings_dict["OPTIONS"].pop("pool")
        connection.settings_dict["OPTIONS"]["connect_timeout"] = (
            20  # the machine is busy, not the server dead
        )
        call_command("migrate", verbosity=0)
        connection.close()

    def _use(self, environment: Mapping[str, str], database: str) -> None:
        """This process arms sales and reads the books by the same settings as the site's."""
        from django.conf import settings
        from django.db import connection

        from sales import topic

        os.environ.update(environment)
        connection.close()
        connection.settings_dict["NAME"] = database
        settings.FLUXGATE = type(settings.FLUXGATE)()
        topic.ensure_topic()

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(_on(self._database_url, None, "postgres"), autocommit=True, connect_timeout=5)


def _on(url: str, port: int | None, database: str | None = None) -> str:
    parts = urlsplit(url)
    place = parts.netloc if port is None else f"{parts.netloc.rpartition(':')[0]}:{port}"
    path = parts.path if database is None else f"/{database}"
    return urlunsplit((parts.scheme, place, path, "", ""))
