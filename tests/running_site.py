"""The site as its users meet it: gunicorn, consumers and gatekeeper as processes, over sockets."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
from django.conf import settings
from django.utils import timezone

from orders.models import Order
from sales import arming, topic
from sales.identity import mint
from sales.models import Product, Sale

CHECKOUT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(question: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first truthy answer; fails when there is none before the deadline."""
    deadline = time.monotonic() + seconds
    while not (answer := question()):
        assert time.monotonic() < deadline, f"still not true after {seconds:g} s"
        time.sleep(0.05)
    return answer


def start(arguments: list[str], environment: Mapping[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """A Python process in the checkout, what it prints in the file `log`."""
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=CHECKOUT, env=environment, stdout=output, stderr=output
        )


class Web:
    """One gunicorn with its workers, and how a shop's clients speak to it."""

    application = "fluxgate_site.asgi:application"

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.printed = log
        own = {
            "FLUXGATE_BIND": f"127.0.0.1:{self.port}",
            "FLUXGATE_METRICS_PORT": str(self.metrics_port),
        }
        self.process = start(
            ["-m", "gunicorn", "-c", "fluxgate_site/gunicorn.conf.py", self.application],
            {**environment, **own},
            log,
        )

    def wait(self, path: str = "/livez") -> None:
        """Until the path answers 200; fails with what was printed when the process ends before."""
        eventually(lambda: self._answers(path))

    def buy(
        self, slug: str, customer: str, key: str | None = None, quantity: Any = 1, **headers: str
    ) -> requests.Response:
        return requests.post(
            f"{self.url}/api/v1/sales/{slug}/orders",
            json={"quantity": quantity},
            headers={
                "Authorization": f"Bearer {mint(customer)}",
                "Idempotency-Key": key or uuid4().hex,
                "Accept": "application/json",
            }
            | headers,
            allow_redirects=False,
            timeout=30,
        )

    def get(self, path: str, customer: str | None = None, **headers: str) -> requests.Response:
        if customer:
            headers["Authorization"] = f"Bearer {mint(customer)}"
        return requests.get(f"{self.url}{path}", headers=headers, allow_redirects=False, timeout=30)

    def _answers(self, path: str) -> bool:
        assert self.process.poll() is None, f"the site ended at once:\n{self.printed.read_text()}"
        try:
            return self.get(path).status_code == 200
        except requests.ConnectionError:
            return False


class Site(Web):
    """A running site on a topic of its own, in the tests' database. Opened, then closed."""

    def __init__(self) -> None:
        self.topic = f"orders-{uuid4().hex[:8]}"
        group = f"fulfillment-{self.topic}"
        # This process arms sales and reads the books by the same settings as the site's.
        self._before = settings.FLUXGATE
        settings.FLUXGATE = self._before.model_copy(update={"kafka_topic": self.topic, "kafka_group": group})
        topic.ensure_topic()
        # Only this process drives a browser: the site is to meet Django's own guard.
        inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_ALLOW_ASYNC_UNSAFE"}
        self.environment = inherited | {
            "FLUXGATE_KAFKA_TOPIC": self.topic,
            "FLUXGATE_KAFKA_GROUP": group,
        }
        self._logs = Path(tempfile.mkdtemp(prefix="fluxgate-site-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        super().__init__(self.environment, self._logs / "web")
        self._processes.append(self.process)
        try:
            self.wait("/readyz")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        settings.FLUXGATE = self._before
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._logs, ignore_errors=True)

    def another_web(self, *, kind: type[Web] = Web, **changed: str) -> Web:
        """A second gunicorn beside the first, with other settings. Wait for it yourself."""
        web = kind(self.environment | changed, self._log_file())
        self._processes.append(web.process)
        return web

    def consumer(self) -> "subprocess.Popen[bytes]":
        """Starts one `run_fulfillment` and returns at once."""
        return self._start("run_fulfillment")

    def gatekeeper(self) -> "subprocess.Popen[bytes]":
        """Starts one `run_gatekeeper` and returns at once."""
        return self._start("run_gatekeeper")

    def _start(self, command: str) -> "subprocess.Popen[bytes]":
        process = start(["manage.py", command], self.environment, self._log_file())
        self._processes.append(process)
        return process

    def manage(
        self, *arguments: str, check: bool = True, **changed: str
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a command of the shell to its end, with other settings, and with what it printed."""
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=CHECKOUT,
            env=self.environment | changed,
            check=check,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def sell(
        self,
        slug: str | None = None,
        *,
        allotment: int = 10,
        opens_in: float = -1,
        closes_in: float = 3600,
        limit: int = 1,
        admission_rate: int = 100_000,
        burst: int = 100_000,
        open_now: bool = True,
        **facts: Any,
    ) -> Sale:
        """A sale that is scheduled, armed and opened; `opens_in` and `closes_in` are seconds from now."""
        slug = slug or f"sale-{uuid4().hex[:8]}"
        product = Product.objects.create(sku=slug, name=f"Product of {slug}", stock=allotment)
        now = timezone.now()
        sale = Sale.objects.create(
            slug=slug,
            name=facts.pop("name", f"Sale {slug}"),
            product=product,
            opens_at=now + timedelta(seconds=opens_in),
            closes_at=now + timedelta(seconds=closes_in),
            allotment=allotment,
            unit_price=facts.pop("unit_price", "19.90"),
            limit_per_customer=limit,
            admission_rate=admission_rate,
            burst=burst,
            **facts,
        )
        arming.arm(sale, actor="test")
        if open_now:
            arming.open_sale(sale, actor="test")
        return sale

    def confirmed(self, sale: Sale) -> int:
        """Orders of the sale that stand in the order book as confirmed."""
        return Order.objects.filter(sale=sale, state="confirmed").count()

    def _log_file(self) -> Path:
        return self._logs / str(len(self._processes))
