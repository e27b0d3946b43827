"""Start servers side by side, all or nothing; end them side by side."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from management.embedded import record
from management.embedded.processes import Process, StackError, end, is_running, last_lines, spawn
from management.embedded.record import Record
from management.embedded.server import Server


class _CancelledError(Exception):
    """Another server has failed; this one is not to blame."""


def is_healthy(server: Server, state: Record, patience: float = 3.0) -> bool:
    """Runs and answers within `patience` seconds. Raises StackError where it answers something alarming."""
    process = state.processes.get(server.name)
    deadline = time.monotonic() + patience
    while process is not None and is_running(process):
        if server.answers(state.ports):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return False


def start_servers(root: Path, state: Record, servers: Sequence[Server]) -> None:
    """Start `servers` and wait until all answer, or end them again and raise StackError with every reason."""
    cancelled = threading.Event()
    writing = threading.Lock()

    def remember(name: str, process: Process) -> None:
        with writing:  # at once, so that even a killed `up` leaves servers that `down` knows
            state.processes[name] = process
            record.save(root, state)

    def start(server: Server) -> None:
        try:
            _start(root, server, state, remember, cancelled)
        except BaseException:
            cancelled.set()
            raise

    record.save(root, state)
    try:
        with ThreadPoolExecutor(max(len(servers), 1)) as pool:
            try:
                futures = [pool.submit(start, server) for server in servers]
                errors = [error for future in futures if (error := future.exception())]
            except BaseException:  # Ctrl-C: the pool's exit waits for its threads, so tell them
                cancelled.set()
                raise
        errors = [error for error in errors if not isinstance(error, _CancelledError)]
        for error in errors:
            if not isinstance(error, StackError):
                raise error
        if errors:
            raise StackError("\n".join(map(str, errors)))
    except BaseException:
        end_servers(root, state, [server.name for server in servers])
        raise


def end_servers(root: Path, state: Record, names: Iterable[str]) -> None:
    """End what runs of `names`, wait for it, forget it."""
    ours = [name for name in names if name in state.processes]
    if not ours:
        return
    with ThreadPoolExecutor(len(ours)) as pool:
        for name, _ in zip(ours, pool.map(lambda name: end(state.processes[name]), ours), strict=True):
            del state.processes[name]
    record.save(root, state)


def _start(
    root: Path,
    server: Server,
    state: Record,
    remember: Callable[[str, Process], None],
    cancelled: threading.Event,
) -> None:
    launch = server.prepare(state.ports)
    log = root / "logs" / f"{server.name}.log"
    before = log.stat().st_size if log.exists() else 0
    if cancelled.is_set():
        raise _CancelledError
    process = spawn(launch, log, server.stop)
    remember(server.name, process)
    deadline = time.monotonic() + server.patience
    while not server.answers(state.ports):
        if cancelled.is_set():
            raise _CancelledError
        alive = is_running(process)
        if not alive or time.monotonic() > deadline:
            what = f"does not answer after {server.patience:g} s" if alive else "ended while starting"
            raise StackError(f"{server.name} {what}; {_ending(log, before)}")
        time.sleep(0.02)
    server.finish(state.ports)


def _ending(log: Path, before: int) -> str:
    lines = last_lines(log, before)
    return f"{log} ends with:\n{lines}" if lines else f"{log} says nothing about it"
