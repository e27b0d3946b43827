"""`gunicorn -c fluxgate_site/gunicorn.conf.py fluxgate_site.asgi:application`"""

import atexit
import os
import shutil
import tempfile

from fluxgate_site import logs
from fluxgate_site.environment import Environment

_environment = Environment()

bind = [_environment.bind]
if _environment.metrics_port:
    bind.append(f"{_environment.metrics_host}:{_environment.metrics_port}")
forwarded_allow_ips = _environment.proxies
workers = _environment.web_workers
worker_class = "fluxgate_site.worker.Worker"
graceful_timeout = 25
timeout = 60
backlog = 8192  # a crowd arrives within one second
accesslog = None  # a line per refused request would cost more than the refusal
logconfig_dict = logs.configured(_environment.log_format, _environment.log_level)
max_requests = 0  # recycling a worker mid-sale helps nobody
control_socket_disable = True

# One folder per master: its workers write their metrics there, and any of them can add them up.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="fluxgate-metrics-")
    _master = os.getpid()

    def _remove() -> None:
        if os.getpid() == _master:
            shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)

    atexit.register(_remove)


def child_exit(server: object, worker: object) -> None:
    # Imported late: prometheus_client looks for its folder when it is first imported.
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[attr-defined]
