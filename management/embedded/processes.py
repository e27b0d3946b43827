"""Start a detached server, know it again later, end it.

A server outlives the command that started it, so it is known by its pid and by the moment it
started: a pid alone may belong to somebody else by the time we come back to it.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from management.embedded.accounts import SURROUNDINGS, Account


class StackError(Exception):
    """A server cannot be started, found or reached; the message is one line for the operator.

    Where a server has crashed, the last lines of its log follow, indented.
    """


@dataclass(frozen=True)
class Launch:
    """A command to run in `folder`, as `account` (None: as ourselves), with few variables but these."""

    command: Sequence[str | Path]
    folder: Path
    account: Account | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Process:
    pid: int
    started: str  # what `started_at` said when we started it
    stop: int  # the signal that asks it to end


def spawn(launch: Launch, log: Path, stop: signal.Signals) -> Process:
    """Start it in a session of its own, writing to the end of `log`. Raises OSError."""
    account = launch.account
    with log.open("ab") as output:
        child = subprocess.Popen(  # noqa: S603 (programs of ours)
            [str(part) for part in launch.command],
            cwd=launch.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # The caller's PGDATA, LISTENER_URL or JAVA_TOOL_OPTIONS must not configure our servers.
            env={**SURROUNDINGS, **launch.variables},
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            start_new_session=True,
            umask=0o077,
        )
    # We watch by pid, not through this object; without a return code it would warn when collected.
    pid, child.returncode = child.pid, 0
    return Process(pid, started_at(pid) or "", stop)


def started_at(pid: int) -> str | None:
    """The start of a process, in words that only compare; None when it does not run (or is a zombie)."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a dead child of ours would stay a zombie, and zombies have a pid
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return _started_at_without_proc(pid)
    return None if fields[0] in "ZX" else f"{_boot()}/{fields[19]}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _started_at_without_proc(pid: int) -> str | None:
    """macOS and the BSDs."""
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def is_running(process: Process) -> bool:
    return bool(process.started) and started_at(process.pid) == process.started


def end(process: Process, patience: float = 15.0) -> None:
    """Ask it to end, wait up to `patience` seconds, then kill its whole session. Never touches a stranger."""
    if not is_running(process):
        return
    try:
        os.kill(process.pid, process.stop)
    except ProcessLookupError:
        return
    except PermissionError:
        raise StackError(f"process {process.pid} belongs to another user: end it as that user") from None
    if _gone(process, patience):
        return
    # Its session is its process group (start_new_session), so PostgreSQL's children go too.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if not _gone(process, 10.0):
        raise StackError(f"process {process.pid} does not end, not even killed")


def _gone(process: Process, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while is_running(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def last_lines(log: Path, since: int = 0, count: int = 12) -> str:
    """The last `count` lines a server wrote after byte `since`, indented; empty when it wrote nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 64_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line[:300]}" for line in lines[-count:] if line.strip())


def exchange(port: int, request: bytes, enough: int, timeout: float = 1.0) -> bytes:
    """Send `request` to a loopback port; its answer, once `enough` bytes are there or it has ended.

    Raises OSError, also after `timeout` seconds of silence.
    """
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.settimeout(timeout)
        connection.sendall(request)
        answer = b""
        while len(answer) < enough:
            piece = connection.recv(4096)
            if not piece:
                break
            answer += piece
        return answer
