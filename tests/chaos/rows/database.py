"""PostgreSQL is down, frozen, or has forgotten what it had committed."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.registry import row
from tests.chaos.scenario import Scenario


def _down(chaos: Scenario, seconds: float, rate: float) -> None:
    chaos.sell(int(2 * rate * seconds) + 600, limit=1, rate=rate)
    chaos.until(chaos.written, "orders are written")
    with _sales_go_on(chaos):
        chaos.ground.kill("postgres")
        chaos.during(seconds)
    chaos.ground.up()
    chaos.written_again()


@contextmanager
def _sales_go_on(chaos: Scenario) -> Iterator[None]:
    """Nobody who asks meanwhile may notice that the order book is away."""
    before = chaos.promised
    with chaos.measured() as span:
        yield
    sold = chaos.promised - before
    kinds = Counter(said.what or said.kind for said in chaos.buyers.history.between(*span()))
    turned_away = kinds["temporarily-unavailable"]
    chaos.expect(
        sold > 20 and turned_away < sold / 50,
        f"only {sold} orders were promised while PostgreSQL was away, {turned_away} times 503",
    )
    chaos.notes.append(f"{sold} orders were promised while PostgreSQL was away")


@row("database-down", "PostgreSQL: kill -9, 60 s away under load", seconds=85)
def database_down(chaos: Scenario) -> None:
    _down(chaos, 60, rate=60)


@row("database-down-short", "PostgreSQL: kill -9, 4 s away under load", seconds=18)
def database_down_short(chaos: Scenario) -> None:
    _down(chaos, 4, rate=80)


@row("database-frozen", "PostgreSQL: SIGSTOP for 8 s under load", seconds=24)
def database_frozen(chaos: Scenario) -> None:
    chaos.sell(1800, limit=1, rate=60)
    chaos.until(chaos.written, "orders are written")
    with _sales_go_on(chaos):
        chaos.ground.stop("postgres")
        chaos.during(8)
    chaos.ground.thaw()
    chaos.written_again()


@row("database-loses-commits", "PostgreSQL: fails over to a copy that lacks the last seconds", seconds=24)
def database_loses_commits(chaos: Scenario) -> None:
    """The copy is taken while the server is dead, as a standby that has stopped following has it."""
    chaos.sell(2400, rate=60)
    chaos.until(lambda: chaos.written() > 100, "orders are written")
    chaos.ground.kill("postgres")
    data = chaos.ground.database_folder()
    copy = data.with_name("standby")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(data, copy)
    _own_like(data, copy)
    chaos.ground.up()
    kept = chaos.written()
    chaos.until(lambda: chaos.written() > kept + 150, "orders are written after the copy")
    chaos.ground.kill("postgres")
    shutil.rmtree(data)
    copy.rename(data)
    chaos.ground.up()
    chaos.written_again()


def _own_like(data: Path, copy: Path) -> None:
    """Under root the server runs as another user, to whom the data belong."""
    owner = data.stat()
    if os.geteuid() == 0:
        for folder, folders, files in os.walk(copy):
            for name in (".", *folders, *files):
                os.lchown(Path(folder, name), owner.st_uid, owner.st_gid)
