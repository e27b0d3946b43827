"""What the stack remembers between two commands: `<root>/stack.json`, and `<root>/stack.env` for the site."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from management.embedded.processes import Process


@dataclass
class Record:
    """`ports` by label and `processes` by server; `log` names one life of the broker's log.

    Positions in PostgreSQL belong to one log: offsets of a new one start at 0. So each log has a
    topic of its own name, `orders-<log>`, and old positions are never applied to a new log.
    """

    kafka: str = "tansu"
    brokers: int = 1
    log: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)


def load(root: Path) -> Record:
    """The record in `root`, or an empty one. A damaged file counts as none: we could not use its pids."""
    try:
        kept: dict[str, Any] = json.loads((root / "stack.json").read_text())
        processes = {name: Process(**entry) for name, entry in kept.pop("processes").items()}
        return Record(**kept, processes=processes)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return Record()


def save(root: Path, record: Record) -> None:
    _replace(root / "stack.json", json.dumps(asdict(record), indent=2) + "\n")


def save_environment(root: Path, environment: dict[str, str]) -> None:
    lines = ["# Written by `manage.py stack up`, removed by `stack down`. It holds passwords."]
    lines += [f"{name}={value}" for name, value in environment.items()]
    _replace(root / "stack.env", "\n".join(lines) + "\n")


def password(root: Path) -> str:
    """The servers' password, made once. Loopback is open to every user of the machine."""
    file = root / "password"
    if not file.exists():
        _replace(file, secrets.token_hex(16))
    return file.read_text()


def _replace(path: Path, text: str) -> None:
    """Write so that a reader sees the old text or the new, and only the owner sees either."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)
