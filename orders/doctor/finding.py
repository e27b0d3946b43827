"""What a check says: one line, and what to do about it."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works, and somebody should look; or the server does not tell
    FAIL = "FAIL"  # a promise does not hold, or will not when something dies


class Finding(NamedTuple):
    area: str
    level: Level
    text: str
    hint: str = ""


Check = Callable[[], Iterator[Finding]]


def line(error: BaseException) -> str:
    """An exception in one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
