# ruff: noqa: S603, S607  # fixed argument lists, and the programs are the system's own
"""A container engine that nobody else on the machine can notice.

dockerd runs in network, mount and process namespaces of its own. So its bridges, its forwarding rules and
its sysctls exist only there, published ports appear on its own loopback, and all of it, containers included,
is gone with its first process, however that ends. What remains is one folder and its control groups, removed
on closing, or by the next run after a kill.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

# Short, because a socket's path may have 107 characters; on disk, because /tmp may be memory.
FOLDERS = Path("/var/tmp")  # noqa: S108
PREFIX = "fluxgate-compose-"
CLONE_NEWNET = 0x40000000  # setns(2); os.setns needs Python 3.12

# Runs as the first process of the namespaces and becomes dockerd. An empty /run hides an engine that the
# machine already has: dockerd would use that one's containerd. cgroupfs, because systemd is hidden as well.
START = """
mount -t tmpfs tmpfs /run && mkdir /run/lock && ip link set lo up &&
exec dockerd --data-root "$1/data" --exec-root /run/engine --pidfile /run/engine.pid \
    --host "unix://$1/socket" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$2" --log-level warn
"""
# Killed with this script (--pdeathsig), taking every process inside along (--kill-child).
APART = "setpriv --pdeathsig KILL -- unshare --net --mount --pid --fork --kill-child --mount-proc -- sh -c"
# What a caller's shell may hold and the compose file or the tools would listen to.
FOREIGN = (
    "FLUXGATE_ POSTGRES_ REDIS_ KAFKA_ BASE_ GATE_ CACHE_ WEB_ FULFILLMENT_ COMPOSE_ DOCKER_ PYTHON VIRTUAL_"
)


class EngineError(RuntimeError):
    """The engine did not start; the message is for a person and ends with its log's last lines."""


class Engine:
    """Started on entering, gone without a trace on leaving."""

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}"
        self.folder = FOLDERS / self.name
        self._process: subprocess.Popen[bytes] | None = None
        self._dockerd = 0

    def __enter__(self) -> "Engine":
        remove_leftovers()
        self.folder.mkdir(mode=0o711)  # apt's own user must get through to what is made below it
        (self.folder / "client").mkdir()
        with (self.folder / "dockerd.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*APART.split(), START, "sh", str(self.folder), self.name],
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,  # Ctrl-C is for this script, which then stops the engine in order
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def environment(self) -> dict[str, str]:
        """For docker and docker-compose: this engine, none of the caller's contexts, logins or settings."""
        foreign = tuple(FOREIGN.split())
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:" + os.environ.get("PATH", ""),
            "DOCKER_HOST": f"unix://{self.folder}/socket",
            "DOCKER_CONFIG": str(self.folder / "client"),
            "DOCKER_BUILDKIT": "1",
            "COMPOSE_DOCKER_CLI_BUILD": "1",
        }

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and what it starts, on the engine's side: where the published ports are."""
        enter = ctypes.CDLL(None, use_errno=True).setns
        with open("/proc/thread-self/ns/net") as outside, open(f"/proc/{self._dockerd}/ns/net") as inside:
            if enter(inside.fileno(), CLONE_NEWNET) != 0:
                raise EngineError(f"cannot enter the engine's network: {os.strerror(ctypes.get_errno())}")
            try:
                yield
            finally:
                enter(outside.fileno(), CLONE_NEWNET)

    def left_behind(self, project: str) -> list[str]:
        """Containers, networks and volumes that still carry the project's name."""
        found = []
        for kind in (["container", "ls", "-a"], ["network", "ls"], ["volume", "ls"]):
            listed = ["docker", *kind, "-q", "--filter", f"label=com.docker.compose.project={project}"]
            asked = subprocess.run(listed, env=self.environment, capture_output=True, text=True, check=True)
            found += [f"{kind[0]} {name}" for name in asked.stdout.split()]
        return found

    def close(self) -> None:
        """Stop dockerd, then what it left running; remove folder and control groups. Safe to repeat."""
        if self._process is not None:
            if self._dockerd:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._dockerd, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(30)
            self._process.kill()
            self._process.wait()
            self._process, self._dockerd = None, 0
        remove(self.name)

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            asked = subprocess.run(["docker", "version"], capture_output=True, env=self.environment)
            if asked.returncode == 0:
                children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
                self._dockerd = int(children.split()[0])
                return
            time.sleep(0.2)
        last = (self.folder / "dockerd.log").read_text(errors="replace").splitlines()[-5:]
        raise EngineError("the container engine did not start:\n  " + "\n  ".join(last))


def remove(name: str) -> None:
    """Remove the folder and the control groups of an engine that no longer runs."""
    shutil.rmtree(FOLDERS / name, ignore_errors=True)
    for group in Path("/sys/fs/cgroup").glob(f"**/{name}"):
        for folder in sorted([group, *(p for p in group.rglob("*") if p.is_dir())], reverse=True):
            with contextlib.suppress(OSError):  # a process still leaving: the next run removes it
                folder.rmdir()


def remove_leftovers() -> None:
    """What killed runs have left behind: folders whose script is no longer alive."""
    for folder in FOLDERS.glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX)
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            remove(folder.name)


def state_of_the_machine() -> str:
    """Interfaces, forwarding rules, mounts and the forwarding switch, as text to compare before and after."""
    parts = [Path("/proc/sys/net/ipv4/ip_forward").read_text()]
    # Sorted: only what is there counts, not the order in which it came.
    parts += sorted(Path("/proc/mounts").read_text().splitlines())
    parts += sorted(path.name for path in Path("/sys/class/net").iterdir())
    for command in ("iptables-save", "ip6tables-save"):
        saved = subprocess.run([command], capture_output=True, text=True, check=True)
        # Comments carry the time, chains their counters.
        parts += [line.split("[")[0] for line in saved.stdout.splitlines() if not line.startswith("#")]
    return "\n".join(parts)


def traces() -> list[str]:
    """What this process's engine has left on the machine; empty after a clean end."""
    name = f"{PREFIX}{os.getpid()}"
    return [str(path) for path in (*FOLDERS.glob(name), *Path("/sys/fs/cgroup").glob(f"**/{name}"))]
