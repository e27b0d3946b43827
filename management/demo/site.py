"""The site for one demo: web processes, consumers and a gatekeeper on free ports."""

from pathlib import Path

from django.conf import settings

from management.demo.options import Options
from management.demo.processes import Processes, Running
from management.demo.watching import written_by
from management.embedded.ports import free_port


class Site:
    """Opened by `start`, ended by `end`. `url` has no slash at its end."""

    def __init__(self, options: Options, logs: Path) -> None:
        self._ports: set[int] = set()
        self.host, self.port = "127.0.0.1", options.port or self._free_port()
        self.url = f"http://{self.host}:{self.port}"
        self._web_environment = {
            "FLUXGATE_BIND": f"{self.host}:{self.port}",
            "FLUXGATE_METRICS_PORT": str(self._free_port()),
            "FLUXGATE_WEB_WORKERS": str(options.workers),
        }
        self._processes = Processes(self._web_environment, logs)
        self._consumers: dict[int, Running] = {}  # by the port of their metrics
        self._started = 0

    def start(self, consumers: int) -> None:
        """Returns when the web answers that it is ready. Raises processes.Broken."""
        for _ in range(consumers):
            self.start_consumer()
        self._processes.start("gatekeeper", "manage.py", "run_gatekeeper")
        web = self._processes.start(
            "web", "-m", "gunicorn", "-c", "fluxgate_site/gunicorn.conf.py", "fluxgate_site.asgi:application"
        )
        self._processes.wait_until_answers(web, f"{self.url}/readyz")

    def start_consumer(self) -> str:
        self._started += 1
        name, port = f"consumer {self._started}", self._free_port()
        self._consumers[port] = self._processes.start(
            name, "manage.py", "run_fulfillment", "--metrics-port", str(port)
        )
        return name

    def kill_working_consumer(self) -> str | None:
        """kill -9 to the consumer that writes this sale's orders; its name, or None when none has begun.

        A sale has one partition, and its orders are written by the one consumer that has it.
        """
        port = max(self._consumers, key=written_by)
        if not written_by(port):
            return None
        consumer = self._consumers.pop(port)
        self._processes.kill(consumer)
        return consumer.name

    def check(self) -> None:
        """Raises processes.Broken when a process has ended by itself."""
        self._processes.check()

    def end(self) -> list[str]:
        """SIGTERM to the web first: what it has promised by then, the consumers still write down.

        Returns the names of processes that did not end by themselves.
        """
        return self._processes.stop("web") + self._processes.stop()

    def _free_port(self) -> int:
        port = free_port(self._ports | {settings.FLUXGATE.metrics_port})
        self._ports.add(port)
        return port
