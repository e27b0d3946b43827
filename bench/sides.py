"""The two sides: our web process behind one of its doors, and the reference in one of its forms.

Both answer the same calls here, so that a scenario does not know whom it measures.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from bench import node
from bench.ground import Ground
from bench.machine import only_child, pinned
from bench.processes import Process, fetch
from management.embedded.ports import free_port

DOORS = ("hot", "lean", "stock")
FORMS = ("designed", "tuned")
LIMIT = 32_000  # units per customer: no buyer of a bench ever meets it

# What each side calls an outcome, in one word for both.
_VERDICTS = {"claimed": "accepted", "busy": "turned_away"}


class Side(Protocol):
    name: str
    form: str  # how load.lua writes its requests
    tokens: bool  # whether its buyers carry one

    def start(self, ground: Ground, sales: Mapping[str, int], rate: int) -> None:
        """One process on the service's core, ready to answer for these sales (slug: units)."""

    @property
    def url(self) -> str: ...

    @property
    def pid(self) -> int:
        """The process that answers, and whose CPU time counts."""

    def answers(self) -> dict[str, int]:
        """Its own count of outcomes since its start."""

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting."""

    def stop(self) -> None:
        """SIGTERM, and its end."""


class Ours:
    form, tokens = "ours", True

    def __init__(self, door: str, settings: Sequence[str] = ()) -> None:
        self.name, self.door = f"ours, {door}", door
        self._settings = dict(setting.split("=", 1) for setting in settings)

    def start(self, ground: Ground, sales: Mapping[str, int], rate: int) -> None:
        self._port = free_port(set())
        self._metrics = free_port({self._port})
        own = {
            "FLUXGATE_DOOR": self.door,
            "FLUXGATE_BIND": f"127.0.0.1:{self._port}",
            "FLUXGATE_METRICS_PORT": str(self._metrics),
        }
        command = pinned(
            ground.cores.service, sys.executable, "-m", "gunicorn", "-c", "fluxgate_site/gunicorn.conf.py",
            "fluxgate_site.asgi:application",
        )  # fmt: skip
        log = ground.logs / f"web-{self.door}.log"
        self._process = Process(self.name, command, ground.environment | own | self._settings, log)
        self._process.wait_until(lambda: fetch(f"{self.url}/readyz") is not None)
        self._worker = only_child(self._process.pid)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._worker

    def answers(self) -> dict[str, int]:
        self._process.check()
        found = {}
        text = fetch(f"http://127.0.0.1:{self._metrics}/metrics") or ""
        for verdict, count in re.findall(r'^fluxgate_answers_total\{verdict="(\w+)"\} (\S+)$', text, re.M):
            found[_VERDICTS.get(verdict, verdict)] = int(float(count))
        return found

    def ask_to_end(self) -> None:
        self._process.ask_to_end()

    def stop(self) -> None:
        self._process.stop()


class Reference:
    form, tokens = "reference", False

    def __init__(self, form: str) -> None:
        self.name, self._form = f"reference, {form}", form

    def start(self, ground: Ground, sales: Mapping[str, int], rate: int) -> None:
        home = node.installed()
        self._port = free_port(set())
        with ground.gate_client() as client:
            for sale, units in sales.items():
                client.set(f"stock:{sale}", units)
        own = {
            "NODE_ENV": "production",
            "REFERENCE_FORM": self._form,
            "REFERENCE_PORT": str(self._port),
            "REFERENCE_REDIS": ground.environment["FLUXGATE_GATE_URL"],
            "REFERENCE_BROKERS": ground.environment["FLUXGATE_KAFKA_BROKERS"],
            "REFERENCE_TOPIC": ground.environment["FLUXGATE_KAFKA_TOPIC"],
            "REFERENCE_RATE": str(rate),
            "REFERENCE_LIMIT": str(LIMIT),
            "KAFKAJS_NO_PARTITIONER_WARNING": "1",
        }
        command = pinned(ground.cores.service, "node", "service.js")
        log = ground.logs / f"reference-{self._form}.log"
        self._process = Process(self.name, command, ground.environment | own, log, home)
        self._process.wait_until(lambda: fetch(f"{self.url}/stats") is not None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def answers(self) -> dict[str, int]:
        self._process.check()
        return {name: int(count) for name, count in json.loads(fetch(f"{self.url}/stats") or "{}").items()}

    def ask_to_end(self) -> None:
        self._process.ask_to_end()

    def stop(self) -> None:
        self._process.stop()
