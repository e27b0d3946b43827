"""Who clicks what, and when. Decided before the opening, so that the crowd only has to send."""

import random
from collections.abc import Sequence
from typing import Literal
from uuid import UUID

import msgspec

# A second click comes this soon after the first, in seconds.
DOUBLE_CLICK_SECONDS = 0.05

Purpose = Literal["order", "double", "greedy"]


class Click(msgspec.Struct, frozen=True, array_like=True):
    """One request of one buyer, `at` seconds after the opening.

    The first click of a buyer is an `order` of one unit, a `double` repeats it with the same key,
    and a `greedy` one asks for more than the limit: by another key, or by a quantity above it.
    """

    at: float
    buyer: int
    key: str
    quantity: int
    purpose: Purpose


def plan(
    buyers: int, double_clicks: float, greedy: float, limit: int, seconds: float, seed: int
) -> list[Click]:
    """The clicks of all buyers by time. `double_clicks` and `greedy` are percentages of the buyers.

    The same arguments make the same plan.
    """
    chance = random.Random(seed)  # noqa: S311  # a crowd that can be repeated
    clicks = [Click(chance.uniform(0, seconds), buyer, _key(chance), 1, "order") for buyer in range(buyers)]
    doubled = chance.sample(clicks, round(buyers * double_clicks / 100))
    wanting = chance.sample(clicks, round(buyers * greedy / 100))
    clicks += [_again(click, chance, seconds) for click in doubled]
    for number, click in enumerate(wanting):
        if number % 2:
            clicks.append(_more(click, limit + 1, chance, seconds))
        else:
            clicks += [_more(click, 1, chance, seconds) for _ in range(limit)]
    return sorted(clicks, key=lambda click: click.at)


def demand(clicks: Sequence[Click], limit: int) -> int:
    """Units that the buyers of this plan may have together, each at most `limit`."""
    wanted: dict[int, set[str]] = {}
    for click in clicks:
        if click.quantity <= limit:  # of one unit, then: see `plan`
            wanted.setdefault(click.buyer, set()).add(click.key)
    return sum(min(limit, len(keys)) for keys in wanted.values())


def _key(chance: random.Random) -> str:
    return str(UUID(int=chance.getrandbits(128), version=4))


def _again(click: Click, chance: random.Random, seconds: float) -> Click:
    at = min(seconds, click.at + chance.uniform(0, DOUBLE_CLICK_SECONDS))
    return Click(at, click.buyer, click.key, click.quantity, "double")


def _more(click: Click, quantity: int, chance: random.Random, seconds: float) -> Click:
    return Click(chance.uniform(0, seconds), click.buyer, _key(chance), quantity, "greedy")
