"""How long the quiet requests take while the crowd keeps the process busy: status, facts, health, admin."""

import http.client
import json
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from bench import buyers
from bench.arrivals import percentile
from bench.errors import Unfit
from bench.ground import Ground
from bench.measuring import ENOUGH, OPEN, Knobs
from bench.sides import Ours
from bench.stage import Stage, new_prefix, slugs

_PAUSE_SECONDS = 0.005


@dataclass(frozen=True)
class OtherDoor:
    """Latencies in microseconds, asked one after the other on one connection."""

    door: str
    asked: int
    p50: int
    p99: int


def measure(ground: Ground, side: Ours, knobs: Knobs) -> list[OtherDoor]:
    """Under the load of `accepted`. Raises Unfit when one of them says anything but 200."""
    names = slugs(knobs.sales)
    with Stage(ground, side, dict.fromkeys(names, ENOUGH), OPEN) as stage:
        stage.drive(knobs.warmup, knobs.connections)
        token = buyers.token("buyer-0")
        order = _one_order(side.url, names[0], token)
        paths = {
            "order status": f"/api/v1/orders/{order}",
            "sale facts": f"/api/v1/sales/{names[0]}",
            "health": "/livez",
            "admin": "/admin/login/",
        }
        asking = _Asking(side.url, paths, token)
        asking.start()
        try:
            stage.drive(knobs.seconds, knobs.connections)
        finally:
            asking.stop()
    return [
        OtherDoor(name, len(found), percentile(sorted(found), 50), percentile(sorted(found), 99))
        for name, found in asking.seconds.items()
    ]


def _one_order(url: str, sale: str, token: str) -> str:
    """Its id. It counts among the answers of the side like any other."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Idempotency-Key": new_prefix(),
        "Content-Type": "application/json",
    }
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)) as connection:
        connection.request("POST", f"/api/v1/sales/{sale}/orders", b'{"quantity":1}', headers)
        answer = connection.getresponse()
        body = answer.read()
    if answer.status != 202:
        raise Unfit(f"an order was answered {answer.status}: {body.decode()[:300]}")
    return str(json.loads(body)["order_id"])


class _Asking:
    """A thread that asks each path in turn until it is stopped."""

    def __init__(self, url: str, paths: dict[str, str], token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._paths, self.seconds = paths, {name: [0.0] * 0 for name in paths}
        self._ended, self._wrong = threading.Event(), ""
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Raises Unfit."""
        self._ended.set()
        self._thread.join()
        self._connection.close()
        if self._wrong:
            raise Unfit(self._wrong)

    def _run(self) -> None:
        while not self._ended.wait(_PAUSE_SECONDS) and not self._wrong:
            for name, path in self._paths.items():
                begun = time.monotonic()
                self._connection.request("GET", path, headers=self._headers)
                answer = self._connection.getresponse()
                answer.read()
                self.seconds[name].append(time.monotonic() - begun)
                if answer.status != 200:
                    self._wrong = f"{name} said {answer.status} under load"
