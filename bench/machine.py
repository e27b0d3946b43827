"""The machine: which core serves and which one drives, what a process has used, what stands in a report."""

import os
import platform
import re
import subprocess
import sysconfig
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

TICKS = os.sysconf("SC_CLK_TCK")  # a second of /proc/<pid>/stat
PACKAGES = (
    "Django",
    "django-ninja",
    "uvicorn",
    "uvloop",
    "httptools",
    "gunicorn",
    "redis",
    "confluent-kafka",
)


class Cores(NamedTuple):
    """The service has one core to itself; servers and load share the other one."""

    service: int
    load: int


def cores() -> Cores:
    """The last two cores this process may use; the same core twice where there is only one."""
    allowed = sorted(os.sched_getaffinity(0))
    return Cores(service=allowed[-1], load=allowed[-2] if len(allowed) > 1 else allowed[-1])


def pinned(core: int, *command: str) -> list[str]:
    return ["taskset", "-c", str(core), *command]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, user and system, since its start. Raises OSError."""
    return parse_cpu(Path(f"/proc/{pid}/stat").read_text())


def loop_seconds(pid: int) -> float:
    """Of its first thread alone, which runs the event loop on every side. Raises OSError."""
    return parse_cpu(Path(f"/proc/{pid}/task/{pid}/stat").read_text())


def family_seconds(pid: int) -> float:
    """Of a process, of its children, and of those that have ended and were waited for. Raises OSError."""
    own = parse_cpu(Path(f"/proc/{pid}/stat").read_text(), ended=True)
    return own + sum(_seconds_or_none(child) for child in children(pid))


def parse_cpu(stat: str, *, ended: bool = False) -> float:
    """Fields 14 and 15 of proc(5); the program's name before them may hold spaces and brackets.

    With `ended` those of its dead children too, fields 16 and 17.
    """
    fields = stat.rpartition(")")[2].split()
    return sum(map(int, fields[11 : 15 if ended else 13])) / TICKS


def stolen_seconds() -> float:
    """Of all cores since boot: what the hypervisor gave to others. It shows up as CPU time of nobody."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / TICKS


def only_child(pid: int) -> int:
    """The one child of a process. Raises ValueError when there are none or several."""
    (child,) = children(pid)
    return child


def children(pid: int) -> list[int]:
    """Those that its first thread has started. Raises OSError."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def optimized(variables: Mapping[str, Any]) -> bool:
    """Whether a Python was compiled with a profile of itself, by sysconfig's variables.

    `configure --enable-optimizations` says so. Debian calls `make profile-opt` instead and takes the flag out
    of what extensions are compiled with; configure names one that makes a profile and one that uses it.
    """
    flags = " ".join(str(variables.get(name) or "") for name in ("PY_CORE_CFLAGS", "PY_CORE_LDFLAGS"))
    return (
        "--enable-optimizations" in str(variables.get("CONFIG_ARGS"))
        or "-fprofile-use" in flags
        or "-fprofile-instr-use" in flags
        or bool(variables.get("PGO_PROF_GEN_FLAG") and not variables.get("PGO_PROF_USE_FLAG"))
    )


def describe() -> dict[str, object]:
    """Machine, versions and commit, for a report."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "processor": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "python_optimized": optimized(sysconfig.get_config_vars()),
        "node": _said("node", "--version"),
        "wrk": (_said("wrk", "--version").split(" [") or [""])[0],
        "packages": {name: version(name) for name in PACKAGES},
    }


def python(described: Mapping[str, Any]) -> str:
    """Version and build of the Python that serves, of what `describe` has said."""
    return f"{described['python']} ({'' if described['python_optimized'] else 'not '}an optimized build)"


def commit() -> tuple[str, bool]:
    """The commit's short name, and whether the files differ from it; outside of git "unknown"."""
    name = _said("git", "rev-parse", "--short=10", "HEAD")
    if not re.fullmatch("[0-9a-f]+", name):
        return "unknown", False
    return name, bool(_said("git", "status", "--porcelain"))


def _seconds_or_none(pid: int) -> float:
    try:
        return cpu_seconds(pid)
    except OSError:  # it has ended
        return 0.0


def _said(*command: str) -> str:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False
        )
    except FileNotFoundError:
        return "not there"
    return (answer.stdout.strip() or answer.stderr.strip()).split("\n", 1)[0]
