"""wrk, which drives the closed-loop runs: as many requests as the service takes, on kept connections."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.errors import Unfit
from bench.machine import pinned

SCRIPT = Path(__file__).with_name("load.lua")
_MARK = "FIGURES "


class Figures(msgspec.Struct, frozen=True):
    """What wrk has counted. Times are microseconds; `refused` are answers of 400 and more."""

    requests: int
    microseconds: int
    p50: int
    p95: int
    p99: int
    most: int
    refused: int
    broken: int
    late: int

    @property
    def seconds(self) -> float:
        return self.microseconds / 1e6


@dataclass(frozen=True)
class Load:
    """One run of wrk. `form` is how requests are written: see load.lua."""

    url: str
    form: str
    buyers: Path
    sales: Sequence[str]
    prefix: str
    seconds: float
    connections: int
    core: int


def run(load: Load) -> Figures:
    """Raises Unfit when wrk is not there or a connection broke."""
    command = pinned(
        load.core,
        "wrk",
        "--threads=1",
        f"--connections={load.connections}",
        f"--duration={max(1, round(load.seconds))}s",
        "--timeout=10s",
        f"--script={SCRIPT}",
        load.url,
        "--",
        str(load.buyers),
        ",".join(load.sales),
        load.prefix,
        load.form,
    )
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=load.seconds + 60, check=False
        )
    except FileNotFoundError as error:
        raise Unfit(f"{error.filename} is not installed (Debian: apt-get install wrk)") from None
    except subprocess.TimeoutExpired:
        raise Unfit("wrk has not ended") from None
    if answer.returncode:
        raise Unfit(f"wrk ended with code {answer.returncode}: {(answer.stderr or answer.stdout).strip()}")
    figures = parse(answer.stdout)
    if figures.broken or figures.late:
        raise Unfit(f"wrk met {figures.broken} broken connections and {figures.late} timeouts")
    return figures


def parse(printed: str) -> Figures:
    """The line that load.lua prints at the end. Raises Unfit."""
    lines = [line for line in printed.splitlines() if line.startswith(_MARK)]
    if len(lines) != 1:
        raise Unfit(f"wrk has printed no figures:\n{printed[-2000:]}")
    return msgspec.json.decode(lines[0].removeprefix(_MARK), type=Figures)
