"""A flame graph of our web process while it is measured, by py-spy where it can be had."""

import shutil
import subprocess
import sys
from pathlib import Path

from bench.errors import Unfit
from bench.machine import pinned
from management.embedded import ROOT

HOME = ROOT / "profiler"


class Profiler:
    """Called with a process and seconds, it draws into `target`: a flame graph, or raw stacks for *.txt.

    Of threads that hold the GIL: the others wait. The process stands still for each sample, so a run with
    a profiler is slower than one without.
    """

    def __init__(self, target: Path, core: int) -> None:
        self._program, self._target, self._core = _py_spy(), target, core

    def __call__(self, pid: int, seconds: float) -> None:
        kind = "raw" if self._target.suffix == ".txt" else "flamegraph"
        command = [
            self._program, "record", "--pid", str(pid), "--duration", str(max(1, int(seconds) - 1)),
            "--rate", "250", "--format", kind, "--output", str(self._target), "--function", "--gil",
        ]  # fmt: skip
        subprocess.Popen(pinned(self._core, *command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _py_spy() -> str:
    found = shutil.which("py-spy") or shutil.which("py-spy", path=HOME / "bin")
    if found is None:
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
        answer = subprocess.run(
            [HOME / "bin" / "pip", "install", "--quiet", "py-spy"],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise Unfit(f"py-spy cannot be installed: {answer.stderr.strip()}")
        found = str(HOME / "bin" / "py-spy")
    return found
