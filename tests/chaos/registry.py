"""The rows and their broken twins, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.chaos.scenario import Scenario


@dataclass(frozen=True)
class Row:
    """One line of "What must survive". `seconds` is about how long it takes, for sharing the work out."""

    name: str
    killed: str  # for the table: what was killed, and how
    run: "Callable[[Scenario], None]"
    stack: str = "tansu"  # or apache-1, apache-3
    seconds: int = 15
    sold_out: bool = True  # whether every unit has been sold at the end


@dataclass(frozen=True)
class Twin:
    """A row with a guard taken out. `breaks` begins the line that it must fail with."""

    name: str
    row: str
    guard: str
    breaks: tuple[str, ...]


@dataclass
class Result:
    """What came of a row: orders, except `oversold`, which are units. `recovered` is in seconds."""

    promised: int = 0
    confirmed: int = 0
    lost: int = 0
    oversold: int = 0
    recovered: float | None = None
    recovered_to: str = ""
    violations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


ROWS: dict[str, Row] = {}
TWINS: dict[str, Twin] = {}


def row(
    name: str, killed: str, **facts: object
) -> "Callable[[Callable[[Scenario], None]], Callable[[Scenario], None]]":
    """Registers the function that sets the scene and breaks something."""

    def register(run: "Callable[[Scenario], None]") -> "Callable[[Scenario], None]":
        ROWS[name] = Row(name, killed, run, **facts)  # type: ignore[arg-type]
        return run

    return register


def twins(*known: Twin) -> Mapping[str, Twin]:
    TWINS.update({twin.name: twin for twin in known})
    return TWINS
