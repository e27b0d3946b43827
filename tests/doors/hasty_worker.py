"""The site as it is, but that a connection may be idle for one second only.

`gunicorn -k tests.doors.hasty_worker.Hasty …`
"""

from typing import Any

from fluxgate_site import worker


class Hasty(worker.Worker):
    CONFIG_KWARGS: dict[str, Any] = {**worker.Worker.CONFIG_KWARGS, "timeout_keep_alive": 1}
