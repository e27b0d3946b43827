"""What the demo and its crowd processes say to each other: one JSON object a line, over pipes."""

from typing import Any

import msgspec

from management.demo.plan import Click


class Orders(msgspec.Struct, frozen=True):
    """To the crowd, first: what to send, and where. `tokens` are by buyer; times are seconds."""

    host: str
    port: int
    path: str  # that orders of the sale are posted to
    knock: str  # the path each connection fetches once, before the opening
    tokens: dict[int, str]
    clicks: list[Click]
    connections: int
    answer_seconds: float  # a request without an answer is given up after this
    patience_seconds: float  # after the opening; then nobody asks again
    seed: int


class Opening(msgspec.Struct, frozen=True):
    """To the crowd, second: when the sale opens, as Unix time."""

    at: float


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of one click. Seconds run from its intended start, to its last answer and to its first."""

    click: Click
    kind: str  # of the last answer
    seconds: float
    first_seconds: float
    tries: int
    order_id: str  # of a 202, else empty


class Said(msgspec.Struct, frozen=True):
    """From the crowd. The first one means that it is ready, the last one has the outcomes.

    `answers` counts every answer so far by kind, also those after which a buyer asked again.
    """

    answers: dict[str, int]
    waiting: int  # clicks without their last answer
    late: float = 0.0  # seconds by which the crowd itself was late at worst
    outcomes: list[Outcome] | None = None


def line(message: Any) -> bytes:
    return msgspec.json.encode(message) + b"\n"
