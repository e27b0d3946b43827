"""The ground the demo stands on: the stack of this checkout, and a process that has its settings.

Django has read its settings before a command runs, and the stack's addresses are known only when it
is up. So the command starts itself again in the same process, with them in its environment.
"""

import fcntl
import os
import sys
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from management.demo import stopping
from management.demo.options import Options, Unusable
from management.demo.processes import CHECKOUT
from management.embedded import Stack, record

# Of a .env for production beside this checkout: the demo mints its buyers' tokens, on plain loopback.
_ITS_OWN = {
    "FLUXGATE_ENVIRONMENT": "development",
    "FLUXGATE_HTTPS": "false",
    "FLUXGATE_ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
}


def begin_again(options: Options, arguments: list[str], console: Console) -> NoReturn:
    """Brings the stack up and runs `manage.py demo <arguments> --on-stack ours|found` in this process.

    "found" is a stack that ran before, and is left running. Raises Unusable and StackError.
    """
    stack = Stack(options.root)
    lock = _only_demo(options)
    running = any(row.state == "running" for row in stack.status())
    known = record.load(stack.root)
    if running and options.kafka not in (None, known.kafka):
        raise Unusable(
            f"the stack of this checkout runs with --kafka {known.kafka}: `manage.py stack down` first"
        )
    kafka, brokers = (known.kafka, known.brokers) if running else (options.kafka or "tansu", 1)
    console.print(
        f"servers     PostgreSQL, Valkey, Kafka ({kafka}) {'run already' if running else 'are starting'}"
    )
    try:
        os.environ.update(stack.up(kafka, brokers))
        os.environ.update(_ITS_OWN)
        stopping.hold_back()
        os.set_inheritable(lock, True)
        sys.stdout.flush()
        command = [sys.executable, str(CHECKOUT / "manage.py"), "demo", *arguments]
        os.execv(command[0], [*command, "--on-stack", "found" if running else "ours"])  # noqa: S606
    except BaseException:
        stopping.ignore()
        if not running:
            stack.down()
        raise


def end_stack(root: Path) -> None:
    Stack(root).down()


def _only_demo(options: Options) -> int:
    """A lock that this process holds until its end, across the exec: two demos would share one log."""
    try:
        options.root.mkdir(parents=True, exist_ok=True)
        lock = os.open(options.root / "demo.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Unusable(f"cannot write to {options.root}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unusable(f"another demo runs in {options.root}") from None
    return lock
