"""The reference service made runnable: a copy of bench/reference/ with its packages."""

import hashlib
import shutil
import subprocess
from pathlib import Path

from bench.errors import Unfit
from management.embedded import ROOT

SOURCE = Path(__file__).with_name("reference")
HOME = ROOT / "bench-node"
_STAMP = ".installed"


def installed() -> Path:
    """The folder to run it in. npm fetches the packages of the lock where they are missing. Raises Unfit."""
    HOME.mkdir(parents=True, exist_ok=True)
    for file in SOURCE.iterdir():
        shutil.copy(file, HOME / file.name)
    wanted = hashlib.sha256((SOURCE / "package-lock.json").read_bytes()).hexdigest()
    stamp = HOME / _STAMP
    if not stamp.exists() or stamp.read_text() != wanted:
        _install()
        stamp.write_text(wanted)
    return HOME


def _install() -> None:
    try:
        answer = subprocess.run(
            ["npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=HOME, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise Unfit("npm is not installed: the reference service needs Node.js 20 or newer") from None
    if answer.returncode:
        raise Unfit(f"npm could not install the reference service:\n{answer.stderr.strip()[-2000:]}")
