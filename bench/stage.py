"""One side at work on a fresh ground, from the opening of its sales to the balance of its books."""

import time
from collections.abc import Mapping
from types import TracebackType
from uuid import uuid4

from bench import shop, wrk
from bench.ground import Ground
from bench.sides import Side

_QUIET_SECONDS = 0.2
_PATIENCE_SECONDS = 10.0


class Stage:
    """Use it in a `with`. When the body ends well, the books are compared: that may raise Unbalanced.

    `sales` has the units of each by its slug; `rate` is attempts a second that each admits, or one by slug.
    """

    def __init__(
        self,
        ground: Ground,
        side: Side,
        sales: Mapping[str, int],
        rate: int | Mapping[str, int],
        buyers: int = 4000,
    ) -> None:
        self.ground, self.side, self.sales, self._buyers = ground, side, dict(sales), buyers
        self._rates = dict(rate) if isinstance(rate, Mapping) else dict.fromkeys(sales, rate)
        self.besides = 0  # orders that reached the log without being answered by the side
        self.drained, self.drain_seconds = 0, 0.0
        self._stood: dict[str, int] = {}  # the counts when they last stood still

    def __enter__(self) -> "Stage":
        self.ground.new_run()
        if self.side.form == "ours":
            shop.open_sales(self.sales, self._rates)
        self.crowd = self.ground.crowd(self.side.form, tokens=self.side.tokens, count=self._buyers)
        self.side.start(self.ground, self.sales, max(self._rates.values()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.side.stop()
            return
        try:
            accepted = self.settled().get("accepted", 0) + self.besides
            self.side.ask_to_end()
            if self.side.form == "ours" and accepted:
                begun = time.monotonic()
                shop.drain(self.ground)
                self.drained, self.drain_seconds = accepted, time.monotonic() - begun
        finally:
            self.side.stop()
        if self.side.form == "ours":
            shop.must_balance(self.sales, accepted)
        else:
            shop.reference_must_balance(self.ground, self.sales, accepted)

    def drive(self, seconds: float, connections: int) -> wrk.Figures:
        """The whole crowd at once, with new keys: as many requests as are answered."""
        return wrk.run(
            wrk.Load(
                url=self.side.url,
                form=self.side.form,
                buyers=self.crowd,
                sales=list(self.sales),
                prefix=new_prefix(),
                seconds=seconds,
                connections=connections,
                core=self.ground.cores.load,
            )
        )

    def settled(self) -> dict[str, int]:
        """The side's counts once they stand still and no unit is between stock and promise.

        What a load leaves behind in flight is still answered. A unit that stays between them is
        for the balance to find.
        """
        give_up = time.monotonic() + _PATIENCE_SECONDS
        last = self._stood
        while (now := self.side.answers()) != last or (self._under_way(now) and time.monotonic() < give_up):
            last = now
            time.sleep(_QUIET_SECONDS)
        self._stood = now
        return now

    def _under_way(self, answers: dict[str, int]) -> bool:
        if self.side.form == "ours":
            return shop.held(self.sales) > 0
        return shop.reference_taken(self.ground, self.sales) != answers.get("accepted", 0)


def slugs(count: int) -> list[str]:
    """New names, so that no sale of an earlier run is meant."""
    return [f"bench-{number}-{uuid4().hex[:6]}" for number in range(count)]


def new_prefix() -> str:
    """Of Idempotency-Keys that nobody has used yet."""
    return f"{uuid4().hex[:12]}-"
