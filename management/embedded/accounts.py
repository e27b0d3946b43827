"""Who a server runs as, where it refuses root.

PostgreSQL does. Under root it runs as the owner of its data when that is an ordinary user, else as
`nobody`. Nothing here widens the mode of a folder that existed before: what such a user cannot
reach is copied to a place where it can (see `postgres.py`).
"""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

SURROUNDINGS = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    uid: int
    gid: int


def account_for(folder: Path) -> Account | None:
    """The account to drop to: of the owner of `folder` if it is there, else `nobody`.

    None for an ordinary user, who runs everything as himself. Raises KeyError where there is no `nobody`.
    """
    if os.geteuid() != 0:
        return None
    if folder.exists() and folder.stat().st_uid != 0:
        return Account(folder.stat().st_uid, folder.stat().st_gid)
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def run_as(account: Account | None, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a short command to its end as `account`. Raises OSError where it cannot even start."""
    return subprocess.run(  # noqa: S603 (programs of ours)
        [str(part) for part in command],
        cwd="/",
        env=SURROUNDINGS,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        umask=0o077,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def reaches(account: Account | None, folder: Path) -> bool:
    """Whether `account` can enter `folder`. Asked of the kernel: modes, ACLs and mounts all have a say."""
    return run_as(account, "test", "-x", folder).returncode == 0
