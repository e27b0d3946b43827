"""What every embedded server has in common, in the words `stack.py` starts them with."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from management.embedded.processes import Launch, StackError

Ports = Mapping[str, int]


def nothing(ports: Ports) -> None:
    """Most servers need nothing after they have started."""


@dataclass(frozen=True)
class Server:
    """One process of the stack.

    `prepare` makes on disk what the server needs and may take long; `answers` asks once whether it
    serves, within about a second; `finish` runs each time it has started. All three get the
    ports of the whole stack by label. They raise StackError for what the operator must know.
    """

    name: str
    prepare: Callable[[Ports], Launch]
    answers: Callable[[Ports], bool]
    finish: Callable[[Ports], None] = nothing
    further_ports: tuple[str, ...] = ()  # labels besides `name`, which labels the port it serves on
    stop: signal.Signals = signal.SIGTERM
    patience: float = 20.0  # seconds to its first answer

    @property
    def labels(self) -> tuple[str, ...]:
        return (self.name, *self.further_ports)


@dataclass(frozen=True)
class Broker:
    """A kind of broker: its processes, what it asks of the site's settings, and which log it has.

    `prepare` runs once before any of its processes is started, and raises StackError for what is
    not installed. `log` names one life of its log:
    as long as the same records can be read, the same name.
    """

    servers: Sequence[Server]
    settings: Mapping[str, str]
    log: Callable[[], str]
    prepare: Callable[[], object]


def package_folder(module: str, wheel: str) -> Path:
    """Where pip has put `module`. Raises StackError, naming the wheel, when it is not installed."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise StackError(f"the wheel {wheel!r} is not installed: run `make setup` or `pip install {wheel}`")
    return Path(spec.origin).parent
