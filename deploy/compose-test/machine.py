# ruff: noqa: S603  # fixed argument lists, and the programs are the system's own
"""What the proof needs of the machine: root, and a few of Debian's packages."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = {
    "dockerd": "docker.io",
    "docker-compose": "docker-compose",
    "mmdebstrap": "mmdebstrap",
    "iptables-save": "iptables",
    "mvn": "maven",
}


class CannotRun(RuntimeError):
    """The machine lacks what the proof needs; nothing was tried. One line for a person."""


def install_what_is_missing(say: Callable[[str], None]) -> None:
    """Raises CannotRun. The services of the packages are not started: the proof starts its own."""
    if os.geteuid() != 0:
        raise CannotRun("needs root: it starts a container engine of its own (try: sudo make test-compose)")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = sorted(package for program, package in PACKAGES.items() if not shutil.which(program))
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise CannotRun(f"needs {', '.join(missing)}: not found, and there is no apt-get to install them")
    say(f"installing {', '.join(missing)}")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with services_stay_down():
        for command in (install, ["apt-get", "update"], install):
            done = subprocess.run(
                command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if command is install and done.returncode == 0:
                return
    raise CannotRun(f"cannot install {', '.join(missing)}: {' '.join(done.stdout.splitlines()[-1:])}")


@contextlib.contextmanager
def services_stay_down() -> Iterator[None]:
    """Debian starts the services of what it installs, unless this file says no (invoke-rc.d(8))."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():  # the machine has its own mind about it
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()
